"""Files of attempts through the whole evaluation."""

import gzip
import hashlib
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from stream.calibration.newton import ItemTable
from stream.calibration.weights import fit_weights
from stream.cli.evaluate import evaluate as evaluate_command
from stream.cli.score import read_items, score_log
from stream.domain.practice import NO_WEIGHTS
from stream.errors import SourceError
from stream.evaluate.classrooms import CLASSROOMS, simulated
from stream.evaluate.load import number_attempts, read_log
from stream.evaluate.protocols import FIRSTS, OURS, PROTOCOLS, REFERENCE, evaluate
from stream.evaluate.simulate import MOTIONS, coverage, distance_to_exact
from stream.follow import follow


def school(seed=1, learners=120, attempts=60, memory=1.5):
    """Simulate learners who repeat items and find a seen item easier by ``memory`` logits."""
    rng = np.random.default_rng(seed)
    b = rng.normal(0, 1, 40)
    for user in range(learners):
        theta, seen = rng.normal(), set()
        for k in range(attempts):
            item = int(rng.integers(40))
            p = 1 / (1 + np.exp(-(theta - b[item] + memory * (item in seen))))
            seen.add(item)
            yield {
                "user_id": f"u{user}",
                "item_id": f"i{item}",
                "topic_id": f"t{item % 4}",
                "correct": bool(rng.random() < p),
                "completed_at": 1_500_000_000_000 + 60_000 * k,
                "response_time_ms": 10_000,
            }


def write_csv(path, rows, columns):
    lines = [",".join(columns)]
    for row in rows:
        row = {**row, "correct": int(row["correct"])}
        lines.append(",".join(str(row[name]) for name in columns))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_memory_is_found_where_it_is_and_ours_beats_elo():
    found = evaluate("school", number_attempts(school()), "learners", ablations=False)
    rows = {row["method"]: row for row in found.rows}
    assert 0.7 < found.fit.weights.seen + found.fit.weights.item_recency < 3.0
    assert rows[OURS]["auc"] > rows[REFERENCE]["auc"] + 0.02
    assert rows[OURS]["log_loss"] < rows[REFERENCE]["log_loss"] - 0.02
    assert rows[OURS]["auc_gain_interval"][0] > 0.0
    assert {row["n"] for row in found.rows} == {len(found_attempts())}


def found_attempts():
    return [
        row
        for row in school()
        if int(hashlib.sha256(row["user_id"].encode()).hexdigest(), 16) % 5 == 0
    ]


def test_first_attempts_are_judged_alone_or_with_the_repeats_followed():
    named = number_attempts(school())
    firsts = len({(row["user_id"], row["item_id"]) for row in found_attempts()})
    alone, followed = (
        {row["method"]: row for row in evaluate("school", named, protocol, ablations=False).rows}
        for protocol in ("first", "unseen")
    )
    assert {row["n"] for row in (*alone.values(), *followed.values())} == {firsts}
    # Repeats tell more of a learner to those who do not take memory for ability.
    assert followed[OURS]["log_loss"] < alone[OURS]["log_loss"]
    assert followed[OURS]["log_loss"] < followed[REFERENCE]["log_loss"]
    # The reference that never sees a repeat is the same in both, and better off than with them.
    for figure in ("auc", "log_loss", "brier"):
        assert followed[FIRSTS][figure] == pytest.approx(alone[REFERENCE][figure], abs=1e-12)
    assert (
        followed[OURS]["log_loss"] < followed[FIRSTS]["log_loss"] < followed[REFERENCE]["log_loss"]
    )


def test_training_loss_only_falls_and_little_data_gives_weights_of_little_effect():
    log = number_attempts(school(learners=6, attempts=15, memory=0.0)).log
    fit = fit_weights(log)
    assert all(b < a for a, b in zip(fit.losses, fit.losses[1:], strict=False))
    items = fit.items
    rows = follow(log, *items.at(log.item), fit.weights, fit.config).features
    # Of each feature, in logits: the prior's standard deviation is .25, whatever its unit.
    assert (np.abs(fit.weights) * np.sqrt(np.mean(rows**2, axis=0)) < 0.25).all()
    assert np.isfinite(fit.items.b).all()
    assert (fit.items.b_var > 0.0).all()


def test_held_items_stay_as_they_are_and_a_level_is_fitted():
    named = number_attempts(school(memory=1.0))
    n = named.log.n_items
    items = ItemTable(np.ones(n), np.full(n, 0.4), np.full(n, 0.1), np.full(n, 0.05), np.zeros(n))
    fit = fit_weights(named.log, items)
    assert fit.items is items
    assert fit.weights.level != 0.0
    assert fit.losses[-1] < fit.losses[0]


@pytest.mark.parametrize("answer", [True, False])
def test_constant_answers_give_finite_parameters(answer):
    rows = [{**row, "correct": answer} for row in school(learners=10, attempts=20)]
    fit = fit_weights(number_attempts(rows).log)
    assert np.isfinite(fit.items.a).all()
    assert np.isfinite(fit.items.b).all()
    assert np.isfinite(fit.weights).all()


def test_nothing_to_fit_gives_no_weights():
    named = number_attempts(school(learners=2, attempts=1))
    assert fit_weights(named.log.where(np.zeros(2, bool))).weights == NO_WEIGHTS


def test_a_file_without_times_is_taken_in_its_order(tmp_path):
    rows = list(school(learners=30, attempts=20))
    path = write_csv(tmp_path / "order.csv", rows, ["user_id", "item_id", "topic_id", "correct"])
    named = read_log(path)
    assert not named.has_times
    assert (named.log.end_s == 0.0).all()
    assert named.log.correct.tolist() == [row["correct"] for row in rows]
    for protocol in PROTOCOLS:
        found = evaluate("order", named, protocol, ablations=False)
        assert all(np.isfinite(row["log_loss"]) for row in found.rows)


def test_a_malformed_file_is_refused_with_its_line(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("user_id,item_id,correct\nu,i,1\nu,i,maybe\n")
    with pytest.raises(SourceError, match="line 3: correct must be 0 or 1"):
        read_log(path)
    path.write_text("user_id,correct\nu,1\n")
    with pytest.raises(SourceError, match="missing columns item_id"):
        read_log(path)
    path.write_text("user_id,item_id,correct\n")
    with pytest.raises(SourceError, match="no attempts"):
        read_log(path)


def test_the_command_writes_rows_and_a_chart(tmp_path):
    import typer

    rows = list(school(learners=30, attempts=20))
    columns = ["user_id", "item_id", "topic_id", "correct", "completed_at"]
    path = write_csv(tmp_path / "mine.csv", rows, columns)
    with path.open("rb") as plain, gzip.open(tmp_path / "mine.csv.gz", "wb") as packed:
        packed.write(plain.read())
    app = typer.Typer()
    app.command()(evaluate_command)
    options = ["--protocol", "learners", "--no-simulations", "--no-ablations"]
    arguments = [str(tmp_path / "mine.csv.gz"), *options, "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "out" / "evaluate.json").read_text())
    assert {"data", "protocol", "method", "auc", "log_loss", "brier", "calibration_error", "n"} <= (
        written[0].keys()
    )
    assert {row["data"] for row in written} == {"mine"}
    assert OURS in {row["method"] for row in written}
    assert (tmp_path / "out" / "evaluate.svg").read_text().startswith("<svg")


def test_the_filter_is_close_to_the_exact_posterior_without_drift():
    off = distance_to_exact(200)
    assert off[5] <= 0.010
    assert off[20] <= 0.020
    assert off[100] <= 0.016


@pytest.mark.parametrize("motion", MOTIONS)
def test_default_intervals_cover_about_95_percent(motion):
    assert 0.92 <= coverage(motion, learners=200, attempts=100)["coverage"] <= 0.985


def test_a_file_is_scored_with_given_items_and_others_are_left_out(tmp_path):
    items = tmp_path / "items.csv"
    items.write_text("item_id,a,b,c\ni0,1.0,0.0,\ni1,1.5,0.5,0.2\n")
    rows = [
        {"user_id": "x", "item_id": "i0", "correct": True},
        {"user_id": "x", "item_id": "i9", "correct": True},
        {"user_id": "y", "item_id": "i0", "correct": False},
    ]
    scores, n, left_out = score_log(number_attempts(rows), read_items(items))
    assert left_out == 1
    assert n.tolist() == [1, 1]
    assert scores.theta[0] == pytest.approx(-scores.theta[1])
    items.write_text("item_id,a,b\ni0,-1,0\n")
    with pytest.raises(SourceError, match="line 2: item parameter a"):
        read_items(items)


@pytest.mark.parametrize("number", [3, 11])
def test_ours_beats_elo_with_few_learners_and_few_attempts(number):
    room = CLASSROOMS[number]
    found = evaluate(room.title, simulated(room), "learners", ablations=False)
    rows = {row["method"]: row for row in found.rows}
    assert rows[OURS]["auc"] > rows[REFERENCE]["auc"] + 0.005
    assert rows[OURS]["log_loss"] < rows[REFERENCE]["log_loss"] - 0.005
