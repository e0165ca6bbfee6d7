"""Streams as broken encoders send them, and an archive that fails: each has an outcome, which docs/media.md states."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from media import archive as archive_module
from media import manifest
from media.archive import Archive
from media.flv import Began, Demuxer, Frame
from media.sample import Tag, TagType
from tests.media.hls.test_validator import Watching
from tests.media.recorded import BROADCAST, NUMBERS, START, Report, encoded, recorder, segment
from tests.media.tags import tags
from tests.media.test_pipeline import ANN, Stand, frames_of, live_on, push, until
from tests.media.test_pipeline import stand as stand

HOURS_MS = 3 * 3_600_000


def jumped(by_ms: int) -> list[Tag]:
    """An encoder whose clock is set in the middle."""
    return [
        replace(it, timestamp_ms=max(0, it.timestamp_ms + (by_ms if it.timestamp_ms >= 6_000 else 0)))
        for it in tags(seconds=12)
    ]


def late_start(sent: tuple[Tag, ...]) -> list[Tag]:
    return [replace(it, timestamp_ms=it.timestamp_ms + HOURS_MS) for it in sent]


def with_empty(sent: tuple[Tag, ...]) -> list[Tag]:
    """Tags of no length, of one byte, and of half a header, between the others."""
    bodies = {
        TagType.VIDEO: (b"", b"\x17", b"\x27\x01", b"\x97"),
        TagType.AUDIO: (b"", b"\xaf", b"\xaf\x01", b"\x91"),
        TagType.SCRIPT: (b"", b"\x02", b"\x02\x00\xff", b"\x08"),
    }
    found: list[Tag] = []
    for number, it in enumerate(sent):
        found += [it, *(Tag(kind, it.timestamp_ms, some[number % 4]) for kind, some in bodies.items())]
    return found


def strays(sent: tuple[Tag, ...]) -> list[Tag]:
    """Now and then one picture of another time."""
    seen = (TagType.VIDEO, b"\x27\x01")
    return [
        replace(it, timestamp_ms=0) if number % 97 == 96 and (it.type, it.data[:2]) == seen else it
        for number, it in enumerate(sent)
    ]


STREAMS: dict[str, tuple[Callable[[], list[Tag]], int]] = {
    "its clock jumps ahead by hours": (lambda: jumped(HOURS_MS), 350),
    "its clock jumps back by hours": (lambda: [*late_start(tags(seconds=6)), *tags(seconds=6)], 350),
    "it begins at three hours": (lambda: late_start(tags(seconds=12)), 360),
    "tags without length": (lambda: with_empty(tags(seconds=12)), 360),
    "frames of another time": (lambda: strays(tags(seconds=12)), 340),
    "key frames 20 s apart": (lambda: list(tags(seconds=24, gop=600)), 720),
}  # fmt: skip


@pytest.mark.parametrize("what", STREAMS)
async def test_a_strange_stream_is_a_broadcast_in_order(stand: Stand, what: str) -> None:
    made, frames_min = STREAMS[what]
    async with stand.node() as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        sent = made()
        early = len(sent) // 10
        push(sink, sent[:early])
        live = live_on(registry)
        watching = Watching(live)
        push(sink, sent[early:])
        assert live.leader is not None
        ends_s = [entry.start_s + entry.duration_s for entry in live.leader.window.listed]
        assert max(ends_s) < 60, "the broadcast's clock is ours, whatever the encoder's says"
        await sink.close("unpublished")
        assert frames_of(live, "source") >= frames_min - 20 or what.startswith("its clock")
        assert sum(it.samples for it in watching.watches.values() if it.name == "source") > frames_min - 60
        # Of the source alone: the rungs' FFmpeg is handed minutes in an instant here, and what it makes of them is for real time to show.
        findings = [it for it in watching.findings if it.startswith("source:")]
        assert findings == []
        # A group of 20 s does not fit into a segment of 10: there is one that nobody can begin with, and the playlist says so.
        assert live.leader.independent is ("20 s" not in what)
    assert stand.kinds()[0] == "started"
    assert "recording" in stand.kinds()
    recording = await manifest.read(Archive.open(str(stand.folder)).store, stand.facts[0].broadcast_id)
    assert recording is not None
    assert frames_min / 30 - 2.5 < recording.duration_s < frames_min / 30 + 3


def test_a_clock_that_jumps_begins_anew_where_the_broadcast_stands() -> None:
    demuxer = Demuxer(starts_at=lambda: began * 7_000)
    began, at = 0, []
    for tag in jumped(HOURS_MS):
        for found in demuxer.receive(tag):
            match found:
                case Began():
                    began += 1
                case Frame() if found.sample.kind == "video":
                    at.append(found.tag.timestamp_ms)
    assert began == 2
    assert at == sorted(at)
    assert 7_000 in at
    assert max(at) < 14_000


async def test_a_publisher_ten_times_too_fast_is_told_so_and_loses_nothing(stand: Stand) -> None:
    async with stand.node() as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        for tag in tags(seconds=40):
            sink.tag(tag)
            if tag.type == TagType.VIDEO and tag.timestamp_ms % 1000 < 34:
                await asyncio.sleep(0.1)
        (health,) = broadcasts.health()
        assert "faster_than_real_time" in [it.code for it in health.advice]
        live = live_on(registry)
        await sink.close("unpublished")
        assert frames_of(live, "source") > 0
    await until(lambda: "recording" in stand.kinds())
    recording = await manifest.read(Archive.open(str(stand.folder)).store, stand.facts[0].broadcast_id)
    assert recording is not None
    assert recording.duration_s == pytest.approx(40, abs=0.3)


async def test_a_publisher_slower_than_real_time_is_told_so(stand: Stand) -> None:
    async with stand.node(silent_s=30.0) as (broadcasts, _):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        for tag in tags(seconds=12):
            if tag.timestamp_ms > 3_200:
                break
            sink.tag(tag)
            if tag.type == TagType.VIDEO:
                await asyncio.sleep(0.06)
        (health,) = broadcasts.health()
        assert "slower_than_real_time" in [it.code for it in health.advice]
        await sink.close("unpublished")


@pytest.mark.parametrize("how", ["full", "hangs"])
async def test_an_archive_that_fails_is_shown_and_keeps_everything_once_it_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    archive = Archive.open(str(tmp_path))
    works = asyncio.Event()
    put = Archive.put

    async def failing(self: Archive, key: str, data: bytes) -> None:
        if not works.is_set() and not key.startswith("open/"):
            if how == "full":
                raise OSError(28, "No space left on device")
            await works.wait()
        await put(self, key, data)

    monkeypatch.setattr(Archive, "put", failing)
    monkeypatch.setattr(archive_module, "RETRY_S_MAX", 0.3)
    rendition, init, segments = encoded()
    report = Report()
    recording = recorder(archive, report)
    recording.rendition(rendition, init)
    for number in range(NUMBERS):
        recording.segment(segment("source", number, segments[number]))
    await asyncio.sleep(0.3)
    assert recording.waiting_bytes >= sum(map(len, segments)), "they wait in memory, and that is shown"
    assert report.facts == [], "what is not kept is not told"
    works.set()
    await report.until(facts=NUMBERS)
    assert (recording.waiting_bytes, recording.lost) == (0, 0)
    await recording.close(START)
    found = await manifest.read(archive.store, BROADCAST)
    assert found is not None
    assert [it.number for it in found.segments] == list(range(NUMBERS))


async def test_what_no_room_is_left_for_is_counted_and_what_was_told_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive.open(str(tmp_path))
    rendition, init, segments = encoded()
    report = Report()
    recording = recorder(archive, report)
    recording.rendition(rendition, init)
    recording.segment(segment("source", 0, segments[0]))
    await report.until(facts=1)
    away = asyncio.Event()

    async def hanging(self: Archive, key: str, data: bytes) -> None:
        await away.wait()

    with monkeypatch.context() as patched:
        patched.setattr(Archive, "put", hanging)
        patched.setattr(archive_module, "WAITING_BYTES_MAX", len(segments[1]) + 10)
        recording.segment(segment("source", 1, segments[1]))
        recording.segment(segment("source", 2, segments[2]))
        assert recording.lost == 1
        await asyncio.sleep(0.05)
    away.set()
    await recording.close(START)
    found = await manifest.read(archive.store, BROADCAST)
    assert found is not None
    assert 0 in [it.number for it in found.segments]
    assert 2 not in [it.number for it in found.segments]
