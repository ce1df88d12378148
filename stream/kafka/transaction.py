"""Publishing many records as one Kafka transaction: all become visible, or none."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Producer

from stream.errors import FencedError, PublishError
from stream.kafka.clients import new_producer
from stream.kafka.packed import PackedMessages, produce_packed
from stream.settings import Settings

__all__ = ["Outgoing", "TransactionalPublisher"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 5.0
_CALL_TIMEOUT_S = 10.0
"""Seconds one call to the client may take before it is made again; it resumes where it was."""

_PERMANENT = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_RECORD,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
"""Errors of a record or of rights: sending the same again would end the same."""


class Outgoing(NamedTuple):
    """One record to publish.

    Attributes
    ----------
    topic
        Catalogue name, without the installation's prefix.
    key, value
        Bytes; a value of None is a tombstone.
    partition
        None places it by its key (murmur2, as all our clients do).
    headers
        Pairs, or None.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: list[tuple[str, str | bytes | None]] | None = None


class TransactionalPublisher:
    """A producer whose every publication is one transaction.

    Calls are made in a thread of its own, one at a time, in the order they were asked for; the
    event loop is never blocked. A call whose waiter is cancelled still runs to its end.

    Parameters
    ----------
    settings
        Where the broker is, and how long a transaction may take.
    transactional_id
        Without the installation's prefix. Whoever calls ``init`` last with an id owns it; the
        owner before is fenced.
    """

    def __init__(self, settings: Settings, transactional_id: str) -> None:
        self.transactional_id = settings.topic(transactional_id)
        self._settings = settings
        self._names: dict[str, str] = {}
        self._producer: Producer | None = None
        self._failed: KafkaError | None = None
        self._fenced = ""
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"publish-{transactional_id}")

    async def init(self) -> None:
        """Take the transactional id over: fences an owner before, ends what it left open.

        Waits for a broker that is away.

        Raises
        ------
        FencedError
            Somebody else took it at the same moment.
        PublishError
            The broker does not allow it.
        """
        await self._in_thread(self._init)

    async def publish(self, messages: Sequence[Outgoing | PackedMessages]) -> None:
        """Publish records as one transaction; returns when it is committed.

        Errors that pass (broker away, a time-out) are waited out: the transaction is resumed, or
        aborted and made anew with the same records.

        Parameters
        ----------
        messages
            Kept unchanged until this returns. None at all is no transaction.

        Raises
        ------
        FencedError
            Another process owns the transactional id now, or the broker gave the transaction up
            (it was unfinished for longer than THETASTREAM_TRANSACTION_TIMEOUT_SECS). Nothing of
            it became visible. This publisher is of no more use.
        PublishError
            The records cannot be published as they are, or closing interrupted them; nothing of
            them became visible.
        """
        if messages:
            await self._in_thread(self._publish, messages)

    async def close(self) -> None:
        """End: a publication that waits for the broker is given up. Harmless to repeat."""
        self._closing = True
        await asyncio.to_thread(self._thread.shutdown)
        self._producer = None

    async def _in_thread(self, function: Callable[..., None], *args: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    # -- in the thread -----------------------------------------------------------------------

    def _init(self) -> None:
        timeout_ms = int(self._settings.transaction_timeout_secs * 1000)
        self._producer = new_producer(
            self._settings,
            **{
                "transactional.id": self.transactional_id,
                "transaction.timeout.ms": timeout_ms,
                "message.timeout.ms": timeout_ms,
                "delivery.report.only.error": True,
                "on_delivery": self._note_failure,
            },
        )
        self._persist(self._producer.init_transactions)

    def _publish(self, messages: Sequence[Outgoing | PackedMessages]) -> None:
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                self._try(messages)
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                cause = self._failed or error
                logger.warning(
                    "transaction of %s aborted, made again in %.1f s: %s",
                    self.transactional_id,
                    delay_s,
                    cause,
                )
                self._persist(self._live().abort_transaction)
                if cause.code() in _PERMANENT:
                    raise self._unpublishable(cause) from exception
                self._pause(delay_s)
                delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
            else:
                return

    def _try(self, messages: Sequence[Outgoing | PackedMessages]) -> None:
        """Make one transaction; raises KafkaException where it must be aborted."""
        producer = self._live()
        self._failed = None
        self._persist(producer.begin_transaction, timed=False)
        for message in messages:
            if isinstance(message, PackedMessages):
                self._produce_packed(producer, message)
            else:
                self._produce(producer, message)
        # Commits only when every record was delivered.
        self._persist(producer.commit_transaction)

    def _name(self, topic: str) -> str:
        return self._names.get(topic) or self._names.setdefault(topic, self._settings.topic(topic))

    def _produce(self, producer: Producer, message: Outgoing) -> None:
        topic, key, value, partition, headers = message
        while True:
            try:
                producer.produce(
                    self._name(topic),
                    value,
                    key,
                    -1 if partition is None else partition,
                    headers=headers,
                )
            except BufferError:
                # The client's queue is full: let it send.
                producer.poll(0.1)
                self._check_closing()
            except KafkaException as exception:
                self._raise_if_fenced(exception)
                raise
            else:
                return

    def _produce_packed(self, producer: Producer, packed: PackedMessages) -> None:
        for kind, topic in packed.topics.items():
            places = packed.places[packed.places[:, 0] == kind, 1:]
            while len(places):
                errors = produce_packed(
                    producer, self._name(topic), packed.partition, packed.data, places
                )
                if not errors.any():
                    break
                for code in np.unique(errors).tolist():
                    if code not in (0, KafkaError._QUEUE_FULL):
                        exception = KafkaException(KafkaError(code))
                        self._raise_if_fenced(exception)
                        raise exception
                # The client's queue is full: let it send.
                places = places[errors != 0]
                producer.poll(0.1)
                self._check_closing()

    def _persist(self, call: Callable[..., object], *, timed: bool = True) -> None:
        """Make a call again while the client says that it may be.

        Raises
        ------
        KafkaException
            The transaction has to be aborted.
        FencedError, PublishError
            As ``publish``.
        """
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                call(_CALL_TIMEOUT_S) if timed else call()
            except KafkaException as exception:
                self._raise_if_fenced(exception)
                error: KafkaError = exception.args[0]
                if error.txn_requires_abort():
                    raise
                if not error.retriable():
                    raise self._unpublishable(error) from exception
                logger.warning("%s waits for the broker: %s", self.transactional_id, error)
                self._pause(delay_s)
                delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
            else:
                return

    def _raise_if_fenced(self, exception: KafkaException) -> None:
        error: KafkaError = exception.args[0]
        if error.fatal() or error.code() in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED):
            self._fenced = (
                f"{self.transactional_id} was taken over by another process, or its transaction "
                f"was given up by the broker ({error}). Nothing of it became visible. Start again."
            )
            raise FencedError(self._fenced) from exception

    def _unpublishable(self, error: KafkaError) -> PublishError:
        return PublishError(
            f"Records of {self.transactional_id} cannot be published: {error}. Nothing of the "
            "transaction became visible. Check the topics with `thetastream topics describe`."
        )

    def _note_failure(self, error: KafkaError | None, _message: object) -> None:
        if error is not None and error.code() != KafkaError._PURGE_QUEUE:
            self._failed = self._failed or error

    def _live(self) -> Producer:
        if self._fenced:
            # The client itself takes its next transaction for one that may be tried again.
            raise FencedError(self._fenced)
        if self._producer is None:
            raise PublishError(
                f"{self.transactional_id} published before init() or after close(); nothing was "
                "published."
            )
        return self._producer

    def _pause(self, seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            self._check_closing()
            time.sleep(0.05)

    def _check_closing(self) -> None:
        if self._closing:
            raise PublishError(
                f"{self.transactional_id} was closed while it published; the broker drops what "
                "was not committed."
            )
