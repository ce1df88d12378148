from __future__ import annotations

import dataclasses

import pytest

from stream.errors import TopicMismatchError
from stream.kafka.admin import create_topics, describe_topics
from stream.settings import Settings
from topics.catalogue import CATALOGUE


def test_topic_names_are_unique() -> None:
    names = [spec.name for spec in CATALOGUE]
    assert len(names) == len(set(names))


def test_a_topic_that_is_deleted_from_says_after_how_many_days() -> None:
    for spec in CATALOGUE:
        assert (spec.retention_days is None) == (spec.cleanup == "compact"), spec.name


def test_attempts_are_kept_longer_than_a_calibration_looks_back_with_lateness() -> None:
    attempts = next(spec for spec in CATALOGUE if spec.name == "attempts")
    settings = Settings()
    assert attempts.retention_days is not None
    assert attempts.retention_days >= settings.mirt_lookback_days + settings.lateness_days


@pytest.mark.integration
def test_topics_are_made_once_and_then_as_described(settings: Settings) -> None:
    assert all(state.problem for state in describe_topics(settings))
    assert len(create_topics(settings)) == len(CATALOGUE)
    assert [state.problem for state in describe_topics(settings)] == [None] * len(CATALOGUE)
    assert create_topics(settings) == []


@pytest.mark.integration
def test_another_number_of_partitions_is_refused_with_an_explanation(settings: Settings) -> None:
    create_topics(settings)
    more = dataclasses.replace(settings, partitions=settings.partitions + 1)
    with pytest.raises(TopicMismatchError, match="fixed when a topic is made"):
        create_topics(more)
