"""Applies the log to one projection: rows and checkpoint in one Postgres transaction, gaps filled from the store, repeats skipped.

`lane` feeds it what Kafka brings and sweeps; `rebuild` runs it over a schema beside the live one. It trusts no order of arrival:
the checkpoint alone says what was applied, and it moves by compare-and-set, so that a worker which lost its shard unknowingly writes
nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from prometheus_client import Counter

from eventstore.port import Recorded
from eventstore.wire import WireEvent, WireRecord
from projections import checkpoints
from projections.checkpoints import Current, MadeForAnother, Overtaken, Pool
from projections.projection import Projection
from projections.rows import Change, write

FILL_EVENTS_MAX: Final = 5_000
"""Events read from the store at a time, and so in one transaction, when gaps are filled."""
OVERTAKEN_MAX: Final = 5
"""How often one piece of work is begun anew because another worker moved a checkpoint."""

_events = Counter("tallylight_projection_events_total", "Events applied", ["projection"])
_repeats = Counter("tallylight_projection_repeats_total", "Records skipped as already applied", ["projection"])
_gaps = Counter("tallylight_projection_gaps_total", "Gaps filled from the event store", ["projection"])
_overtaken = Counter(
    "tallylight_projection_overtaken_total", "Transactions rolled back: another worker was there", ["projection"]
)


class Log(Protocol):
    """What projections read of the event store. Every method may raise `StoreUnavailable`."""

    async def events(
        self, spans: Mapping[int, tuple[int, int]], *, categories: Iterable[str], topics: Iterable[str], limit: int
    ) -> Mapping[int, Sequence[WireEvent]]:
        """The first `limit` events of each shard in its (after, upto], of these categories and topics, in order."""
        ...

    async def tails(self) -> Mapping[int, Mapping[str, int]]:
        """The last position of each category in each shard that has events."""
        ...

    async def decode(self, shard: int, events: Sequence[WireEvent]) -> Sequence[Recorded]:
        """Stored events of one shard as recorded ones: decrypted, upcast, validated."""
        ...


class Runner:
    """One projection's rows and checkpoints in one schema. Not for two tasks at once."""

    def __init__(self, projection: Projection, log: Log, pool: Pool, *, schema: str | None = None) -> None:
        self.projection = projection
        self.schema = schema or projection.schema
        self._log = log
        self._pool = pool
        self._stored: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        self.parked: set[int] = set()
        """Shards that stand still at an event which cannot be applied."""

    async def open(self) -> None:
        """Read the checkpoints. Before anything else, and again whenever another worker may have moved them.

        Raises MadeForAnother: rows of another version of the projection are not ours to write.
        """
        async with self._pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
            if not isinstance(await checkpoints.state(connection, self.projection, schema=self.schema), Current):
                raise MadeForAnother(self.schema)
            self._stored = await checkpoints.load(connection, self.schema)
        self._seen = dict(self._stored)

    async def park(self, shard: int, error: str) -> None:
        """Leave a shard where it stands until `unpark`, or another process, tries again. `status` shows it for that long."""
        self.parked.add(shard)
        await self.flush()
        await self._pool.execute(
            f"""INSERT INTO {self.schema}.parked (shard, position, error)
                SELECT shard, position, $2 FROM {self.schema}.checkpoints WHERE shard = $1
                ON CONFLICT (shard) DO UPDATE SET position = excluded.position, error = excluded.error, at = now()""",
            shard,
            error,
        )

    def unpark(self) -> None:
        """Try the parked shards again."""
        self.parked.clear()

    @property
    def positions(self) -> Mapping[int, int]:
        """Up to where each shard is applied. The stored checkpoint may lag behind where nothing in between concerned this projection."""
        return self._seen

    async def take(self, records: Sequence[WireRecord]) -> None:
        """Apply what Kafka brought, in whatever order and however often it was brought. Raises Overtaken when that never ends."""
        for _ in range(OVERTAKEN_MAX):
            try:
                await self._take(records)
                return
            except Overtaken:
                await self._reopen()
        raise Overtaken(self.schema)

    async def _take(self, records: Sequence[WireRecord]) -> None:
        events: dict[int, list[WireEvent]] = {}
        upto: dict[int, int] = {}
        for record in records:
            shard = record.shard
            if record.category not in self.projection.categories or shard in self.parked:
                continue
            at = upto.get(shard, self._seen[shard])
            if record.upto <= at:
                _repeats.labels(self.projection.name).inc()
            elif record.follows(at, self.projection.categories):
                topics = self.projection.topics
                fresh = [event for event in record.events if event.position > at and event.topic in topics]
                events.setdefault(shard, []).extend(fresh)
                upto[shard] = record.upto
            else:
                _gaps.labels(self.projection.name).inc()
                await self._write(events, upto)
                events, upto = {}, {}
                await self._fill({shard: record.upto}, FILL_EVENTS_MAX)
        await self._write(events, upto)

    async def catch_up(self, targets: Mapping[int, int], *, limit: int = FILL_EVENTS_MAX) -> None:
        """Apply each shard's events up to its target from the store, at most `limit` in a transaction."""
        for _ in range(OVERTAKEN_MAX):
            try:
                await self._fill(targets, limit)
                return
            except Overtaken:
                await self._reopen()
        raise Overtaken(self.schema)

    async def _fill(self, targets: Mapping[int, int], limit: int) -> None:
        while behind := {
            shard: (self._seen[shard], upto)
            for shard, upto in targets.items()
            if self._seen[shard] < upto and shard not in self.parked
        }:
            each = max(1, limit // len(behind))
            found = await self._log.events(
                behind, categories=self.projection.categories, topics=self.projection.topics, limit=each
            )
            reached = {
                shard: upto if len(found.get(shard, ())) < each else found[shard][-1].position
                for shard, (_, upto) in behind.items()
            }
            await self._write(found, reached)

    async def flush(self) -> None:
        """Store the checkpoints that moved past events of no concern."""
        moved = {shard: position for shard, position in self._seen.items() if position != self._stored[shard]}
        if not moved:
            return
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await checkpoints.move(connection, self.schema, self._stored, moved)
        except Overtaken:
            await self._reopen()
            return
        self._stored.update(moved)

    async def _write(self, events: Mapping[int, Sequence[WireEvent]], upto: Mapping[int, int]) -> None:
        changes: list[Change] = []
        touched: dict[int, int] = {}
        count = 0
        for shard, some in events.items():
            if not some:
                continue
            before = len(changes)
            for recorded in await self._log.decode(shard, some):
                changes.extend(self.projection.rows_for(recorded))
            count += len(some)
            if len(changes) > before:
                touched[shard] = upto[shard]
        if changes:
            async with self._pool.acquire() as connection, connection.transaction():
                await checkpoints.move(connection, self.schema, self._stored, touched)
                await write(connection, self.schema, changes)
            self._stored.update(touched)
        self._seen.update(upto)
        _events.labels(self.projection.name).inc(count)

    async def _reopen(self) -> None:
        _overtaken.labels(self.projection.name).inc()
        await self.open()
