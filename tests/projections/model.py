"""A log in memory and read models applied one change at a time: what the runner's results are held against."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from domain import chat, follow
from domain.channel import ModeratorAppointed
from domain.chat import MessagePosted, UserBanned
from domain.event import Event
from domain.follow import ChannelFollowed, ChannelUnfollowed
from domain.topics import BY_TOPIC
from eventstore import wire
from eventstore.port import Recorded, shard_of
from eventstore.wire import WireEvent, WireRecord
from projections import checkpoints
from projections.checkpoints import Pool
from projections.projection import Projection
from projections.rows import Change, Delete, Insert, Key, Patch, Put, Table
from tests.histories import Said

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class MemoryLog:
    """Shards of stored events, with the relay's view of them; states are the events' plain JSON."""

    def __init__(self) -> None:
        self.shards: dict[int, list[WireEvent]] = defaultdict(list)
        self.reads = 0
        self._versions: dict[str, int] = defaultdict(int)

    def append(self, stream: str, key: str, event: Event, *, actor: str | None = None) -> WireEvent:
        shard = shard_of(key)
        position = len(self.shards[shard]) + 1
        self._versions[stream] += 1
        stored = WireEvent(
            position, stream, self._versions[stream], event.TOPIC, EPOCH + timedelta(seconds=position), actor,
            UUID(int=position), None, None, event.model_dump_json().encode(),
        )  # fmt: skip
        self.shards[shard].append(stored)
        return stored

    async def events(
        self, spans: Mapping[int, tuple[int, int]], *, categories: Iterable[str], topics: Iterable[str], limit: int
    ) -> Mapping[int, Sequence[WireEvent]]:
        self.reads += 1
        wanted = set(topics)
        return {
            shard: [event for event in self.shards[shard] if after < event.position <= upto and event.topic in wanted][
                :limit
            ]
            for shard, (after, upto) in spans.items()
        }

    async def tails(self) -> Mapping[int, Mapping[str, int]]:
        return {shard: self.tails_at(shard, len(events)) for shard, events in self.shards.items()}

    def tails_at(self, shard: int, upto: int) -> dict[str, int]:
        return {category_of(event): event.position for event in self.shards[shard][:upto]}

    async def decode(self, shard: int, events: Sequence[WireEvent]) -> Sequence[Recorded]:
        return [recorded(shard, event) for event in events]

    def all(self) -> list[WireEvent]:
        return [event for events in self.shards.values() for event in events]

    def count(self, topic: str) -> int:
        return sum(event.topic == topic for event in self.all())

    def heads(self) -> dict[int, int]:
        return {shard: len(events) for shard, events in self.shards.items()}

    def records(self, cuts: Iterable[int] = ()) -> list[WireRecord]:
        """What a relay that stopped at these positions would have sent, each through the wire and back."""
        sent: list[WireRecord] = []
        for shard, events in self.shards.items():
            bounds = sorted({0, len(events), *(min(cut, len(events)) for cut in cuts)})
            for before, upto in zip(bounds, bounds[1:], strict=False):  # noqa: RUF007
                batch = defaultdict(list)
                for event in events[before:upto]:
                    batch[category_of(event)].append(event)
                tails, earlier = self.tails_at(shard, upto), self.tails_at(shard, before)
                for category, some in batch.items():
                    prev = earlier.get(category, 0)
                    data = wire.records(shard, category, some, prev=prev, upto=upto, tails=tails)
                    sent.extend(wire.decode(one) for one in data)
        return sent


def category_of(event: WireEvent) -> str:
    return BY_TOPIC[event.topic].CATEGORY.value


def recorded(shard: int, stored: WireEvent) -> Recorded:
    return Recorded(
        stream=stored.stream, version=stored.version, shard=shard, position=stored.position, topic=stored.topic,
        category=category_of(stored), at=stored.at, actor=stored.actor, command_id=stored.command_id,
        correlation_id=stored.correlation_id, causation_id=stored.causation_id,
        event=BY_TOPIC[stored.topic].model_validate_json(stored.state),
    )  # fmt: skip


Rows = dict[Key, dict[str, Any]]


def apply(rows: Rows, change: Change, fresh: Mapping[str, Any]) -> None:
    """One change as its docstring says it, with no folding."""
    if isinstance(change, Insert):
        table, keys = change.table, len(change.table.key)
        assert change.row[:keys] not in rows, "such a key comes once"
        rows[change.row[:keys]] = dict(zip(table.columns, change.row[keys:], strict=True))
    elif isinstance(change, Delete):
        rows.pop(change.key, None)
    elif isinstance(change, Patch):
        if change.key in rows:
            rows[change.key].update(change.values)
    elif isinstance(change, Put):
        rows.setdefault(change.key, dict(fresh)).update(change.values)
    else:
        row = rows.setdefault(change.key, dict(fresh))
        for column, delta in change.values.items():
            row[column] += delta


DEFAULTS: Mapping[str, Any] = {
    "followers": 0, "subscribers": 0, "debit_minor": 0, "credit_minor": 0, "postings": 0, "tags": "[]", "chat_mode": "{}",
    "subscribers_only_playback": False,
}  # fmt: skip


def expected(projection: Projection, log: MemoryLog) -> dict[Table, Rows]:
    """The rows of a projection, one event and one change at a time."""
    return expected_of(projection, (recorded(shard, one) for shard, events in log.shards.items() for one in events))


def expected_of(projection: Projection, events: Iterable[Recorded]) -> dict[Table, Rows]:
    """The same, of events that are in order within each shard."""
    tables: dict[Table, Rows] = {table: {} for table in projection.tables}
    for one in events:
        for change in projection.rows_for(one):
            new = {column: DEFAULTS.get(column) for column in change.table.columns}
            apply(tables[change.table], change, new)
    return {table: {key: _plain(table, row) for key, row in rows.items()} for table, rows in tables.items()}


async def found(connection: Any, projection: Projection, schema: str | None = None) -> dict[Table, Rows]:
    """The rows of a projection as they stand in Postgres."""
    tables: dict[Table, Rows] = {}
    for table in projection.tables:
        names = [*table.key, *table.columns]
        rows = await connection.fetch(f"SELECT {', '.join(names)} FROM {schema or projection.schema}.{table.name}")
        tables[table] = {
            tuple(row[name] for name in table.key): _plain(table, {name: row[name] for name in table.columns})
            for row in rows
        }
    return tables


def _plain(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose JSON is read: Postgres writes it its own way."""
    return {
        name: orjson.loads(value) if value is not None and table.columns[name] == "jsonb" else value
        for name, value in row.items()
    }


CHANNELS = ("c1", "c2", "c3")
PEOPLE = ("ann", "bob")
_KINDS = ("post", "follow", "post", "ban", "appoint", "unfollow")


def event_of(kind: str, channel_id: str, person: str, number: int) -> tuple[str, Event]:
    """The stream and the event of one step."""
    moderator = {"moderator_id": "m", "moderator": "mod"}
    match kind:
        case "follow":
            return follow.stream(channel_id, person), ChannelFollowed(channel_id=channel_id, account_id=person)
        case "unfollow":
            return follow.stream(channel_id, person), ChannelUnfollowed(channel_id=channel_id, account_id=person)
        case "appoint":
            return f"channel-{channel_id}", ModeratorAppointed(
                channel_id=channel_id, account_id=person, username=person
            )
        case "ban":
            banned = UserBanned(channel_id=channel_id, account_id=person, username=person, **moderator)
            return chat.stream(channel_id), banned
        case _:
            posted = MessagePosted(
                channel_id=channel_id, message_id=f"m{number}", author_id=person, username=person, text=f"text {number}"
            )
            return chat.stream(channel_id), posted


def log_of(steps: Iterable[tuple[str, str, str]]) -> MemoryLog:
    log = MemoryLog()
    for number, (kind, channel_id, person) in enumerate(steps):
        stream, event = event_of(kind, channel_id, person, number)
        log.append(stream, channel_id, event, actor="owner")
    return log


def kinds_of(projection: Projection) -> list[type[Event]]:
    """The kinds of event that a projection makes rows of."""
    return [event for event in BY_TOPIC.values() if event.TOPIC in projection.topics]


def log_of_history(history: Iterable[Said]) -> MemoryLog:
    log = MemoryLog()
    for stream, key, event in history:
        log.append(stream, key, event, actor="owner")
    return log


def busy_log() -> MemoryLog:
    """A log with everything that two projections share, in three channels."""
    return more(MemoryLog(), 240)


def more(log: MemoryLog, count: int) -> MemoryLog:
    for number in range(first := len(log.all()), first + count):
        stream, event = event_of(_KINDS[number % 6], channel_id := CHANNELS[number % 3], PEOPLE[number % 2], number)
        log.append(stream, channel_id, event, actor="owner")
    return log


async def fresh(pool: Pool, projection: Projection) -> None:
    """The projection's schema, newly made and empty."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(f"DROP SCHEMA IF EXISTS {projection.schema} CASCADE")
        await checkpoints.create(connection, projection)
