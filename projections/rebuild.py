"""Rebuilds a read model from the event store beside the live one, then swaps them: no downtime, no half rows.

`tallylight projections rebuild NAME` calls `rebuild`; a projector calls `prepare` for what is missing or was made for other tables.
Only rows are written: nothing that acts on the world listens here. One rebuild of a projection at a time, held by an advisory lock.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import asyncpg
import structlog

from eventstore.port import SHARDS
from eventstore.wire import WireEvent
from projections import checkpoints
from projections.checkpoints import Current, Missing, Outdated, Pool
from projections.projection import Projection
from projections.registry import PROJECTIONS, projection
from projections.rows import Change, Connection, write
from projections.runner import Log

log_ = structlog.get_logger()

_LOCK_SPACE: Final = 1_413_565_010
"""The first key of the advisory locks taken here; the second is the hash of the projection's name."""
EVENTS_PER_CHUNK: Final = 10_000
"""Events in one transaction of a rebuild, dealt evenly to the shards that are behind; three chunks are in hand at a time."""
EVENTS_PER_SHARD_MIN: Final = 50
INDEXED_AT_ONCE: Final = 2
"""As many connections as a rebuild has anyway, for reading and for writing."""
CATCH_UPS_MAX: Final = 20
SWAP_EVENTS_MAX: Final = 500
"""So few new events that the live rows may stand still for as long as they take."""
STATEMENT_S_MAX: Final = 120.0
INDEX_S_MAX: Final = 3600.0
DROPS_MAX: Final = 20
DROP_LOCK_MS: Final = 250
DROP_PAUSE_S: Final = 0.5
REBUILD_EVENTS_MIN: Final = 50_000
"""A new projection over a log longer than this is built beside; over a shorter one it just follows the log from its beginning."""
OTHER_REBUILD_POLL_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Progress:
    """Told as a rebuild goes: events applied so far, and the positions (summed over shards) done and to do."""

    name: str
    events: int
    position: int
    target: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Rebuilt:
    name: str
    events: int
    seconds: float


@dataclass(frozen=True, slots=True)
class AlreadyRebuilding:
    """Another process is at it."""

    name: str


RebuildOutcome = Rebuilt | AlreadyRebuilding


async def rebuild(
    name: str, *, pool: Pool, log: Log, progress: Callable[[Progress], None] = lambda _: None
) -> RebuildOutcome:
    """Rebuild the projection `name`. Raises `UnknownProjection`, and `StoreUnavailable` when the store goes away: the live rows stay."""
    one = projection(name)
    async with pool.acquire() as connection:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1, hashtext($2))", _LOCK_SPACE, name):
            return AlreadyRebuilding(name)
        try:
            return await _Rebuild(one, connection, pool, log, progress).run()
        finally:
            if not connection.is_closed():
                await connection.execute("SELECT pg_advisory_unlock($1, hashtext($2))", _LOCK_SPACE, name)


class _Rebuild:
    """One rebuild, by who holds its lock."""

    def __init__(
        self, one: Projection, connection: Connection, pool: Pool, log: Log, progress: Callable[[Progress], None]
    ) -> None:
        self._one = one
        self._connection = connection
        self._pool = pool
        self._log = log
        self._progress = progress
        self._next = f"{one.schema}_next"
        self._old = f"{one.schema}_old"
        self._events = 0
        self._position = dict.fromkeys(range(SHARDS), 0)
        self._started = time.monotonic()

    async def run(self) -> Rebuilt:
        await self._drop(self._next)
        await self._drop(self._old)
        async with self._connection.transaction():
            await checkpoints.create(self._connection, self._one, schema=self._next, indexes=False)
        await self._fill(await self._targets())
        await self._index()
        for table in self._one.tables:
            await self._connection.execute(f"ANALYZE {self._next}.{table.name}")
        # What was appended meanwhile, until little is left for the moment in which the live one stands still.
        for _ in range(CATCH_UPS_MAX):
            before = self._events
            await self._fill(await self._targets())
            if self._events - before < SWAP_EVENTS_MAX:
                break
        await self._swap()
        await self._drop(self._old)
        return Rebuilt(self._one.name, self._events, time.monotonic() - self._started)

    async def _targets(self) -> dict[int, int]:
        """Each shard's last position that concerns the projection."""
        tails = await self._log.tails()
        return {
            shard: max((categories.get(category, 0) for category in self._one.categories), default=0)
            for shard, categories in tails.items()
        }

    async def _fill(self, targets: Mapping[int, int]) -> None:
        """Apply everything up to the targets: while one chunk is written, the next is decoded and the one after it read."""
        position = dict(self._position)
        reading = asyncio.ensure_future(self._read(position, targets))
        writing: asyncio.Future[None] | None = None
        try:
            while (chunk := await reading) is not None:
                position |= chunk.reached
                reading = asyncio.ensure_future(self._read(position, targets))
                changes = await self._changes(chunk.events)
                if writing is not None:
                    await writing
                writing = asyncio.ensure_future(self._write(changes, chunk.reached, targets))
            if writing is not None:
                await writing
        finally:
            await _ended(reading, writing)

    async def _read(self, position: Mapping[int, int], targets: Mapping[int, int]) -> "_Chunk | None":
        behind = {shard: (position[shard], upto) for shard, upto in targets.items() if position[shard] < upto}
        if not behind:
            return None
        limit = max(EVENTS_PER_SHARD_MIN, EVENTS_PER_CHUNK // len(behind))
        one = self._one
        found = await self._log.events(behind, categories=one.categories, topics=one.topics, limit=limit)
        reached = {
            shard: upto if len(found.get(shard, ())) < limit else found[shard][-1].position
            for shard, (_, upto) in behind.items()
        }
        return _Chunk(found, reached)

    async def _changes(self, events: Mapping[int, Sequence[WireEvent]]) -> list[Change]:
        changes: list[Change] = []
        for shard, some in events.items():
            for recorded in await self._log.decode(shard, some):
                changes.extend(self._one.rows_for(recorded))
            self._events += len(some)
            await asyncio.sleep(0)  # the other stages' sockets are served between shards
        return changes

    async def _write(self, changes: Sequence[Change], reached: Mapping[int, int], targets: Mapping[int, int]) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            # The swap's commit makes all of it durable; until then a crash costs the rebuild, not the read model.
            await connection.execute("SET LOCAL synchronous_commit = off")
            await checkpoints.move(connection, self._next, self._position, reached)
            await write(connection, self._next, changes, statement_s_max=STATEMENT_S_MAX)
        self._position |= reached
        done, todo = sum(self._position.values()), sum(targets.values())
        self._progress(Progress(self._one.name, self._events, done, todo, time.monotonic() - self._started))

    async def _index(self) -> None:
        """Each core makes its share: nothing else is to be done meanwhile."""
        left = list(self._one.indexes)

        async def make() -> None:
            async with self._pool.acquire() as connection:
                while left:
                    statement = left.pop()
                    async with connection.transaction():
                        await connection.execute(f"SET LOCAL search_path = {self._next}")
                        await connection.execute(statement, timeout=INDEX_S_MAX)

        async with asyncio.TaskGroup() as group:
            for _ in range(INDEXED_AT_ONCE):
                group.create_task(make())

    async def _swap(self) -> None:
        """The new schema takes the live one's name, having at least everything it had."""
        live, connection = self._one.schema, self._connection
        async with connection.transaction():
            if not isinstance(await checkpoints.state(connection, self._one), Missing):
                # Whoever writes the live rows waits here, and then finds its checkpoint gone: see `checkpoints.move`.
                rows = await connection.fetch(f"DELETE FROM {live}.checkpoints RETURNING shard, position")
                await self._fill({row["shard"]: row["position"] for row in rows})
                await connection.execute(f"ALTER SCHEMA {live} RENAME TO {self._old}")
            await connection.execute(f"ALTER SCHEMA {self._next} RENAME TO {live}")

    async def _drop(self, schema: str) -> None:
        """Readers that are still at it are waited for in short steps, so that none queues behind us for long."""
        for _ in range(DROPS_MAX):
            try:
                async with self._connection.transaction():
                    await self._connection.execute(f"SET LOCAL lock_timeout = '{DROP_LOCK_MS}ms'")
                    await self._connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
                return
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                await asyncio.sleep(DROP_PAUSE_S)
        log_.warning(
            "projections.rebuild", problem="old rows are still being read; the next rebuild drops them", schema=schema
        )


class _Chunk(NamedTuple):
    events: Mapping[int, Sequence[WireEvent]]
    reached: Mapping[int, int]


async def _ended(*futures: "asyncio.Future[Any] | None") -> None:
    running = [future for future in futures if future is not None]
    for future in running:
        future.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def prepare(pool: Pool, log: Log, projections: Iterable[Projection] = PROJECTIONS.values()) -> None:
    """Bring every schema to this program's shape before its rows are written.

    What is missing is created, what is outdated or far behind rebuilt; where another process is already at it, this waits for that one.
    """
    wanted = list(projections)
    await checkpoints.ensure(pool, wanted)
    events = sum(max(categories.values()) for categories in (await log.tails()).values())
    for one in wanted:
        while await _needs_rebuild(pool, one, events):
            log_.info("projections.rebuild", projection=one.name)
            outcome = await rebuild(one.name, pool=pool, log=log)
            if isinstance(outcome, Rebuilt):
                log_.info("projections.rebuilt", projection=one.name, events=outcome.events, seconds=outcome.seconds)
                break
            await asyncio.sleep(OTHER_REBUILD_POLL_S)


async def _needs_rebuild(pool: Pool, one: Projection, events: int) -> bool:
    async with pool.acquire() as connection:
        match await checkpoints.state(connection, one):
            case Current():
                untouched = not any((await checkpoints.load(connection, one.schema)).values())
                return untouched and events >= REBUILD_EVENTS_MIN
            case Outdated() | Missing():
                return True
