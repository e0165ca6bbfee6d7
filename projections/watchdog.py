"""Ends a projector that no longer does its work, so that the supervisor starts a fresh one: what a stalled consumer always heals by.

Run by `gateways.projector_role` beside the worker. It looks at counts, touches nothing, and holds still while Postgres or the broker is
away: a restart would not bring them back.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

log = structlog.get_logger()

LOOK_S: Final = 2.0
STALLED_S_MAX: Final = 30.0
"""How long everything may stand still while the log moves."""
UNFED_S_MAX: Final = 20.0
"""How long the store may have to fill what a reachable broker should have brought."""
BLOCKED_S_MAX: Final = 60.0
BLOCKED_EXIT: Final = 70
"""EX_SOFTWARE: the event loop did not turn."""


class Stalled(Exception):
    """This process does not do its work any more; another may."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the watchdog sees: all of them only ever rise, but `lag` and `problem`."""

    stored: int
    applied: int
    lag: int
    received: int
    swept: int
    problem: str | None


class Watchdog:
    """Judges a series of counts. Pure but for the clock that it is given."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._moved_at = self._fed_at = clock()
        self._last: Counts | None = None
        self._swept_at_feeding = 0

    def look(self, counts: Counts, *, broker_there: bool) -> str | None:
        """Why this process should end, or None."""
        now, last = self._clock(), self._last
        self._last = counts
        if last is None or counts.applied != last.applied or counts.lag == 0 or counts.problem is not None:
            self._moved_at = now
        if last is None or counts.received != last.received or not broker_there or counts.problem is not None:
            self._fed_at = now
            self._swept_at_feeding = counts.swept
        if now - self._moved_at > STALLED_S_MAX and last is not None:
            return f"{counts.lag} events behind and nothing applied for {STALLED_S_MAX:.0f} s"
        filled = counts.swept - self._swept_at_feeding
        if filled > 1 and now - self._fed_at > UNFED_S_MAX:
            return f"{filled} shards filled from the store in {UNFED_S_MAX:.0f} s while Kafka brought nothing"
        return None


class LoopGuard:
    """A thread that ends the process when its event loop does not turn: nothing inside the loop could."""

    def __init__(self, *, blocked_s_max: float = BLOCKED_S_MAX) -> None:
        self._blocked_s_max = blocked_s_max
        self._turned_at = time.monotonic()
        self._stop = threading.Event()

    async def run(self) -> None:
        thread = threading.Thread(target=self._watch, name="loop-guard", daemon=True)
        thread.start()
        try:
            while True:
                self._turned_at = time.monotonic()
                await asyncio.sleep(LOOK_S)
        finally:
            self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            late = time.monotonic() - self._turned_at
            if late > self._blocked_s_max:
                log.error("watchdog", problem="the event loop is blocked", seconds=round(late))
                os._exit(BLOCKED_EXIT)
