"""Read your writes, and the status of the read models."""

import asyncio

from eventstore.port import shard_of
from projections import follows, moderation, queries
from projections.checkpoints import Pool, ensure
from projections.registry import PROJECTIONS
from projections.runner import Runner
from tests.projections.model import MemoryLog, busy_log, event_of, fresh


def _append(log: MemoryLog, kind: str, person: str = "ann") -> int:
    stream, event = event_of(kind, "c1", person, 1)
    return log.append(stream, "c1", event).position


SHARD = shard_of("c1")


async def _open(pool: Pool, log: MemoryLog) -> Runner:
    await ensure(pool, PROJECTIONS.values())
    await fresh(pool, follows.PROJECTION)
    runner = Runner(follows.PROJECTION, log, pool)
    await runner.open()
    return runner


async def test_a_query_waits_until_the_read_model_has_the_mutation(pool: Pool) -> None:
    log = MemoryLog()
    runner = await _open(pool, log)
    position = _append(log, "follow")
    waiting = asyncio.ensure_future(queries.wait_for(pool, log, {SHARD: position}, ["follows"]))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await runner.catch_up(log.heads())
    assert await waiting


async def test_a_query_gives_up_waiting_after_its_time(pool: Pool) -> None:
    log = MemoryLog()
    await _open(pool, log)
    position = _append(log, "follow")
    assert not await queries.wait_for(pool, log, {SHARD: position}, ["follows"], timeout_s=0.03)


async def test_a_mutation_of_no_concern_to_a_read_model_is_not_waited_for(pool: Pool) -> None:
    log = MemoryLog()
    await _open(pool, log)
    assert await queries.wait_for(pool, log, {SHARD: _append(log, "post")}, ["follows"], timeout_s=0)


async def test_nothing_to_wait_for_is_no_wait(pool: Pool) -> None:
    assert await queries.wait_for(pool, MemoryLog(), {}, ["follows"], timeout_s=0)


async def test_the_status_tells_position_and_lag_of_every_projection(pool: Pool) -> None:
    log = busy_log()
    runner = await _open(pool, log)
    await pool.execute("DROP SCHEMA p_moderation CASCADE")
    before = {one.name: one for one in await queries.status(pool, log)}
    assert before.keys() == PROJECTIONS.keys()
    assert before["moderation"].state == "missing"
    last = {shard: log.tails_at(shard, 999).get("lifecycle", 0) for shard in log.shards}
    lag = sum(last.values())
    assert (before["follows"].state, before["follows"].position, before["follows"].lag) == ("live", 0, lag)
    await runner.catch_up(log.heads())
    await runner.flush()
    after = {one.name: one for one in await queries.status(pool, log)}
    assert (after["follows"].position, after["follows"].lag) == (sum(log.heads()[s] for s in last if last[s]), 0)
    await fresh(pool, moderation.PROJECTION)
