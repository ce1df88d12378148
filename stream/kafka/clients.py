"""Kafka clients, configured from the settings."""

from __future__ import annotations

import logging
import ssl
from typing import Any

from confluent_kafka import Consumer, Producer
from faust.auth import SASLCredentials, SSLCredentials

from stream.settings import Settings

__all__ = ["client_config", "faust_credentials", "new_consumer", "new_producer", "ssl_context"]


def client_config(settings: Settings) -> dict[str, Any]:
    """Return what every librdkafka client needs to reach the broker."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.kafka_broker,
        "security.protocol": settings.kafka_security_protocol,
        # The broker restarts; a client that waits long to try again would stretch that pause.
        "reconnect.backoff.max.ms": 1000,
        "log.connection.close": False,
        # Its own messages go where ours go.
        "logger": logging.getLogger("librdkafka"),
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        config["sasl.mechanism"] = settings.kafka_sasl_mechanism
        config["sasl.username"] = settings.kafka_sasl_username
        config["sasl.password"] = settings.kafka_sasl_password
    if settings.kafka_ssl_cafile:
        config["ssl.ca.location"] = settings.kafka_ssl_cafile
    return config


def new_producer(settings: Settings, **extra: Any) -> Producer:
    """Make a producer that places keys as Kafka's Java clients (and aiokafka) do.

    Parameters
    ----------
    settings
        Where the broker is.
    extra
        Further librdkafka settings, as ``**{"transactional.id": ...}``.
    """
    return Producer(
        {
            **client_config(settings),
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 5,
            "message.max.bytes": 15 * 1024 * 1024,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 1_048_576,
            **extra,
        }
    )


def new_consumer(settings: Settings, **extra: Any) -> Consumer:
    """Make a consumer of committed records, for reading partitions by hand (no group)."""
    return Consumer(
        {
            **client_config(settings),
            # librdkafka wants a name even where no group is joined and nothing is committed.
            "group.id": settings.topic("thetastream-reader"),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 100,
            "queued.max.messages.kbytes": 65_536,
            "fetch.message.max.bytes": 4 * 1024 * 1024,
            **extra,
        }
    )


def faust_credentials(settings: Settings) -> Any:
    """Return the broker credentials for a Faust app, or None for a plain connection."""
    protocol = settings.kafka_security_protocol
    context = ssl_context(settings) if protocol.endswith("SSL") else None
    if protocol.startswith("SASL"):
        return SASLCredentials(
            username=settings.kafka_sasl_username,
            password=settings.kafka_sasl_password,
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    return SSLCredentials(context=context) if context is not None else None


def ssl_context(settings: Settings) -> ssl.SSLContext:
    """Return the TLS context that trusts the broker's authority."""
    return ssl.create_default_context(cafile=settings.kafka_ssl_cafile or None)
