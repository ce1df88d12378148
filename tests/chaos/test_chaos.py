"""The short form of ``make chaos``, its order of faults and its records."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from bench.chaos.faults import FAULTS, schedule
from bench.chaos.trial import Trial, TrialConfig
from bench.chaos.workload import Workload
from stream.errors import RecordError
from stream.local.stack import Stack
from stream.records import parse


@pytest.mark.parametrize("seed", range(5))
def test_twenty_rounds_have_each_fault_twice_and_one_to_three_engines(seed: int) -> None:
    kinds = schedule(20, random.Random(seed))
    assert Counter(kinds) == dict.fromkeys(FAULTS, 2)
    engines = 2
    for kind in kinds:
        assert engines >= 2 or kind != "engine-pause"
        engines += {"engines-grow": 1, "engines-shrink": -1}.get(kind, 0)
        assert 1 <= engines <= 3


def test_the_same_seed_gives_the_same_records() -> None:
    first = Workload(3000, 7)
    assert len(first.records) == 3000
    assert first.records == Workload(3000, 7).records
    assert first.records != Workload(3000, 8).records


def test_each_rubbish_record_has_bytes_of_its_own_and_the_reason_it_claims() -> None:
    rubbish = [r for r in Workload(8000, 7).records if r.reason is not None]
    assert 40 < len(rubbish) < 140
    values = [r.value for r in rubbish if r.value is not None]
    assert len(set(values)) == len(values)
    for record in rubbish:
        with pytest.raises(RecordError) as refused:
            parse(record.value, record.key, 1_750_000_000_000)
        assert refused.value.reason == record.reason


@pytest.mark.integration
@pytest.mark.slow
def test_everything_is_exact_after_a_kill_a_pause_and_a_broken_broker(
    chaos_stack: Stack, tmp_path: Path
) -> None:
    config = TrialConfig(
        "short",
        ("engine-kill", "engine-pause", "broker-kill"),
        seed=11,
        fixed_params=True,
        rate=1000,
        round_records=3000,
        learners=150,
        items=30,
        partitions=3,
    )
    trial = Trial(chaos_stack, config, tmp_path)
    report, violations = trial.run()
    assert report.examples == []
    assert violations == []
    assert report.total == 0
    assert [one.fault for one in trial.rounds] == list(config.kinds)
    assert all(report.compared[name] > 0 for name in MUST_COMPARE)


MUST_COMPARE = (
    "features_topic_daily",
    "weekly_kpi",
    "topic_totals",
    "item_totals",
    "counts of learners",
    "attempts.dlq",
    "outcomes",
    "theta as without faults",
)
"""A comparison of nothing would pass, too."""
