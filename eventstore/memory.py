"""The event store in memory: the same port and the same conformance suite as the one over Postgres. For tests; nothing here is durable.

Events pass through the same mapper, so what reads them sees sealed, upcast and validated events as it would in production.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from uuid import UUID

from eventstore import index
from eventstore.mapper import EventMapper
from eventstore.port import (
    SHARDS,
    Append,
    Appended,
    ChatPost,
    Duplicate,
    Outcome,
    Placed,
    Recorded,
    Refused,
    WrongVersion,
    shard_of,
)
from eventstore.validation import check_append, check_post
from eventstore.wire import WireEvent

SUBSCRIPTION_BATCH_MAX: Final = 1000


class Admit(Protocol):
    """The pure rule of chat admission, `domain.chat_admission` fitted to the rows of the index tables."""

    def __call__(
        self,
        post: ChatPost,
        *,
        now: datetime,
        ban: Mapping[str, Any] | None,
        mode: Mapping[str, Any] | None,
        role: str | None,
        last_at: datetime | None,
        last_digest: bytes | None,
    ) -> Refused | None: ...


class MemoryStore:
    """Implements `eventstore.port.EventStore`. Single-threaded: a method's checks and writes have no await between them."""

    def __init__(
        self, mapper: EventMapper, admit: Admit, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._mapper = mapper
        self._admit = admit
        self._clock = clock
        self._shards: list[list[tuple[str, WireEvent]]] = [[] for _ in range(SHARDS)]
        self._streams: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._outcomes: dict[UUID, Appended | Refused] = {}
        self._index: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {table: {} for table in index.TABLES}
        self._last_posts: dict[tuple[str, str], tuple[datetime, bytes]] = {}
        self._last_at = datetime.min.replace(tzinfo=UTC)
        self._changed = asyncio.Condition()

    async def append(self, append: Append) -> Outcome:
        check_append(append)
        keys = await self._mapper.keys_for(event for write in append.writes for event in write.events)
        states = [
            [(self._mapper.category(event), *self._mapper.state_of(event, keys)) for event in write.events]
            for write in append.writes
        ]
        if (before := self._outcomes.get(append.command_id)) is not None:
            return Duplicate(before)
        for write in append.writes:
            actual = len(self._streams.get(write.stream, ()))
            if write.expected is not None and write.expected != actual:
                return WrongVersion(write.stream, actual)
        at = self._now()
        placed = tuple(
            self._place(write.stream, shard_of(write.key), some, at, append)
            for write, some in zip(append.writes, states, strict=True)
        )
        for row in append.index:
            self._write_index(row.table, row.key, row.values)
        outcome = self._outcomes[append.command_id] = Appended(placed, at)
        await self._tell()
        return outcome

    async def post_message(self, post: ChatPost) -> Outcome:
        check_post(post)
        keys = await self._mapper.keys_for([post.event])
        topic, state = self._mapper.state_of(post.event, keys)
        if (before := self._outcomes.get(post.command_id)) is not None:
            return Duplicate(before)
        at = self._now()
        author = (post.channel_id, post.author_id)
        last_at, last_digest = self._last_posts.get(author, (None, None))
        refused = self._admit(
            post,
            now=at,
            ban=self._index["chat_bans"].get(author),
            mode=self._index["chat_modes"].get((post.channel_id,)),
            role=self._index["channel_roles"].get(author, {}).get("role"),
            last_at=last_at,
            last_digest=last_digest,
        )
        if refused is not None:
            if refused.wait_s is None:
                self._outcomes[post.command_id] = refused
            return refused
        self._last_posts[author] = (at, post.text_digest)
        command = Append(post.command_id, (), actor=post.author_id)
        stored = [(self._mapper.category(post.event), topic, state)]
        placed = self._place(f"chat-{post.channel_id}", shard_of(post.channel_id), stored, at, command)
        outcome = self._outcomes[post.command_id] = Appended((placed,), at)
        await self._tell()
        return outcome

    async def read_stream(self, stream: str, *, after: int = 0, limit: int = 1000) -> list[Recorded]:
        return await self._at(self._streams.get(stream, [])[after : after + limit])

    async def read_stream_tail(self, stream: str, *, limit: int) -> list[Recorded]:
        return await self._at(self._streams.get(stream, [])[-limit:] if limit else [])

    async def read_shard(
        self, shard: int, *, after: int, limit: int = 1000, categories: Iterable[str] | None = None
    ) -> list[Recorded]:
        wanted = None if categories is None else set(categories)
        rows = [row for row in self._shards[shard][after:] if wanted is None or row[0] in wanted]
        return await self._mapper.decode(shard, None, [event for _, event in rows[:limit]])

    async def heads(self) -> list[int]:
        return [len(events) for events in self._shards]

    async def subscribe(self, after: Mapping[int, int]) -> AsyncIterator[list[Recorded]]:
        positions = dict(after)
        while True:
            for shard, position in positions.items():
                batch = await self.read_shard(shard, after=position, limit=SUBSCRIPTION_BATCH_MAX)
                if batch:
                    positions[shard] = batch[-1].position
                    yield batch
            async with self._changed:
                await self._changed.wait_for(
                    lambda: any(len(self._shards[shard]) > position for shard, position in positions.items())
                )

    async def index_row(self, table: str, key: Mapping[str, Any]) -> Mapping[str, Any] | None:
        index.check(table, key, None)
        known = index.TABLES[table]
        values = self._index[table].get(tuple(key[column] for column in known.key))
        return None if values is None else {**key, **values}

    async def index_rows(self, table: str, where: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        index.check_columns(table, where)
        columns = index.TABLES[table].key
        rows = [dict(zip(columns, key, strict=True)) | values for key, values in sorted(self._index[table].items())]
        return [row for row in rows if where.items() <= row.items()][: index.ROWS_MAX]

    async def index_table(self, table: str) -> Sequence[Mapping[str, Any]]:
        known = index.of(table)
        return [
            {**dict(zip(known.key, key, strict=True)), **values} for key, values in sorted(self._index[table].items())
        ]

    async def erase_person(self, account_id: str) -> None:
        await self._mapper.keys.erase(account_id)

    # What projections read (`projections.runner.Log`): stored events, decoded later and only where wanted.

    async def events(
        self, spans: Mapping[int, tuple[int, int]], *, categories: Iterable[str], topics: Iterable[str], limit: int
    ) -> Mapping[int, Sequence[WireEvent]]:
        wanted, kinds = set(topics), set(categories)
        return {
            shard: [
                event
                for category, event in self._shards[shard][after:upto]
                if event.topic in wanted and category in kinds
            ][:limit]
            for shard, (after, upto) in spans.items()
        }

    async def tails(self) -> Mapping[int, Mapping[str, int]]:
        return {
            shard: {category: event.position for category, event in events}
            for shard, events in enumerate(self._shards)
            if events
        }

    async def decode(self, shard: int, events: Sequence[WireEvent]) -> Sequence[Recorded]:
        return await self._mapper.decode(shard, None, events)

    def _place(
        self, stream: str, shard: int, states: Sequence[tuple[str, str, bytes]], at: datetime, append: Append
    ) -> Placed:
        versions, log = self._streams[stream], self._shards[shard]
        for category, topic, state in states:
            position = len(log) + 1
            versions.append((shard, position))
            log.append(
                (
                    category,
                    WireEvent(
                        position, stream, len(versions), topic, at, append.actor, append.command_id,
                        append.correlation_id, append.causation_id, state,
                    ),
                )
            )  # fmt: skip
        return Placed(stream, len(versions), shard, len(log))

    def _write_index(self, table: str, key: Mapping[str, Any], values: Mapping[str, Any] | None) -> None:
        row = tuple(key[column] for column in index.TABLES[table].key)
        if values is None:
            self._index[table].pop(row, None)
        else:
            self._index[table][row] = dict(values)

    async def _at(self, places: Sequence[tuple[int, int]]) -> list[Recorded]:
        if not places:
            return []
        shard = places[0][0]
        return await self._mapper.decode(shard, None, [self._shards[shard][position - 1][1] for _, position in places])

    def _now(self) -> datetime:
        """The recorded time never falls back, whatever the clock does."""
        self._last_at = max(self._last_at, self._clock())
        return self._last_at

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
