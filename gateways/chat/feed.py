"""What Kafka carries, brought to a chat pod: only the partitions of the rooms it holds, from the moment it holds them.

Without consumer group and without committed offsets: a pod needs what happens from now on, and its rooms read what was before from
the event store. While the broker is away `healthy` is false and the pod asks the store instead; this comes back by itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Counter

from eventstore.errors import StoreUnavailable
from eventstore.port import Recorded
from eventstore.wire import WireError, WireRecord, decode, partition_of

log = structlog.get_logger()

TOPICS: Final = ("chat", "lifecycle")
FETCH_WAIT_MS: Final = 20
"""For Tansu, which does not wake a held fetch when data arrives (design §2): a short wait is what makes it quick."""
POLL_MS: Final = 500
ASSIGN_S_MAX: Final = 2.0
RETRY_S: Final = 1.0
LOOK_S: Final = 2.0
"""How often the broker is asked what it has. aiokafka keeps quiet when the broker is gone, has forgotten, or is no longer asked."""
ANSWER_S_MAX: Final = 2.0

_undecodable = Counter("tallylight_chat_undecodable_records_total", "Kafka records that chat could not read")


class KafkaFeed:
    def __init__(
        self,
        bootstrap: str,
        partitions: int,
        *,
        decode_events: Callable[[WireRecord], Awaitable[Sequence[Recorded]]],
        deliver: Callable[[Sequence[Recorded]], Awaitable[None]],
        wanted: Callable[[str], bool],
        fetch_wait_ms: int = FETCH_WAIT_MS,
    ) -> None:
        """`wanted` tells whether a stream is of a room held here: the rest is not even decoded."""
        self._bootstrap = bootstrap
        self._partitions = partitions
        self._decode_events = decode_events
        self._deliver = deliver
        self._wanted = wanted
        self._fetch_wait_ms = fetch_wait_ms
        self._shards: set[int] = set()
        self._offsets: dict[TopicPartition, int] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._changed = asyncio.Event()
        self._assigning = asyncio.Lock()

    @property
    def healthy(self) -> bool:
        """Whether everything watched is being read."""
        return self._consumer is not None and self._wanted_partitions() <= set(self._offsets)

    async def watch(self, shard: int) -> None:
        """Read the shard's partitions from their ends on, until `unwatch`. A broker that is away delays nobody: see `healthy`."""
        self._shards.add(shard)
        try:
            async with asyncio.timeout(ASSIGN_S_MAX):
                await self._assign()
        except (KafkaError, TimeoutError) as error:
            log.warning("chat.feed", problem="broker away", error=repr(error))
        self._changed.set()

    def unwatch(self, shard: int) -> None:
        self._shards.discard(shard)
        self._changed.set()

    def _wanted_partitions(self) -> set[TopicPartition]:
        watched = {partition_of(shard, self._partitions) for shard in self._shards}
        return {TopicPartition(topic, partition) for topic in TOPICS for partition in watched}

    async def _assign(self) -> None:
        async with self._assigning:
            consumer, wanted = self._consumer, self._wanted_partitions()
            if consumer is None:
                return
            if wanted == set(self._offsets):
                return
            new = sorted(wanted - set(self._offsets))
            ends = await consumer.end_offsets(new) if new else {}
            replaced = self._consumer is not consumer
            if replaced:
                return
            self._offsets = {tp: self._offsets.get(tp, ends.get(tp, 0)) for tp in wanted}
            # No await from here on: assigning forgets all positions, and no fetch may start between.
            consumer.assign(sorted(wanted))
            for partition, offset in self._offsets.items():
                consumer.seek(partition, offset)

    async def run(self) -> None:
        """Read for ever; reconnects when the broker was away."""
        while True:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                enable_auto_commit=False,
                fetch_max_wait_ms=self._fetch_wait_ms,
                auto_offset_reset="latest",
            )
            try:
                await consumer.start()
                self._consumer = consumer
                await self._read(consumer)
            except (KafkaError, OSError) as error:
                log.warning("chat.feed", problem="broker away", error=repr(error))
            finally:
                # What the next consumer reads begins at the ends again: the rooms fill what lies between from the store.
                self._consumer = None
                self._offsets = {}
                await _stop(consumer)
            await asyncio.sleep(RETRY_S)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        due: dict[TopicPartition, int] = {}
        while True:
            await self._assign()
            if not self._offsets:
                self._changed.clear()
                await self._changed.wait()
                continue
            if loop.time() - looked_at >= LOOK_S:
                due = await self._look(consumer, due)
                looked_at = loop.time()
            batches = await consumer.getmany(timeout_ms=POLL_MS)
            for partition, messages in batches.items():
                for message in messages:
                    await self._take(message.value)
                    if partition in self._offsets:
                        self._offsets[partition] = message.offset + 1

    async def _look(self, consumer: AIOKafkaConsumer, due: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """What has been read of partitions that hold more, `due` at the next look. KafkaError or TimeoutError if reading on is vain."""
        read = dict(self._offsets)
        async with asyncio.timeout(ANSWER_S_MAX):
            ends = await consumer.end_offsets(sorted(read))
        if forgotten := [tp for tp, offset in read.items() if ends[tp] < offset]:
            raise KafkaError(f"the broker forgot what it had in {forgotten}")
        if stalled := [tp for tp, offset in read.items() if due.get(tp) == offset]:
            raise KafkaError(f"nothing comes of {stalled}")
        return {tp: offset for tp, offset in read.items() if ends[tp] > offset}

    async def _take(self, value: bytes | None) -> None:
        try:
            record = decode(value or b"")
        except WireError as error:
            _undecodable.inc()
            log.warning("chat.feed", problem="undecodable record", error=str(error))
            return
        events = [event for event in record.events if self._wanted(event.stream)]
        if not events:
            return
        held = WireRecord(record.shard, record.category, record.prev, record.upto, record.tails, events)
        try:
            await self._deliver(await self._decode_events(held))
        except StoreUnavailable as error:
            # Keys or a gap could not be read; the rooms will see the gap again, and the sweep asks the store.
            log.warning("chat.feed", problem="event store away", error=str(error))


async def _stop(consumer: AIOKafkaConsumer) -> None:
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        # aiokafka lets the cancellation of a fetch of its own out, and leaves the connections open.
        await consumer._client.close()
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
