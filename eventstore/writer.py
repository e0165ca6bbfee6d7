"""Group commit: what concurrent callers queued is written in one database call, and every caller gets its own outcome.

There is no linger: the next batch forms while the last one commits. Called by `eventstore.postgres`, and by the `append` benchmark at this
level. It knows rows and bytes, never events; the decisions are the database function's (`schema/`), which see.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

import asyncpg
import structlog
from prometheus_client import Counter, Histogram

from eventstore.errors import StoreError, StoreUnavailable
from eventstore.port import Outcome

BATCH_MAX: Final = 256
"""Commands in one call."""
QUEUED_MAX: Final = 20_000
"""Commands waiting in one lane; more are turned away, for a store so far behind answers nobody in time."""
RECONNECT_S_MAX: Final = 2.0
RACES_MAX: Final = 3

FAULTS_OF_CONNECTION: Final = (
    OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError, asyncpg.CrashShutdownError, asyncpg.TooManyConnectionsError, TimeoutError,
    asyncpg.InternalClientError,
)  # fmt: skip
"""The last is what asyncpg says, as often as not, of a session that Postgres ended while it was idle."""

_batches = Histogram(
    "tallylight_append_batch_size", "Commands in one group commit", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
_singly = Counter("tallylight_append_batches_retried_singly_total", "Batches that one command's data had failed")

Connection = Any
"""asyncpg's connection; its stubs make the row type part of it, which nobody here reads."""

log = structlog.get_logger()


class Grouped(Protocol):
    """A command that may share a call. `alone`: keys no other command of the batch may have; `shared`: keys it may only share."""

    @property
    def alone(self) -> Sequence[object]: ...

    @property
    def shared(self) -> Sequence[object]: ...


Item = TypeVar("Item", bound=Grouped)


class BadCommand(StoreError):
    """The database refuses this command's data: a fault of the caller, and no other command's."""


class Lane(Generic[Item]):
    """One connection's group commit. Shards are dealt to lanes, so that two lanes seldom want the same head."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        write: Callable[[Connection, Sequence[Item]], Awaitable[Sequence[Outcome]]],
    ) -> None:
        self._connect = connect
        self._write = write
        self._queue: deque[tuple[Item, asyncio.Future[Outcome]]] = deque()
        self._wake = asyncio.Event()
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._connection = await self._connect()
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """What was queued is told that the store is away."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._fail(list(self._queue), StoreUnavailable("the store is closing"))
        self._queue.clear()
        if self._connection is not None and not self._connection.is_closed():
            await self._connection.close(timeout=5)

    def submit(self, item: Item) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self._task is None or self._task.done():
            future.set_exception(StoreUnavailable("the store is closed"))
        elif len(self._queue) >= QUEUED_MAX:
            future.set_exception(StoreUnavailable("too many commands wait already"))
        else:
            self._queue.append((item, future))
            self._wake.set()
        return future

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            # Whoever is ready to run in this turn of the loop comes along, those who were just answered among them: fewer and larger
            # batches cost less, and a first comer would otherwise travel alone.
            await asyncio.sleep(0)
            batch = self._take()
            if not batch:
                self._wake.clear()
                continue
            try:
                await self._commit(batch)
            except asyncio.CancelledError:
                self._fail(batch, StoreUnavailable("the store is closing"))
                raise
            except FAULTS_OF_CONNECTION as fault:
                self._fail(batch, StoreUnavailable(f"the event store is away: {fault}"))
                await self._reconnect()
            except Exception as fault:
                log.exception("group commit failed", commands=len(batch))
                self._fail(batch, StoreError(str(fault)))

    def _take(self) -> list[tuple[Item, asyncio.Future[Outcome]]]:
        """The next commands that may share a call; one that may not stays, and keeps its place before those it conflicts with."""
        batch: list[tuple[Item, asyncio.Future[Outcome]]] = []
        later: list[tuple[Item, asyncio.Future[Outcome]]] = []
        alone: set[object] = set()
        taken: set[object] = set()
        queue = self._queue
        while queue and len(batch) < BATCH_MAX:
            entry = queue.popleft()
            item, future = entry
            if future.cancelled():
                continue
            if taken.isdisjoint(item.alone) and alone.isdisjoint(item.shared):
                batch.append(entry)
            else:
                later.append(entry)
            alone.update(item.alone)
            taken.update(item.alone)
            taken.update(item.shared)
        queue.extendleft(reversed(later))
        return batch

    async def _commit(self, batch: Sequence[tuple[Item, asyncio.Future[Outcome]]], attempt: int = 0) -> None:
        _batches.observe(len(batch))
        connection = self._connection
        try:
            outcomes = await self._write(connection, [item for item, _ in batch])
        except (asyncpg.PostgresError, ValueError, OverflowError) as fault:
            if isinstance(fault, FAULTS_OF_CONNECTION):
                raise
            if isinstance(fault, asyncpg.UniqueViolationError) and attempt < RACES_MAX:
                # Another process wrote this very command between our look and our insert: the next look finds its outcome.
                for entry in batch:
                    await self._commit([entry], attempt + 1)
                return
            if len(batch) == 1:
                self._fail(batch, BadCommand(str(fault)))
                return
            _singly.inc()
            for entry in batch:
                await self._commit([entry])
            return
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if not future.done():
                future.set_result(outcome)

    async def _reconnect(self) -> None:
        """Until the database is back. Who comes meanwhile is told at once that it is away."""
        wait_s = 0.05
        while True:
            self._fail(list(self._queue), StoreUnavailable("the event store is away"))
            self._queue.clear()
            try:
                if self._connection is not None and not self._connection.is_closed():
                    self._connection.terminate()
                self._connection = await self._connect()
                return
            except (*FAULTS_OF_CONNECTION, asyncpg.PostgresError):
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, RECONNECT_S_MAX)

    @staticmethod
    def _fail(batch: Sequence[tuple[Item, asyncio.Future[Outcome]]], fault: StoreError) -> None:
        for _, future in batch:
            if not future.done():
                future.set_exception(fault)


class Writer(Generic[Item]):
    """Lanes by shard. A command of several shards goes by its first: the database takes the heads in order, whatever the lane."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        write: Callable[[Connection, Sequence[Item]], Awaitable[Sequence[Outcome]]],
        *,
        lanes: int,
    ) -> None:
        self._lanes = [Lane(connect, write) for _ in range(lanes)]

    async def open(self) -> None:
        for lane in self._lanes:
            await lane.open()

    async def close(self) -> None:
        for lane in self._lanes:
            await lane.close()

    def submit(self, item: Item, shard: int) -> asyncio.Future[Outcome]:
        return self._lanes[shard % len(self._lanes)].submit(item)
