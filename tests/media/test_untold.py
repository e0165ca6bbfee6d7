"""Facts on their way through the real Recorder, Reporter and Spool: full, on a full disk, killed. What was archived is told."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pytest

from media import pipeline
from media.archive import Archive, Recorder
from media.facts import restore
from media.pipeline import Reporter
from media.port import SegmentsArchived
from media.recovery import recover
from media.sample import Segment
from media.spool import Spool
from tests.media.facts import ListPlane
from tests.media.recorded import BROADCAST, START, begun, encoded, segment
from tests.media.test_spool import full, full_disk

__all__ = ["full_disk"]
NOW = datetime(2026, 1, 2, 4, tzinfo=UTC)
NUMBERS = 12
SPOOL_BYTES_MAX = 2000
"""Room for the beginning and a few segments."""


@asynccontextmanager
async def node(folder: Path, plane: ListPlane) -> AsyncIterator[tuple[Archive, Spool, Reporter]]:
    archive = Archive.open(str(folder / "archive"))
    spool = Spool(
        folder / "spool",
        plane.record,
        lambda it: restore(archive.store, it.broadcast_id, it.apart, it.first),
        bytes_max=SPOOL_BYTES_MAX,
    )
    await spool.start()
    reporter = Reporter(spool.put)
    try:
        yield archive, spool, reporter
    finally:
        await reporter.close()
        await spool.close()


def recording(archive: Archive, reporter: Reporter) -> Recorder:
    reporter.report(begun())
    recorder = Recorder(archive, begun(), report=reporter.report, kept=reporter.kept)
    source, init, _ = encoded()
    recorder.rendition(source, init)
    return recorder


def some(numbers: Iterator[int] | range) -> Iterator[Segment]:
    return (segment("source", number, b"some bytes") for number in numbers)


async def told(spool: Spool, plane: ListPlane) -> list[str]:
    """The kinds of what was told, segments by their numbers."""
    async with asyncio.timeout(20):
        await spool.drained()
    return [str(fact.number) if isinstance(fact, SegmentsArchived) else fact.kind for fact in plane.facts]


def once(kinds: list[str]) -> list[str]:
    return list(dict.fromkeys(kinds))


WHOLE = ["started", *map(str, range(NUMBERS)), "recording"]


def markers(archive: Archive) -> list[str]:
    return [str(it["path"]) for it in archive.store.list("open").collect()]


async def archived_so_many(archive: Archive, numbers: int) -> None:
    async with asyncio.timeout(20):
        while len(await restore(archive.store, BROADCAST, "", 0)) < numbers:  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.01)


async def test_what_a_full_spool_has_no_room_for_is_told_once_and_in_order(tmp_path: Path) -> None:
    plane = ListPlane(there=False)
    async with node(tmp_path, plane) as (archive, spool, reporter):
        recorder = recording(archive, reporter)
        for it in some(range(NUMBERS)):
            recorder.segment(it)
        await recorder.close(START)
        await reporter.kept()
        assert sum(path.stat().st_size for path in (tmp_path / "spool").glob("*.facts")) < SPOOL_BYTES_MAX + 1500
        assert markers(archive) == [], "a next start need not look"
        plane.there = True
        assert await told(spool, plane) == WHOLE


async def test_a_node_killed_while_its_spool_was_full_loses_nothing(tmp_path: Path) -> None:
    plane = ListPlane(there=False)
    async with node(tmp_path, plane) as (archive, _, reporter):
        recorder = recording(archive, reporter)
        for it in some(range(NUMBERS)):
            recorder.segment(it)
        await archived_so_many(archive, NUMBERS)
        for task in recorder._tasks:
            task.cancel()
    plane.there = True
    async with node(tmp_path, plane) as (archive, spool, _):
        await recover(archive, spool.put, begun=spool.begun, is_live=lambda _: False, now=NOW)
        assert once(await told(spool, plane)) == [*WHOLE[:-1], "ended", "recording"]
        assert len({fact.fact_id for fact in plane.facts}) == len(WHOLE) + 1, "told again, it is the same fact"
        assert spool.begun == []


async def test_a_recording_stays_marked_until_its_facts_are_on_the_disk(tmp_path: Path, full_disk: BinaryIO) -> None:
    plane = ListPlane()
    async with node(tmp_path, plane) as (archive, spool, reporter):
        recorder = recording(archive, reporter)
        await reporter.kept()
        with full(spool, tmp_path / "spool", full_disk):
            for it in some(range(NUMBERS)):
                recorder.segment(it)
            closing = asyncio.create_task(recorder.close(START))
            await archived_so_many(archive, NUMBERS)
            done, _ = await asyncio.wait([closing], timeout=0.5)
            assert not done
            assert markers(archive) == [archive.marker(BROADCAST)]
        await closing
        assert markers(archive) == []
        assert await told(spool, plane) == WHOLE


async def test_what_even_memory_had_no_room_for_is_told_at_the_end_or_by_the_next_start(
    tmp_path: Path, full_disk: BinaryIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "FACTS_WAITING_MAX", 2)
    plane = ListPlane()
    async with node(tmp_path, plane) as (archive, spool, reporter):
        recorder = recording(archive, reporter)
        await reporter.kept()
        with full(spool, tmp_path / "spool", full_disk):
            for it in some(range(NUMBERS)):
                recorder.segment(it)
            async with asyncio.timeout(20):
                await recorder.close(START)
            assert markers(archive) == [archive.marker(BROADCAST)]
        await reporter.kept()
        assert len(await told(spool, plane)) < len(WHOLE)
    async with node(tmp_path, plane) as (archive, spool, _):
        await recover(archive, spool.put, begun=spool.begun, is_live=lambda _: False, now=NOW)
        assert set(await told(spool, plane)) == {*WHOLE, "ended"}
        assert markers(archive) == []
