"""The watchdog ends what stalls, and nothing else."""

import subprocess
import sys
from dataclasses import replace

from projections.watchdog import BLOCKED_EXIT, STALLED_S_MAX, UNFED_S_MAX, Counts, Watchdog

COUNTS = Counts(stored=100, applied=90, lag=10, received=5, swept=0, problem=None)


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _watched(*looks: tuple[float, Counts], broker_there: bool = True) -> list[str | None]:
    clock = _Clock()
    dog = Watchdog(clock=clock)
    told = []
    for at, counts in looks:
        clock.now = at
        told.append(dog.look(counts, broker_there=broker_there))
    return told


def test_a_process_that_applies_nothing_while_it_is_behind_ends() -> None:
    later = replace(COUNTS, stored=200, lag=110)
    before, after = _watched((0, COUNTS), (STALLED_S_MAX - 1, later), (STALLED_S_MAX + 1, later))[1:]
    assert before is None
    assert after is not None
    assert "110 events behind" in after


def test_a_process_that_moves_however_slowly_goes_on() -> None:
    looks = [(10.0 * n, replace(COUNTS, applied=90 + n, lag=10 + 100 * n, received=n)) for n in range(20)]
    assert not any(_watched(*looks))


def test_a_quiet_log_is_no_stall() -> None:
    assert not any(_watched(*((100.0 * n, replace(COUNTS, lag=0)) for n in range(5))))


def test_a_fault_that_a_restart_would_not_heal_is_no_stall() -> None:
    looks = [(100.0 * n, replace(COUNTS, lag=100 * n, problem="Postgres is away")) for n in range(5)]
    assert not any(_watched(*looks))


def test_a_consumer_that_gets_nothing_while_the_store_must_fill_ends() -> None:
    looks = [(5.0 * n, replace(COUNTS, applied=90 + n, swept=2 * n)) for n in range(10)]
    told = _watched(*looks)
    first = next(number for number, reason in enumerate(told) if reason)
    assert looks[first][0] > UNFED_S_MAX
    assert not any(_watched(*looks, broker_there=False))


def test_a_process_whose_event_loop_is_blocked_is_ended_from_outside_of_it() -> None:
    script = """
import asyncio, time
from projections import watchdog
watchdog.LOOK_S = 0.05
async def main():
    guard = asyncio.ensure_future(watchdog.LoopGuard(blocked_s_max=0.3).run())
    await asyncio.sleep(0.1)
    time.sleep(20)
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=15, capture_output=True).returncode == BLOCKED_EXIT
