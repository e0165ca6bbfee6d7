"""The archive on a real folder: objects, manifest and facts agree, whatever the order, the store or the disk do meanwhile."""

import asyncio
import hashlib
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from media import manifest
from media.archive import LATE_NUMBERS, Archive
from media.facts import fact_of
from media.manifest import Manifest
from media.port import RecordingReady, SegmentsArchived
from tests.media.recorded import (
    BROADCAST,
    NUMBERS,
    SECONDS,
    SEGMENT_S,
    START,
    Report,
    encoded,
    moved_away,
    record,
    recorder,
    segment,
)


@pytest.fixture(params=["folder", "objects"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    """A local folder, and a store without files, as S3 is."""
    if request.param == "folder":
        return Archive.open(str(tmp_path / "archive"))
    return Archive(MemoryStore(), None)


async def written(archive: Archive, broadcast_id: str = BROADCAST) -> Manifest:
    found = await manifest.read(archive.store, broadcast_id)
    assert found is not None
    return found


async def test_objects_manifest_and_facts_of_a_recording_agree(archive: Archive) -> None:
    report = Report()
    await record(archive, report)
    found = await written(archive)
    assert [line.number for line in found.segments] == list(range(NUMBERS))
    assert found.ended_at is not None
    for line in found.segments:
        assert {it.rendition for it in line.objects} == {"source", "audio"}
        for it in (*line.objects, *(rendition.init for rendition in found.renditions)):
            data = bytes(await (await archive.store.get_async(it.key)).bytes_async())
            assert (it.size, it.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    *segments, ready = report.facts
    assert segments == [fact_of(found.recording, line) for line in found.segments]
    assert isinstance(ready, RecordingReady)
    assert ready.vod_url == f"/vod/{BROADCAST}/index.m3u8"
    assert ready.duration_s == SECONDS


async def test_a_number_is_told_once_it_is_there_in_every_rendition(archive: Archive) -> None:
    report = Report()
    recording = recorder(archive, report)
    (source, init, data), (audio, audio_init, audio_data) = encoded(), encoded(video=False)
    recording.rendition(source, init)
    recording.rendition(audio, audio_init)
    recording.segment(segment("source", 0, data[0]))
    recording.segment(segment("source", 1, data[1]))
    recording.segment(segment("audio", 0, audio_data[0]))
    await report.until(facts=1)
    fact = report.facts[0]
    assert isinstance(fact, SegmentsArchived)
    assert [(it.rendition, it.key) for it in fact.objects] == [("source", "source/0.m4s"), ("audio", "audio/0.m4s")]
    await recording.close(START)
    assert report.kinds() == ["segments", "segments", "recording"]


async def test_a_rung_that_stays_behind_holds_nothing_up_and_comes_into_the_manifest_late(archive: Archive) -> None:
    report = Report()
    recording = recorder(archive, report)
    (source, init, data), (audio, audio_init, audio_data) = encoded(), encoded(video=False)
    recording.rendition(source, init)
    recording.rendition(audio, audio_init)
    for number in range(LATE_NUMBERS + 1):
        recording.segment(segment("source", number, data[0]))
    await report.until(facts=1)
    recording.segment(segment("audio", 0, audio_data[0]))
    await recording.close(START)
    assert [fact.number for fact in report.facts if isinstance(fact, SegmentsArchived)] == list(range(LATE_NUMBERS + 1))
    first, second, *_ = (await written(archive)).segments
    assert [it.rendition for it in first.objects] == ["source", "audio"]
    assert [it.rendition for it in second.objects] == ["source"]


async def test_a_rendition_that_begins_anew_keeps_the_initialisation_segment_of_what_it_made_before(
    archive: Archive,
) -> None:
    report = Report()
    recording = recorder(archive, report)
    source, init, data = encoded()
    for number, this in enumerate((init, init, init + b"\x00\x00\x00\x08free")):
        recording.rendition(source, this)
        recording.segment(segment("source", number, data[number]))
    await recording.close(START)
    names = [it.init.rpartition("/")[2] for line in (await written(archive)).segments for it in line.objects]
    assert names == ["init-0.mp4", "init-0.mp4", "init-1.mp4"]


async def test_what_cannot_be_stored_at_once_is_stored_once_the_store_is_back(tmp_path: Path) -> None:
    archive = Archive.open(str(tmp_path / "archive"))
    report = Report()
    recording = recorder(archive, report)
    source, init, data = encoded()
    with moved_away(tmp_path / "archive"):
        recording.rendition(source, init)
        for number in range(NUMBERS):
            recording.segment(segment("source", number, data[number]))
        for _ in range(20):
            await asyncio.sleep(0)
        assert report.facts == []
    await recording.close(START)
    assert report.kinds() == ["segments"] * NUMBERS + ["recording"]
    assert len((await written(archive)).segments) == NUMBERS


async def test_beyond_its_bound_segments_are_dropped_from_the_archive_and_the_rest_is_kept(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, init, data = encoded()
    monkeypatch.setattr("media.archive.WAITING_BYTES_MAX", len(init) + len(data[0]) + 10)
    report = Report()
    recording = recorder(archive, report)
    recording.rendition(source, init)
    recording.segment(segment("source", 0, data[0]))
    recording.segment(segment("source", 1, data[1]))
    await report.until(facts=1)
    recording.segment(segment("source", 2, data[2][: len(data[0])]))
    await recording.close(START)
    assert [line.number for line in (await written(archive)).segments] == [0, 2]


async def test_facts_without_room_are_told_when_the_recording_ends(archive: Archive) -> None:
    report = Report()
    report.full = True
    recording = recorder(archive, report)
    source, init, data = encoded()
    recording.rendition(source, init)
    recording.segment(segment("source", 0, data[0]))
    await report.until(refused=1)
    report.full = False
    recording.segment(segment("source", 1, data[1]))
    await recording.close(START)
    assert [f.number for f in report.facts if isinstance(f, SegmentsArchived)] == [0, 1]
    assert report.kinds()[-1] == "recording"


async def test_a_broadcast_without_a_segment_leaves_no_recording_to_play(archive: Archive) -> None:
    report = Report()
    await recorder(archive, report).close(START)
    assert report.facts == []
    assert (await written(archive)).ended_at == START


async def test_a_closed_recording_is_not_marked_open(archive: Archive) -> None:
    report = Report()
    recording = recorder(archive, report)
    source, init, data = encoded()
    recording.rendition(source, init)
    recording.segment(segment("source", 0, data[0]))
    await report.until(facts=1)
    assert [it["path"] for it in archive.store.list("open").collect()] == [f"open/node/{BROADCAST}"]
    await recording.close(START)
    assert archive.store.list("open").collect() == []


async def test_many_segments_make_a_manifest_of_several_pieces_that_reads_as_one(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("media.manifest.PIECE_BYTES_MAX", 1000)
    report = Report()
    recording = recorder(archive, report)
    source, init, _ = encoded()
    recording.rendition(source, init)
    for number in range(12):
        recording.segment(segment("source", number, b"bytes"))
        await report.until(facts=number + 1)
    found = await written(archive)
    assert [line.number for line in found.segments] == list(range(12))
    assert found.duration_s == 12 * SEGMENT_S
    await recording.close(START)
    assert (await written(archive)).segments == found.segments
