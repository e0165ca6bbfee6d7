"""A recording made of real H.264 and AAC: segments as the packager gives them to the archive, and a Recorder to take them."""

import asyncio
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from media.archive import Archive, Recorder
from media.facts import fact_id
from media.fmp4.reader import Fmp4Reader, Tracks
from media.fmp4.writer import Run, init_segment, media_fragment
from media.port import Fact, Started
from media.sample import Rendition, Sample, Segment
from tests.media.encoded import fragmented_mp4

SEGMENT_S = 2
SECONDS = 8
NUMBERS = SECONDS // SEGMENT_S
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BROADCAST = "0190c0de-0000-7000-8000-000000000001"


@functools.cache
def encoded(*, video: bool = True) -> tuple[Rendition, bytes, tuple[bytes, ...]]:
    """A rendition, its initialisation segment, and the bytes of its segments: `NUMBERS` of `SEGMENT_S` seconds."""
    tracks, *samples = Fmp4Reader().receive(fragmented_mp4(seconds=SECONDS, gop=60, video=video))
    assert isinstance(tracks, Tracks)
    segments = []
    for number in range(NUMBERS):
        runs = []
        for kind, timescale in (("video", 90_000), ("audio", 48_000)):
            # Their time starts at 1 s.
            mine = [
                s
                for s in samples
                if isinstance(s, Sample) and s.kind == kind and (s.dts / timescale - 0.9999) // SEGMENT_S == number
            ]
            if mine:
                run = Run(is_video=kind == "video", dts=mine[0].dts)
                for sample in mine:
                    run.append(sample.duration, sample.cts, sample.key, sample.data)
                runs.append(run)
        segments.append(media_fragment(number + 1, runs))
    name = "source" if video else "audio"
    return (
        Rendition(name, 900_000, tracks.video, tracks.audio),
        init_segment(tracks.video, tracks.audio),
        tuple(segments),
    )


def segment(rendition: str, number: int, data: bytes, *, start_s: float | None = None) -> Segment:
    begins_s = float(number * SEGMENT_S) if start_s is None else start_s
    return Segment(rendition, number, begins_s, float(SEGMENT_S), START + timedelta(seconds=begins_s), data)


class Report:
    """Takes facts into a list; refuses while it is `full`."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.refused = 0
        self.full = False
        self._changed = asyncio.Event()

    def __call__(self, fact: Fact) -> bool:
        if self.full:
            self.refused += 1
        else:
            self.facts.append(fact)
        self._changed.set()
        return not self.full

    async def until(self, *, facts: int = 0, refused: int = 0) -> None:
        async with asyncio.timeout(20):
            while len(self.facts) < facts or self.refused < refused:
                self._changed.clear()
                await self._changed.wait()

    def kinds(self) -> list[str]:
        return [fact.kind for fact in self.facts]


def recorder(archive: Archive, report: Report, broadcast_id: str = BROADCAST) -> Recorder:
    return Recorder(archive, begun(broadcast_id), report=report, kept=at_once)


def begun(broadcast_id: str = BROADCAST) -> Started:
    return Started(
        fact_id=fact_id(broadcast_id, "started"),
        broadcast_id=broadcast_id,
        channel_id="channel-1",
        at=START,
        title="Painting",
        category="Art",
        node="node",
    )


async def at_once() -> None:
    """A report that is kept as soon as it is made."""


async def record(archive: Archive, report: Report, broadcast_id: str = BROADCAST) -> None:
    """A whole broadcast of a source and an audio-only rung."""
    recording = recorder(archive, report, broadcast_id)
    both = encoded(), encoded(video=False)
    for rendition, init, _ in both:
        recording.rendition(rendition, init)
    for number in range(NUMBERS):
        for rendition, _, segments in both:
            recording.segment(segment(rendition.name, number, segments[number]))
    await recording.close(START + timedelta(seconds=SECONDS))


@contextmanager
def moved_away(folder: Path) -> Iterator[None]:
    """The folder is a file meanwhile: nothing can be stored in it."""
    aside = folder.with_name(folder.name + "-aside")
    folder.rename(aside)
    folder.write_bytes(b"")
    try:
        yield
    finally:
        folder.unlink()
        aside.rename(folder)
