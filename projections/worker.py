"""All projections of one process: a lane each, fed by `app` with what Kafka brings, and held against the event store.

Used by `gateways.projector_role`. What Kafka loses (a broker that forgot, a consumer that stalls) is seen here: a shard that is behind the
store and does not move between two looks is filled from the store. `watchdog` judges from the counts kept here.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Final

import structlog
from prometheus_client import Counter, Gauge

from eventstore.errors import StoreUnavailable
from eventstore.port import SHARDS
from eventstore.wire import WireRecord
from projections.checkpoints import Pool
from projections.lane import Lane
from projections.projection import Projection
from projections.registry import PROJECTIONS
from projections.runner import Log, Runner

log = structlog.get_logger()

SWEEP_S: Final = 1.0
"""Between two looks at the store; an event that Kafka lost is applied within two of them."""
RETRY_S: Final = 1.0

_lag = Gauge("tallylight_projection_lag_events", "Positions stored and not yet applied", ["projection"])
_swept = Counter("tallylight_projection_swept_total", "Shards filled from the store because Kafka did not bring them")

ALL_SHARDS: Final = frozenset(range(SHARDS))


class Worker:
    """`owned` tells which shards Kafka gives to this process; while it is not known, all of them: whoever is late writes nothing."""

    def __init__(
        self,
        store: Log,
        pool: Pool,
        *,
        owned: Callable[[], Set[int]] = lambda: ALL_SHARDS,
        projections: Iterable[Projection] = PROJECTIONS.values(),
    ) -> None:
        self._store = store
        self._owned = owned
        self.lanes = [Lane(Runner(one, store, pool)) for one in projections]
        self._by_category: dict[str, list[Lane]] = {}
        for lane in self.lanes:
            for category in lane.runner.projection.categories:
                self._by_category.setdefault(category, []).append(lane)
        self.received = 0
        """Records that Kafka brought."""
        self.lag = 0
        self.stored = 0
        """Events stored in all, at the last look."""
        self._last: Mapping[int, Mapping[str, int]] = {}

    @property
    def swept(self) -> int:
        return sum(lane.swept for lane in self.lanes)

    @property
    def applied(self) -> int:
        """Rises whenever any projection moves."""
        return sum(sum(lane.runner.positions.values()) for lane in self.lanes)

    @property
    def problem(self) -> str | None:
        problems = [f"{lane.name}: {lane.problem}" for lane in self.lanes if lane.problem]
        parked = [
            f"{lane.name}: shards {sorted(lane.runner.parked)} parked" for lane in self.lanes if lane.runner.parked
        ]
        return "; ".join(problems + parked) or None

    async def offer(self, record: WireRecord, done: Callable[[], None]) -> None:
        """Give a record to every projection of its category; `done` when all have committed it. Waits while one has too much."""
        self.received += 1
        lanes = self._by_category.get(record.category, ())
        left = len(lanes)

        def one_done() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                done()

        if not lanes:
            done()
        for lane in lanes:
            await lane.put(record, one_done)

    async def catch_up(self) -> None:
        """Everything the store has now, before the first record: what Kafka brings of it is then a repeat."""
        tails = await self._tails()
        for lane in self.lanes:
            await lane.catch_up(_of(lane, tails))

    async def run(self) -> None:
        """After `catch_up`, for ever."""
        async with asyncio.TaskGroup() as group:
            for lane in self.lanes:
                group.create_task(lane.run())
            group.create_task(self._sweep())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                tails = await self._store.tails()
            except StoreUnavailable as fault:
                log.warning("projector", problem="event store away", error=str(fault))
                continue
            owned = self._owned()
            before = self.swept
            for lane in self.lanes:
                mine = _of(lane, tails)
                _lag.labels(lane.name).set(lane.lag(mine, owned))
                lane.sweep(mine, owned)
            self.lag = sum(lane.lag(_of(lane, tails), owned) for lane in self.lanes)
            self.stored = sum(sum(categories.values()) for categories in tails.values())
            _swept.inc(self.swept - before)

    async def _tails(self) -> Mapping[int, Mapping[str, int]]:
        while True:
            try:
                return await self._store.tails()
            except StoreUnavailable as fault:
                log.warning("projector", problem="event store away", error=str(fault))
                await asyncio.sleep(RETRY_S)


def _of(lane: Lane, tails: Mapping[int, Mapping[str, int]]) -> dict[int, int]:
    """Each shard's last position in the lane's categories."""
    wanted: Sequence[str] = tuple(lane.runner.projection.categories)
    return {shard: max(found.get(category, 0) for category in wanted) for shard, found in tails.items()}
