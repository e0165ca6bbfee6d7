"""Serves live broadcasts over HTTP: master and media playlists with blocking reload, parts, segments. The role `media` mounts its routes.

Reads what the packager put into the registry and never changes it. A held request costs a future; a change of its rendition wakes those
whom it satisfies. Sections below are those of draft-pantos-hls-rfc8216bis.
"""

import asyncio
import heapq
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from itertools import count
from typing import Final
from weakref import WeakKeyDictionary

import orjson
from prometheus_client import Counter, Gauge
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from media.hls.live import LiveBroadcast, LiveRegistry, LiveRendition
from media.hls.playlist import CONTENT_TYPE
from media.hls.window import Part

HELD_MAX: Final = 20_000
"""Requests that may wait at a time, all broadcasts together."""
FIRST_SEGMENT_S_MAX: Final = 6.0
AHEAD_MAX: Final = 2
"""6.2.5.2: a media sequence number so far beyond the last is refused."""
EVER: Final = "public, max-age=31536000, immutable"
_NUMBER: Final = re.compile(r"\d{1,12}")
_FILE: Final = re.compile(r"(part-|init-|)(\d{1,12})\.(m4s|mp4)")
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_CORS: Final = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Content-Length, Content-Range"}

_held = Gauge("tallylight_origin_held", "Requests that wait for media to be made")
_asked = Counter("tallylight_origin_requests_total", "Requests", ["kind"])
_unmet = Counter("tallylight_origin_unmet_total", "Held requests that ended without what they waited for")

Place = tuple[int, int]
"""Segment number, part index."""


class _Waiting:
    """Those who wait for one rendition, nearest first."""

    def __init__(self, live: LiveRendition) -> None:
        self._live = live
        self._order = count()
        self._heap: list[tuple[Place, int, asyncio.Future[None]]] = []
        live.listeners.append(self.changed)

    def wait(self, place: Place) -> asyncio.Future[None]:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._heap, (place, next(self._order), waiting))
        return waiting

    def changed(self) -> None:
        while self._heap and has(self._live, self._heap[0][0]):
            _, _, waiting = heapq.heappop(self._heap)
            if not waiting.done():
                waiting.set_result(None)
        while self._heap and self._heap[-1][2].done():
            self._heap.pop()


def has(live: LiveRendition, place: Place) -> bool:
    """Whether the playlist holds this part, a later one, or its end."""
    return live.window.ended or (live.window.next > place and live.is_ready)


class Origin:
    def __init__(self, registry: LiveRegistry, *, watching: Callable[[str, str], None] | None = None) -> None:
        """`watching(channel_id, viewer)` is called for every media playlist that a viewer asks for."""
        self._registry = registry
        self._watching = watching
        self._waiting: WeakKeyDictionary[LiveRendition, _Waiting] = WeakKeyDictionary()
        self._futures: set[asyncio.Future[None]] = set()
        self._texts: WeakKeyDictionary[LiveRendition, tuple[str, bytes]] = WeakKeyDictionary()

    def routes(self) -> list[BaseRoute]:
        get, ask = ["GET", "HEAD"], ["OPTIONS"]
        return [
            Route("/live/{path:path}", self.preflight, methods=ask),
            Route("/live/{channel}/index.m3u8", self.master, methods=get),
            Route("/live/{channel}/{address}/{rendition}/index.m3u8", self.media, methods=get),
            Route("/live/{channel}/{address}/{rendition}/{name}", self.bytes_of, methods=get),
            Route("/live/{path:path}", self.unknown, methods=get),
        ]

    def close(self) -> None:
        """Whoever waits is answered now."""
        for waiting in tuple(self._futures):
            if not waiting.done():
                waiting.set_result(None)

    async def preflight(self, _request: Request) -> Response:
        headers = {"Access-Control-Allow-Methods": "GET, HEAD, OPTIONS", "Access-Control-Allow-Headers": "Range"}
        return Response(status_code=204, headers={**_CORS, **headers, "Access-Control-Max-Age": "86400"})

    async def unknown(self, _request: Request) -> Response:
        return _problem(404, "not_found", "Live broadcasts play at /live/{channel}/index.m3u8.")

    async def master(self, request: Request) -> Response:
        """Addresses in it carry the broadcast, so that a playlist kept too long never leads to another broadcast's media."""
        _asked.labels("master").inc()
        broadcast = self._registry.on_channel(request.path_params["channel"])
        if broadcast is None or (broadcast.ended and not any(it.is_ready for it in broadcast.renditions)):
            return _problem(404, "not_live", "This channel is not live.")
        leader = broadcast.leader
        if leader is not None and not leader.is_ready:
            await self._until(leader, (0, 0), FIRST_SEGMENT_S_MAX)
        if not any(live.is_ready for live in broadcast.renditions):
            return _problem(404, "not_live", "This broadcast is only just beginning.", {"Retry-After": "1"})
        lines = broadcast.master().splitlines()
        text = "\n".join(line if line.startswith("#") else f"{broadcast.address}/{line}" for line in lines)
        return Response(text + "\n", headers={**_CORS, "Cache-Control": "max-age=1"}, media_type=CONTENT_TYPE)

    async def media(self, request: Request) -> Response:
        _asked.labels("playlist").inc()
        found = self._rendition(request)
        if found is None:
            return _problem(404, "rendition_not_found", "There is no such rendition, or it has ended.")
        broadcast, live = found
        asked = _place(request)
        if isinstance(asked, str):
            return _problem(400, "directive_invalid", asked)
        if self._watching is not None:
            self._watching(broadcast.channel_id, viewer(request))
        target_s = broadcast.target_duration
        if asked is not None and not live.window.ended and asked[0] > live.window.last_number + AHEAD_MAX:
            return _problem(400, "too_far_ahead", f"The last segment is number {live.window.last_number}.")
        wanted = asked if asked is not None else (0, -1)
        if not has(live, wanted) and not await self._until(live, wanted, 3.0 * target_s):
            return _problem(503, "media_late", "No media came in time.", {"Retry-After": "1"})
        # 6.2.5.1 and appendix B.1: an answer to a blocking request may be kept long, any other only half a target duration.
        age_s = 6 * target_s if asked is not None else max(1, target_s // 2)
        if live.window.ended:
            age_s = 60
        headers = {**_CORS, "Cache-Control": f"public, max-age={age_s}"}
        return Response(self._text(live), headers=headers, media_type=CONTENT_TYPE)

    async def bytes_of(self, request: Request) -> Response:
        found, name = self._rendition(request), _FILE.fullmatch(request.path_params["name"])
        if found is None or name is None:
            return _problem(404, "media_not_found", "There is no such media, or no more.")
        _, live = found
        kind, number = name[1], int(name[2])
        _asked.labels(kind.rstrip("-") or "segment").inc()
        data: bytes | memoryview | None = None
        if kind == "init-" and name[3] == "mp4":
            data = live.window.inits[number] if number < len(live.window.inits) else None
        elif kind == "part-" and name[3] == "m4s":
            part = await self._part(live, number)
            data = part.data if part is not None else None
        elif kind == "" and name[3] == "m4s":
            entry = live.window.segment(number)
            data = entry.data if entry is not None else None
        if data is None:
            return _problem(404, "media_not_found", "There is no such media, or no more.")
        return _bytes(request, data)

    # -- holding ---------------------------------------------------------------------------------------------------

    async def _part(self, live: LiveRendition, sequence: int) -> Part | None:
        """6.2.6: a request for the part that was hinted at waits until it is there."""
        window = live.window
        deadline = asyncio.get_running_loop().time() + 3.0 * live.broadcast.target_duration
        # A segment may end where one more part was expected: then the hint is the next segment's first.
        while window.part(sequence) is None and sequence == window.next_sequence and not window.ended:
            if not await self._until(live, window.next, deadline - asyncio.get_running_loop().time()):
                break
        return window.part(sequence)

    async def _until(self, live: LiveRendition, place: Place, timeout_s: float) -> bool:
        """Wait until the rendition has this place. False where it has not in time, or too many wait."""
        if len(self._futures) >= HELD_MAX:
            _unmet.inc()
            return False
        queue = self._waiting.get(live)
        if queue is None:
            queue = self._waiting[live] = _Waiting(live)
        waiting = queue.wait(place)
        self._futures.add(waiting)
        _held.inc()
        try:
            async with asyncio.timeout(timeout_s):
                await waiting
        except TimeoutError:
            _unmet.inc()
        finally:
            waiting.cancel()
            self._futures.discard(waiting)
            _held.dec()
        return has(live, place)

    # -- finding ---------------------------------------------------------------------------------------------------

    def _rendition(self, request: Request) -> tuple[LiveBroadcast, LiveRendition] | None:
        params = request.path_params
        broadcast = self._registry.at(params["channel"], params["address"])
        live = broadcast.rendition(params["rendition"]) if broadcast is not None else None
        return (broadcast, live) if broadcast is not None and live is not None else None

    def _text(self, live: LiveRendition) -> bytes:
        """Encoded once a change."""
        text, kept = live.playlist(), self._texts.get(live)
        if kept is None or kept[0] is not text:
            kept = self._texts[live] = (text, text.encode())
        return kept[1]


def viewer(request: Request) -> str:
    """Whatever tells two viewers apart without knowing them: address and browser."""
    host = request.client.host if request.client else ""
    return f"{host}|{request.headers.get('User-Agent', '')[:200]}"


def _place(request: Request) -> Place | str | None:
    """What `_HLS_msn` and `_HLS_part` ask for; what is wrong with them; None where nothing is asked (6.2.5.2)."""
    query = request.query_params
    numbers, parts = query.getlist("_HLS_msn"), query.getlist("_HLS_part")
    if not numbers:
        return "_HLS_part needs _HLS_msn." if parts else None
    if len(numbers) > 1 or len(parts) > 1:
        return "Each directive may stand once."
    if not _NUMBER.fullmatch(numbers[0]) or (parts and not _NUMBER.fullmatch(parts[0])):
        return "_HLS_msn and _HLS_part are decimal numbers."
    # Without a part, the whole segment is asked for: it is there when the one after it is next.
    return (int(numbers[0]), int(parts[0])) if parts else (int(numbers[0]), 1 << 40)


def _bytes(request: Request, data: bytes | memoryview) -> Response:
    headers = {**_CORS, "Cache-Control": EVER, "Accept-Ranges": "bytes"}
    found = _RANGE.fullmatch(request.headers.get("Range", "").strip())
    size, status = len(data), 200
    if found is not None and (found[1] or found[2]):
        start = int(found[1]) if found[1] else max(0, size - int(found[2]))
        end = min(int(found[2]) + 1 if found[1] and found[2] else size, size)
        if start >= size:
            return _problem(416, "range_invalid", f"There are {size} bytes.", {"Content-Range": f"bytes */{size}"})
        if start < end:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
            data, status = data[start:end], 206
    return Response(bytes(data), status, headers, "video/mp4")


def _problem(status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """RFC 9457."""
    title = HTTPStatus(status).phrase
    body = orjson.dumps({"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail})
    return Response(body, status, {"Cache-Control": "no-store", **_CORS, **(headers or {})}, "application/problem+json")
