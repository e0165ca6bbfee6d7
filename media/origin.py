"""Serves live broadcasts over HTTP: master and media playlists with blocking reload, parts, segments. The role `media` mounts its routes.

Reads what the packager put into the registry and never changes it. Requests for what is not made yet wait in `media.hls.holding`.
Sections quoted below are those of draft-pantos-hls-rfc8216bis; B.1 says how long caches should keep what. From that an error departs
where time may heal it: kept by a cache, the answer to one who asked too early would be everybody's.
"""

import hashlib
import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import Counter
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from media.answers import Elsewhere, in_memory, kept, playlist, problem
from media.hls.holding import HELD_MAX, Begun, Held, Holding, PartMade, PlaylistReaches, Wish
from media.hls.live import LiveBroadcast, LiveRegistry, LiveRendition
from media.hls.playlist import Text
from media.playback import Gate

FIRST_SEGMENT_S_MAX: Final = 6.0
"""The master playlist of a broadcast that has just begun waits so long for something to show."""
HELD_TD_MAX: Final = 3
"""6.2.5.2: a reload held for longer than so many target durations is answered 503."""
HELD_S_MAX: Final = 25.0
"""However long those are: fronts and caches lose patience after 30 s."""
AHEAD_MAX: Final = 2
"""6.2.5.2: a media sequence number so far beyond the last is refused."""
ENDED_S: Final = 60
RETRY_S: Final = 1
BROWSER_CHARS_MAX: Final = 200
LIVE: Final = "index.m3u8"
REWIND: Final = "dvr.m3u8"
"""The playlists' names: what is live now, and with it all that can be rewound to."""
STANDING: Final = "Tallylight-Standing"
"""To an edge, in a channel's playlist: another node may have more than a broadcast that was interrupted or has ended."""
_DECIMAL: Final = re.compile(r"[0-9]{1,12}")
_FILE: Final = re.compile(r"(part-|init-|)(0|[1-9][0-9]{0,11})\.(m4s|mp4)")
_VIEWER: Final = re.compile(r"[A-Za-z0-9_-]{8,40}")
_MEDIA: Final = "video/mp4"

_requests = Counter("tallylight_origin_requests", "Requests for live media", ["kind"])
_masters, _playlists = _requests.labels("master"), _requests.labels("playlist")
_kinds = {"part-": _requests.labels("part"), "init-": _requests.labels("init"), "": _requests.labels("segment")}


@dataclass(frozen=True, slots=True)
class Directives:
    """6.2.5.2. `number` None: nothing is asked for. `skip`: a delta update will do."""

    number: int | None = None
    part: int | None = None
    skip: bool = False


Standing = Literal["live", "interrupted", "ended"]
Endpoint = Callable[[Request], Awaitable[Response]]
Past = Callable[[Request, str, str, str], Awaitable[Response]]
"""Answers with what the archive has: of a broadcast's id, a rendition, and an object's name."""


class Origin:
    def __init__(
        self,
        registry: LiveRegistry,
        *,
        watching: Callable[[str, str], None] | None = None,
        held_max: int = HELD_MAX,
        first_segment_s_max: float = FIRST_SEGMENT_S_MAX,
        past: Past | None = None,
        gate: Gate | None = None,
    ) -> None:
        """`watching(channel_id, viewer)` is called for every media playlist that a viewer asks for; `past` for what the archive has; `gate`
        stands before all of it."""
        self._registry = registry
        self._past = past
        self._gate = gate
        self._watching = watching
        self._holding = Holding(most=held_max)
        self._first_segment_s_max = first_segment_s_max

    def routes(self) -> list[BaseRoute]:
        get = ["GET", "HEAD"]
        below = "/live/{channel}/{address}/{rendition}"
        return [
            *(Route(f"/live/{{channel}}/{file}", self._gated(self.master), methods=get) for file in (LIVE, REWIND)),
            *(Route(f"{below}/{file}", self._gated(self.media), methods=get) for file in (LIVE, REWIND)),
            Route(f"{below}/{{name}}", self._gated(self.bytes_of), methods=get),
            Route("/live/{path:path}", Elsewhere("Live broadcasts play at /live/{channel}/index.m3u8.")),
        ]

    @property
    def held(self) -> int:
        """How many requests wait now."""
        return len(self._holding)

    def _gated(self, endpoint: Endpoint) -> Endpoint:
        async def answer(request: Request) -> Response:
            broadcast = self._registry.on_channel(request.path_params["channel"])
            if "address" in request.path_params:
                broadcast, _ = self._find(request)
            if self._gate is None or broadcast is None:
                return await endpoint(request)
            return await self._gate.answer(request, broadcast.channel_id, endpoint)

        return answer

    def close(self) -> None:
        """Whoever waits is answered now, and nobody waits any more."""
        self._holding.close()

    async def master(self, request: Request) -> Response:
        """Addresses in it carry the broadcast, so that a playlist kept too long never leads to another broadcast's media."""
        _masters.inc()
        broadcast = self._registry.on_channel(request.path_params["channel"])
        if broadcast is None:
            return problem(404, "not_live", "This channel is not live.", kept(RETRY_S))
        held = await self._holding.until(Begun(broadcast), self._first_segment_s_max, request.receive)
        if held is Held.FULL or held is Held.CLOSED:
            return _busy(held)
        if not broadcast.has_begun:
            return problem(404, "not_live", "This channel has nothing to show yet.", {"Retry-After": str(RETRY_S)})
        text = broadcast.master(f"{broadcast.address}/", _file(request)).encode()
        told = Text(text, hashlib.sha256(text).hexdigest()[:32])
        return playlist(request, told, {**kept(1), STANDING: standing(broadcast)}, tag=broadcast.address)

    async def media(self, request: Request) -> Response:
        _playlists.inc()
        query = request.query_params
        blocking = "_HLS_msn" in query or "_HLS_part" in query
        broadcast, live = self._find(request)
        if broadcast is None or live is None:
            return self._missing(broadcast, 4 if blocking else 1)
        if self._watching is not None:
            self._watching(broadcast.channel_id, viewer(request))
        if live.window.ended:
            # 6.2.5.2: directives are ignored once the playlist has its end.
            return _playlist(request, live, ENDED_S, skip=False)
        asked = directives(query)
        if isinstance(asked, str):
            return problem(400, "directive_invalid", asked, kept(4 * live.target_duration))
        if (too_far := _too_far(live, asked)) is not None:
            return problem(400, "too_far_ahead", too_far)
        # Kept long is only what is new when it is asked for: what a player far behind is given would soon mislead the next one.
        is_new = asked.number is not None and asked.number >= live.window.last_number - 1
        number, part = (0, -1) if asked.number is None else (asked.number, asked.part)
        held = await self._hold(live, PlaylistReaches(live, number, part), request)
        if held is not Held.FULFILLED:
            return _busy(held)
        return _playlist(request, live, _max_age_s(live, is_new=is_new), skip=asked.skip and not live.window.ended)

    async def bytes_of(self, request: Request) -> Response:
        broadcast, live = self._find(request)
        name = _FILE.fullmatch(request.path_params["name"])
        if broadcast is None or live is None:
            return self._missing(broadcast, 1)
        if name is None:
            return _gone(broadcast)
        kind, number, window = name[1], int(name[2]), live.window
        _kinds[kind].inc()
        data: bytes | memoryview | None = None
        match kind, name[3]:
            case "init-", "mp4":
                data = window.inits[number] if number < len(window.inits) else None
                was_made = False
            case "part-", "m4s":
                if number == window.next_sequence:
                    # 6.2.6: no byte of the part that was hinted at goes out before all of them can.
                    held = await self._hold(live, PartMade(live, number), request)
                    if held is not Held.FULFILLED:
                        return _busy(held)
                part = window.part(number)
                data, was_made = (part.data if part else None), number < window.next_sequence
            case "", "m4s":
                entry = window.segment(number)
                data, was_made = (entry.data if entry else None), number < window.next[0]
            case _:
                was_made = True
        if data is None and kind == "" and self._past is not None and window.is_rewindable(number):
            # The same bytes, where they are kept.
            return await self._past(request, broadcast.broadcast_id, live.name, name[0])
        if data is None:
            return _gone(broadcast) if was_made or window.ended else _not_yet()
        return in_memory(request, data, _MEDIA, tag=f"{broadcast.address}/{live.name}/{name[0]}")

    async def _hold(self, live: LiveRendition, wish: Wish, request: Request) -> Held:
        wait_s_max = min(HELD_S_MAX, HELD_TD_MAX * live.target_duration)
        return await self._holding.until(wish, wait_s_max, request.receive)

    def _find(self, request: Request) -> tuple[LiveBroadcast | None, LiveRendition | None]:
        params = request.path_params
        broadcast = self._registry.at(params["channel"], params["address"])
        return broadcast, broadcast.rendition(params["rendition"]) if broadcast is not None else None

    def _missing(self, broadcast: LiveBroadcast | None, target_durations: int) -> Response:
        detail = "There is no such broadcast, or no more."
        if broadcast is None:
            seconds = target_durations * math.ceil(self._registry.segment_s)
            return problem(404, "broadcast_not_found", detail, kept(seconds))
        if broadcast.ended:
            return _gone(broadcast)
        return problem(404, "rendition_not_found", "This broadcast has no such rendition.")


def standing(broadcast: LiveBroadcast) -> Standing:
    """Whether its encoder's media is what players see now."""
    if broadcast.ended:
        return "ended"
    leader = broadcast.leader
    if leader is None or not broadcast.leads:
        return "interrupted"
    newest = leader.window.open or leader.window.segment(leader.window.last_number)
    return "interrupted" if newest is not None and newest.slate else "live"


def viewer(request: Request) -> str:
    """Who asks, as `viewer_named`."""
    headers = request.headers
    # A client may send some, too: the front writes its own behind them.
    forwarded = headers.getlist("X-Forwarded-For") or [request.client.host if request.client is not None else ""]
    browsers = headers.getlist("User-Agent") or [""]
    return viewer_named(headers.get("Tallylight-Viewer", ""), forwarded[-1], browsers[-1])


def viewer_named(named: str, forwarded: str, browser: str) -> str:
    """Whatever tells two viewers apart: what our own player calls itself, to chat too; else the address the front saw, and the browser."""
    if _VIEWER.fullmatch(named):
        return named
    return f"{forwarded.rpartition(',')[2].strip()}|{browser[:BROWSER_CHARS_MAX]}"


def directives(query: QueryParams) -> Directives | str:
    """What a client asks for, or what is wrong with it. `_HLS_skip` is YES, or v2 from those who know of date ranges, which we have none
    of; whatever else it says is not for us, and the whole playlist is always an answer."""
    numbers, parts = query.getlist("_HLS_msn"), query.getlist("_HLS_part")
    skip = query.get("_HLS_skip") in ("YES", "v2")
    if not numbers:
        return "_HLS_part needs _HLS_msn." if parts else Directives(skip=skip)
    if len(numbers) > 1 or len(parts) > 1:
        return "Each directive may stand once."
    if not all(_DECIMAL.fullmatch(value) for value in (*numbers, *parts)):
        return "_HLS_msn and _HLS_part are decimal numbers."
    return Directives(int(numbers[0]), int(parts[0]) if parts else None, skip)


def _too_far(live: LiveRendition, asked: Directives) -> str | None:
    number, parts = live.window.next
    if asked.number is None or asked.number < number:
        return None
    if asked.number > number - 1 + AHEAD_MAX:
        return f"The last segment is number {number - 1}."
    # "Advance Part Limit": three seconds of parts.
    limit = math.ceil(3 / live.part_target_s) if live.part_target_s < 1 else 3
    if asked.part is not None and asked.part > (parts - 1 if asked.number == number else -1) + limit:
        return f"Segment {number} has {parts} parts."
    return None


def _max_age_s(live: LiveRendition, *, is_new: bool) -> int:
    target_s = live.target_duration
    if live.window.ended:
        return ENDED_S
    return 6 * target_s if is_new else max(1, target_s // 2)


def _file(request: Request) -> str:
    return request.url.path.rpartition("/")[2]


def _playlist(request: Request, live: LiveRendition, max_age_s: int, *, skip: bool) -> Response:
    rewind = _file(request) == REWIND
    form = f"{'r' if rewind else ''}{'s' if skip else ''}"
    # For a cache that counts viewers: it keeps this for itself.
    headers = {**kept(max_age_s), "Tallylight-Channel": live.broadcast.channel_id}
    return playlist(
        request, live.text(rewind=rewind, skip=skip), headers, tag=f"{live.broadcast.address}/{live.name}{form}"
    )


def _busy(held: Held) -> Response:
    """Also to one who left and will not read it."""
    retry = {"Retry-After": str(RETRY_S)}
    match held:
        case Held.FULL:
            return problem(503, "too_many_waiting", "Too many requests wait for media.", retry)
        case Held.CLOSED:
            return problem(503, "stopping", "This server is stopping.", retry)
        case _:
            return problem(503, "media_late", "No media came in time.", retry)


def _gone(broadcast: LiveBroadcast) -> Response:
    return problem(404, "media_not_found", "There is no such media, or no more.", kept(broadcast.target_duration))


def _not_yet() -> Response:
    return problem(404, "media_not_found", "There is no such media yet.")
