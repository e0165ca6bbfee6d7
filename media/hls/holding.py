"""Requests that wait for media to be made: who waits for what, for how long at most, and how many. `media.origin` holds them here.

One listener a rendition (or broadcast) wakes those whose wish a change fulfils, however many wait for it. Knows HTTP only so far that
a client may leave, which frees its place at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

from prometheus_client import Counter, Gauge

from media.hls.live import LiveBroadcast, LiveRendition

HELD_MAX: Final = 20_000
"""Requests that may wait at a time, all broadcasts together."""

_held = Gauge("tallylight_origin_held", "Requests that wait for media to be made")
_ended = Counter("tallylight_origin_holds", "Requests that waited or were not let wait, by how that ended", ["how"])

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Held(Enum):
    """How a wait ended."""

    FULFILLED = "fulfilled"
    LATE = "late"
    LEFT = "left"
    FULL = "full"
    CLOSED = "closed"


class Source(Protocol):
    """Whatever calls its listeners at each change."""

    listeners: list[Callable[[], None]]


class Wish(Protocol):
    """Hashable: equal wishes are looked at once."""

    @property
    def source(self) -> Source: ...

    def met(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class PlaylistReaches:
    """The playlist exists and holds part `part` of segment `number` or a later one (None: the whole segment), or has ended."""

    source: LiveRendition
    number: int
    part: int | None

    def met(self) -> bool:
        window = self.source.window
        if window.ended or not self.source.is_ready:
            return window.ended
        number, parts = window.next
        if self.number >= number or self.part is None:
            return self.number < number or (self.number == number and self.part is not None and self.part < parts)
        # 6.2.5.2: a Part Index "greater than that of the final Partial Segment" means "Part Index 0 of the following Parent Segment".
        entry = window.segment(self.number)
        return self.number + 1 < number or parts > 0 or self.part < (len(entry.parts) if entry else 0)


@dataclass(frozen=True, slots=True)
class PartMade:
    """The part is there, or it is certain that it will never be."""

    source: LiveRendition
    sequence: int

    def met(self) -> bool:
        return self.source.window.ended or self.sequence < self.source.window.next_sequence


@dataclass(frozen=True, slots=True)
class Begun:
    """The broadcast has something to show, or never will."""

    source: LiveBroadcast

    def met(self) -> bool:
        return self.source.ended or self.source.has_begun


class Holding:
    def __init__(self, *, most: int = HELD_MAX) -> None:
        self._most = most
        self._queues: dict[Source, _Queue] = {}
        self._held = 0
        self._closed = False

    def __len__(self) -> int:
        return self._held

    async def until(self, wish: Wish, wait_s_max: float, receive: Receive) -> Held:
        if wish.met():
            return Held.FULFILLED
        held = await self._wait(wish, wait_s_max, receive)
        _ended.labels(held.value).inc()
        return held

    def close(self) -> None:
        """Whoever waits goes now, and nobody waits any more."""
        self._closed = True
        for queue in tuple(self._queues.values()):
            queue.wake_all(Held.CLOSED)

    async def _wait(self, wish: Wish, wait_s_max: float, receive: Receive) -> Held:
        if self._closed:
            return Held.CLOSED
        if self._held >= self._most:
            return Held.FULL
        source = wish.source
        queue = self._queues.get(source)
        if queue is None:
            queue = self._queues[source] = _Queue(source)
        waiting = queue.join(wish)
        leaving = asyncio.create_task(_leave(receive, waiting))
        self._held += 1
        _held.inc()
        try:
            async with asyncio.timeout(wait_s_max):
                return await waiting
        except TimeoutError:
            return Held.LATE
        finally:
            leaving.cancel()
            self._held -= 1
            _held.dec()
            queue.leave(wish, waiting)
            if queue.is_empty and self._queues.get(source) is queue:
                # Nothing of a broadcast is kept alive from here.
                del self._queues[source]
                queue.close()


class _Queue:
    """Those who wait for one source's changes, by wish."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._waiting: dict[Wish, set[asyncio.Future[Held]]] = {}
        source.listeners.append(self._changed)

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    def join(self, wish: Wish) -> asyncio.Future[Held]:
        waiting: asyncio.Future[Held] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(wish, set()).add(waiting)
        return waiting

    def leave(self, wish: Wish, waiting: asyncio.Future[Held]) -> None:
        """Also one who was woken, and so is not here any more."""
        others = self._waiting.get(wish)
        if others is not None:
            others.discard(waiting)
            if not others:
                del self._waiting[wish]

    def wake_all(self, why: Held) -> None:
        for wish in tuple(self._waiting):
            self._wake(wish, why)

    def close(self) -> None:
        self._source.listeners.remove(self._changed)

    def _changed(self) -> None:
        for wish in [wish for wish in self._waiting if wish.met()]:
            self._wake(wish, Held.FULFILLED)

    def _wake(self, wish: Wish, why: Held) -> None:
        for waiting in self._waiting.pop(wish):
            if not waiting.done():
                waiting.set_result(why)


async def _leave(receive: Receive, waiting: asyncio.Future[Held]) -> None:
    """A client that closes its connection waits no longer."""
    with suppress(OSError):
        while (await receive())["type"] != "http.disconnect":
            pass
    if not waiting.done():
        waiting.set_result(Held.LEFT)
