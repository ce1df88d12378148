"""Records in one piece of memory: taken out, cut, joined."""

from __future__ import annotations

import pytest

from stream.kafka.packed_records import PackedRecord, PackedRecords

RECORDS = [
    PackedRecord(3, 100, b"k", b"value"),
    PackedRecord(4, 101, None, b""),
    PackedRecord(9, 99, b"", None),
    PackedRecord(10, 102, b"other", b"v"),
]


def test_what_is_packed_comes_out_again() -> None:
    packed = PackedRecords.of(RECORDS)
    assert list(packed) == RECORDS
    assert [packed[0], packed[-1], len(packed)] == [RECORDS[0], RECORDS[3], 4]
    assert list(packed[1:3]) == RECORDS[1:3]
    assert PackedRecords.of(packed) is packed
    assert list(PackedRecords.of([])) == []


@pytest.mark.parametrize(
    ("offset", "left"), [(-1, 4), (2, 4), (3, 3), (4, 2), (8, 2), (9, 1), (10, 0), (11, 0)]
)
def test_those_behind_an_offset(offset: int, left: int) -> None:
    assert list(PackedRecords.of(RECORDS).after(offset)) == RECORDS[4 - left :]


def test_parts_are_joined_in_their_order() -> None:
    whole = PackedRecords.of(RECORDS)
    parts = [PackedRecords.of(RECORDS[:1]), whole[1:3], whole[4:], PackedRecords.of(RECORDS[3:])]
    assert list(PackedRecords.joined(parts)) == RECORDS
    assert PackedRecords.joined(parts[:1]) is parts[0]
    # What a part shares with others stays as it was.
    assert list(whole) == RECORDS


def test_cleared_records_hold_no_bytes() -> None:
    packed = PackedRecords.of(RECORDS)
    part = packed[2:]
    packed.clear()
    assert (len(packed), packed.data.nbytes, packed.places.base) == (0, 0, None)
    assert list(part) == RECORDS[2:]
