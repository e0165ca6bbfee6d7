"""What a media node refuses as the event plane says: recordings that are shown to nobody, channels that only their subscribers play.

Asked for again and again, and kept in the archive too, for a start without the event plane. Run beside `gateways.media_deletions` in the
role `media`, every node for itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import obstore
import structlog
from obstore.exceptions import BaseError

from eventstore.errors import StoreUnavailable
from eventstore.port import EventStore
from eventstore.writer import FAULTS_OF_CONNECTION
from media.archive import Archive
from media.playback import Gate
from media.vod import Vod

log = structlog.get_logger()

LOOK_S: Final = 1.0
HIDDEN: Final = "hidden.txt"
CLOSED: Final = "closed.txt"


class Refusals:
    """Ids of what is refused: `ask` gives them, `told` is given them, the archive has them under `key`."""

    def __init__(
        self,
        archive: Archive,
        key: str,
        ask: Callable[[], Awaitable[Iterable[str]]],
        told: Callable[[frozenset[str]], None],
    ) -> None:
        self._archive = archive
        self._key = key
        self._ask = ask
        self._told = told
        self._written: frozenset[str] | None = None

    async def run(self) -> None:
        """Until cancelled."""
        await self.remember()
        while True:
            try:
                await self.look()
            except (*FAULTS_OF_CONNECTION, StoreUnavailable, BaseError, OSError) as fault:
                log.info("refusals.wait", what=self._key, why=repr(fault)[:200])
            await asyncio.sleep(LOOK_S)

    async def remember(self) -> None:
        """What was refused when a node last looked."""
        try:
            found = await obstore.get_async(self._archive.store, self._key)
            self._written = frozenset(bytes(await found.bytes_async()).decode().split())
        except (BaseError, OSError):
            self._written = None
        self._told(self._written or frozenset())

    async def look(self) -> None:
        refused = frozenset(await self._ask())
        self._told(refused)
        if refused != self._written:
            await self._archive.put(self._key, "\n".join(sorted(refused)).encode())
            self._written = refused


class Hidden(Refusals):
    """`unpublished` gives the ids of recordings that are kept but not shown."""

    def __init__(self, archive: Archive, vod: Vod, unpublished: Callable[[], Awaitable[list[str]]]) -> None:
        def told(hidden: frozenset[str]) -> None:
            vod.hidden = hidden

        super().__init__(archive, HIDDEN, unpublished, told)


class Closed(Refusals):
    """Channels that only their subscribers may play."""

    def __init__(self, archive: Archive, gate: Gate, store: EventStore) -> None:
        async def ask() -> list[str]:
            return [row["channel_id"] for row in await store.index_table("channels_closed")]

        def told(closed: frozenset[str]) -> None:
            gate.closed = closed

        super().__init__(archive, CLOSED, ask, told)
