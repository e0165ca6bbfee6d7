"""Destroys recordings that were deleted: the role `media` follows what the read model of broadcasts says and tells its archive.

Every media node does so for itself, for each keeps manifests in memory. Plays no part in playing: while Postgres is away it waits.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from obstore.exceptions import BaseError
from prometheus_client import Counter

from eventstore.writer import FAULTS_OF_CONNECTION

log = structlog.get_logger()

LOOK_S: Final = 2.0
AGAIN_S: Final = 120.0
"""Somebody may have been closing the recording while it was deleted: what he wrote goes then."""

_destroyed = Counter("tallylight_recordings_destroyed_total", "Recordings destroyed because they were deleted")


class Deletions:
    def __init__(
        self, deleted: Callable[[str | None], Awaitable[list[str]]], destroy: Callable[[str], Awaitable[None]]
    ) -> None:
        """`deleted(after)` gives the ids of deleted broadcasts, rising, after the given one, a page of them."""
        self._deleted = deleted
        self._destroy = destroy
        self._done: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except (*FAULTS_OF_CONNECTION, BaseError) as fault:
                log.info("deletions.wait", why=repr(fault))
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Destroy what was deleted and has not been destroyed, or was only just."""
        now = asyncio.get_running_loop().time()
        after: str | None = None
        while page := await self._deleted(after):
            for broadcast_id in page:
                due = self._done.get(broadcast_id)
                if due is None or now >= due:
                    await self._destroy(broadcast_id)
                    _destroyed.inc(due is None)
                    self._done[broadcast_id] = now + AGAIN_S if due is None else float("inf")
            after = page[-1]
