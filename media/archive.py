"""Keeps what the packager finished: objects in parallel with live, a manifest beside them, a fact for each segment number.

`Recorder` is a `media.sample.SegmentSink`, one a broadcast. It never blocks and never raises: objects wait in a bounded queue and are
tried again, for a bounded time, until they are stored. A number is told (manifest first, fact second) once it is durable in every
rendition that has it, in order. What a crash leaves open, or what could not be told when the recording ended, `media.recovery` closes.
"""

import asyncio
import hashlib
import os
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import obstore
import structlog
from obstore.exceptions import NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url
from prometheus_client import Counter, Gauge

from media import manifest
from media.facts import fact_of, ready, recording_of, restore
from media.manifest import (
    EndLine,
    FileManifest,
    Line,
    Manifest,
    ManifestLog,
    ObjectManifest,
    RenditionLine,
    RunLine,
    SegmentLine,
    StoredObject,
)
from media.port import Fact, Started
from media.sample import Rendition, Segment

log = structlog.get_logger()

PARALLEL: Final = 4
WAITING_BYTES_MAX: Final = 256 * 1024 * 1024
"""Per broadcast; what comes beyond it while the object store is away is lost to the archive, never to the viewers."""
PUT_S_MAX: Final = 30.0
RETRY_S_FIRST: Final = 0.2
RETRY_S_MAX: Final = 10.0
TRIES_MAX: Final = 30
CLOSE_S_MAX: Final = 480.0
"""An archive that is away at a broadcast's end is waited for so long: less than another node takes to think that ours is lost."""
CLOSE_TRY_S_MAX: Final = 60.0
HAND_OVER_S_MAX: Final = 5.0
LATE_NUMBERS: Final = 3
"""A rung that is so many numbers behind the source misses the number."""
OPEN: Final = "open"

_stored = Counter("tallylight_archive_objects_total", "Objects stored")
_retried = Counter("tallylight_archive_retries_total", "Attempts to store an object that failed")
_dropped = Counter(
    "tallylight_archive_dropped_total", "Objects given up: too many waited, or the store refused too often", ["why"]
)
_untold = Counter("tallylight_archive_untold_total", "Facts that had no room and are told when the recording ends")
_waiting = Gauge("tallylight_archive_waiting_bytes", "Bytes that wait to be stored")

Report = Callable[[Fact], bool | None]
"""Takes a fact without waiting; False: there is no room for it now."""
Holds = Callable[[], Awaitable[bool]]
Kept = Callable[[], Awaitable[None]]
"""Returns when what was reported so far will survive this process."""


@dataclass(frozen=True, slots=True)
class Archive:
    """Where recordings are kept: a folder, or any store `obstore` opens by URL. `node` names whose recordings are open."""

    store: ObjectStore
    folder: Path | None
    node: str = "node"

    @classmethod
    def open(cls, location: str, *, node: str = "node") -> "Archive":
        """`location`: a path, or a URL such as s3://bucket/prefix (credentials from the environment)."""
        if "://" not in location:
            folder = Path(location)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return cls(LocalStore(folder), folder, node)
        return cls(from_url(location), None, node)

    def manifest(self, broadcast_id: str, root: str = manifest.ROOT) -> ManifestLog:
        if self.folder is not None:
            return FileManifest(self.folder, broadcast_id, root)
        return ObjectManifest(self.store, broadcast_id, root)

    def marker(self, broadcast_id: str) -> str:
        """The key of what says that a recording is not closed yet, so that a start need not read every manifest. In it stands the fact
        that the broadcast began, which may have been lost with its process."""
        return f"{OPEN}/{self.node}/{broadcast_id}"

    async def put(self, key: str, data: bytes) -> None:
        """Durable when it returns."""
        async with asyncio.timeout(PUT_S_MAX):
            await obstore.put_async(self.store, key, data)
            if self.folder is not None:
                await asyncio.to_thread(_sync, self.folder / key)

    async def copy(self, key: str, to: str) -> None:
        """Durable when it returns. In a folder both names have the same bytes. Raises FileNotFoundError."""
        async with asyncio.timeout(PUT_S_MAX):
            await obstore.copy_async(self.store, key, to)
            if self.folder is not None:
                await asyncio.to_thread(_sync, self.folder / to)

    async def forget(self, key: str) -> None:
        """What is gone already is forgotten: object stores say so of themselves, folders do not."""
        async with asyncio.timeout(PUT_S_MAX):
            with suppress(NotFoundError, FileNotFoundError):
                await obstore.delete_async(self.store, key)


@dataclass(frozen=True, slots=True)
class _Job:
    key: str
    data: bytes
    done: Callable[[str | None], None]
    """Called with the bytes' SHA-256 when they are stored, None when they never will be."""


@dataclass(slots=True)
class _Number:
    """A segment number on its way. `waiting`: how many of its objects are neither stored nor given up."""

    program_date_time: datetime
    discontinuity: bool = False
    waiting: int = 0
    stored: dict[str, StoredObject] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Past:
    """A recording that others began: what its manifest says, the manifest to go on with, the how manieth process this is, and by rendition
    the key and the bytes of the last initialisation segment."""

    found: Manifest
    log: ManifestLog
    run: int
    at: datetime
    inits: Mapping[str, tuple[str, bytes]]


class Recorder:
    """One broadcast's `SegmentSink`. `close` once the packager has ended."""

    def __init__(
        self,
        archive: Archive,
        started: Started,
        *,
        report: Report,
        kept: Kept,
        past: Past | None = None,
        holds: Holds | None = None,
    ) -> None:
        """`past`: what others recorded of it, to go on with. `holds`: whether the recording is still this process's to write."""
        self._archive = archive
        self._started = started
        self._recording = recording_of(started)
        self._report = report
        self._kept = kept
        self._holds = holds
        self._run = past.run if past is not None else 0
        self._manifest = archive.manifest(started.broadcast_id) if past is None else past.log
        self._queue: asyncio.Queue[_Job] = asyncio.Queue()  # bounded in bytes, by WAITING_BYTES_MAX
        self._waiting_bytes = 0
        self._lost = 0
        self._pending: list[Line] = [self._recording]
        self._inits: dict[str, list[bytes]] = {}  # every initialisation segment of a rendition, in order
        self._places: dict[str, int] = {}  # in the master playlist
        self._init_keys: dict[str, str] = {}  # of the last of them
        self._former: dict[str, tuple[str, bytes]] = {}
        self._inits_waiting: set[str] = set()  # those not stored yet, by key
        self._source = ""
        self._numbers: dict[tuple[str, int], _Number] = {}  # by the rendition that is numbered apart, and number
        self._newest: dict[str, int] = {}
        self._apart: set[str] = set()
        self._marked = False
        self._length_s = 0.0
        self._untold: dict[str, int] = {}  # by the rendition that is numbered apart, the first number that had no room
        self._told: set[tuple[str, int]] = set()
        if past is not None:
            self._go_on(past)
        self._changed = asyncio.Event()
        self._changed.set()
        self._tasks = [asyncio.create_task(self._work()) for _ in range(PARALLEL)]
        self._tasks.append(asyncio.create_task(self._write()))

    def _go_on(self, past: Past) -> None:
        found = past.found
        self._pending = [RunLine(run=past.run, node=self._archive.node, at=past.at)]
        self._places = {it.name: it.place for it in found.renditions}
        self._source = found.renditions[0].name if found.renditions else ""
        self._apart = {line.apart for line in found.segments} - {""}
        self._told = {(line.apart, line.number) for line in found.segments}
        self._length_s = found.duration_s
        self._former = dict(past.inits)

    @property
    def waiting_bytes(self) -> int:
        """Not stored yet: 0 to one segment of every rendition, unless the object store is slow or away."""
        return self._waiting_bytes

    @property
    def lost(self) -> int:
        """Objects given up."""
        return self._lost

    # -- the packager's side: never blocks, never raises -----------------------------------------------------------

    def rendition(self, rendition: Rendition, init: bytes, *, slate: bool = False) -> None:
        inits = self._inits.setdefault(rendition.name, [])
        self._source = self._source or rendition.name
        if inits and inits[-1] == init:
            return  # it began again as it was
        inits.append(init)
        key, former = self._former.pop(rendition.name, ("", b""))
        if former == init:
            self._init_keys[rendition.name] = key  # players need not begin anew
            return
        key = self._init_keys[rendition.name] = self._init_key(rendition.name)
        place = self._places.setdefault(rendition.name, len(self._places))
        video = rendition.video

        def done(sha256: str | None) -> None:
            self._inits_waiting.discard(key)
            if sha256 is None or slate:
                return
            line = RenditionLine(
                name=rendition.name,
                bandwidth=rendition.bandwidth,
                codecs=rendition.codecs,
                width=video.width if video else 0,
                height=video.height if video else 0,
                frame_rate=video.frame_rate if video else 0.0,
                init=StoredObject(rendition=rendition.name, key=key, size=len(init), sha256=sha256),
                place=place,
            )
            self._pending.append(line)

        self._inits_waiting.add(key)
        self._enqueue(_Job(key, init, done))

    def segment(self, segment: Segment) -> None:
        key = f"{manifest.ROOT}/{self._recording.broadcast_id}/{segment.rendition}/{segment.number}.m4s"
        if not segment.apart:
            self._newest[segment.rendition] = max(segment.number, self._newest.get(segment.rendition, -1))
        if segment.slate:
            # Whoever rewinds the live broadcast may see it; the manifest does not name it.
            self._enqueue(_Job(key, segment.data, lambda _: None))
            return
        apart = segment.rendition if segment.apart else ""
        if apart:
            self._apart.add(apart)
        number = self._numbers.setdefault(
            (apart, segment.number), _Number(segment.program_date_time, segment.discontinuity)
        )
        number.waiting += 1
        init = self._init_keys[segment.rendition]
        size = len(segment.data)

        def done(sha256: str | None) -> None:
            number.waiting -= 1
            if sha256 is not None:
                number.stored[segment.rendition] = StoredObject(
                    rendition=segment.rendition,
                    key=key,
                    size=size,
                    sha256=sha256,
                    init=init,
                    start_s=segment.start_s,
                    duration_s=segment.duration_s,
                )

        self._enqueue(_Job(key, segment.data, done))

    # -- the end ---------------------------------------------------------------------------------------------------

    async def hand_over(self, *, taken: bool) -> None:
        """Everything stored and told, the manifest left open for whoever goes on with it: who has `taken` it waits for our marker to go."""
        await self._stop(HAND_OVER_S_MAX)
        try:
            async with asyncio.timeout(HAND_OVER_S_MAX):
                await self._advance(everything=True)
                await self._kept()
                if taken:
                    await self._archive.forget(self._archive.marker(self._recording.broadcast_id))
        except Exception as fault:
            log.error("archive_handed_over", broadcast=self._recording.broadcast_id, error=_short(fault))

    async def _stop(self, wait_s_max: float) -> None:
        try:
            async with asyncio.timeout(wait_s_max):
                await self._queue.join()
        except TimeoutError:
            log.error("archive_unstored", broadcast=self._recording.broadcast_id, bytes=self._waiting_bytes)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        _waiting.dec(self._waiting_bytes)

    async def close(self, ended_at: datetime) -> None:
        """Everything stored, the manifest closed, the recording told. What cannot be done within `CLOSE_S_MAX` is left to a recovery."""
        loop = asyncio.get_running_loop()
        until_s, wait_s = loop.time() + CLOSE_S_MAX, RETRY_S_FIRST
        await self._stop(CLOSE_S_MAX)
        while True:
            try:
                async with asyncio.timeout(CLOSE_TRY_S_MAX):
                    await self._close_manifest(ended_at)
                return
            except Exception as fault:
                log.error("archive_left_open", broadcast=self._recording.broadcast_id, error=_short(fault))
            if loop.time() + wait_s > until_s:
                return
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_S_MAX)

    async def _close_manifest(self, ended_at: datetime) -> None:
        broadcast_id, channel_id = self._recording.broadcast_id, self._recording.channel_id
        await self._advance(everything=True)
        await self._manifest.append([EndLine(at=ended_at)])
        await self._manifest.close()
        told = not self._untold or await self._tell_untold()
        if self._length_s:
            self._report(ready(broadcast_id, channel_id, ended_at, self._length_s))
        if told:
            # The marker is what has a next start tell all of this again: it stays until nothing can be lost any more.
            await self._kept()
            await self._archive.forget(self._archive.marker(broadcast_id))
        else:
            log.error("archive_untold", broadcast=broadcast_id)

    # -- storing ---------------------------------------------------------------------------------------------------

    def _init_key(self, rendition: str) -> str:
        index = len(self._inits[rendition]) - 1
        name = f"init-{self._run}-{index}" if self._run else f"init-{index}"
        return f"{manifest.ROOT}/{self._recording.broadcast_id}/{rendition}/{name}.mp4"

    def _enqueue(self, job: _Job) -> None:
        if self._waiting_bytes + len(job.data) > WAITING_BYTES_MAX:
            _dropped.labels("full").inc()
            self._lost += 1
            log.error("archive_dropped", object=job.key)
            job.done(None)
            return
        self._waiting_bytes += len(job.data)
        _waiting.inc(len(job.data))
        self._queue.put_nowait(job)

    async def _work(self) -> None:
        while True:
            job = await self._queue.get()
            sha256 = await self._stored(job)
            self._waiting_bytes -= len(job.data)
            _waiting.dec(len(job.data))
            job.done(sha256)
            self._changed.set()
            self._queue.task_done()

    async def _stored(self, job: _Job) -> str | None:
        wait_s = RETRY_S_FIRST
        for _ in range(TRIES_MAX):
            try:
                if self._holds is not None and not await self._holds():
                    break  # another writes under this key
                await self._archive.put(job.key, job.data)
                _stored.inc()
                digest = await asyncio.to_thread(hashlib.sha256, job.data)
                return digest.hexdigest()
            except Exception as fault:
                # Whatever a store says, there is only one thing to do with it.
                _retried.inc()
                log.warning("archive_retry", object=job.key, error=_short(fault))
                await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
                wait_s = min(2 * wait_s, RETRY_S_MAX)
        _dropped.labels("refused").inc()
        self._lost += 1
        log.error("archive_dropped", object=job.key)
        return None

    # -- telling ---------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._advance(everything=False)
            except Exception as fault:
                log.error("archive_manifest", broadcast=self._recording.broadcast_id, error=_short(fault))
                await asyncio.sleep(RETRY_S_MAX)
                self._changed.set()

    async def _advance(self, *, everything: bool) -> None:
        """Tell the numbers that are complete, in order: in the manifest, and when that is durable, to the event plane."""
        if self._holds is not None and not await self._holds():
            return
        if not self._marked:
            key = self._archive.marker(self._recording.broadcast_id)
            await self._archive.put(key, self._started.model_dump_json().encode())
            self._marked = True
        pending = list(self._pending)
        complete: dict[tuple[str, int], SegmentLine | None] = {}
        waits: set[str] = set()
        for (apart, number), entry in sorted(self._numbers.items()):
            if apart in waits:
                continue
            if not everything and not self._complete(apart, number, entry):
                waits.add(apart)  # in order
                continue
            complete[apart, number] = self._line(apart, number, entry) if entry.stored else None
        segments = [line for line in complete.values() if line is not None]
        if pending or segments:
            await self._manifest.append([*pending, *segments])
        del self._pending[: len(pending)]
        for told in complete:
            del self._numbers[told]
        for line in segments:
            self._tell(line)

    def _tell(self, line: SegmentLine) -> None:
        if (line.apart, line.number) in self._told:
            return  # a late rung's object: the manifest has it
        self._told.add((line.apart, line.number))
        if not line.apart:
            self._length_s += line.duration_s
        # In order: what comes after one that had no room waits with it.
        if line.apart in self._untold or self._report(fact_of(self._recording, line)) is False:
            _untold.inc()
            self._untold.setdefault(line.apart, line.number)

    async def _tell_untold(self) -> bool:
        """Whether all that had no room has it now. The manifest has kept it."""
        facts = [
            fact
            for apart, first in self._untold.items()
            for fact in await restore(self._archive.store, self._recording.broadcast_id, apart, first)
        ]
        return all(self._report(fact) is not False for fact in facts)

    def _complete(self, apart: str, number: int, entry: _Number) -> bool:
        """Nothing of it waits, nor what it cannot be decoded without, and every rendition has it, is past it, or is too late for it."""
        source = self._newest.get(self._source, -1)
        if any(stored.init in self._inits_waiting for stored in entry.stored.values()):
            return False
        return entry.waiting == 0 and (
            bool(apart)
            or source >= number + LATE_NUMBERS
            or all(self._newest.get(name, -1) >= number for name in self._inits if name not in self._apart)
        )

    def _line(self, apart: str, number: int, entry: _Number) -> SegmentLine:
        objects = tuple(entry.stored[name] for name in self._inits if name in entry.stored)
        # The source's, unless it has it not; a rung may have lost parts of it.
        longest = max(objects, key=lambda it: round(it.duration_s, 1))
        return SegmentLine(
            number=number,
            apart=apart,
            start_s=longest.start_s,
            duration_s=longest.duration_s,
            program_date_time=entry.program_date_time,
            objects=objects,
            discontinuity=entry.discontinuity,
        )


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    # The folder's own name may be new as well.
    manifest.sync_folder(path.parent)
    manifest.sync_folder(path.parent.parent)


def _short(fault: Exception) -> str:
    return f"{type(fault).__name__}: {str(fault)[:200]}"
