"""The tidy CSV reader: every column, blanks, and errors that name the line."""

from __future__ import annotations

import gzip

import pytest

from stream.errors import SourceError
from stream.sources import FORMATS, reader_for
from stream.sources.tidy_csv import COLUMNS, read_attempts

HEADER = ",".join(COLUMNS)


def write(tmp_path, text, name="log.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_plain_row_becomes_an_attempt(tmp_path):
    path = write(tmp_path, f"{HEADER}\n1,seg013,q8098,part1,1,18000,1,1506015043018\n")
    assert list(read_attempts(path)) == [
        {
            "attempt_id": "1",
            "user_id": "seg013",
            "item_id": "q8098",
            "topic_id": "part1",
            "correct": True,
            "response_time_ms": 18000,
            "hint_used": True,
            "completed_at": 1506015043018,
        }
    ]


def test_blanks_are_null_and_a_blank_hint_is_false(tmp_path):
    path = write(tmp_path, f"{HEADER}\n1,u,i,,0,,,5\n")
    (event,) = read_attempts(path)
    assert event["topic_id"] is None
    assert event["response_time_ms"] is None
    assert event["hint_used"] is False
    assert event["correct"] is False


def test_optional_columns_are_read_in_any_order(tmp_path):
    path = write(
        tmp_path,
        f"op,supersedes,session_id,attempt_no,started_at,schema_version,{HEADER}\n"
        "void,a1,s,2,4,1,v1,u,i,t,0,,,5\n"
        ",,,,,,a2,u,i,t,0,,,5\n",
    )
    void, attempt = (
        [event[name] for name in ("op", "supersedes", "session_id")]
        + [event[name] for name in ("attempt_no", "started_at", "schema_version")]
        for event in read_attempts(path)
    )
    assert void == ["void", "a1", "s", 2, 4, 1]
    assert attempt == ["attempt", None, None, None, None, 1]


def test_file_order_is_kept_and_gzip_and_quotes_are_read(tmp_path):
    path = tmp_path / "log.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write(f'\ufeff{HEADER}\nb,"Doe, ""J""",i,t,1,,,9\n\na,u,i,t,1,,,5\n')
    events = list(read_attempts(path))
    assert [event["attempt_id"] for event in events] == ["b", "a"]
    assert events[0]["user_id"] == 'Doe, "J"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: missing columns attempt_id"),
        (HEADER.replace(",correct", "") + "\n", "line 1: missing columns correct"),
        (f"{HEADER},opp\n", "line 1: unknown columns opp"),
        (f"{HEADER},correct\n", "line 1: a column is named twice"),
        (f"{HEADER}\na,u,i,t,1,,,5\nb,u,i,t,1,,5\n", "line 3: 7 fields where the header has 8"),
        (f"{HEADER}\na,u,i,t,true,,,5\n", "line 2: correct is 'true', expected 0 or 1"),
        (f"{HEADER}\na,u,i,t,,,,5\n", "line 2: correct is '', expected 0 or 1"),
        (f"{HEADER}\na,u,i,t,1,,2,5\n", "line 2: hint_used is '2', expected 0 or 1"),
        (f"{HEADER}\na,u,i,t,1,1.5,,5\n", "line 2: response_time_ms is '1.5', expected an integer"),
        (f"{HEADER}\na,u,i,t,1,,,\n", "line 2: completed_at is '', expected an integer"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(SourceError, match=message):
        list(read_attempts(write(tmp_path, text)))


def test_rows_before_a_malformed_one_are_delivered(tmp_path):
    events = read_attempts(write(tmp_path, f"{HEADER}\na,u,i,t,1,,,5\nb\n"))
    assert next(events)["attempt_id"] == "a"
    with pytest.raises(SourceError, match="line 3"):
        next(events)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(SourceError, match="No such file"):
        list(read_attempts(tmp_path / "none.csv"))
    with pytest.raises(SourceError, match="not a whole gzip file"):
        list(read_attempts(write(tmp_path, "plain", "log.csv.gz")))
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(f"{HEADER}\na,u,i,t,1,,,5\n".encode())[:-9])
    with pytest.raises(SourceError, match="not a whole gzip file"):
        list(read_attempts(cut))
    latin = tmp_path / "latin.csv"
    latin.write_bytes(f"{HEADER}\nZoë,u,i,t,1,,,5\n".encode("latin-1"))
    with pytest.raises(SourceError, match="not UTF-8"):
        list(read_attempts(latin))


def test_json_lines_are_events_as_they_are(tmp_path):
    path = write(tmp_path, '{"attempt_id":"a","correct":true}\n\n{"attempt_id":"b"}', "log.jsonl")
    assert list(reader_for(path)(path)) == [
        {"attempt_id": "a", "correct": True},
        {"attempt_id": "b"},
    ]


@pytest.mark.parametrize(("line", "message"), [("{", "not JSON"), ("[1]", "not a JSON object")])
def test_a_line_that_is_no_json_object_is_refused_with_its_number(tmp_path, line, message):
    path = write(tmp_path, "{}\n" + line + "\n", "log.ndjson")
    with pytest.raises(SourceError, match=f"line 2: {message}"):
        list(reader_for(path)(path))


def test_the_reader_goes_by_the_name_unless_a_format_is_given(tmp_path):
    for name, format_name in (
        ("a.csv", "csv"),
        ("a.b.csv.gz", "csv"),
        ("a.jsonl", "jsonl"),
        ("a.ndjson.gz", "jsonl"),
    ):
        assert reader_for(tmp_path / name) is FORMATS[format_name]
    assert reader_for(tmp_path / "a.txt", "jsonl") is FORMATS["jsonl"]
    with pytest.raises(SourceError, match=r"cannot tell the format of .*a\.gz"):
        reader_for(tmp_path / "a.gz")
    with pytest.raises(SourceError, match="no format 'xml'; there are csv, jsonl"):
        reader_for(tmp_path / "a.csv", "xml")
