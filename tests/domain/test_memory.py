"""The bounded table of items a learner answered last."""

import random

import pytest

from stream.domain.memory import ENTRY_BYTES, MAX_COUNT, ItemMemory


def test_an_item_is_recalled_with_counts_last_outcome_and_when():
    memory = ItemMemory()
    memory.remember(7, 0, 100, True)
    memory.remember(8, 1, 160, False)
    memory.remember(7, 2, 220, False)
    assert memory.recall(7) == (2, 220, 1, 1, False)
    assert memory.recall(8) == (1, 160, 0, 1, False)
    assert memory.recall(9) is None


def test_the_item_answered_longest_ago_makes_room():
    memory = ItemMemory(capacity=3)
    for number, item in enumerate([1, 2, 3, 1, 4]):
        memory.remember(item, number, 0, True)
    assert memory.recall(2) is None
    assert [memory.recall(item)[0] for item in (3, 1, 4)] == [2, 3, 4]
    assert len(memory) == 3


def test_it_agrees_with_a_plain_dictionary_over_a_long_random_history():
    rng = random.Random(3)
    items = [rng.getrandbits(32) for _ in range(60)] + [0, 1, 2**32 - 1, 0x01010101, 0x00010101]
    memory, plain = ItemMemory(capacity=20), {}
    for number in range(3000):
        item, correct = rng.choice(items), rng.random() < 0.6
        assert memory.recall(item) == plain.get(item)
        _, _, right, wrong, _ = plain.pop(item, (0, 0, 0, 0, False))
        right, wrong = min(right + correct, MAX_COUNT), min(wrong + (not correct), MAX_COUNT)
        plain[item] = (number, 10 * number, right, wrong, correct)
        if len(plain) > 20:
            del plain[next(iter(plain))]
        memory.remember(item, number, 10 * number, correct)
        if number % 100 == 0:
            memory = ItemMemory.unpack(memory.pack(), 20)
    assert {item: memory.recall(item) for item in plain} == plain


def test_it_is_packed_in_fourteen_bytes_an_item_and_a_smaller_table_keeps_the_latest():
    memory = ItemMemory()
    for number in range(10):
        memory.remember(number, number, 0, True)
    packed = memory.pack()
    assert len(packed) == 10 * ENTRY_BYTES == 140
    smaller = ItemMemory.unpack(packed, capacity=2)
    assert [smaller.recall(item) is not None for item in (7, 8, 9)] == [False, True, True]
    with pytest.raises(ValueError, match="141 bytes"):
        ItemMemory.unpack(packed + b"x")


def test_a_voided_answer_is_taken_out_and_a_regraded_one_counted_anew():
    memory = ItemMemory()
    memory.remember(7, 0, 100, True)
    memory.remember(7, 1, 200, False)
    memory.forget(7, False)
    assert memory.recall(7) == (1, 200, 1, 0, True)
    memory.rescore(7, False)
    assert memory.recall(7) == (1, 200, 0, 1, False)
    memory.forget(7, False)
    assert memory.recall(7) is None
    memory.forget(7, True)
    memory.rescore(7, True)
    assert len(memory) == 0


def test_counts_stop_at_255_and_no_capacity_remembers_nothing():
    memory = ItemMemory()
    for number in range(300):
        memory.remember(7, number, 0, True)
    assert memory.recall(7) == (299, 0, 255, 0, True)
    nothing = ItemMemory(capacity=0)
    nothing.remember(7, 0, 0, True)
    assert nothing.recall(7) is None
