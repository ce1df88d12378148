"""``thetastream score``: batch abilities of a file's learners, exactly."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from stream.domain.irt import ItemParams, item_params
from stream.domain.scoring import Scores, eap_scores
from stream.errors import ItemParamsError, SourceError
from stream.evaluate.load import NamedLog, read_log
from stream.sources.text_file import create_text, open_text

__all__ = ["read_items", "score", "score_log"]


def score(
    file: Annotated[Path, typer.Argument(help="Attempts: user_id, item_id, correct (0 or 1).")],
    items: Annotated[
        Path, typer.Option(help="Item parameters: CSV with item_id, a, b and c (blank: 0).")
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="CSV to write; default: standard output.", show_default=False),
    ] = None,
    every: Annotated[
        bool, typer.Option("--every/--first", help="Score all attempts, or each item's first only.")
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write JSON lines instead of CSV.")
    ] = False,
) -> None:
    """Score learners by EAP on a grid, under N(0, 1): user_id, theta, se, n.

    For checks and backfill. Attempts at items without parameters are left out, and counted.

    Examples:

        thetastream score attempts.csv --items items.csv --output thetas.csv
    """
    named = read_log(file)
    scores, n, left_out = score_log(named, read_items(items), every=every)
    rows = [
        {"user_id": user, "theta": round(theta, 6), "se": round(se, 6), "n": int(count)}
        for user, theta, se, count in zip(
            named.users, scores.theta.tolist(), scores.se.tolist(), n.tolist(), strict=True
        )
    ]
    if output is None:
        _write(rows, sys.stdout, as_json)
    else:
        with create_text(output) as text:
            _write(rows, text, as_json)
    if left_out:
        Console(stderr=True).print(
            f"{left_out} of {len(named.log)} attempts are at items without parameters in {items};"
            " they were left out"
        )


def score_log(
    named: NamedLog, params: dict[str, ItemParams], *, every: bool = True
) -> tuple[Scores, np.ndarray[tuple[int], np.dtype[np.int64]], int]:
    """Score the learners of a log.

    Returns
    -------
    tuple
        Scores and the number of attempts used, (n_learners,) in the order of ``named.users``;
        the number of attempts left out for want of parameters.
    """
    log = named.log
    known = np.array([item in params for item in named.items], bool)
    a, b, c = np.array([params.get(item, ItemParams(1.0, 0.0)) for item in named.items]).T
    keep = known[log.item]
    left_out = int((~keep).sum())
    if not every:
        first = np.zeros(len(log), bool)
        first[np.unique(log.learner * log.n_items + log.item, return_index=True)[1]] = True
        keep &= first
    scores = eap_scores(
        log.learner[keep], log.item[keep], log.correct[keep], a, b, c, n_learners=log.n_learners
    )
    return scores, np.bincount(log.learner[keep], minlength=log.n_learners), left_out


def read_items(path: Path) -> dict[str, ItemParams]:
    """Read item parameters from a CSV file with the columns item_id, a, b and maybe c.

    Raises
    ------
    SourceError
        The file cannot be read, a column is missing, or a row holds no usable parameters.
    """
    with open_text(path) as text:
        reader = csv.DictReader(text)
        missing = [name for name in ("item_id", "a", "b") if name not in (reader.fieldnames or ())]
        if missing:
            raise SourceError(f"{path}, line 1: missing columns {', '.join(missing)}")
        found = {}
        for row in reader:
            try:
                found[row["item_id"]] = item_params(
                    float(row["a"]), float(row["b"]), float(row.get("c") or 0.0)
                )
            except (TypeError, ValueError, ItemParamsError) as error:
                raise SourceError(f"{path}, line {reader.line_num}: {error}") from error
    if not found:
        raise SourceError(f"{path} holds no item parameters")
    return found


def _write(rows: list[dict[str, object]], text: object, as_json: bool) -> None:
    if as_json:
        for row in rows:
            print(json.dumps(row), file=text)  # type: ignore[call-overload]
        return
    writer = csv.DictWriter(text, ["user_id", "theta", "se", "n"], lineterminator="\n")  # type: ignore[arg-type]
    writer.writeheader()
    writer.writerows(rows)
