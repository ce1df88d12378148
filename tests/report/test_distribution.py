"""Histograms that lose nobody, on edges a person can read."""

from __future__ import annotations

import pytest

from stream.report.distribution import clipped_counts, round_edges


def test_what_lies_outside_is_counted_in_the_outermost_bins() -> None:
    assert clipped_counts([(0, 2), (1, 3), (2, 5), (4, 7)], 3) == [5, 5, 7]


@pytest.mark.parametrize(
    ("low", "high"), [(-0.03, 0.12), (0.0, 1.0), (-5000.0, 12.0), (2.0, 2.0), (0.0, 0.0)]
)
def test_edges_hold_the_range_in_a_readable_number_of_bins(low: float, high: float) -> None:
    first, last, bins = round_edges(low, high)
    slack = 1e-9 * max(1.0, abs(low), abs(high))
    assert first <= low + slack
    assert last >= high - slack
    assert last > first
    assert 1 <= bins <= 26
