"""The runner: whatever arrives, in whatever order and however often, the rows are the log's; and only one worker writes."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventstore.port import shard_of
from eventstore.wire import WireRecord
from projections import chat_log, follows
from projections.checkpoints import Overtaken, Pool
from projections.projection import Projection
from projections.registry import PROJECTIONS
from projections.runner import Runner
from tests.histories import histories
from tests.projections.model import (
    MemoryLog,
    busy_log,
    expected,
    found,
    fresh,
    kinds_of,
    log_of,
    log_of_history,
)


async def _opened(pool: Pool, projection: Projection, log: MemoryLog) -> Runner:
    runner = Runner(projection, log, pool)
    await runner.open()
    return runner


async def _catch_up(runner: Runner, log: MemoryLog) -> None:
    await runner.catch_up({shard: len(events) for shard, events in log.shards.items()})


_cuts = st.sets(st.integers(1, 12), max_size=5)


@st.composite
def deliveries(draw: st.DrawFn, sent: Sequence[WireRecord]) -> list[tuple[int, bool, list[WireRecord]]]:
    """Which of two workers gets what, and whether it begins anew before that: each record never, once or twice, and some late."""
    late = st.lists(st.integers(0, 4), max_size=2)
    due = sorted((number + places, number) for number in range(len(sent)) for places in draw(late))
    delivered = [sent[number] for _, number in due]
    batches = []
    while delivered:
        count = draw(st.integers(1, 4))
        batches.append((draw(st.integers(0, 1)), draw(st.sampled_from([False, False, True])), delivered[:count]))
        del delivered[:count]
    return batches


@pytest.mark.parametrize("projection", PROJECTIONS.values(), ids=PROJECTIONS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_any_order_of_duplicates_and_gaps_gives_the_same_rows(
    pool: Pool, projection: Projection, data: st.DataObject
) -> None:
    log = log_of_history(data.draw(histories(kinds_of(projection), size_min=8)))
    # A relay that took over from another cuts the log its own way.
    sent = [record for cuts in data.draw(st.tuples(_cuts, _cuts)) for record in log.records(cuts)]
    await fresh(pool, projection)
    workers = [await _opened(pool, projection, log) for _ in range(2)]
    for number, restarted, records in data.draw(deliveries(sorted(sent, key=lambda record: record.upto))):
        if restarted:
            await workers[number].flush()
            workers[number] = await _opened(pool, projection, log)
        await workers[number].take(records)
    for _ in range(2):
        # The first flush may find that the other worker was there, and then stores nothing.
        await _catch_up(workers[0], log)
        await workers[0].flush()
    assert await found(pool, projection) == expected(projection, log)
    reopened = await _opened(pool, projection, log)
    assert {shard: reopened.positions[shard] for shard in log.shards} == log.heads()


async def test_records_in_order_are_applied_without_reading_the_store(pool: Pool) -> None:
    log = busy_log()
    await fresh(pool, follows.PROJECTION)
    runner = await _opened(pool, follows.PROJECTION, log)
    await runner.take(log.records(range(0, 240, 7)))
    assert log.reads == 0
    assert await found(pool, follows.PROJECTION) == expected(follows.PROJECTION, log)


async def test_two_workers_on_the_same_records_apply_each_event_once(pool: Pool) -> None:
    log = busy_log()
    await fresh(pool, follows.PROJECTION)
    workers = [await _opened(pool, follows.PROJECTION, log) for _ in range(2)]
    sent = log.records(range(0, 240, 7))

    async def work(worker: Runner) -> None:
        for record in sent:
            await worker.take([record])
            await asyncio.sleep(0)

    await asyncio.gather(*(work(worker) for worker in workers))
    assert await found(pool, follows.PROJECTION) == expected(follows.PROJECTION, log)


async def test_a_worker_that_was_overtaken_rolls_back_its_rows(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    log = busy_log()
    await fresh(pool, follows.PROJECTION)
    zombie = await _opened(pool, follows.PROJECTION, log)
    await _catch_up(await _opened(pool, follows.PROJECTION, log), log)

    async def deaf() -> None:
        """A worker that never hears it was overtaken."""

    monkeypatch.setattr(zombie, "open", deaf)
    with pytest.raises(Overtaken):
        await zombie.take(log.records())
    assert await found(pool, follows.PROJECTION) == expected(follows.PROJECTION, log)


async def test_a_worker_killed_between_rows_and_commit_resumes_exactly_once(pool: Pool) -> None:
    log = busy_log()
    await fresh(pool, chat_log.PROJECTION)
    runner = await _opened(pool, chat_log.PROJECTION, log)
    sent = log.records(range(0, 240, 20))
    for number, record in enumerate(sent):
        work = asyncio.ensure_future(runner.take([record]))
        for _ in range(number % 9):
            await asyncio.sleep(0.0005)
        work.cancel()
        await asyncio.wait({work})
        runner = await _opened(pool, chat_log.PROJECTION, log)
        await runner.take([record])
    assert await found(pool, chat_log.PROJECTION) == expected(chat_log.PROJECTION, log)


async def test_a_lost_record_is_filled_from_the_store_when_the_next_one_comes(pool: Pool) -> None:
    log = log_of([("post", "c1", "ann")] * 9)
    await fresh(pool, chat_log.PROJECTION)
    runner = await _opened(pool, chat_log.PROJECTION, log)
    first, lost, last = log.records([3, 6])
    assert lost.upto == 6
    await runner.take([first])
    await runner.take([last])
    assert log.reads == 1
    assert runner.positions[shard_of("c1")] == 9
    assert await found(pool, chat_log.PROJECTION) == expected(chat_log.PROJECTION, log)


async def test_a_gap_longer_than_one_transaction_may_be_is_filled_in_several(pool: Pool) -> None:
    log = log_of([("post", "c1", "ann")] * 25)
    await fresh(pool, chat_log.PROJECTION)
    runner = await _opened(pool, chat_log.PROJECTION, log)
    await runner.catch_up({shard_of("c1"): 25}, limit=4)
    assert log.reads == 7
    assert await found(pool, chat_log.PROJECTION) == expected(chat_log.PROJECTION, log)


async def test_events_of_no_concern_move_the_position_without_a_transaction_each(pool: Pool) -> None:
    log = log_of([("appoint", "c1", "ann")] * 4)
    await fresh(pool, follows.PROJECTION)
    runner = await _opened(pool, follows.PROJECTION, log)
    await runner.take(log.records([1, 2, 3]))
    stored: Any = await pool.fetchval(f"SELECT max(position) FROM {follows.PROJECTION.schema}.checkpoints")
    assert (runner.positions[shard_of("c1")], stored) == (4, 0)
    await runner.flush()
    stored = await pool.fetchval(f"SELECT max(position) FROM {follows.PROJECTION.schema}.checkpoints")
    assert stored == 4


def test_a_consumer_of_two_categories_sees_what_it_misses_of_the_other() -> None:
    record = WireRecord(1, "chat", prev=5, upto=9, tails={"lifecycle": 7}, events=())
    assert record.follows(5, {"chat"})
    assert not record.follows(4, {"chat"})
    assert not record.follows(5, {"chat", "lifecycle"})
    assert record.follows(7, {"chat", "lifecycle"})
