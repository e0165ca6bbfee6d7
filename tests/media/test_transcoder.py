"""A broadcast's FFmpeg going wrong while its source goes on: killed, wedged, too slow; and sources that are hard to make rungs of."""

import asyncio
import os
import signal
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from media import ffmpeg, transcoder
from media.hls.live import LiveBroadcast
from media.ladder import Rung
from media.pipeline import Broadcasts
from media.sample import Tag, TagSink
from tests.media.encoded import decode
from tests.media.tags import tags
from tests.media.test_pipeline import ANN, Stand, live_on, push, stand, transcoder_of, until

__all__ = ["stand"]

SPEED = 2.0
BACK_S_MAX = 2.0
RUNGS = ("240p", "160p")


async def pace(sink: TagSink, sent: Sequence[Tag], *, speed: float = SPEED) -> None:
    """As an encoder sends them, but faster."""
    loop = asyncio.get_running_loop()
    began, first = loop.time(), sent[0].timestamp_ms
    for tag in sent:
        wait_s = began + (tag.timestamp_ms - first) / 1000 / speed - loop.time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        sink.tag(tag)


def missing(live: LiveBroadcast, name: str) -> list[int]:
    rendition = live.rendition(name)
    assert rendition is not None
    return [entry.number for entry in rendition.window.rewindable if entry.gap]


async def back_after_s(broadcasts: Broadcasts, live: LiveBroadcast, what: int) -> float:
    """From the moment FFmpeg is hurt until both rungs have pictures of another one."""
    hurt = transcoder_of(broadcasts).pid
    assert hurt is not None
    loop = asyncio.get_running_loop()
    at = loop.time()
    os.kill(hurt, what)
    await until(lambda: transcoder_of(broadcasts).pid not in (None, hurt))
    had = {name: parts_made(live, name) for name in RUNGS}
    await until(lambda: all(parts_made(live, name) > had[name] for name in RUNGS))
    return loop.time() - at


def parts_made(live: LiveBroadcast, name: str) -> int:
    """With pictures in them; those that left the playlist are counted too."""
    rendition = live.rendition(name)
    assert rendition is not None
    gaps = sum(part.gap for entry in rendition.window.listed for part in entry.parts)
    return rendition.window.next_sequence - gaps


@pytest.mark.parametrize("gop", [60, 250])
@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
async def test_rungs_are_back_within_two_seconds_whatever_becomes_of_their_ffmpeg(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, what: int, gop: int
) -> None:
    monkeypatch.setattr(transcoder, "STEADY_S", 1.0)
    async with stand.node() as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        pacing = asyncio.create_task(pace(sink, tags(seconds=30, gop=gop), speed=1.0))
        await until(lambda: registry.on_channel("ann"))
        live = live_on(registry)
        took = []
        for number in (2, 4, 6):
            # Just after a segment began: none of the next one's key frames helps.
            await until(lambda: (rung := live.rendition("240p")) and rung.window.last_number >= number)  # noqa: B023
            await until(lambda: not transcoder_of(broadcasts)._failures)
            took.append(await back_after_s(broadcasts, live, what))
        pacing.cancel()
        await asyncio.gather(pacing, return_exceptions=True)
        await sink.close("unpublished")
        assert sorted(took)[1] <= BACK_S_MAX, took
        assert not missing(live, "source")
        for name in RUNGS:
            rung = live.rendition(name)
            assert rung is not None
            entries = list(rung.window.rewindable)
            assert [entry.number for entry in entries] == list(range(len(entries)))
            assert all(entry.duration_s < 2.5 for entry in entries), "the clock of rungs that began again begins again"
            assert len(missing(live, name)) <= 2 * len(took), (
                "no more than the segment in which it happened and its neighbour"
            )
            assert complained(live, name) == b""


def complained(live: LiveBroadcast, name: str) -> bytes:
    """What a decoder says of the segments that players still have."""
    rendition = live.rendition(name)
    assert rendition is not None
    window = rendition.window
    return decode(window.inits[0] + b"".join(entry.data or b"" for entry in window.listed if not entry.gap))[1]


async def test_an_ffmpeg_that_is_late_takes_no_rung_from_the_one_after_it(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, came = tmp_path / "late", tmp_path / "came"
    # The first that is started begins its work after the second has been giving for a while.
    late.write_text(
        f"#!/bin/sh\nif mkdir {came} 2>/dev/null; then while [ ! -e {came}/go ]; do sleep 0.05; done; fi\n"
        f'exec {ffmpeg.binary()} "$@"\n'
    )
    late.chmod(late.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(ffmpeg, "binary", lambda path="": late)
    async with stand.node() as (broadcasts, registry):
        sent = tags(seconds=8)
        sink = await broadcasts.open(ANN, encoder="", peer="")
        push(sink, [tag for tag in sent if tag.timestamp_ms < 3_000])
        first = transcoder_of(broadcasts)
        await until(came.exists)
        await sink.close("disconnected")
        again = await broadcasts.open(ANN, encoder="", peer="")
        pacing = asyncio.create_task(pace(again, sent))
        live = live_on(registry)
        await until(lambda: (rung := live.rendition("240p")) and rung.is_ready)
        (came / "go").touch()
        await first._task
        had = {name: parts_made(live, name) for name in RUNGS}
        await until(lambda: all(parts_made(live, name) > had[name] + 3 for name in RUNGS))
        await pacing
        await again.close("unpublished")


async def test_one_that_cannot_keep_up_gives_up_its_dearest_rung_and_then_the_next(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcoder, "LAG_S_MAX", 0.3)
    slow = tmp_path / "slow"
    # It takes everything in at a quarter of the source's speed.
    slow.write_text(f'#!/bin/sh\nexec {ffmpeg.binary()} -readrate 0.25 "$@"\n')
    slow.chmod(slow.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(ffmpeg, "binary", lambda path="": slow)
    shed: list[Rung] = []
    async with stand.node() as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        sent = tags(seconds=16, gop=30)
        pacing = asyncio.create_task(pace(sink, sent))
        await until(lambda: registry.on_channel("ann"))
        live, worker = live_on(registry), transcoder_of(broadcasts)
        inner = worker._shed

        def noted(rung: Rung) -> None:
            shed.append(rung)
            inner(rung)

        worker._shed = noted
        await until(lambda: shed)
        assert [rung.name for rung in worker.rungs] == ["160p"]
        assert "240p" not in live.master()
        await pacing
        await sink.close("unpublished")
        assert not missing(live, "source")
    assert shed[0].name == "240p"


async def test_a_source_with_a_key_frame_every_eight_seconds_has_rungs_of_two_second_segments(stand: Stand) -> None:
    async with stand.node() as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        push(sink, tags(seconds=20, gop=250))
        live = live_on(registry)
        await sink.close("unpublished")
        source, rung, lower = (live.rendition(name) for name in ("source", "240p", "160p"))
        assert source is not None
        assert rung is not None
        assert lower is not None
        assert [round(entry.duration_s, 1) for entry in source.window.rewindable] == [
            8.3,
            8.3,
            pytest.approx(3.4, abs=0.15),
        ]
        spans = [round(entry.duration_s, 2) for entry in rung.window.rewindable]
        assert len(spans) >= 8
        assert all(1.9 <= span < 2.5 for span in spans[:-1]), spans
        assert [entry.start_s for entry in rung.window.rewindable] == [
            entry.start_s for entry in lower.window.rewindable
        ]
        assert (source.target_duration, rung.target_duration) == (10, 2)


@pytest.mark.parametrize(
    ("size", "rate", "audio", "expected"),
    [("270x480", 30, True, (240, 426)), ("640x480", 25, True, (480, 360)), ("638x358", 60, False, (428, 240))],
)
async def test_odd_portrait_and_fast_sources_have_rungs_in_their_proportions(
    stand: Stand, size: str, rate: int, audio: bool, expected: tuple[int, int]
) -> None:
    async with stand.node() as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        push(sink, tags(seconds=4, size=size, rate=rate, gop=2 * rate, audio=audio))
        live = live_on(registry)
        await until(lambda: len(live.renditions) == (4 if audio else 3))
        await sink.close("unpublished")
        rung = next(it for it in live.renditions if it.name not in ("source", "audio"))
        assert rung.rendition.video is not None
        assert (rung.rendition.video.width, rung.rendition.video.height) == expected
        assert (rung.rendition.audio is not None) == audio
        assert rung.rendition.codecs.startswith("avc1.")
        assert f"RESOLUTION={expected[0]}x{expected[1]}" in live.master()
        assert [entry.number for entry in rung.window.rewindable] == [0, 1]


async def test_a_broadcast_without_a_picture_has_its_source_alone(stand: Stand) -> None:
    async with stand.node() as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        push(sink, tags(seconds=8, video=False))
        live = live_on(registry)
        await sink.close("unpublished")
        assert [(it.name, it.rendition.codecs) for it in live.renditions] == [("source", "mp4a.40.2")]
