"""Making the broker compact a topic at once, and seeing that it has."""

from __future__ import annotations

from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from stream.kafka.clients import client_config
from stream.kafka.reader import read_whole
from stream.settings import Settings


def compact_at_once(settings: Settings, name: str) -> None:
    """Let the broker compact a topic as soon and as often as it can.

    How long tombstones are kept is left as it is: that is what readers rely on.
    """
    _set(settings, ConfigResource(ResourceType.BROKER, "1"), {"log.cleaner.backoff.ms": "100"})
    _set(
        settings,
        ConfigResource(ResourceType.TOPIC, settings.topic(name)),
        {
            "segment.ms": "100",
            "segment.bytes": str(1024 * 1024),
            "min.cleanable.dirty.ratio": "0",
            "min.compaction.lag.ms": "0",
            "max.compaction.lag.ms": "1000",
        },
    )


def records_in(settings: Settings, name: str) -> int:
    """Return how many committed records a topic still has: compaction leaves fewer."""
    count = 0

    def take(records: list[object]) -> None:
        nonlocal count
        count += len(records)

    read_whole(settings, {name: take})
    return count


def _set(settings: Settings, resource: ConfigResource, values: dict[str, str]) -> None:
    for name, value in values.items():
        resource.add_incremental_config(
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        )
    admin = AdminClient(client_config(settings))
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(30)
