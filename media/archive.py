"""Keeps what the packager finished: objects in parallel with live, a manifest beside them, a fact for each segment number.

A `media.sample.SegmentSink`, one a broadcast. It never blocks and never raises: objects wait in a bounded queue and are tried again until
they are stored. A number is told (manifest first, fact second) once it is durable in every rendition that has it, in order.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid5

import obstore
import structlog
from obstore.store import LocalStore, from_url
from prometheus_client import Counter, Gauge

from media import manifest
from media.manifest import (
    EndLine,
    FileManifest,
    Line,
    ManifestLog,
    ObjectManifest,
    RecordingLine,
    RenditionLine,
    SegmentLine,
    StoredObject,
)
from media.port import ArchivedObject, Fact, RecordingReady, SegmentsArchived
from media.sample import Rendition, Segment

log = structlog.get_logger()

PARALLEL: Final = 4
WAITING_BYTES_MAX: Final = 256 * 1024 * 1024
"""Per broadcast; what comes beyond it while the object store is away is lost to the archive, never to the viewers."""
RETRY_S_FIRST: Final = 0.2
RETRY_S_MAX: Final = 10.0
CLOSE_S_MAX: Final = 60.0
LATE_NUMBERS: Final = 3
"""A rung that is so many numbers behind the source misses the number."""

_FACTS: Final = UUID("1b0c4a5e-3a3f-5e0b-9a53-9fdc63c6b7a1")

_stored = Counter("tallylight_archive_objects_total", "Objects stored")
_retried = Counter("tallylight_archive_retries_total", "Attempts to store an object that failed")
_dropped = Counter("tallylight_archive_dropped_total", "Objects given up because too much waited")
_waiting = Gauge("tallylight_archive_waiting_bytes", "Bytes that wait to be stored")


@dataclass(frozen=True, slots=True)
class Archive:
    """Where recordings are kept: a folder, or any store `obstore` opens by URL."""

    store: Any
    folder: Path | None

    @classmethod
    def open(cls, location: str) -> "Archive":
        """`location`: a path, or a URL such as s3://bucket/prefix (credentials from the environment)."""
        if "://" not in location:
            folder = Path(location)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return cls(LocalStore(folder), folder)
        return cls(from_url(location), None)

    def manifest(self, broadcast_id: str) -> ManifestLog:
        if self.folder is not None:
            return FileManifest(self.folder, broadcast_id)
        return ObjectManifest(self.store, broadcast_id)


@dataclass(slots=True)
class _Number:
    segment: Segment
    stored: dict[str, StoredObject] = field(default_factory=dict)


class Recorder:
    """One broadcast's `SegmentSink`. `close` once the packager has ended."""

    def __init__(
        self,
        archive: Archive,
        *,
        broadcast_id: str,
        channel_id: str,
        started_at: datetime,
        report: Callable[[Fact], None],
    ) -> None:
        self._archive = archive
        self._id = broadcast_id
        self._channel_id = channel_id
        self._report = report
        self._manifest = archive.manifest(broadcast_id)
        self._queue: asyncio.Queue[tuple[str, bytes, Callable[[StoredObject], None], StoredObject]] = asyncio.Queue()
        self._waiting = 0
        self._pending: list[Line] = [
            RecordingLine(broadcast_id=broadcast_id, channel_id=channel_id, started_at=started_at)
        ]
        self._renditions: list[str] = []
        self._numbers: dict[int, _Number] = {}
        self._newest: dict[str, int] = {}
        self._told = -1
        self._end_s = 0.0
        self._changed = asyncio.Event()
        self._changed.set()
        self._workers = [asyncio.create_task(self._work()) for _ in range(PARALLEL)]
        self._scribe = asyncio.create_task(self._write())
        self._unstored = 0

    def rendition(self, rendition: Rendition, init: bytes) -> None:
        self._renditions.append(rendition.name)
        video = rendition.video

        def stored(there: StoredObject) -> None:
            line = RenditionLine(
                name=rendition.name,
                bandwidth=rendition.bandwidth,
                codecs=rendition.codecs,
                width=video.width if video else 0,
                height=video.height if video else 0,
                frame_rate=video.frame_rate if video else 0.0,
                init=there,
            )
            self._pending.append(line)

        self._put(self._object(rendition.name, "init.mp4", init), init, stored)

    def segment(self, segment: Segment) -> None:
        number = self._numbers.setdefault(segment.number, _Number(segment))
        there = self._object(
            segment.rendition, f"{segment.number}.m4s", segment.data, segment.start_s, segment.duration_s
        )

        def stored(done: StoredObject) -> None:
            number.stored[segment.rendition] = done

        self._newest[segment.rendition] = max(segment.number, self._newest.get(segment.rendition, -1))
        self._put(there, segment.data, stored)

    async def close(self, ended_at: datetime) -> None:
        """Everything stored, the manifest closed, the recording told. Gives up on what cannot be stored within `CLOSE_S_MAX`."""
        try:
            async with asyncio.timeout(CLOSE_S_MAX):
                await self._queue.join()
        except TimeoutError:
            log.error("archive.unstored", broadcast=self._id, objects=self._unstored)
        for worker in (*self._workers, self._scribe):
            worker.cancel()
        await asyncio.gather(*self._workers, self._scribe, return_exceptions=True)
        await self._advance(everything=True)
        await self._manifest.append([EndLine(at=ended_at)])
        await self._manifest.close()
        self._report(ready(self._id, self._channel_id, ended_at, self._end_s))

    def _object(
        self, rendition: str, name: str, data: bytes, start_s: float = 0.0, duration_s: float = 0.0
    ) -> StoredObject:
        return StoredObject(
            rendition=rendition,
            key=f"{manifest.ROOT}/{self._id}/{rendition}/{name}",
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            start_s=start_s,
            duration_s=duration_s,
        )

    def _put(self, there: StoredObject, data: bytes, stored: Callable[[StoredObject], None]) -> None:
        if self._waiting + len(data) > WAITING_BYTES_MAX:
            _dropped.inc()
            log.error("archive.dropped", broadcast=self._id, object=there.key)
            return
        self._waiting += len(data)
        self._unstored += 1
        _waiting.inc(len(data))
        self._queue.put_nowait((there.key, data, stored, there))

    async def _work(self) -> None:
        while True:
            key, data, stored, there = await self._queue.get()
            wait_s = RETRY_S_FIRST
            while True:
                try:
                    await obstore.put_async(self._archive.store, key, data)
                    break
                except Exception as fault:
                    # Whatever the store says, the only thing to do with it is to try again: the queue is what is bounded.
                    _retried.inc()
                    log.warning("archive.retry", object=key, error=str(fault)[:200])
                    await asyncio.sleep(wait_s)
                    wait_s = min(2 * wait_s, RETRY_S_MAX)
            _stored.inc()
            _waiting.dec(len(data))
            self._waiting -= len(data)
            self._unstored -= 1
            stored(there)
            self._changed.set()
            self._queue.task_done()

    async def _write(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._advance(everything=False)
            except OSError as fault:
                log.error("archive.manifest", broadcast=self._id, error=str(fault))
                await asyncio.sleep(RETRY_S_MAX)
                self._changed.set()

    async def _advance(self, *, everything: bool) -> None:
        """Tell the numbers that are complete, in order."""
        lines: list[Line] = list(self._pending)
        facts: list[Fact] = []
        ready_numbers = []
        for number in sorted(self._numbers):
            entry = self._numbers[number]
            if not everything and not self._complete(number, entry):
                break
            ready_numbers.append(number)
            if entry.stored:
                line = self._line(number, entry)
                lines.append(line)
                facts.append(fact_of(self._id, self._channel_id, line))
        if lines:
            await self._manifest.append(lines)
        del self._pending[: len(lines) - len(facts)]
        for number in ready_numbers:
            del self._numbers[number]
            self._told = number
        for fact in facts:
            self._report(fact)

    def _complete(self, number: int, entry: _Number) -> bool:
        source = self._newest.get(self._renditions[0], -1) if self._renditions else -1
        given_up = source >= number + LATE_NUMBERS
        return all(rendition in entry.stored or given_up for rendition in self._renditions)

    def _line(self, number: int, entry: _Number) -> SegmentLine:
        objects = tuple(entry.stored[name] for name in self._renditions if name in entry.stored)
        first = objects[0]
        self._end_s = max(self._end_s, first.start_s + first.duration_s)
        return SegmentLine(
            number=number,
            start_s=first.start_s,
            duration_s=first.duration_s,
            program_date_time=entry.segment.program_date_time,
            objects=objects,
        )


def fact_of(broadcast_id: str, channel_id: str, line: SegmentLine) -> SegmentsArchived:
    """The fact of a manifest's line: the same one however often it is made."""
    return SegmentsArchived(
        fact_id=uuid5(_FACTS, f"{broadcast_id}:{line.number}"),
        broadcast_id=broadcast_id,
        channel_id=channel_id,
        at=line.program_date_time,
        number=line.number,
        program_date_time=line.program_date_time,
        offset_s=line.start_s,
        duration_s=line.duration_s,
        objects=tuple(
            ArchivedObject(rendition=one.rendition, key=one.key, size=one.size, sha256=one.sha256)
            for one in line.objects
        ),
    )


def ready(broadcast_id: str, channel_id: str, at: datetime, duration_s: float) -> RecordingReady:
    return RecordingReady(
        fact_id=uuid5(_FACTS, f"{broadcast_id}:ready"),
        broadcast_id=broadcast_id,
        channel_id=channel_id,
        at=at,
        vod_url=f"/vod/{broadcast_id}/index.m3u8",
        duration_s=round(duration_s, 3),
    )
