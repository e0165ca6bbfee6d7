"""Recorded broadcasts over HTTP: playlists made from the manifest alone, and the bytes of segments. The media role mounts `routes`.

Reads the archive and never writes it. A manifest that a crash cut short plays up to its last whole line.
"""

import hashlib
import math
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Final

import obstore
import structlog
from obstore.exceptions import BaseError, NotFoundError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from media import manifest
from media.answers import IMMUTABLE, Elsewhere, byte_range, is_known, kept, playlist, problem
from media.archive import Archive
from media.hls.playlist import Text
from media.manifest import Manifest, SegmentLine, StoredObject
from media.playback import Gate

log = structlog.get_logger()

HOLE_S_MIN: Final = 0.5
"""Longer than this between two segments, and time did not go on."""
MANIFESTS_MAX: Final = 64
LACK_S_MIN: Final = 0.1
"""A rendition that has so much less of a segment than others lacks a part of it; less is a frame that falls on the other side."""
UNFINISHED_S: Final = 1.0
"""A manifest without an end may still grow: it is read again after so long."""
STREAM_BYTES: Final = 256 << 10
CHANNELS_MAX: Final = 10_000
"""Of so many recordings it is remembered whose they are."""

_KINDS: Final = {"m4s": "video/iso.segment", "jpg": "image/jpeg", "vtt": "text/vtt"}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.(mp4|m4s|jpg|vtt)")


# -- the playlists' text --------------------------------------------------------------------------------------------


def master_playlist(recording: Manifest) -> str:
    """RFC 8216 4.3.4.2: one variant a rendition, its bandwidths measured on what was stored."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-INDEPENDENT-SEGMENTS"]
    for rendition in recording.renditions:
        objects = [it for segment in recording.segments if (it := _of(segment, rendition.name)) and it.duration_s > 0]
        if not objects:
            continue
        peak = max(it.size * 8 / it.duration_s for it in objects)
        average = sum(it.size for it in objects) * 8 / sum(it.duration_s for it in objects)
        attributes = f'BANDWIDTH={math.ceil(peak)},AVERAGE-BANDWIDTH={math.ceil(average)},CODECS="{rendition.codecs}"'
        if rendition.width:
            attributes += f",RESOLUTION={rendition.width}x{rendition.height}"
        if rendition.frame_rate:
            attributes += f",FRAME-RATE={rendition.frame_rate:.3f}"
        lines += [f"#EXT-X-STREAM-INF:{attributes}", f"{rendition.name}/index.m3u8"]
    return "\n".join(lines) + "\n"


def media_playlist(recording: Manifest, rendition: str) -> str:
    """Every rendition lists every number, so that all have one timeline; where it missed one stands a gap."""
    segments = recording.of(rendition)
    longest = max((segment.duration_s for segment in segments), default=1.0)
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:8",
        f"#EXT-X-TARGETDURATION:{max(1, math.floor(longest + 0.5))}",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        f"#EXT-X-MEDIA-SEQUENCE:{segments[0].number if segments else 0}",
    ]
    init = next((it.init for segment in segments if (it := _of(segment, rendition))), "")
    if recording.clip is not None:
        # Exact at its beginning; where it ends is for the player to heed, or for the download.
        lines.append(f"#EXT-X-START:TIME-OFFSET={recording.clip.in_s.get(rendition, 0.0):.5f},PRECISE=YES")
    if init:
        lines.append(f'#EXT-X-MAP:URI="{_file(init)}"')
    before: SegmentLine | None = None
    for segment in segments:
        stored = _of(segment, rendition)
        if before is not None and breaks(before, segment):
            # 4.4.4.3 MUST stand where time or tracks change, and 6.2.4 in every rendition where in one.
            lines.append("#EXT-X-DISCONTINUITY")
        if stored is not None and stored.init != init:
            init = stored.init
            lines.append(f'#EXT-X-MAP:URI="{_file(init)}"')
        lines += _listed(segment, stored)
        before = segment
    lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


def breaks(before: SegmentLine, segment: SegmentLine) -> bool:
    """Whether time does not go on from one to the other: so it was on air, or what lay between is not in the recording."""
    return segment.discontinuity or segment.start_s - before.start_s - before.duration_s > HOLE_S_MIN


def _listed(segment: SegmentLine, stored: StoredObject | None) -> list[str]:
    """A number in one rendition: all of it, none, or what it has of it with gaps before and behind."""
    ends_s = segment.start_s + segment.duration_s
    begins_s = stored.start_s if stored is not None and stored.duration_s else segment.start_s
    there_s = (stored.duration_s or segment.duration_s) if stored is not None else 0.0
    lead_s, rest_s = begins_s - segment.start_s, ends_s - begins_s - there_s
    lead_s, rest_s = (it if it > LACK_S_MIN else 0.0 for it in (lead_s, rest_s))
    file = f"{segment.number}.m4s"
    lines: list[str] = []
    for start_s, duration_s, gap in (
        (segment.start_s, lead_s, True),
        (begins_s if lead_s else segment.start_s, segment.duration_s - lead_s - rest_s if there_s else 0.0, False),
        (ends_s - rest_s, rest_s, True),
    ):
        if duration_s <= 0:
            continue
        at = segment.program_date_time + timedelta(seconds=start_s - segment.start_s)
        lines += [f"#EXT-X-PROGRAM-DATE-TIME:{_rfc3339(at)}", *(["#EXT-X-GAP"] if gap else [])]
        lines += [f"#EXTINF:{duration_s:.5f},", file]
    return lines


def _of(segment: SegmentLine, rendition: str) -> StoredObject | None:
    return next((it for it in segment.objects if it.rendition == rendition), None)


def _file(key: str) -> str:
    return key.rpartition("/")[2]


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# -- over HTTP --------------------------------------------------------------------------------------------------------


Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(slots=True)
class _Read:
    """`texts` by rendition, the master playlist's under no name."""

    recording: Manifest
    at: float
    texts: dict[str, Text] = field(default_factory=dict)


class Vod:
    """Answers for one archive. `clock` in seconds, monotonic. `make` is asked for what is not there, and whether it is there then."""

    def __init__(
        self,
        archive: Archive,
        *,
        clock: Callable[[], float] = monotonic,
        root: str = manifest.ROOT,
        prefix: str = "/vod",
        make: Callable[[str], Awaitable[bool]] | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._store = archive.store
        self._clock = clock
        self._root = root
        self._prefix = prefix
        self._make = make
        self._gate = gate
        self._channels: OrderedDict[str, str] = OrderedDict()
        self._manifests: OrderedDict[str, _Read] = OrderedDict()
        self.hidden: frozenset[str] = frozenset()
        """Recordings that are kept but shown to nobody."""

    def routes(self) -> list[BaseRoute]:
        """All below the prefix, and an answer of our own for whatever else is asked there."""
        get, prefix = ["GET", "HEAD"], self._prefix
        return [
            Route(f"{prefix}/{{broadcast_id}}/index.m3u8", self.gated(self.master), methods=get),
            Route(f"{prefix}/{{broadcast_id}}/{{rendition}}/index.m3u8", self.gated(self.media), methods=get),
            Route(f"{prefix}/{{broadcast_id}}/{{rendition}}/{{name}}", self.gated(self.bytes_of), methods=get),
            Route(f"{prefix}/{{path:path}}", Elsewhere(f"This plays at {prefix}/{{id}}/index.m3u8.")),
        ]

    def gated(self, endpoint: Endpoint) -> Endpoint:
        """For those who may play the recording."""

        async def answer(request: Request) -> Response:
            broadcast_id = request.path_params["broadcast_id"]
            if self._gate is None or not self._gate.closed or broadcast_id in self.hidden:
                return await endpoint(request)
            channel_id = await self._channel_of(broadcast_id)
            if isinstance(channel_id, Response):
                return channel_id
            return await self._gate.answer(request, channel_id, endpoint)

        return answer

    async def _channel_of(self, broadcast_id: str) -> str | Response:
        known = self._channels.get(broadcast_id)
        if known is not None:
            self._channels.move_to_end(broadcast_id)
            return known
        recording = await self.recording(broadcast_id)
        if isinstance(recording, Response):
            return recording
        self._channels[broadcast_id] = recording.recording.channel_id
        while len(self._channels) > CHANNELS_MAX:
            self._channels.popitem(last=False)
        return recording.recording.channel_id

    def forget(self, broadcast_id: str) -> None:
        """The recording is no more."""
        self._manifests.pop(broadcast_id, None)

    async def master(self, request: Request) -> Response:
        read = await self._read(request.path_params["broadcast_id"])
        if isinstance(read, Response):
            return read
        return self._playlist(request, read, "", master_playlist)

    async def media(self, request: Request) -> Response:
        read = await self._read(request.path_params["broadcast_id"])
        if isinstance(read, Response):
            return read
        name = request.path_params["rendition"]
        if all(rendition.name != name for rendition in read.recording.renditions):
            return problem(404, "rendition_not_found", "This recording has no such rendition.")
        return self._playlist(request, read, name, lambda recording: media_playlist(recording, name))

    def _playlist(self, request: Request, read: _Read, name: str, write: Callable[[Manifest], str]) -> Response:
        text = read.texts.get(name)
        if text is None:
            plain = write(read.recording).encode()
            text = read.texts[name] = Text(plain, hashlib.sha256(plain).hexdigest()[:32])
        headers = kept(300 if read.recording.ended_at else 1)
        return playlist(request, text, headers, tag=f"{read.recording.recording.broadcast_id}/{name}")

    async def bytes_of(self, request: Request) -> Response:
        """A segment's bytes, or a range of them (RFC 9110 14: one range; what is no range is ignored)."""
        params = request.path_params
        if params["broadcast_id"] in self.hidden:
            return problem(404, "segment_not_found", "There is no such segment.")
        return await self.object(request, params["broadcast_id"], params["rendition"], params["name"])

    async def object(self, request: Request, broadcast_id: str, rendition: str, name: str) -> Response:
        """An archived object, also of a broadcast that is still live: whoever rewinds it gets these."""
        if not (_NAME.fullmatch(broadcast_id) and _NAME.fullmatch(rendition) and _FILE.fullmatch(name)):
            return problem(404, "segment_not_found", "There is no such segment.")
        return await self.stored(request, f"{self._root}/{broadcast_id}/{rendition}/{name}")

    async def stored(self, request: Request, key: str, more: Mapping[str, str] | None = None) -> Response:
        """What the archive has under a key, or a range of it. `more` headers may stand beside it."""
        # What stands under a key never changes.
        name, tag = key.rpartition("/")[2], f'"{key}"'
        try:
            size = (await obstore.head_async(self._store, key))["size"]
            if is_known(request, tag):
                return Response(status_code=304, headers={**IMMUTABLE, "ETag": tag})
            asked = request.headers.get("Range", "") if request.headers.get("If-Range", tag) == tag else ""
            wanted = byte_range(asked, size)
            if wanted is None:
                headers = {"Content-Range": f"bytes */{size}"}
                return problem(416, "range_invalid", f"The segment has {size} bytes.", headers)
            start, end = wanted
            headers = {**IMMUTABLE, "ETag": tag, "Content-Length": str(end - start), **(more or {})}
            partial = (start, end) != (0, size)
            if partial:
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
            kind = _KINDS.get(name.rpartition(".")[2], "video/mp4")
            status = 206 if partial else 200
            if request.method == "HEAD" or not size:
                return Response(status_code=status, headers=headers, media_type=kind)
            found = await obstore.get_async(self._store, key, options={"range": (start, end)})
        except (NotFoundError, FileNotFoundError):
            return problem(404, "segment_not_found", "There is no such segment.")
        except (BaseError, OSError) as error:
            return _away(error)
        body = found.stream(min_chunk_size=STREAM_BYTES)
        return StreamingResponse(_chunks(body), status_code=status, headers=headers, media_type=kind)

    async def recording(self, broadcast_id: str) -> Manifest | Response:
        read = await self._read(broadcast_id)
        return read if isinstance(read, Response) else read.recording

    async def _read(self, broadcast_id: str) -> _Read | Response:
        """A closed manifest never changes and is kept; one without an end is read again after a moment."""
        if not _NAME.fullmatch(broadcast_id) or broadcast_id in self.hidden:
            return problem(404, "recording_not_found", "There is no such recording.")
        known = self._manifests.get(broadcast_id)
        if known is not None and (known.recording.ended_at or self._clock() - known.at < UNFINISHED_S):
            self._manifests.move_to_end(broadcast_id)
            return known
        try:
            recording = await manifest.read(self._store, broadcast_id, self._root)
            if recording is None and self._make is not None and await self._make(broadcast_id):
                recording = await manifest.read(self._store, broadcast_id, self._root)
        except (BaseError, OSError) as error:
            return _away(error)
        if recording is None or not recording.segments:
            return problem(404, "recording_not_found", "There is no such recording.")
        read = self._manifests[broadcast_id] = _Read(recording, self._clock())
        while len(self._manifests) > MANIFESTS_MAX:
            self._manifests.popitem(last=False)
        return read


def routes(archive: Archive) -> list[BaseRoute]:
    return Vod(archive).routes()


async def _chunks(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in body:
        yield bytes(chunk)


def _away(error: Exception) -> Response:
    log.warning("archive_away", error=f"{type(error).__name__}: {str(error)[:200]}")
    return problem(503, "archive_unavailable", "The archive is away for a moment.", {"Retry-After": "2"})
