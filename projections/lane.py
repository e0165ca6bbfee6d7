"""One projection's lane in a process: takes records as Kafka brings them, in batches, and what they left out from the store; one at a time.

`worker` runs a lane a projection. A fault of an engine is waited out for ever; a fault of an event or of a handler is retried, then its
shard is parked, in sight of `status` and `/readyz`, while the others go on. Nothing fails in silence.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Set
from functools import partial
from typing import Final, NamedTuple

import asyncpg
import structlog
from prometheus_client import Counter, Gauge

from eventstore.errors import StoreUnavailable
from eventstore.wire import WireRecord
from eventstore.writer import FAULTS_OF_CONNECTION
from projections.checkpoints import MadeForAnother, Overtaken
from projections.runner import FILL_EVENTS_MAX, Runner

log = structlog.get_logger()

QUEUED_EVENTS_MAX: Final = 40_000
"""Events waiting in a lane; who brings more waits."""
BATCH_EVENTS_MAX: Final = 10_000
"""Events in one transaction, the last record's on top."""
FAULTS_MAX: Final = 4
"""How often work is tried before its shard is parked."""
RETRY_S_MIN: Final = 0.05
RETRY_S_MAX: Final = 5.0
PARKED_RETRY_S: Final = 300.0
FAULT_CHARS_MAX: Final = 500
_TRANSIENT: Final = ("08", "0A", "25", "40", "53", "55", "57", "58", "XX")
"""SQLSTATE classes that say something of the server and nothing of our rows (PostgreSQL, appendix A)."""

_retries = Counter("tallylight_projection_retries_total", "Work begun again after a fault", ["projection", "why"])
_parked = Gauge("tallylight_projection_parked_shards", "Shards that stand still at a faulty event", ["projection"])

Done = Callable[[], None]


class _Queued(NamedTuple):
    record: WireRecord
    done: Done


class Lane:
    """`put` what came; `run` applies it. `sweep` tells up to where the store has events."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.name = runner.projection.name
        self.opened = asyncio.Event()
        self.problem: str | None = None
        """Why nothing is applied now."""
        self._queue: deque[_Queued] = deque()
        self._queued_events = 0
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._targets: dict[int, int] = {}
        self._seen_behind: dict[int, int] = {}
        self._parked_at = 0.0
        self._flush = False
        self._fault = ""
        self.swept = 0
        """Shards that the store had to fill although nothing had failed: Kafka did not bring them."""

    async def put(self, record: WireRecord, done: Done) -> None:
        """Queue a record; `done` is called once its rows are committed, or it turned out to be a repeat."""
        while self._queued_events >= QUEUED_EVENTS_MAX:
            self._room.clear()
            await self._room.wait()
        self._queue.append(_Queued(record, done))
        self._queued_events += len(record.events)
        self._work.set()

    def sweep(self, tails: Mapping[int, int], owned: Set[int]) -> None:
        """Given each shard's last position that concerns us: fill those that have not moved since they were last seen behind."""
        behind = {
            shard: self.runner.positions[shard]
            for shard, last in tails.items()
            if shard in owned and shard in self.runner.positions and self.runner.positions[shard] < last
        }
        stalled = [shard for shard, at in behind.items() if self._seen_behind.get(shard) == at]
        self._seen_behind = behind
        if stalled and not self._queue:
            self.swept += len(stalled)
            self._targets = {shard: tails[shard] for shard in stalled}
        self._flush = True
        self._work.set()

    def lag(self, tails: Mapping[int, int], owned: Set[int]) -> int:
        """Positions between what is applied and what is stored, parked shards left out."""
        at = self.runner.positions
        return sum(
            max(0, last - at.get(shard, 0)) for shard, last in tails.items() if shard in owned - self.runner.parked
        )

    async def catch_up(self, tails: Mapping[int, int]) -> None:
        """Before any record: from the store, as far as it goes."""
        await self._until_done("open", self.runner.open)
        await self._fill(tails)
        self.opened.set()

    async def run(self) -> None:
        """For ever, after `catch_up`."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._queue:
                await self._take()
            if self._targets:
                targets, self._targets = self._targets, {}
                await self._fill(targets)
            if self._flush:
                self._flush = False
                await self._until_done("flush", self.runner.flush)
                await self._unpark_in_time()

    async def _take(self) -> None:
        batch: list[_Queued] = []
        events = 0
        while self._queue and events < BATCH_EVENTS_MAX:
            batch.append(queued := self._queue.popleft())
            events += len(queued.record.events)
        records = [queued.record for queued in batch]
        if not await self._until_done("take", lambda: self.runner.take(records)):
            upto: dict[int, int] = {}
            for record in records:
                if record.category in self.runner.projection.categories:
                    upto[record.shard] = max(record.upto, upto.get(record.shard, 0))
            await self._singly(upto)
        for queued in batch:
            queued.done()
        self._queued_events -= events
        self._room.set()

    async def _fill(self, targets: Mapping[int, int]) -> None:
        if not await self._until_done("fill", lambda: self.runner.catch_up(targets)):
            await self._singly(targets)

    async def _singly(self, targets: Mapping[int, int]) -> None:
        """Something in these shards cannot be applied: find it, park its shard and bring the others on."""
        for shard, upto in targets.items():
            for limit in (FILL_EVENTS_MAX, 1):
                if await self._until_done("fill", partial(self.runner.catch_up, {shard: upto}, limit=limit)):
                    break
            else:
                log.error("projection.parked", projection=self.name, shard=shard, error=self._fault)
                await self._until_done("park", partial(self.runner.park, shard, self._fault))
        self._parked_at = time.monotonic()
        self._tell_parked()

    async def _unpark_in_time(self) -> None:
        if self.runner.parked and time.monotonic() - self._parked_at > PARKED_RETRY_S:
            self.runner.unpark()
            self._tell_parked()

    def _tell_parked(self) -> None:
        _parked.labels(self.name).set(len(self.runner.parked))

    async def _until_done(self, what: str, work: Callable[[], Awaitable[None]]) -> bool:
        """Try until it works, for as long as an engine is at fault. False when it is not the engines, and trying again did not help."""
        retry_s, faults = RETRY_S_MIN, 0
        while True:
            try:
                await work()
            except Exception as fault:
                transient = _is_transient(fault)
                faults += not transient
                self._fault = f"{type(fault).__name__}: {fault}"[:FAULT_CHARS_MAX]
                _retries.labels(self.name, "engine" if transient else "fault").inc()
                log.warning("projection.retry", projection=self.name, what=what, transient=transient, error=self._fault)
                self.problem = f"{what}: {self._fault}"
                if faults >= FAULTS_MAX:
                    return False
                await asyncio.sleep(retry_s * random.uniform(0.5, 1))
                retry_s = min(2 * retry_s, RETRY_S_MAX)
                if what != "open" and not await self._until_done("open", self.runner.open):
                    return False
            else:
                self.problem = None
                return True


def _is_transient(fault: Exception) -> bool:
    if isinstance(fault, asyncpg.PostgresError):
        return str(fault.sqlstate or "XX")[:2] in _TRANSIENT
    return isinstance(fault, (StoreUnavailable, Overtaken, MadeForAnother, *FAULTS_OF_CONNECTION))
