"""Which recordings are shown to nobody, as the read model of broadcasts says; kept in the archive too, for a start without it.

Run beside `gateways.media_deletions` in the role `media`, every node for itself.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import obstore
import structlog
from obstore.exceptions import BaseError

from eventstore.writer import FAULTS_OF_CONNECTION
from media.archive import Archive
from media.vod import Vod

log = structlog.get_logger()

LOOK_S: Final = 1.0
HIDDEN: Final = "hidden.txt"


class Hidden:
    """`unpublished` gives the ids of recordings that are kept but not shown."""

    def __init__(self, archive: Archive, vod: Vod, unpublished: Callable[[], Awaitable[list[str]]]) -> None:
        self._archive = archive
        self._vod = vod
        self._unpublished = unpublished
        self._written: frozenset[str] | None = None

    async def run(self) -> None:
        """Until cancelled."""
        await self.remember()
        while True:
            try:
                await self.look()
            except (*FAULTS_OF_CONNECTION, BaseError, OSError) as fault:
                log.info("hidden.wait", why=repr(fault)[:200])
            await asyncio.sleep(LOOK_S)

    async def remember(self) -> None:
        """What was hidden when a node last looked."""
        try:
            found = await obstore.get_async(self._archive.store, HIDDEN)
            self._vod.hidden = self._written = frozenset(bytes(await found.bytes_async()).decode().split())
        except (BaseError, OSError):
            self._vod.hidden = frozenset()

    async def look(self) -> None:
        hidden = self._vod.hidden = frozenset(await self._unpublished())
        if hidden != self._written:
            await self._archive.put(HIDDEN, "\n".join(sorted(hidden)).encode())
            self._written = hidden
