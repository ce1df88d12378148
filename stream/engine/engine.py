"""The engine role: partitions are taken over, attempts folded, changes flushed.

One :class:`Engine` lives in an engine process. Faust decides which partitions are ours; for each
we hold a :class:`~stream.engine.partition.Partition`: its state, the producer whose transactional
id fences every other holder, and a task that flushes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Iterator
from typing import Any, Protocol, cast

from faust.types import TP, EventT
from mode import Service

from schemas.codec import decode
from schemas.outputs import Watermark
from stream.app import ThetaApp
from stream.engine.flush import Flush, Indicators
from stream.engine.params import ParamsStore
from stream.engine.partition import Partition, offsets_of
from stream.engine.rows import StateLoader
from stream.engine.state import PartitionState
from stream.engine.warm_up import warm_up
from stream.errors import FencedError, TopicMismatchError
from stream.kafka.admin import ensure_topics
from stream.kafka.packed_reading import PackedTransport
from stream.kafka.packed_records import PackedRecords
from stream.kafka.reader import Record, TailReader
from stream.kafka.transaction import TransactionalPublisher
from stream.kafka.whole_partition import read_partition
from stream.metrics import engine_metrics as metrics
from topics.catalogue import (
    attempts_topic,
    batch_abilities_topic,
    engine_state_topic,
    item_params_topic,
    watermarks_topic,
)

__all__ = ["Engine", "register"]

logger = logging.getLogger(__name__)

_SLICE_RECORDS = 256
"""Records folded before others on the event loop (heartbeats, health) get their turn: 1 ms."""

_RELEASE_TIMEOUT_S = 5.0
"""Seconds that a last flush may take when a partition is let go: within the 8 s in which a process
that was told to end must have stopped."""

_BACKLOG_FACTOR = 2
"""Changed learners, as a multiple of THETASTREAM_FLUSH_ROWS, at which folding waits for a flush."""


class Holdings(Protocol):
    """Who wants to know which partitions are held."""

    def hold(self, partition: int, segment: int) -> None:
        """Hear that a partition is loaded and in which file its segment lies."""

    def let_go(self, partition: int) -> None:
        """Hear that a partition is another's from now on."""

    def ready(self, ready: bool) -> None:
        """Hear whether all partitions are loaded."""


class Engine(Service):
    """Folds attempts into learners and publishes what follows.

    Parameters
    ----------
    app
        The engine role's Faust app; its signals say which partitions are ours.
    holdings
        Told which partitions are held: whoever looks learners up.
    """

    def __init__(self, app: ThetaApp, holdings: Holdings) -> None:
        super().__init__(loop=app.loop)
        self.app = app
        self.holdings = holdings
        self.settings = app.settings
        self.params = ParamsStore()
        self.partitions: dict[int, Partition] = {}
        self.ready = False
        self.indicators = Indicators(
            use_theta=self.settings.metrics_use_irt_theta,
            include_theta=self.settings.agg_include_theta,
            target=self.settings.metrics_default_target,
        )
        self._stream_week = 0
        # Held for one slice of folding or encoding: all partitions together get one slice in
        # each round of the event loop, so that heartbeats wait for one and not for one of each.
        self._turn = asyncio.Lock()
        self._reader = TailReader(
            self.settings,
            {item_params_topic.name: self._on_params, watermarks_topic.name: self._on_watermarks},
            on_failure=self._on_failure,
        )

    # -- life --------------------------------------------------------------------------------

    async def on_start(self) -> None:
        """Make missing topics and begin to follow item parameters and watermarks."""
        # Before this process joins the group: compiling, once a machine, takes a minute.
        await asyncio.to_thread(warm_up)
        await ensure_topics(self.settings)
        self._reader.start()

    async def on_stop(self) -> None:
        """Flush what is in hand, then let go of every partition."""
        # After an error the state may be torn; nothing is lost by folding again.
        flush = self.app.failure is None and not self.app.crashed
        await asyncio.gather(*(self._release(p, flush=flush) for p in list(self.partitions)))
        await self._reader.stop()

    def _on_failure(self, error: BaseException) -> None:
        self._crash_soon(error)

    def _crash_soon(self, error: BaseException) -> None:
        """End the process; what was not committed is folded again."""
        self.ready = False
        self.app.fail(error)
        self.forget()

    def _on_params(self, records: list[Record]) -> None:
        for record in records:
            if self.params.add(record.key(), record.value()):
                logger.info("item parameters %s are known", self.params.version)
                for partition in self.partitions.values():
                    partition.wake.set()

    def _on_watermarks(self, records: list[Record]) -> None:
        for record in records:
            week = decode(record.value() or b"{}", Watermark).week_start
            if week > self._stream_week:
                self._stream_week = week
                for partition in self.partitions.values():
                    partition.wake.set()

    # -- assignment --------------------------------------------------------------------------

    async def on_revoked(self, revoked: set[TP]) -> None:
        """Stop folding and flush: what is flushed now, the next owner need not fold again."""
        self.ready = False
        self.holdings.ready(False)
        numbers = {tp.partition for tp in revoked} & self.partitions.keys()
        for number in numbers:
            self.partitions[number].revoked = True
        await asyncio.gather(*(self._flush(self.partitions[n]) for n in numbers))

    async def on_assigned(self) -> None:
        """Take over what was assigned, before the streams resume.

        A partition that stays is kept if nobody fenced its producer in between; a new one is
        fenced, then loaded.
        """
        assigned = {
            tp.partition
            for tp in self.app.consumer.assignment()
            if tp.topic == self.settings.topic(attempts_topic.name)
        }
        started = time.monotonic()
        if self._sees_other_partitions(assigned):
            try:
                await ensure_topics(self.settings)
            except TopicMismatchError as error:
                # Nothing is taken over, so that nothing of an added partition is ever folded.
                self._crash_soon(error)
                return
        await self._reader.caught_up()
        await asyncio.gather(*(self._release(n) for n in self.partitions.keys() - assigned))
        await asyncio.gather(*(self._take_over(n) for n in assigned))
        learners = sum(len(p.state) for p in self.partitions.values())
        metrics.learners.set(learners)
        metrics.partitions.set(len(self.partitions))
        metrics.oldest_change_seconds.set_function(self.oldest_change_s)
        metrics.recovery_seconds.set(time.monotonic() - started)
        logger.info(
            "%d partitions, %d learners ready after %.2f s",
            len(self.partitions),
            learners,
            time.monotonic() - started,
        )
        # What is here now stays: later collections need not walk over it.
        gc.collect()
        gc.freeze()
        self.ready = True
        self.holdings.ready(True)

    def _sees_other_partitions(self, assigned: set[int]) -> bool:
        """Whether an input seems to have another number of partitions than was set.

        Another member, which leads the group, may have heard of an added one before this process.
        """
        inputs = attempts_topic, batch_abilities_topic
        known = (self.app.consumer.topic_partitions(self.settings.topic(t.name)) for t in inputs)
        return max(assigned, default=0) >= self.settings.partitions or any(
            number not in (None, self.settings.partitions) for number in known
        )

    async def _take_over(self, number: int) -> None:
        partition = self.partitions.get(number)
        if partition is not None:
            try:
                await self._flush(partition, force=True)
            except FencedError:
                logger.warning("partition %d was elsewhere meanwhile; loading it anew", number)
                await self._release(number, flush=False)
            else:
                # Faust delivers again what it had not committed; the state skips what it knows.
                for waiting in partition.unacknowledged.values():
                    waiting.clear()
                partition.revoked = False
                return
        publisher = TransactionalPublisher(self.settings, f"engine-{number}")
        # Fence first: only then nobody else can add to what is about to be read.
        await publisher.init()
        state = PartitionState(number, self.settings.lateness_days, self.params)
        loader = StateLoader(state)
        await asyncio.to_thread(
            read_partition, self.settings, engine_state_topic.name, number, loader.add
        )
        loader.finish()
        partition = self.partitions[number] = Partition(state, publisher)
        self.holdings.hold(number, state.store.segment.fd)
        partition.task = asyncio.create_task(self._flush_regularly(partition))

    async def _release(self, number: int, *, flush: bool = True) -> None:
        partition = self.partitions.pop(number)
        self.holdings.let_go(number)
        partition.revoked = partition.closing = True
        partition.wake.set()
        partition.flushed.set()
        try:
            if flush:
                # Not cancelled: a flush that is being encoded has taken changes over already.
                last = asyncio.ensure_future(self._flush(partition))
                last.add_done_callback(lambda done: done.cancelled() or done.exception())
                async with asyncio.timeout(_RELEASE_TIMEOUT_S):
                    await asyncio.shield(last)
        except TimeoutError:
            logger.warning(
                "partition %d is given up with unflushed changes: the broker does not answer; "
                "its next owner folds them again",
                number,
            )
        finally:
            await partition.publisher.close()
            if partition.task is not None:
                await asyncio.wait([partition.task])

    # -- folding -----------------------------------------------------------------------------

    async def fold_batches(self, stream: Any, *, abilities: bool) -> None:
        """Fold the batches of a stream until it ends.

        Parameters
        ----------
        stream
            Faust stream of ``attempts`` or ``batch-abilities``, read in batches.
        abilities
            Whether it is the latter.
        """
        source = "abilities" if abilities else "attempts"
        async for event in stream.noack().events():
            partition = self.partitions.get(event.message.partition)
            if partition is None or partition.revoked:
                continue
            # An exception here would make Faust acknowledge and skip the batch.
            try:
                await self._fold_batch(partition, event, source)
            except Exception as error:
                self._crash_soon(error)
                return

    async def _fold_batch(self, partition: Partition, event: EventT[Any], source: str) -> None:
        state = partition.state
        fold = state.fold_abilities if source == "abilities" else state.fold
        records = cast("PackedRecords", event.value)
        limit = self.settings.flush_rows
        partition.unacknowledged[source].append(event)
        count = len(records)
        for at in range(0, count, _SLICE_RECORDS):
            async with partition.lock, self._turn:
                if partition.revoked:
                    return
                partition.torn = True
                fold(records[at : at + _SLICE_RECORDS])
                partition.torn = False
            await self._make_room(partition)
            if partition.changed_since is None and state.has_changes:
                partition.changed_since = time.monotonic()
            if state.n_changed >= limit:
                partition.wake.set()
                while state.n_changed >= _BACKLOG_FACTOR * limit and not partition.revoked:
                    # The broker takes flushes more slowly than attempts come: wait for it.
                    partition.flushed.clear()
                    await partition.flushed.wait()
            await asyncio.sleep(0)
        # Only its offset is needed until a flush covers it.
        records.clear()
        metrics.records.labels(source).inc(count)

    async def _make_room(self, partition: Partition) -> None:
        """Let the state's memory grow in a thread: compacting it takes some tenths of a second."""
        if partition.state.store.short_of_room:
            async with partition.lock:
                await asyncio.to_thread(partition.state.store.grow_heap)

    # -- flushing ----------------------------------------------------------------------------

    async def _flush_regularly(self, partition: Partition) -> None:
        interval = self.settings.flush_interval_secs
        while not partition.closing:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(partition.wake.wait(), interval)
            partition.wake.clear()
            if partition.revoked:
                # A partition that is kept through a rebalance is flushed again after it.
                await asyncio.sleep(0)
                continue
            try:
                await self._flush(partition)
            except Exception as error:
                self._crash_soon(error)
                return

    async def _flush(self, partition: Partition, *, force: bool = False) -> None:
        """Write a partition's changes as one transaction, then acknowledge what it covers."""
        state = partition.state
        async with partition.flushing:
            started = time.perf_counter()
            async with partition.lock:
                if partition.torn:
                    return
                new_params = state.has_newer_params
                week_begun = self._stream_week > state.position.weeks_published
                if not (state.has_changes or new_params or week_begun or force):
                    # Batches delivered again after a take-over may change nothing at all.
                    partition.acknowledge()
                    return
                flush = Flush(
                    state,
                    self.indicators,
                    self._stream_week,
                    int(time.time() * 1000),
                    published_watermark=partition.watermark,
                )
                partition.torn = True
                await self._in_slices(flush.build())
                partition.torn = False
                covered = offsets_of(state)
                watermark = state.position.stream_week
                changed_since, partition.changed_since = partition.changed_since, None
            try:
                await partition.publisher.publish(flush.messages)
            except BaseException:
                partition.changed_since = changed_since
                partition.torn = True
                raise
            partition.watermark = watermark
            partition.committed = covered
            partition.acknowledge()
            partition.flushed.set()
            metrics.flush_seconds.observe(time.perf_counter() - started)
            metrics.flush_records.inc(flush.n_messages)
            for outcome, count in flush.outcomes.items():
                metrics.outcomes.labels(outcome).inc(count)
            metrics.params_sequence.set(self.params.sequence)

    async def _in_slices(self, steps: Iterator[None]) -> None:
        """Run through steps, one in each round of the event loop."""
        done = object()
        while True:
            async with self._turn:
                if next(steps, done) is done:
                    return
            await asyncio.sleep(0)

    def oldest_change_s(self) -> float:
        """Return for how many seconds the oldest change has waited for its commit."""
        since = [p.changed_since for p in self.partitions.values() if p.changed_since is not None]
        return time.monotonic() - min(since) if since else 0.0

    def forget(self) -> None:
        """Let nobody look up what may be another's by now; called as the process ends."""
        self.holdings.ready(False)
        for number in self.partitions:
            self.holdings.let_go(number)


def register(app: ThetaApp, holdings: Holdings) -> Engine:
    """Add the engine to its app: service, signals and agents."""
    engine = Engine(app, holdings)
    app.early_services.append(engine)
    app.transport = PackedTransport(app.conf.broker_consumer, app)

    async def revoked(_sender: Any, /, *arguments: Any, signal: Any, **_: Any) -> None:  # noqa: ARG001
        await engine.on_revoked(arguments[0])

    async def assigned(_sender: Any, /, *_arguments: Any, signal: Any, **_: Any) -> None:  # noqa: ARG001
        await engine.on_assigned()

    app.on_partitions_revoked.connect(revoked, weak=False)
    app.on_rebalance_complete.connect(assigned, weak=False)

    @app.agent(app.batches(attempts_topic), name="engine.attempts")
    async def fold_attempts(stream: Any) -> None:
        await engine.fold_batches(stream, abilities=False)

    @app.agent(app.batches(batch_abilities_topic), name="engine.abilities")
    async def fold_abilities(stream: Any) -> None:
        await engine.fold_batches(stream, abilities=True)

    return engine
