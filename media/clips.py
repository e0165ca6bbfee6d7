"""Clips: the segments of a recording that a clip touches, kept under a name of their own, and one MP4 of them. No picture is encoded anew.

A clip is cut when it is first asked for, or just before its recording is destroyed; from then on it needs nothing of the recording. Its
playlists begin exactly (EXT-X-START); the MP4 begins and ends exactly, by its edit lists.
"""

import asyncio
import struct
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import obstore
import structlog
from obstore.exceptions import BaseError, NotFoundError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from media import manifest
from media.answers import problem
from media.archive import Archive
from media.fmp4.box import Fmp4Error
from media.fmp4.shift import earlier, timescales
from media.manifest import ClipLine, EndLine, Line, Manifest, RenditionLine, SegmentLine, StoredObject
from media.playback import Gate
from media.vod import HOLE_S_MIN, Vod

log = structlog.get_logger()

ROOT: Final = "clips"
DOWNLOAD: Final = "clip.mp4"
PARALLEL: Final = 16
REORDER_S: Final = 0.2
"""A picture is shown so much later than it is decoded, at most: what a segment begins with may stand at the end of the one before."""
TOUCH_S_MIN: Final = 0.01
ALIKE_S_MAX: Final = 0.25
"""An encoder that stops need not stop all renditions at once."""
WAIT_S_MAX: Final = 14.0
"""So long a clip of now waits for the segment it ends in: the longest there is, and the time to store it."""
LOOK_S: Final = 0.25
MAKE_S_MAX: Final = 30.0

About = Callable[[str], Awaitable[tuple[str, float, float] | None]]
"""Of which broadcast a clip is, and from where to where in seconds of its recording; None where there is no such clip."""


class NotYet(Exception):
    """The recording does not reach so far yet."""


class NothingThere(Exception):
    """The recording is no more, or has nothing between these times."""


@dataclass(frozen=True, slots=True)
class _Span:
    """The segments of one rendition that a clip touches, and how far into the first of them it begins."""

    segments: tuple[SegmentLine, ...]
    in_s: float


def span(recording: Manifest, rendition: str, start_s: float, end_s: float) -> _Span:
    """By playing time: one segment after the other, whatever time passed between them."""
    at_s, in_s = 0.0, 0.0
    chosen: list[SegmentLine] = []
    for segment in recording.of(rendition):
        if at_s < end_s - TOUCH_S_MIN and at_s + segment.duration_s + REORDER_S > start_s + TOUCH_S_MIN:
            if not chosen:
                in_s = max(0.0, start_s - at_s)
            chosen.append(segment)
        at_s += segment.duration_s
    return _Span(tuple(chosen), in_s)


def _is_there(recording: Manifest, end_s: float) -> bool:
    """Whether what a clip that ends here needs is archived: the source may be numbered apart, and its segments longer than others'."""
    if recording.duration_s < end_s or not recording.renditions:
        return False
    return recording.reaches_s(recording.renditions[0].name) >= end_s - ALIKE_S_MAX


async def cut(archive: Archive, clip_id: str, broadcast_id: str, start_s: float, end_s: float) -> None:
    """Keep what the clip needs. Harmless to repeat. Raises `NotYet`, `NothingThere`, and what obstore raises."""
    recording = await manifest.read(archive.store, broadcast_id)
    if recording is None:
        raise NothingThere
    if recording.ended_at is None and not _is_there(recording, end_s):
        raise NotYet
    spans = {it.name: span(recording, it.name, start_s, end_s) for it in recording.renditions}
    touched = {(line.apart, line.number): line for found in spans.values() for line in found.segments}
    folder, into = f"{manifest.ROOT}/{broadcast_id}/", f"{ROOT}/{clip_id}/"

    def moved(stored: StoredObject) -> StoredObject:
        return stored.model_copy(
            update={"key": into + stored.key.removeprefix(folder), "init": into + stored.init.removeprefix(folder)}
        )

    segments: list[SegmentLine] = []
    copies: dict[str, str] = {}
    for (apart, _), line in sorted(touched.items()):
        # A rendition's own numbers are its alone; where it has left the common ones, it is none of those.
        kept = [
            it for it in line.objects if line in spans[it.rendition].segments and (not apart or it.rendition == apart)
        ]
        for it in kept:
            copies |= {it.key: moved(it).key, it.init: moved(it).init}
        segments.append(line.model_copy(update={"objects": tuple(map(moved, kept))}))
    used = {it.rendition for line in segments for it in line.objects}
    if not used:
        raise NothingThere
    renditions = [it for it in recording.renditions if it.name in used]
    copies |= {it.init.key: moved(it.init).key for it in renditions}
    limit = asyncio.Semaphore(PARALLEL)

    async def copy(key: str, to: str) -> None:
        async with limit:
            await archive.copy(key, to)

    await asyncio.gather(*(copy(key, to) for key, to in copies.items()))
    lines: list[Line] = [
        recording.recording,
        *(it.model_copy(update={"init": moved(it.init)}) for it in renditions),
        *segments,
        ClipLine(in_s={it.name: spans[it.name].in_s for it in renditions}, duration_s=end_s - start_s),
        EndLine(at=datetime.now(UTC)),
    ]
    # Last: whoever finds the manifest finds everything.
    written = archive.manifest(clip_id, ROOT)
    await written.append(lines)
    await written.close()


class Clips:
    """Answers for the clips of one archive; `binary` is the FFmpeg that writes downloads, without encoding anything."""

    def __init__(self, archive: Archive, about: About, binary: Path, *, gate: Gate | None = None) -> None:
        self._archive = archive
        self._about = about
        self._binary = binary
        self._vod = Vod(archive, root=ROOT, prefix="/clips", make=self._make, gate=gate)
        self._making: dict[str, asyncio.Task[object]] = {}

    def routes(self) -> list[BaseRoute]:
        return [
            Route(f"/clips/{{broadcast_id}}/{DOWNLOAD}", self._vod.gated(self.download), methods=["GET", "HEAD"]),
            *self._vod.routes(),
        ]

    async def keep(self, clip_id: str) -> None:
        """Before the recording goes: what can be kept of the clip is."""
        if await manifest.read(self._archive.store, clip_id, ROOT) is None:
            await self._make(clip_id)

    async def destroy(self, clip_id: str) -> None:
        """Gone for good. Harmless to repeat."""
        self._vod.forget(clip_id)
        folder = f"{ROOT}/{clip_id}"
        found = [entry["path"] async for page in obstore.list(self._archive.store, folder) for entry in page]
        for path in sorted(found, key=lambda path: not path.startswith(f"{folder}/manifest")):
            try:
                await self._archive.forget(path)
            except FileNotFoundError:
                continue  # another node is at it

    async def download(self, request: Request) -> Response:
        """The whole clip as one file, written the first time somebody asks."""
        clip_id = request.path_params["broadcast_id"]  # a clip is a recording of its own
        recording = await self._vod.recording(clip_id)
        if isinstance(recording, Response):
            return recording
        key = f"{ROOT}/{clip_id}/{DOWNLOAD}"
        try:
            try:
                await obstore.head_async(self._archive.store, key)
            except (NotFoundError, FileNotFoundError):
                await self._once(key, lambda: self._write(recording, key))
        except (BaseError, OSError, TimeoutError, RuntimeError, Fmp4Error) as fault:
            log.warning("clip.download", clip=clip_id, problem=repr(fault)[:300])
            return problem(503, "clip_unavailable", "The clip cannot be written now.", {"Retry-After": "2"})
        return await self._vod.stored(request, key, {"Content-Disposition": f'attachment; filename="{clip_id}.mp4"'})

    async def _make(self, clip_id: str) -> bool:
        about = await self._about(clip_id)
        if about is None:
            return False
        return bool(await self._once(clip_id, lambda: self._cut(clip_id, *about)))

    async def _cut(self, clip_id: str, broadcast_id: str, start_s: float, end_s: float) -> bool:
        deadline = asyncio.get_running_loop().time() + WAIT_S_MAX
        while True:
            try:
                await cut(self._archive, clip_id, broadcast_id, start_s, end_s)
            except NotYet:
                if asyncio.get_running_loop().time() > deadline:
                    return False
                await asyncio.sleep(LOOK_S)
            except NothingThere:
                log.warning("clip.nothing", clip=clip_id, broadcast=broadcast_id)
                return False
            else:
                return True

    async def _once(self, what: str, work: Callable[[], Awaitable[object]]) -> object:
        """However many ask at a time, it is done once; who leaves disturbs nobody."""
        task = self._making.get(what)
        if task is None:
            task = self._making[what] = asyncio.ensure_future(work())
            assert task is not None
            task.add_done_callback(lambda _: self._making.pop(what, None))
        return await asyncio.shield(task)

    async def _write(self, recording: Manifest, key: str) -> None:
        assert recording.clip is not None
        rendition = recording.renditions[0]
        run = list(_run(recording.of(rendition.name), rendition))
        init = await self._bytes(run[0][0].init)
        scales = timescales(init)
        with tempfile.TemporaryDirectory(prefix="clip") as folder:
            source, target = Path(folder) / "in.mp4", Path(folder) / "out.mp4"
            with source.open("wb") as file:
                file.write(init)
                for it, away_s in run:
                    data = await self._bytes(it.key)
                    await asyncio.to_thread(file.write, earlier(data, away_s, scales) if away_s else data)
            in_s = recording.clip.in_s[rendition.name]
            duration_s = min(recording.clip.duration_s, sum(it.duration_s for it, _ in run) - in_s)
            await self._ffmpeg(source, target, at_s=run[0][0].start_s + in_s, duration_s=duration_s)
            written = bytearray(await asyncio.to_thread(target.read_bytes))
        end_exactly(written, duration_s)
        await self._archive.put(key, bytes(written))

    async def _bytes(self, key: str) -> bytes:
        found = await obstore.get_async(self._archive.store, key)
        return bytes(await found.bytes_async())

    async def _ffmpeg(self, source: Path, target: Path, *, at_s: float, duration_s: float) -> None:
        process = await asyncio.create_subprocess_exec(
            str(self._binary), "-hide_banner", "-nostdin", "-loglevel", "error",
            "-seek_timestamp", "1", "-ss", f"{at_s:.6f}", "-i", str(source),
            "-t", f"{duration_s:.6f}", "-map", "0", "-c", "copy", "-movflags", "+faststart", "-f", "mp4", str(target),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(MAKE_S_MAX):
                _, complaints = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise RuntimeError(complaints.decode(errors="replace")[-300:])


def _run(lines: tuple[SegmentLine, ...], rendition: RenditionLine) -> Iterator[tuple[StoredObject, float]]:
    """The first segments that one decoder takes, up to where the encoder became another, and how much earlier each is in the file than
    it was on air: the time that the encoder was away is none of the clip's."""
    stored = [it for line in lines for it in line.objects if it.rendition == rendition.name]
    away_s = 0.0
    yield stored[0], away_s
    for last, it in pairwise(stored):
        if it.init != last.init:
            return
        hole_s = it.start_s - last.start_s - last.duration_s
        away_s += hole_s if hole_s > HOLE_S_MIN else 0.0
        yield it, away_s


# -- the end of an MP4 ---------------------------------------------------------------------------------------------------

_CONTAINERS: Final = (b"moov", b"trak", b"edts")


def end_exactly(data: bytearray, duration_s: float) -> None:
    """Cut the tracks' edit lists to this length (ISO/IEC 14496-12, 8.6.6). FFmpeg copies whole packets up to the end in decode order, and
    with B-frames that is past the end in the order they are shown."""
    scale = 0
    for kind, at, _ in _boxes(data, 0, len(data)):
        if kind == b"mvhd":
            (scale,) = struct.unpack_from(">I", data, at + (20 if data[at] == 1 else 12))
    if not scale:
        raise RuntimeError("The file has no movie header.")
    most = round(duration_s * scale)
    for kind, at, _ in _boxes(data, 0, len(data)):
        match kind:
            case b"mvhd":
                _cap(data, at + (24 if data[at] == 1 else 16), most, wide=data[at] == 1)
            case b"tkhd":
                _cap(data, at + (28 if data[at] == 1 else 20), most, wide=data[at] == 1)
            case b"elst":
                _cap_edits(data, at, most)


def _cap_edits(data: bytearray, at: int, most: int) -> None:
    wide = data[at] == 1
    entry = 20 if wide else 12
    (count,) = struct.unpack_from(">I", data, at + 4)
    left = most
    for index in range(count):
        place = at + 8 + index * entry
        left -= _cap(data, place, left, wide=wide)


def _cap(data: bytearray, at: int, most: int, *, wide: bool) -> int:
    form = ">Q" if wide else ">I"
    value: int = min(struct.unpack_from(form, data, at)[0], most)
    struct.pack_into(form, data, at, value)
    return value


def _boxes(data: bytearray, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Every box down to those we change: its type, where its content begins and ends."""
    at = start
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        size = size or end - at
        if size < head or at + size > end:
            raise RuntimeError("The file's boxes do not fit.")
        yield kind, at + head, at + size
        if kind in _CONTAINERS:
            yield from _boxes(data, at + head, at + size)
        at += size
