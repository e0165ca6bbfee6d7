"""Rebuilds: beside the live rows, swapped in at once, one at a time, while a worker keeps writing and readers keep reading."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections import chat_log, checkpoints, follows, rebuild
from projections.checkpoints import MadeForAnother, Missing, Pool
from projections.projection import Projection
from projections.rebuild import AlreadyRebuilding, Progress, Rebuilt
from projections.registry import PROJECTIONS
from projections.runner import Runner
from tests.histories import histories
from tests.projections.model import MemoryLog, busy_log, expected, found, fresh, kinds_of, log_of_history, more


async def _live(pool: Pool, projection: Projection, log: MemoryLog) -> Runner:
    await fresh(pool, projection)
    runner = Runner(projection, log, pool)
    await runner.open()
    await runner.catch_up(log.heads())
    return runner


async def test_a_rebuild_replaces_whatever_the_live_rows_were(pool: Pool) -> None:
    log = busy_log()
    await _live(pool, follows.PROJECTION, log)
    await pool.execute("DELETE FROM p_follows.follows")
    told: list[Progress] = []
    outcome = await rebuild.rebuild("follows", pool=pool, log=log, progress=told.append)
    assert isinstance(outcome, Rebuilt)
    assert outcome.events == len([event for event in log.all() if event.topic in follows.PROJECTION.topics])
    assert told[-1].position == told[-1].target
    assert await found(pool, follows.PROJECTION) == expected(follows.PROJECTION, log)
    left = await pool.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname IN ('p_follows_next', 'p_follows_old')")
    assert left == 0
    found_indexes = {
        row[0] for row in await pool.fetch("SELECT indexname FROM pg_indexes WHERE schemaname = 'p_follows'")
    }
    assert {"follows_account", "follows_pkey", "counts_pkey", "checkpoints_pkey"} <= found_indexes


@pytest.mark.parametrize("projection", PROJECTIONS.values(), ids=PROJECTIONS)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_every_projection_is_rebuilt_to_the_rows_that_following_the_log_gave(
    pool: Pool, projection: Projection, data: st.DataObject
) -> None:
    log = log_of_history(data.draw(histories(kinds_of(projection), size_min=20, size_max=60)))
    await _live(pool, projection, log)
    assert isinstance(await rebuild.rebuild(projection.name, pool=pool, log=log), Rebuilt)
    assert await found(pool, projection) == expected(projection, log)


async def test_a_live_worker_writes_on_through_a_rebuild_and_loses_nothing(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "EVENTS_PER_CHUNK", 40)
    log = busy_log()
    runner = await _live(pool, chat_log.PROJECTION, log)
    rebuilding = asyncio.ensure_future(rebuild.rebuild("chat_log", pool=pool, log=log))
    after = 0
    while not rebuilding.done() or after < 5:
        after += rebuilding.done()
        more(log, 3)
        await runner.catch_up(log.heads())
        # No instant without the table, nor with fewer rows than were there before.
        assert await pool.fetchval("SELECT count(*) FROM p_chat_log.messages") == log.count("chat.MessagePosted")
    assert isinstance(await rebuilding, Rebuilt)
    assert await found(pool, chat_log.PROJECTION) == expected(chat_log.PROJECTION, log)


async def test_two_rebuilds_of_one_projection_never_run_at_once(pool: Pool) -> None:
    log = busy_log()
    await _live(pool, follows.PROJECTION, log)
    outcomes = await asyncio.gather(*(rebuild.rebuild("follows", pool=pool, log=log) for _ in range(2)))
    assert {type(outcome) for outcome in outcomes} == {Rebuilt, AlreadyRebuilding}
    assert await found(pool, follows.PROJECTION) == expected(follows.PROJECTION, log)


async def test_a_rebuild_that_died_half_way_is_begun_anew_by_the_next(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "EVENTS_PER_CHUNK", 20)
    log = busy_log()
    await _live(pool, follows.PROJECTION, log)
    rows = await found(pool, follows.PROJECTION)

    def stop_early(progress: Progress) -> None:
        if progress.events > 50:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        await rebuild.rebuild("follows", pool=pool, log=log, progress=stop_early)
    assert await found(pool, follows.PROJECTION) == rows
    assert isinstance(await rebuild.rebuild("follows", pool=pool, log=log), Rebuilt)
    assert await found(pool, follows.PROJECTION) == rows


async def test_prepare_creates_what_is_missing_and_rebuilds_what_was_made_for_other_tables(pool: Pool) -> None:
    log = busy_log()
    both = (follows.PROJECTION, chat_log.PROJECTION)
    await fresh(pool, follows.PROJECTION)
    await pool.execute("UPDATE p_follows.made_for SET fingerprint = 'older'")
    await pool.execute("DROP SCHEMA IF EXISTS p_chat_log CASCADE")
    await asyncio.gather(*(rebuild.prepare(pool, log, both) for _ in range(2)))
    assert await found(pool, follows.PROJECTION) == expected(follows.PROJECTION, log)
    async with pool.acquire() as connection:
        assert not isinstance(await checkpoints.state(connection, chat_log.PROJECTION), Missing)


async def test_a_worker_of_another_version_of_a_projection_does_not_write_its_rows(pool: Pool) -> None:
    log = busy_log()
    runner = await _live(pool, follows.PROJECTION, log)
    await pool.execute("UPDATE p_follows.made_for SET fingerprint = 'newer'")
    await pool.execute("UPDATE p_follows.checkpoints SET position = position + 1")
    more(log, 3)
    with pytest.raises(MadeForAnother):
        await runner.catch_up(log.heads())
