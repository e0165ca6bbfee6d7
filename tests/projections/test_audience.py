"""Viewer counts in Postgres: current, peak and total, whatever pods overlap and however late a record comes."""

from datetime import UTC, datetime, timedelta

import pytest_asyncio

from projections import audience, directory
from projections.audience import GRACE_S, Audience
from projections.checkpoints import Pool
from projections.presence import WINDOW_S, Presence, Viewers, decode
from tests.projections.model import fresh

START = datetime(2027, 1, 1, tzinfo=UTC)


def _viewers(*people: str) -> Viewers:
    pod = Presence("pod")
    pod.seen("c1", people, 0)
    return Viewers(decode(value).sketch for _, value in pod.due(WINDOW_S))


def _window(number: int) -> int:
    return int(START.timestamp()) + number * WINDOW_S


def _after(number: int, seconds: float = GRACE_S) -> datetime:
    return START + timedelta(seconds=(number + 1) * WINDOW_S + seconds)


@pytest_asyncio.fixture(loop_scope="session")
async def counting(pool: Pool, module_database: str) -> Audience:
    await audience.migrate(module_database)
    await pool.execute("TRUNCATE audience.current_viewers, audience.broadcasts")
    await fresh(pool, directory.PROJECTION)
    await pool.execute("INSERT INTO p_directory.live VALUES ('b1', 'c1', $1, false)", START)
    return Audience(pool)


async def _current(pool: Pool) -> int:
    viewers: int = await pool.fetchval("SELECT viewers FROM audience.current_viewers WHERE channel_id = 'c1'")
    return viewers


async def _history(pool: Pool) -> tuple[int, int]:
    row = await pool.fetchrow("SELECT peak_viewers, total_views FROM audience.broadcasts WHERE broadcast_id = 'b1'")
    assert row is not None
    return row["peak_viewers"], row["total_views"]


async def test_current_peak_and_total_follow_the_windows(pool: Pool, counting: Audience) -> None:
    for number, people in enumerate([("a", "b"), ("a", "b", "c"), ("d",)]):
        counting.changed("c1", _window(number), _viewers(*people))
        await counting.publish(_after(number))
        assert await _current(pool) == len(people)
    assert await _history(pool) == (3, 4)


async def test_a_window_whose_records_still_come_never_lowers_the_count(pool: Pool, counting: Audience) -> None:
    counting.changed("c1", _window(0), _viewers("a", "b", "c"))
    await counting.publish(_after(0))
    counting.changed("c1", _window(1), _viewers("a"))
    await counting.publish(_after(1, 0.5))
    assert await _current(pool) == 3
    counting.changed("c1", _window(1), _viewers("a", "b"))
    await counting.publish(_after(1))
    assert await _current(pool) == 2


async def test_a_record_far_too_late_changes_nothing(pool: Pool, counting: Audience) -> None:
    counting.changed("c1", _window(3), _viewers("a"))
    await counting.publish(_after(3))
    counting.changed("c1", _window(1), _viewers("x", "y", "z"))
    await counting.publish(_after(3, 9))
    assert await _current(pool) == 1
    assert await _history(pool) == (1, 1)


async def test_another_process_goes_on_with_the_totals(pool: Pool, counting: Audience) -> None:
    counting.changed("c1", _window(0), _viewers("a", "b", "c"))
    await counting.publish(_after(0))
    other = Audience(pool)
    other.changed("c1", _window(1), _viewers("c", "d"))
    await other.publish(_after(1))
    assert await _history(pool) == (3, 4)
