"""What enters a fit: the records that count, once each, in the window."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from stream.calibration.observations import ObservationReader, Observations

DAY_MS = 86_400_000
NOW_MS = 20_000 * DAY_MS


@dataclass
class FakeRecord:
    """What the Kafka client hands over, as far as it is looked at."""

    raw: bytes | None
    raw_key: bytes | None
    at: int = NOW_MS

    def value(self) -> bytes | None:
        return self.raw

    def key(self) -> bytes | None:
        return self.raw_key

    def timestamp(self) -> tuple[int, int]:
        return 1, self.at


def attempt(
    attempt_id: str,
    user: str = "u",
    item: str = "i",
    *,
    correct: bool = True,
    at: int | str = NOW_MS,
    **fields: Any,
) -> FakeRecord:
    event = {
        "attempt_id": attempt_id,
        "user_id": user,
        "item_id": item,
        "correct": correct,
        "completed_at": at,
        **fields,
    }
    return FakeRecord(msgspec.json.encode(event), user.encode())


def observe(
    *records: FakeRecord, responses: str = "all", lookback_days: int = 30, **options: Any
) -> Observations:
    reader = ObservationReader(lateness_days=7)
    reader.take(list(records))  # type: ignore[arg-type]
    return reader.observations(lookback_days, responses, **options)


def rows(found: Observations) -> list[tuple[str, str, bool]]:
    return [
        (found.learners[u], found.items[i], bool(c))
        for u, i, c in zip(found.learner, found.item, found.correct, strict=True)
    ]


def test_nothing_gives_nothing() -> None:
    found = observe()
    assert (len(found), found.learners, found.items, found.cut_time) == (0, [], [], 0)


def test_responses_are_ordered_by_learner_item_and_time() -> None:
    found = observe(
        attempt("1", "zoe", "b", at=NOW_MS - 5),
        attempt("2", "anna", "b", correct=False, at=NOW_MS - 1),
        attempt("3", "zoe", "a"),
        attempt("4", "anna", "b", at=NOW_MS - 2),
    )
    assert rows(found) == [
        ("anna", "b", True),
        ("anna", "b", False),
        ("zoe", "a", True),
        ("zoe", "b", True),
    ]
    assert found.responded_at.tolist() == [NOW_MS - 2, NOW_MS - 1, NOW_MS, NOW_MS - 5]
    assert found.cut_time == NOW_MS
    assert found.item_counts() == {"a": 1, "b": 3}


def test_the_first_attempt_in_the_window_is_the_earliest_by_event_time() -> None:
    found = observe(
        attempt("1", correct=True, at=NOW_MS - 1000),
        attempt("2", correct=False, at=NOW_MS - 2000),
        attempt("old", correct=True, at=NOW_MS - 31 * DAY_MS),
        attempt("3", correct=True, at=NOW_MS),
        responses="first",
    )
    assert rows(found) == [("u", "i", False)]
    assert found.skipped == {"repeats": 2, "too_late": 1}


def test_the_window_ends_with_the_latest_event_time_of_all_learners() -> None:
    found = observe(
        attempt("1", "a", at=NOW_MS - 30 * DAY_MS),
        attempt("2", "b", at=NOW_MS - 30 * DAY_MS - 1),
        attempt("3", "c", at=NOW_MS),
    )
    assert [user for user, _, _ in rows(found)] == ["a", "c"]


def test_a_duplicate_counts_once_and_other_learners_have_their_own_ids() -> None:
    found = observe(
        attempt("1", correct=True),
        attempt("1", correct=False),
        attempt("1", "v"),
    )
    assert rows(found) == [("u", "i", True), ("v", "i", True)]
    assert found.skipped == {"duplicate": 1}


def test_records_that_cannot_count_are_skipped() -> None:
    found = observe(
        attempt("good"),
        FakeRecord(None, b"u"),
        FakeRecord(b"\xff", b"u"),
        FakeRecord(b"{", b"u"),
        FakeRecord(b"{}", b"u"),
        FakeRecord(attempt("other key").raw, b"someone"),
        FakeRecord(attempt("no key").raw, None),
        attempt("no zone", at="2024-01-01T00:00:00"),
        attempt("too early", at=NOW_MS + DAY_MS + 1),
        attempt("version", schema_version=2),
        attempt("void of nothing", op="void"),
        attempt("attempt of something", supersedes="good"),
        attempt("nul\0"),
        attempt("large", session_id="x", pad="x" * 70_000),
    )
    assert rows(found) == [("u", "i", True)]
    assert found.skipped == {"invalid": 13}


def test_an_attempt_too_late_for_its_learner_is_left_out() -> None:
    week_ago = NOW_MS - 7 * DAY_MS
    found = observe(
        attempt("before", item="a", at=week_ago - 1),
        attempt("now", item="b"),
        attempt("too late", item="c", at=week_ago - 1),
        attempt("just in time", item="d", at=week_ago),
        attempt("another's", "v", "e", at=week_ago - 1),
    )
    assert [item for _, item, _ in rows(found)] == ["a", "b", "d", "e"]


def test_voids_and_regrades_act_in_the_order_of_arrival() -> None:
    found = observe(
        attempt("1", item="voided"),
        attempt("v1", item="voided", op="void", supersedes="1"),
        attempt("r1", item="voided", op="regrade", supersedes="1"),
        attempt("2", item="regraded", correct=False),
        attempt("r2", item="regraded", op="regrade", supersedes="2", correct=True),
        attempt("3", item="twice", correct=False),
        attempt("r3", item="twice", op="regrade", supersedes="3", correct=True),
        attempt("r4", item="twice", op="regrade", supersedes="3", correct=False),
        attempt("r3", item="twice", op="regrade", supersedes="3", correct=True),
    )
    assert rows(found) == [("u", "regraded", True), ("u", "twice", False)]


def test_a_correction_of_nothing_of_this_item_or_before_its_attempt_does_nothing() -> None:
    found = observe(
        attempt("early", op="void", supersedes="1"),
        attempt("1"),
        attempt("item", item="j", op="void", supersedes="1"),
        attempt("learner", "v", op="void", supersedes="1"),
        attempt("of a void", op="void", supersedes="early"),
    )
    assert rows(found) == [("u", "i", True)]


def test_an_attempt_no_longer_retained_is_not_voided() -> None:
    found = observe(
        attempt("old", item="a", at=NOW_MS - 36 * DAY_MS),
        attempt("kept", item="b", at=NOW_MS - 35 * DAY_MS),
        attempt("now", item="c"),
        attempt("v1", item="a", op="void", supersedes="old"),
        attempt("v2", item="b", op="void", supersedes="kept"),
        lookback_days=60,
    )
    assert [item for _, item, _ in rows(found)] == ["a", "c"]


def test_the_cap_keeps_whole_learners_and_the_same_ones_for_the_same_seed() -> None:
    records = [
        attempt(f"{u}-{i}", f"u{u:02}", f"i{i}", at=NOW_MS - u) for u in range(20) for i in range(5)
    ]
    found = observe(*records, max_obs=33, seed="s")
    again = observe(*reversed(records), max_obs=33, seed="s")
    other = observe(*records, max_obs=33, seed="t")
    assert len(found) == 30
    assert set(Counter(user for user, _, _ in rows(found)).values()) == {5}
    assert found.skipped == {"over_cap": 70}
    assert again.learners == found.learners
    assert other.learners != found.learners
    assert len(observe(*records, max_obs=100)) == 100


@pytest.mark.parametrize("time", ["2024-10-04T00:00:00Z", "2024-10-04T02:00:00.000+02:00", NOW_MS])
def test_event_times_are_read_in_each_of_their_forms(time: int | str) -> None:
    assert observe(attempt("1", at=time)).cut_time == NOW_MS
