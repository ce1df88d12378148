"""Read an attempts file straight into DuckDB: table ``record``, in the order of arrival.

The project's own readers (:mod:`stream.sources`) are not used, so that a fault in them shows.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from stream.errors import VerifyError

__all__ = ["load_records"]

_CSV_OPTIONAL = ("op", "supersedes", "attempt_no", "started_at", "schema_version")
"""Columns a tidy file may lack, as far as they matter here."""

_CSV_REQUIRED = (
    "attempt_id",
    "user_id",
    "item_id",
    "topic_id",
    "correct",
    "response_time_ms",
    "hint_used",
    "completed_at",
)

_RAW_CSV = """
CREATE TEMP TABLE raw AS
SELECT nullif(COLUMNS(*), '') FROM read_csv(
    $path, header = true, all_varchar = true, delim = ',', quote = '"', escape = '"',
    null_padding = false)
"""

_TYPED_CSV = """
CREATE OR REPLACE TEMP MACRO whole(field) AS
    CASE WHEN regexp_full_match(field, '[+-]?[0-9]+') THEN try_cast(field AS BIGINT) END;
CREATE OR REPLACE TEMP MACRO no_whole(field) AS field IS NOT NULL AND whole(field) IS NULL;

CREATE TEMP TABLE typed AS
SELECT
    rowid AS seq,
    coalesce(attempt_id, '') AS attempt_id,
    coalesce(user_id, '') AS user_id,
    coalesce(item_id, '') AS item_id,
    topic_id,
    correct = '1' AS correct,
    whole(response_time_ms) AS response_time_ms,
    coalesce(hint_used = '1', false) AS hint_used,
    whole(completed_at) AS completed_ms,
    coalesce(op, 'attempt') AS op,
    supersedes,
    coalesce(whole(schema_version), 1) AS schema_version,
    whole(attempt_no) AS attempt_no,
    whole(started_at) AS started_ms,
    -- What the reader of such files refuses as well: the file is then unusable.
    CASE
        WHEN coalesce(correct NOT IN ('0', '1'), true) THEN 'correct'
        WHEN hint_used NOT IN ('0', '1') THEN 'hint_used'
        WHEN whole(completed_at) IS NULL THEN 'completed_at'
        WHEN no_whole(response_time_ms) THEN 'response_time_ms'
        WHEN no_whole(schema_version) THEN 'schema_version'
        WHEN no_whole(attempt_no) THEN 'attempt_no'
        WHEN no_whole(started_at) THEN 'started_at'
    END AS unreadable,
    false AS malformed
FROM raw
"""

_RAW_JSON = """
CREATE TEMP TABLE raw AS SELECT json AS j FROM read_ndjson_objects($path)
"""

_TYPED_JSON = """
CREATE OR REPLACE TEMP MACRO text_of(j, path) AS
    CASE WHEN json_type(j, path) = 'VARCHAR' THEN json_extract_string(j, path) END;
CREATE OR REPLACE TEMP MACRO whole_of(j, path) AS
    CASE WHEN json_type(j, path) IN ('BIGINT', 'UBIGINT')
        THEN try_cast(json_extract_string(j, path) AS BIGINT) END;
CREATE OR REPLACE TEMP MACRO flag_of(j, path) AS
    CASE WHEN json_type(j, path) = 'BOOLEAN'
        THEN json_extract_string(j, path) = 'true' END;
CREATE OR REPLACE TEMP MACRO given(j, path) AS coalesce(json_type(j, path), 'NULL') <> 'NULL';
-- A time is epoch ms or RFC 3339 with a zone; finer fractions are cut off.
CREATE OR REPLACE TEMP MACRO ms_of(j, path) AS
    CASE WHEN regexp_matches(text_of(j, path), '([Zz]|[+-][0-9]{2}:?[0-9]{2})$')
        THEN floor(epoch_us(try_cast(text_of(j, path) AS TIMESTAMPTZ)) / 1000)::BIGINT
        ELSE whole_of(j, path) END;

CREATE TEMP TABLE typed AS
SELECT
    rowid AS seq,
    coalesce(text_of(j, '$.attempt_id'), '') AS attempt_id,
    coalesce(text_of(j, '$.user_id'), '') AS user_id,
    coalesce(text_of(j, '$.item_id'), '') AS item_id,
    text_of(j, '$.topic_id') AS topic_id,
    flag_of(j, '$.correct') AS correct,
    whole_of(j, '$.response_time_ms') AS response_time_ms,
    coalesce(flag_of(j, '$.hint_used'), false) AS hint_used,
    ms_of(j, '$.completed_at') AS completed_ms,
    CASE WHEN json_exists(j, '$.op') THEN text_of(j, '$.op') ELSE 'attempt' END AS op,
    text_of(j, '$.supersedes') AS supersedes,
    CASE WHEN json_exists(j, '$.schema_version')
        THEN whole_of(j, '$.schema_version') ELSE 1 END AS schema_version,
    whole_of(j, '$.attempt_no') AS attempt_no,
    ms_of(j, '$.started_at') AS started_ms,
    NULL AS unreadable,
    (
        flag_of(j, '$.correct') IS NULL
        OR ms_of(j, '$.completed_at') IS NULL
        OR (given(j, '$.topic_id') AND text_of(j, '$.topic_id') IS NULL)
        OR (given(j, '$.response_time_ms') AND whole_of(j, '$.response_time_ms') IS NULL)
        OR (json_exists(j, '$.hint_used') AND flag_of(j, '$.hint_used') IS NULL)
        OR (given(j, '$.supersedes') AND text_of(j, '$.supersedes') IS NULL)
        OR (given(j, '$.session_id') AND text_of(j, '$.session_id') IS NULL)
        OR (given(j, '$.tenant_id') AND text_of(j, '$.tenant_id') IS NULL)
        OR (given(j, '$.attempt_no') AND whole_of(j, '$.attempt_no') IS NULL)
        OR (given(j, '$.started_at') AND ms_of(j, '$.started_at') IS NULL)
    ) AS malformed
FROM raw
"""

_RECORD = """
CREATE TABLE record AS
SELECT
    * EXCLUDE (unreadable, malformed, schema_version, attempt_no, started_ms),
    (completed_ms // 86400000)::INTEGER AS day,
    CASE
        -- Rule 1. The order of its reasons matters to their counts only.
        WHEN malformed
            OR NOT (length(attempt_id) BETWEEN 1 AND 128)
            OR NOT (length(user_id) BETWEEN 1 AND 128)
            OR NOT (length(item_id) BETWEEN 1 AND 128)
            OR NOT (length(coalesce(topic_id, '-')) BETWEEN 1 AND 128)
            OR NOT (length(coalesce(supersedes, '-')) BETWEEN 1 AND 128)
            OR NOT (coalesce(response_time_ms, 0) BETWEEN 0 AND 86400000)
            OR NOT (completed_ms BETWEEN 0 AND 5662310399999)
            OR NOT (coalesce(started_ms, 0) BETWEEN 0 AND 5662310399999)
            OR coalesce(attempt_no, 0) < 0
            OR coalesce(schema_version, 0) < 1
            OR coalesce(op NOT IN ('attempt', 'void', 'regrade'), true)
            THEN 'invalid'
        WHEN schema_version > 1 THEN 'unknown_version'
        -- Rule 2.
        WHEN completed_ms > getvariable('ingest_ms') + 86400000 THEN 'too_early'
    END AS refused
FROM typed
ORDER BY seq
"""


def load_records(con: duckdb.DuckDBPyConnection, path: Path, ingest_ms: int | None) -> None:
    """Create table ``record``: every record of the file, refused by rules 1 and 2 or not.

    Parameters
    ----------
    con
        Database to create it in.
    path
        Tidy CSV or JSON lines, ``.gz`` or not.
    ingest_ms
        When the records reached the stream, epoch ms; None: rule 2 is not applied.

    Raises
    ------
    VerifyError
        The file is missing, of another kind, or not readable, with the line if it is known.
    """
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix not in (".csv", ".jsonl", ".ndjson"):
        raise VerifyError(f"cannot verify {path}: its name ends in none of .csv, .jsonl, .ndjson")
    if not path.is_file():
        raise VerifyError(f"cannot verify {path}: there is no such file")
    try:
        con.execute("SET VARIABLE ingest_ms = CAST($ms AS BIGINT)", {"ms": ingest_ms})
        if suffix == ".csv":
            con.execute(_RAW_CSV, {"path": str(path)})
            _complete_columns(con, path)
            con.execute(_TYPED_CSV)
        else:
            con.execute(_RAW_JSON, {"path": str(path)})
            con.execute(_TYPED_JSON)
        _refuse_unreadable(con, path)
        con.execute("DROP TABLE raw")
        con.execute(_RECORD)
        con.execute("DROP TABLE typed")
    except duckdb.Error as error:
        raise VerifyError(f"cannot verify {path}: {error}") from error


def _complete_columns(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    present = {row[0] for row in con.execute("DESCRIBE raw").fetchall()}
    missing = [name for name in _CSV_REQUIRED if name not in present]
    if missing:
        raise VerifyError(f"cannot verify {path}: it lacks the columns {', '.join(missing)}")
    for name in _CSV_OPTIONAL:
        if name not in present:
            con.execute(f"ALTER TABLE raw ADD COLUMN {name} VARCHAR")


def _refuse_unreadable(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    bad = con.execute(
        "SELECT seq, unreadable FROM typed WHERE unreadable IS NOT NULL ORDER BY seq LIMIT 1"
    ).fetchone()
    if bad is not None:
        raise VerifyError(f"cannot verify {path}: {bad[1]} cannot be read in record {bad[0] + 1}")
