"""Input that cannot be verified ends with 2 and says why."""

from __future__ import annotations

import gzip

import pytest
import typer
from typer.testing import CliRunner

from stream.cli.verify import verify
from stream.errors import VerifyError
from stream.sources import reader_for
from stream.sources.tidy_csv import COLUMNS
from stream.verify.recompute import expected_rows, recompute

HEADER = ",".join(COLUMNS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.txt", "", r"ends in none of \.csv"),
        ("log.csv", "a,b\n1,2\n", "lacks the columns attempt_id"),
        ("log.csv", f"{HEADER}\na1,u,i,t,1,,,5\na2,u,i,t,yes,,,5\n", "correct .* in record 2"),
        ("log.csv", f"{HEADER}\na1,u,i,t,1,,,soon\n", "completed_at .* in record 1"),
        ("log.csv", f"{HEADER}\na1,u,i,t,1,1.5,,5\n", "response_time_ms .* in record 1"),
        ("log.csv", f"{HEADER}\na1,u,i,t,1\n", "cannot verify"),
        ("log.jsonl", "{\n", "cannot verify"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(VerifyError, match=message):
        recompute(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(VerifyError, match="no such file"):
        recompute(tmp_path / "log.csv")


def test_the_command_ends_with_2_and_says_why(tmp_path):
    app = typer.Typer()
    app.command()(verify)
    result = CliRunner().invoke(app, [str(tmp_path / "log.csv")])
    assert result.exit_code == 2
    assert "no such file" in result.stderr


def test_an_unreachable_database_ends_with_2(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(f"{HEADER}\na1,u,i,t,1,,,5\n")
    app = typer.Typer()
    app.command()(verify)
    # Nothing listens on the discard port.
    result = CliRunner().invoke(app, [str(path), "--database-url", "postgresql://127.0.0.1:9/x"])
    assert result.exit_code == 2
    assert "PostgreSQL cannot be read" in result.stderr


def test_an_empty_log_expects_no_rows(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "\n")
    rows = expected_rows(path)
    assert (rows.features, rows.weekly, rows.outcomes) == ([], [], {})


def test_json_lines_lead_to_the_same_rows_as_csv(tmp_path):
    csv_path, json_path = tmp_path / "log.csv", tmp_path / "log.jsonl.gz"
    csv_path.write_text(
        f"{HEADER},op,supersedes\n"
        "a1,u,i,t,1,700,1,1741600980000,,\n"
        "a2,u,i,,0,,,1741600981000,,\n"
        "v1,u,i,,0,,,1741600982000,void,a1\n"
    )
    base = '"user_id":"u","item_id":"i"'
    with gzip.open(json_path, "wt") as file:
        file.write(
            f'{{"attempt_id":"a1",{base},"topic_id":"t","correct":true,"response_time_ms":700,'
            '"hint_used":true,"completed_at":"2025-03-10T11:03:00.0009+01:00"}\n'
            f'{{"attempt_id":"a2",{base},"correct":false,"completed_at":1741600981000}}\n'
            f'{{"attempt_id":"v1",{base},"correct":false,"completed_at":1741600982000,'
            '"op":"void","supersedes":"a1"}\n'
        )
    assert expected_rows(json_path) == expected_rows(csv_path)
    assert len(list(reader_for(json_path)(json_path))) == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ('"correct":"true"', "invalid"),
        ('"correct":1', "invalid"),
        ('"completed_at":"2025-03-10T10:03:00"', "invalid"),
        ('"completed_at":5.5', "invalid"),
        ('"topic_id":7', "invalid"),
        ('"response_time_ms":-1', "invalid"),
        ('"response_time_ms":"5"', "invalid"),
        ('"op":null', "invalid"),
        ('"attempt_no":-1', "invalid"),
        ('"schema_version":2', "unknown_version"),
        ('"schema_version":0', "invalid"),
        ('"session_id":null', "accepted"),
        ('"unheard_of":[1]', "accepted"),
    ],
)
def test_json_fields_of_a_wrong_type_are_dead_letters(tmp_path, change, reason):
    path = tmp_path / "log.jsonl"
    fields = {
        "attempt_id": '"a"',
        "user_id": '"u"',
        "item_id": '"i"',
        "correct": "true",
        "completed_at": "1741600981000",
    }
    name, value = change.split(":", 1)
    fields[name.strip('"')] = value
    path.write_text("{" + ",".join(f'"{k}":{v}' for k, v in fields.items()) + "}\n")
    assert expected_rows(path).outcomes == {reason: 1}
