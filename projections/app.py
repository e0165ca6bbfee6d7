"""The Faust app: one agent a topic. The log's records go to `worker`, presence to a windowed table and from there to `audience`.

`gateways.projector_role` starts it, and ends with it: after a crash of Faust a fresh process is the cure. Offsets are committed behind what
Postgres has, and say only where to go on reading: which events a projection has is known by its checkpoints alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Set
from functools import partial
from pathlib import Path
from typing import Any, Final

import faust
import structlog
from faust.exceptions import ConsumerNotStarted
from prometheus_client import Counter

from eventstore.port import SHARDS
from eventstore.wire import PRESENCE_TOPIC, TOPICS, WireError, decode, partition_of
from projections import presence
from projections.audience import Audience
from projections.faust_driver import TransientTable, Transport
from projections.presence import WINDOW_S, Malformed, Viewers
from projections.worker import Worker

log = structlog.get_logger()

GROUP: Final = "tallylight-projector"
BUFFERED_RECORDS_MAX: Final = 64
"""Records of one agent that wait for it; the consumer pauses beyond."""
POLLED_RECORDS_MAX: Final = 200
FETCH_BYTES_MAX: Final = 1024 * 1024
SESSION_S: Final = 3.0
HEARTBEAT_S: Final = 1.0
COMMIT_S: Final = 2.0
STOP_S_MAX: Final = 8.0
WINDOWS_KEPT_S: Final = 6 * WINDOW_S

_undecodable = Counter(
    "tallylight_projector_undecodable_records_total", "Kafka records that could not be read", ["topic"]
)


class FaustStopped(Exception):
    """Faust crashed or stopped by itself."""


class Projector:
    """`run` reads topics until cancelled, or raises FaustStopped."""

    def __init__(
        self,
        bootstrap: str,
        partitions: int,
        worker: Worker,
        audience: Audience,
        *,
        fetch_wait_ms: int,
        folder: Path,
        group: str = GROUP,
    ) -> None:
        self._partitions = partitions
        self._worker = worker
        self._audience = audience
        self._failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        url = ";".join(f"kafka://{server.strip()}" for server in bootstrap.split(","))
        self._app = app = faust.App(
            group,
            broker=url,
            datadir=folder,
            store="memory://",
            key_serializer="raw",
            value_serializer="raw",
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,  # the relay makes them
            broker_session_timeout=SESSION_S,
            broker_rebalance_timeout=SESSION_S,
            broker_heartbeat_interval=HEARTBEAT_S,
            broker_commit_interval=COMMIT_S,
            broker_max_poll_records=POLLED_RECORDS_MAX,
            consumer_max_fetch_size=FETCH_BYTES_MAX,
            consumer_auto_offset_reset="earliest",
            stream_buffer_maxsize=BUFFERED_RECORDS_MAX,
            stream_wait_empty=False,  # what was under way at a rebalance writes nothing: its checkpoint has moved
            loop=asyncio.get_running_loop(),
        )
        app.transport = Transport(app.conf.broker_consumer, app, app.loop)
        app.transport.fetch_wait_ms = fetch_wait_ms
        self._window_s = 0
        self._windows = self._windowed_table()
        for topic in TOPICS:
            self._agent(topic, self._carry)
        self._agent(PRESENCE_TOPIC, self._count)

    def _agent(self, topic: str, body: Callable[[Any], Awaitable[None]]) -> None:
        """Faust would start a failed agent anew behind what it had buffered: better a fresh process."""

        async def agent(stream: Any) -> None:
            try:
                await body(stream)
            except Exception as fault:
                log.exception("projector", problem="agent failed", topic=topic)
                if not self._failed.done():
                    self._failed.set_result(fault)

        source = self._app.topic(topic, key_serializer="raw", value_serializer="raw")
        self._app.agent(source, name=topic)(agent)

    def _windowed_table(self) -> Any:
        table = TransientTable(self._app, name="viewers", default=Viewers)
        windowed: Any = table.tumbling(WINDOW_S, expires=WINDOWS_KEPT_S)
        # By the window that the record names: a pod's clock says when its viewers were there.
        return windowed.relative_to(lambda event: self._window_s)

    def owned(self) -> Set[int]:
        """The shards whose partitions this process holds; none while it is not a member of the group."""
        try:
            held = {tp.partition for tp in self._app.consumer.assignment() if tp.topic != PRESENCE_TOPIC}
        except ConsumerNotStarted:
            return frozenset()
        return {shard for shard in range(SHARDS) if partition_of(shard, self._partitions) in held}

    async def run(self) -> None:
        """Join the group and read. The topics must be there."""
        audience = asyncio.ensure_future(self._audience.run())
        try:
            await self._app.start()
            await self._app.add_runtime_dependency(self._windows.table)
            stopped: asyncio.Future[Any] = asyncio.ensure_future(self._app.wait())
            failed: asyncio.Future[Any] = self._failed
            await asyncio.wait([stopped, failed], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            raise FaustStopped(repr(self._failed.result() if self._failed.done() else self._app.crash_reason))
        finally:
            audience.cancel()
            await asyncio.gather(audience, return_exceptions=True)
            async with asyncio.timeout(STOP_S_MAX):
                await self._app.stop()

    async def _carry(self, stream: Any) -> None:
        """A topic's records to every projection of its category; acknowledged when all have committed them, whatever the order."""
        async for event in stream.noack().events():
            try:
                record = decode(event.value or b"")
            except WireError as fault:
                self._skip(event, fault)
                continue
            await self._worker.offer(record, partial(_acknowledge, event))

    async def _count(self, stream: Any) -> None:
        """Presence into its window; the merged window to the read model."""
        async for event in stream.noack().events():
            try:
                channel_id, seen = event.key.decode(), presence.decode(event.value or b"")
            except (AttributeError, ValueError, Malformed) as fault:
                self._skip(event, fault)
                continue
            self._window_s = seen.window_s
            windows = self._windows[channel_id]
            windows.apply(Viewers.add, seen.sketch, event)
            self._audience.changed(channel_id, seen.window_s, windows.value(event))
            event.ack()

    def _skip(self, event: Any, fault: Exception) -> None:
        """What cannot be read is in the store, if it is an event at all; the worker sees the gap."""
        _undecodable.labels(event.message.topic).inc()
        log.warning("projector", problem="undecodable record", topic=event.message.topic, error=str(fault))
        event.ack()


def _acknowledge(event: Any) -> None:
    event.ack()
