"""The event store over Postgres: the durable implementation of `eventstore.port.EventStore`.

Opened by `gateways.bootstrap`, one a process. It seals and maps events, hands bytes to the group-commit writers, and reads. Whatever it
acknowledged is committed with fsync; a fault of the database surfaces as `StoreUnavailable` and never as half a command.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import asyncpg
import orjson
from pydantic import BaseModel

from eventstore import rows
from eventstore.errors import StoreUnavailable
from eventstore.listen import Listener, Notifier
from eventstore.mapper import EventMapper
from eventstore.port import (
    Append,
    Appended,
    ChatPost,
    Outcome,
    Recorded,
    shard_of,
)
from eventstore.reader import Reader
from eventstore.rows import Command, Message, StoredWrite
from eventstore.validation import check_append, check_post
from eventstore.wire import WireEvent
from eventstore.writer import FAULTS_OF_CONNECTION, Writer

LANES: Final = 2
CHAT_LANES: Final = 1
PARTITION_WIDTH: Final = 4_194_304
"""Positions of a shard in one partition (`extend_events`)."""
SUBSCRIPTION_BATCH_MAX: Final = 1000
COMMAND_TIMEOUT_S: Final = 10.0
MAINTENANCE_S: Final = 600.0

# Small batches joined by key: the planner must never think of a scan, whatever the statistics were when it planned.
_WRITER_SETTINGS: Final = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
}
_READER_SETTINGS: Final = {"jit": "off"}

T = TypeVar("T")


class PostgresStore:
    """Open with `await PostgresStore.open(...)`, close with `await store.close()`."""

    def __init__(self, dsn: str, pool: "asyncpg.Pool[asyncpg.Record]", mapper: EventMapper) -> None:
        self._dsn = dsn
        self._pool = pool
        self._mapper = mapper
        self._reader = Reader(pool)
        self._appends: Writer[Command] = Writer(self._connect_writer, rows.append, lanes=LANES)
        self._posts: Writer[Message] = Writer(self._connect_writer, rows.post, lanes=CHAT_LANES)
        self._notifier = Notifier(self._connect)
        self._listener = Listener(self._connect)
        self._edge = 0
        self._maintenance: asyncio.Task[None] | None = None
        self._grow = asyncio.Event()

    @classmethod
    async def open(cls, dsn: str, mapper: EventMapper, *, pool_size: int = 8) -> "PostgresStore":
        """Connect to a migrated database (`eventstore.migrate`). Raises StoreUnavailable when it is away."""
        try:
            pool = await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=pool_size,
                server_settings=_READER_SETTINGS,
                command_timeout=COMMAND_TIMEOUT_S,
            )
            store = cls(dsn, pool, mapper)
            await store._extend(max(await store._reader.heads()))
            await store._appends.open()
            await store._posts.open()
        except FAULTS_OF_CONNECTION as fault:
            raise StoreUnavailable(f"the event store is away: {fault}") from fault
        store._notifier.open()
        store._listener.open()
        store._maintenance = asyncio.create_task(store._maintain())
        return store

    async def close(self) -> None:
        if self._maintenance:
            self._maintenance.cancel()
            await asyncio.gather(self._maintenance, return_exceptions=True)
        await self._appends.close()
        await self._posts.close()
        await self._notifier.close()
        await self._listener.close()
        await self._pool.close()

    async def append(self, append: Append) -> Outcome:
        check_append(append)
        keys = await self._mapper.keys_for(event for write in append.writes for event in write.events)
        writes = [
            StoredWrite(
                write.stream, shard_of(write.key), write.expected, [self._stored(event, keys) for event in write.events]
            )
            for write in append.writes
        ]
        command = Command(
            append.command_id,
            writes,
            append.actor,
            append.correlation_id,
            append.causation_id,
            money=any(event[0] == "money" for write in writes for event in write.events),
            index=_index_json(append),
        )
        return self._told(await self._appends.submit(command, writes[0].shard))

    async def post_message(self, post: ChatPost) -> Outcome:
        check_post(post)
        keys = await self._mapper.keys_for([post.event])
        _, topic, state = self._stored(post.event, keys)
        shard = shard_of(post.channel_id)
        message = Message(
            post.command_id, post.channel_id, post.author_id, shard, topic, state, post.text_digest,
            post.emote_only_text, post.following_since, post.subscriber,
        )  # fmt: skip
        return self._told(await self._posts.submit(message, shard))

    async def read_stream(self, stream: str, *, after: int = 0, limit: int = 1000) -> list[Recorded]:
        shard, events = await self._ask(lambda: self._reader.stream(stream, after, limit))
        return await self._mapper.decode(shard, None, events)

    async def read_stream_tail(self, stream: str, *, limit: int) -> list[Recorded]:
        shard, events = await self._ask(lambda: self._reader.stream_tail(stream, limit))
        return await self._mapper.decode(shard, None, events)

    async def read_shard(
        self, shard: int, *, after: int, limit: int = 1000, categories: Iterable[str] | None = None
    ) -> list[Recorded]:
        events = await self._ask(lambda: self._reader.shard(shard, after, limit, categories))
        return await self._mapper.decode(shard, None, events)

    async def heads(self) -> list[int]:
        return await self._ask(self._reader.heads)

    async def subscribe(self, after: Mapping[int, int]) -> AsyncIterator[list[Recorded]]:
        positions = dict(after)
        while True:
            seen = self._listener.count
            heads = await self.heads()
            behind = [shard for shard, position in positions.items() if heads[shard] > position]
            for shard in behind:
                while batch := await self.read_shard(shard, after=positions[shard], limit=SUBSCRIPTION_BATCH_MAX):
                    positions[shard] = batch[-1].position
                    yield batch
                    if positions[shard] >= heads[shard]:
                        break
            if not behind:
                await self._listener.wait(seen)

    async def index_row(self, table: str, key: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return await self._ask(lambda: self._reader.index_row(table, key))

    async def index_rows(self, table: str, where: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return await self._ask(lambda: self._reader.index_rows(table, where))

    async def index_table(self, table: str) -> Sequence[Mapping[str, Any]]:
        return await self._ask(lambda: self._reader.index_table(table))

    async def erase_person(self, account_id: str) -> None:
        await self._mapper.keys.erase(account_id)

    # What the relay and the projections read (`projections.runner.Log`): stored events, decoded later and only where wanted.

    async def events(
        self, spans: Mapping[int, tuple[int, int]], *, categories: Iterable[str], topics: Iterable[str], limit: int
    ) -> Mapping[int, Sequence[WireEvent]]:
        return await self._ask(lambda: self._reader.spans(spans, categories, topics, limit))

    async def tails(self) -> Mapping[int, Mapping[str, int]]:
        return await self._ask(self._reader.tails)

    async def decode(self, shard: int, events: Sequence[WireEvent]) -> Sequence[Recorded]:
        return await self._mapper.decode(shard, None, events)

    @property
    def listener(self) -> Listener:
        """Wakes whoever follows the log."""
        return self._listener

    def _stored(self, event: BaseModel, keys: Mapping[str, Any]) -> tuple[str, str, bytes]:
        topic, state = self._mapper.state_of(event, keys)
        return self._mapper.category(event), topic, state

    def _told(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Appended):
            self._notifier.poke()
            if any(placed.position > self._edge - PARTITION_WIDTH // 2 for placed in outcome.placed):
                self._grow.set()
        return outcome

    async def _maintain(self) -> None:
        """Partitions ahead of need, and outcomes forgotten after their day."""
        while True:
            try:
                async with asyncio.timeout(MAINTENANCE_S):
                    await self._grow.wait()
            except TimeoutError:
                await self._quietly("DELETE FROM command_outcomes WHERE NOT money AND at < now() - interval '1 day'")
                continue
            self._grow.clear()
            try:
                await self._extend(max(await self._reader.heads()))
            except (*FAULTS_OF_CONNECTION, asyncpg.PostgresError):
                self._grow.set()
                await asyncio.sleep(1)

    async def _quietly(self, sql: str) -> None:
        try:
            await self._pool.execute(sql, timeout=60)
        except (*FAULTS_OF_CONNECTION, asyncpg.PostgresError):
            return

    async def _extend(self, head: int) -> None:
        self._edge = await self._pool.fetchval("SELECT extend_events($1)", head + PARTITION_WIDTH)

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            return await ask()
        except FAULTS_OF_CONNECTION as fault:
            raise StoreUnavailable(f"the event store is away: {fault}") from fault

    async def _connect(self) -> Any:
        return await asyncpg.connect(self._dsn, server_settings=_READER_SETTINGS, command_timeout=COMMAND_TIMEOUT_S)

    async def _connect_writer(self) -> Any:
        return await asyncpg.connect(self._dsn, server_settings=_WRITER_SETTINGS, command_timeout=COMMAND_TIMEOUT_S)


def _index_json(append: Append) -> str | None:
    if not append.index:
        return None
    return orjson.dumps([{"table": row.table, "key": row.key, "values": row.values} for row in append.index]).decode()
