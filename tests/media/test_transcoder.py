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
from media.sample import Tag, TagSink
from tests.media.tags import tags
from tests.media.test_pipeline import ANN, Stand, live_on, push, stand, transcoder_of, until

__all__ = ["stand"]

SPEED = 2.0


async def pace(sink: TagSink, sent: Sequence[Tag]) -> None:
    """As an encoder sends them, but twice as fast."""
    loop = asyncio.get_running_loop()
    began, first = loop.time(), sent[0].timestamp_ms
    for tag in sent:
        wait_s = began + (tag.timestamp_ms - first) / 1000 / SPEED - loop.time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        sink.tag(tag)


def missing(live: LiveBroadcast, name: str) -> list[int]:
    rendition = live.rendition(name)
    assert rendition is not None
    return [entry.number for entry in rendition.window.rewindable if entry.gap]


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
async def test_rungs_are_back_at_the_next_segment_but_one_whatever_becomes_of_their_ffmpeg(
    stand: Stand, what: int
) -> None:
    sent = tags(seconds=16)
    async with stand.node() as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        await pace(sink, [tag for tag in sent if tag.timestamp_ms < 4_500])
        live = live_on(registry)
        hurt = transcoder_of(broadcasts)
        assert hurt.pid is not None
        os.kill(hurt.pid, what)
        await pace(sink, [tag for tag in sent if tag.timestamp_ms >= 4_500])
        await sink.close("unpublished")
        assert not missing(live, "source")
        for name in ("240p", "160p"):
            gaps = missing(live, name)
            assert gaps, "the segment in which it happened"
            assert set(gaps) <= {1, 2, 3, 4}, gaps
            rendition = live.rendition(name)
            assert rendition is not None
            assert [entry.number for entry in rendition.window.rewindable] == list(range(8))


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
