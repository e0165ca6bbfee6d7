"""Pictures of a recording: a poster, and a storyboard of thumbnails in sprites with the WebVTT that players show them by.

Made of one key frame a segment, so that three hours cost seconds; right after a broadcast's end, or when they are first asked for, and kept
beside the recording from then on. One recording at a time, at low priority: viewers come first.
"""

import asyncio
import math
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

import obstore
import structlog
from obstore.exceptions import BaseError, NotFoundError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from media import isolation, manifest
from media.answers import problem
from media.archive import Archive
from media.fmp4.box import Fmp4Error
from media.fmp4.reader import Fmp4Reader, Tracks
from media.fmp4.writer import Run, init_segment, media_fragment
from media.manifest import Manifest, RenditionLine, StoredObject
from media.sample import Sample
from media.vod import Vod
from media.webvtt import stamp

log = structlog.get_logger()

FOLDER: Final = "storyboard"
INDEX, POSTER = "index.vtt", "poster.jpg"
THUMBS_MAX: Final = 600
"""A long recording has them further apart."""
WIDTH: Final = 160
COLUMNS, ROWS = 10, 10
POSTER_WIDTH: Final = 640
POSTER_AT: Final = 1 / 3
PARALLEL: Final = 8
FFMPEG_S_MAX: Final = 120.0


class NoPicture(Exception):
    """There is only sound, or not one picture of it can be read."""


@dataclass(frozen=True, slots=True)
class _Thumb:
    at_s: float
    stored: StoredObject


class Storyboards:
    """Answers below /vod/{id}/storyboard/, before those of `Vod`. `binary` is FFmpeg."""

    def __init__(self, archive: Archive, vod: Vod, binary: Path) -> None:
        self._archive = archive
        self._vod = vod
        self._binary = binary
        self._turn = asyncio.Semaphore(1)
        self._making: dict[str, asyncio.Task[None]] = {}

    def routes(self) -> list[BaseRoute]:
        get, folder = ["GET", "HEAD"], f"/vod/{{broadcast_id}}/{FOLDER}"
        return [
            # Lists of recordings show it to everybody, whoever may play them.
            Route(f"{folder}/{POSTER}", self.poster, methods=get),
            Route(f"{folder}/{{name}}", self._vod.gated(self.answer), methods=get),
        ]

    async def poster(self, request: Request) -> Response:
        return await self._answer(request, POSTER)

    async def answer(self, request: Request) -> Response:
        return await self._answer(request, request.path_params["name"])

    async def _answer(self, request: Request, name: str) -> Response:
        broadcast_id = request.path_params["broadcast_id"]
        recording = await self._vod.recording(broadcast_id)
        if isinstance(recording, Response):
            return recording
        if recording.ended_at is None:
            return problem(404, "storyboard_not_found", "A storyboard is made at the broadcast's end.")
        key = f"{manifest.ROOT}/{broadcast_id}/{FOLDER}/{INDEX}"
        try:
            try:
                await obstore.head_async(self._archive.store, key)
            except (NotFoundError, FileNotFoundError):
                await self.make(recording)
        except NoPicture:
            return problem(404, "storyboard_not_found", "This recording has no picture.")
        except (BaseError, OSError, TimeoutError, RuntimeError) as fault:
            log.warning("storyboard.failed", broadcast=broadcast_id, problem=repr(fault)[:300])
            return problem(503, "storyboard_unavailable", "The storyboard cannot be made now.", {"Retry-After": "5"})
        return await self._vod.object(request, broadcast_id, FOLDER, name)

    async def make(self, recording: Manifest) -> None:
        """Raises `NoPicture` and what obstore raises. Whoever asks meanwhile waits for the same."""
        broadcast_id = recording.recording.broadcast_id
        task = self._making.get(broadcast_id)
        if task is None:
            task = self._making[broadcast_id] = asyncio.create_task(self._make(recording))
            task.add_done_callback(lambda _: self._making.pop(broadcast_id, None))
        await asyncio.shield(task)

    async def make_of(self, broadcast_id: str) -> None:
        """After a broadcast's end; what fails is made when it is asked for."""
        try:
            recording = await manifest.read(self._archive.store, broadcast_id)
            if recording is not None and recording.ended_at is not None and recording.segments:
                await self.make(recording)
        except NoPicture:
            return
        except (BaseError, OSError, TimeoutError, RuntimeError) as fault:
            log.warning("storyboard.failed", broadcast=broadcast_id, problem=repr(fault)[:300])

    async def _make(self, recording: Manifest) -> None:
        async with self._turn:
            folder = f"{manifest.ROOT}/{recording.recording.broadcast_id}/{FOLDER}"
            seen = sorted((it for it in recording.renditions if it.width and it.height), key=lambda it: it.height)
            if not seen:
                raise NoPicture
            small = seen[0]
            thumbs = _thumbs(recording, small.name)
            height = max(2, round(WIDTH * small.height / small.width / 2) * 2)
            shown, frames = await self._frames(thumbs, WIDTH, height)
            if not shown:
                raise NoPicture
            large = next((it for it in reversed(seen) if it.height <= POSTER_WIDTH), small)
            poster = await self._poster(recording, large)
            sprites = await self._sprites(frames, len(shown), height)
            for number, sprite in enumerate(sprites):
                await self._archive.put(f"{folder}/sprite-{number}.jpg", sprite)
            await self._archive.put(f"{folder}/{POSTER}", poster)
            # Last: whoever finds it finds everything.
            await self._archive.put(f"{folder}/{INDEX}", index(shown, recording.duration_s, height).encode())

    async def _frames(self, thumbs: list[_Thumb], width: int, height: int) -> tuple[list[float], bytes]:
        """When each picture is shown that could be read, and all of them as raw 4:2:0, one after the other."""
        limit = asyncio.Semaphore(PARALLEL)

        async def key_frame(thumb: _Thumb) -> bytes:
            async with limit:
                return await self._key_frame(thumb.stored)

        shown: list[float] = []
        raw: list[bytes] = []
        size = width * height * 3 // 2
        for _, group in groupby(thumbs, key=lambda thumb: thumb.stored.init):
            same = list(group)
            pictures = await asyncio.gather(*map(key_frame, same))
            there = [(thumb.at_s, picture) for thumb, picture in zip(same, pictures, strict=True) if picture]
            if not there:
                continue
            init = await self._init(same[0].stored.init)
            decoded = await self._ffmpeg(
                b"".join((init, *(picture for _, picture in there))),
                ["-f", "mp4", "-i", "pipe:0", "-map", "0:v:0", "-fps_mode", "passthrough"],
                ["-vf", f"scale={width}:{height}", "-pix_fmt", "yuv420p", "-f", "rawvideo", "pipe:1"],
            )
            if len(decoded) == size * len(there):
                shown += [at_s for at_s, _ in there]
                raw.append(decoded)
        return shown, b"".join(raw)

    async def _key_frame(self, stored: StoredObject) -> bytes:
        """The segment's first picture, as a fragment of its own; empty where it has none that can be read."""
        reader = Fmp4Reader()
        try:
            reader.receive(await self._bytes(stored.init))
            samples = reader.receive(await self._bytes(stored.key))
        except (Fmp4Error, NotFoundError, FileNotFoundError):
            return b""
        first = next((it for it in samples if isinstance(it, Sample) and it.kind == "video" and it.key), None)
        if first is None:
            return b""
        run = Run(is_video=True, dts=first.dts)
        run.append(first.duration, 0, True, first.data)
        return media_fragment(1, [run])

    async def _init(self, key: str) -> bytes:
        tracks = next(it for it in Fmp4Reader().receive(await self._bytes(key)) if isinstance(it, Tracks))
        return init_segment(tracks.video, None)

    async def _bytes(self, key: str) -> bytes:
        found = await obstore.get_async(self._archive.store, key)
        return bytes(await found.bytes_async())

    async def _poster(self, recording: Manifest, rendition: RenditionLine) -> bytes:
        thumbs = _thumbs(recording, rendition.name)
        width = min(POSTER_WIDTH, rendition.width)
        height = max(2, round(width * rendition.height / rendition.width / 2) * 2)
        first = int(len(thumbs) * POSTER_AT)
        for chosen in (*thumbs[first:], *thumbs[:first]):
            shown, frame = await self._frames([chosen], width, height)
            if shown:
                return await self._jpeg(frame, f"{width}x{height}", ["-frames:v", "1", "-q:v", "4"])
        raise NoPicture

    async def _sprites(self, frames: bytes, count: int, height: int) -> list[bytes]:
        size = WIDTH * height * 3 // 2
        each = COLUMNS * ROWS
        found = []
        for first in range(0, count, each):
            some = min(each, count - first)
            tile = f"tile={COLUMNS}x{math.ceil(some / COLUMNS)}"
            data = frames[first * size : (first + some) * size]
            found.append(await self._jpeg(data, f"{WIDTH}x{height}", ["-vf", tile, "-frames:v", "1", "-q:v", "5"]))
        return found

    async def _jpeg(self, frames: bytes, size: str, how: list[str]) -> bytes:
        given = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", size, "-i", "pipe:0"]
        return await self._ffmpeg(
            frames, given, [*how, "-f", "image2pipe", "-c:v", "mjpeg", "-strict", "unofficial", "pipe:1"]
        )

    async def _ffmpeg(self, data: bytes, given: list[str], wanted: list[str]) -> bytes:
        process = await asyncio.create_subprocess_exec(
            str(self._binary), "-hide_banner", "-loglevel", "error", "-threads", "1", *given, *wanted,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        group = isolation.confine(process.pid)
        try:
            async with asyncio.timeout(FFMPEG_S_MAX):
                out, complaints = await process.communicate(data)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            isolation.release(group)
        if process.returncode:
            raise RuntimeError(complaints.decode(errors="replace")[-300:])
        return out


def _thumbs(recording: Manifest, rendition: str) -> list[_Thumb]:
    """Segments to show, evenly spread, by when they play."""
    found, at_s = [], 0.0
    for segment in recording.of(rendition):
        stored = next((it for it in segment.objects if it.rendition == rendition), None)
        if stored is not None:
            found.append(_Thumb(at_s, stored))
        at_s += segment.duration_s
    return found[:: math.ceil(len(found) / THUMBS_MAX) or 1]


def index(shown: list[float], duration_s: float, height: int) -> str:
    """WebVTT whose cues name a place in a sprite by a media fragment (W3C Media Fragments URI, 4.2.2)."""
    cues = ["WEBVTT\n"]
    for number, (begins_s, ends_s) in enumerate(zip(shown, [*shown[1:], max(duration_s, shown[-1] + 1)], strict=True)):
        sprite, place = divmod(number, COLUMNS * ROWS)
        row, column = divmod(place, COLUMNS)
        where = f"sprite-{sprite}.jpg#xywh={column * WIDTH},{row * height},{WIDTH},{height}"
        cues.append(f"{stamp(begins_s)} --> {stamp(ends_s)}\n{where}\n")
    return "\n".join(cues)
