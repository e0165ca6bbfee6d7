"""A lane outlives engines that are away, parks what cannot be applied, and never brings two shards into one's trouble."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from eventstore.errors import StoreUnavailable
from eventstore.port import Recorded, shard_of
from eventstore.wire import WireEvent
from projections import chat_log, follows, lane, queries
from projections.checkpoints import Pool, ensure
from projections.lane import Lane
from projections.registry import PROJECTIONS
from projections.runner import Runner
from projections.worker import Worker
from tests.eventstore.conveyor import until
from tests.projections.model import CHANNELS, MemoryLog, busy_log, expected, found, fresh, log_of, more


class TroubledLog(MemoryLog):
    """A log whose store may be away, and which may hold an event that this program cannot read."""

    away = 0
    unreadable: tuple[int, int] | None = None

    async def events(self, *args: Any, **kwargs: Any) -> Any:
        if self.away > 0:
            self.away -= 1
            raise StoreUnavailable("away")
        return await super().events(*args, **kwargs)

    async def decode(self, shard: int, events: Sequence[WireEvent]) -> Sequence[Recorded]:
        if self.unreadable in {(shard, event.position) for event in events}:
            raise ValueError("no such event in this program")
        return await super().decode(shard, events)


def _troubled() -> TroubledLog:
    log = TroubledLog()
    more(log, 240)
    return log


@asynccontextmanager
async def _running(pool: Pool, log: MemoryLog) -> AsyncIterator[Lane]:
    await fresh(pool, chat_log.PROJECTION)
    built = Lane(Runner(chat_log.PROJECTION, log, pool))
    await built.catch_up({})
    running = asyncio.ensure_future(built.run())
    try:
        yield built
    finally:
        running.cancel()
        await asyncio.wait({running})


async def _take(built: Lane, log: MemoryLog, cuts: Sequence[int] = range(0, 240, 9)) -> None:
    left = log.records(cuts)
    done = asyncio.Event()
    count = 0

    def one() -> None:
        nonlocal count
        count += 1
        if count == len(left):
            done.set()

    for record in left:
        await built.put(record, one)
    await done.wait()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "RETRY_S_MIN", 0.001)


async def test_every_record_is_acknowledged_when_its_rows_are_there(pool: Pool) -> None:
    log = busy_log()
    async with _running(pool, log) as built:
        await _take(built, log)
        assert await found(pool, chat_log.PROJECTION) == expected(chat_log.PROJECTION, log)


async def test_a_store_that_is_away_is_waited_for(pool: Pool) -> None:
    log = _troubled()
    log.away = 9
    async with _running(pool, log) as built:
        await built.put(next(one for one in log.records([10]) if one.category == "chat" and one.prev), lambda: None)
        await _take(built, log)
        assert log.away == 0
        assert built.problem is None
        assert await found(pool, chat_log.PROJECTION) == expected(chat_log.PROJECTION, log)


async def test_an_event_that_cannot_be_applied_parks_its_shard_in_sight_and_no_other(pool: Pool) -> None:
    log = _troubled()
    stuck = shard_of("c1")
    bad = next(event.position for event in log.shards[stuck][40:] if event.topic == "chat.MessagePosted")
    log.unreadable = (stuck, bad)
    async with _running(pool, log) as built:
        await _take(built, log)
        rows, wanted = await found(pool, chat_log.PROJECTION), expected(chat_log.PROJECTION, log)
        before = {shard: len(events) for shard, events in log.shards.items() if shard != stuck} | {stuck: bad - 1}
        part = log_before(log, before)
        assert rows == expected(chat_log.PROJECTION, part) != wanted
        await ensure(pool, PROJECTIONS.values())
        (told,) = [one for one in await queries.status(pool, log) if one.name == "chat_log"]
        parked = {one.shard: one.parked for one in told.shards if one.parked}
        assert parked.keys() == {stuck}
        assert "no such event" in str(parked[stuck])
        # Upgraded: the next look after a while finds it readable.
        log.unreadable = None
        built.runner.unpark()
        await built.runner.catch_up(log.heads())
        assert await found(pool, chat_log.PROJECTION) == wanted


def log_before(log: MemoryLog, upto: Mapping[int, int]) -> MemoryLog:
    part = MemoryLog()
    for shard, events in log.shards.items():
        part.shards[shard] = events[: upto[shard]]
    return part


async def test_what_kafka_never_brings_is_swept_from_the_store(pool: Pool) -> None:
    log = busy_log()
    projections = (follows.PROJECTION, chat_log.PROJECTION)
    for one in projections:
        await fresh(pool, one)
    worker = Worker(log, pool, projections=projections)
    await worker.catch_up()
    running = asyncio.ensure_future(worker.run())
    try:
        more(log, 60)

        async def there() -> bool:
            return await found(pool, chat_log.PROJECTION) == expected(chat_log.PROJECTION, log)

        await until(there)
        assert worker.swept >= 1
        assert await found(pool, follows.PROJECTION) == expected(follows.PROJECTION, log)
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_a_full_lane_makes_the_bringer_wait(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "QUEUED_EVENTS_MAX", 10)
    log = log_of([("post", channel, "ann") for channel in CHANNELS for _ in range(30)])
    await fresh(pool, chat_log.PROJECTION)
    built = Lane(Runner(chat_log.PROJECTION, log, pool))
    await built.catch_up({})
    bringing = asyncio.ensure_future(_take(built, log, range(0, 90, 6)))
    await asyncio.sleep(0.05)
    assert built._queued_events <= 16
    assert not bringing.done()
    running = asyncio.ensure_future(built.run())
    await bringing
    running.cancel()
    await asyncio.wait({running})
    assert await found(pool, chat_log.PROJECTION) == expected(chat_log.PROJECTION, log)
