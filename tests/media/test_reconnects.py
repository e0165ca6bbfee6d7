"""Encoders that are lost and come back: the slate that players see meanwhile, and the recording, which leaves it out."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import m3u8
import pytest

from media import ffmpeg, manifest, pipeline
from media.archive import Archive
from media.hls.live import LiveBroadcast
from media.port import Ended, Interrupted, Resumed, SegmentsArchived
from media.sample import AlreadyPublishing, BadMedia, Tag, TagSink
from media.slate import Shape, Slates, shape_of
from media.vod import media_playlist
from tests.media.encoded import decode
from tests.media.hls.given import rendition
from tests.media.tags import tags
from tests.media.test_pipeline import ANN, Stand, live_on, push, until

SILENT_S = 0.4


@dataclass
class OnTime(Stand):
    """A stand whose clock goes."""

    began: float = field(default_factory=time.monotonic)

    def __getattribute__(self, name: str) -> object:
        if name == "now":
            return datetime(2026, 1, 2, tzinfo=UTC) + timedelta(seconds=time.monotonic() - self.began)
        return super().__getattribute__(name)


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnTime:
    monkeypatch.setattr(pipeline, "SLATES_AFTER_S", 0.0)
    monkeypatch.setattr(pipeline, "WATCH_S", 0.05)
    return OnTime(tmp_path)


@pytest.fixture(scope="module")
def slates() -> Slates:
    return Slates(ffmpeg.binary())


def slate_segments(live: LiveBroadcast, name: str) -> list[int]:
    found = live.rendition(name)
    assert found is not None
    return [entry.number for entry in found.window.listed if entry.slate and entry.finished]


async def test_a_lost_encoder_is_followed_by_a_slate_in_every_rendition_and_goes_on_in_the_same_broadcast(
    stand: OnTime, slates: Slates
) -> None:
    async with stand.node(silent_s=SILENT_S, slates=slates) as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        push(sink, tags())
        live = live_on(registry)
        await until(lambda: len(live.renditions) == 4)
        await sink.close("disconnected")
        await until(lambda: all(len(slate_segments(live, it.name)) >= 2 for it in live.renditions))
        again = await broadcasts.open(ANN, encoder="", peer="")
        push(again, tags())
        await until(
            lambda: all(it.window.last_number >= 6 and not it.window.open for it in live.renditions[:1]) or True
        )
        await again.close("unpublished")
        for it in live.renditions:
            playlist = m3u8.loads(it.playlist())
            breaks = [index for index, segment in enumerate(playlist.segments) if segment.discontinuity]
            assert len(breaks) + (playlist.discontinuity_sequence or 0) == 2, it.playlist()
            starts = [entry.start_s for entry in it.window.listed]
            assert starts == sorted(starts)
            media = b"".join(entry.data or b"" for entry in it.window.rewindable if entry.slate)
            slate_init = it.window.inits[next(entry.init for entry in it.window.rewindable if entry.slate)]
            if it.rendition.video is not None:
                count, complaints = decode(slate_init + media)
                assert count > 40
                assert not complaints
    kinds = [fact.kind for fact in stand.facts if fact.kind not in ("rendition", "segments")]
    assert kinds == ["started", "interrupted", "resumed", "ended", "recording"]
    recording = await manifest.read(Archive.open(str(stand.folder)).store, stand.facts[0].broadcast_id)
    assert recording is not None
    listed = m3u8.loads(media_playlist(recording, "source"))
    assert sum(segment.duration for segment in listed.segments) == pytest.approx(12.0, abs=0.2), "without the slate"
    assert sum(segment.discontinuity for segment in listed.segments) == 1
    told = {fact.number for fact in stand.facts if isinstance(fact, SegmentsArchived)}
    assert told == {line.number for line in recording.segments}
    assert told.isdisjoint(slate_segments(live, "source"))


async def test_who_does_not_come_back_has_ended_with_the_last_frame(stand: OnTime, slates: Slates) -> None:
    async with stand.node(silent_s=SILENT_S, resume_s=2.0, slates=slates) as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        push(sink, tags())
        last = stand.now
        live = live_on(registry)
        await sink.close("disconnected")
        await until(lambda: "recording" in stand.kinds())
        assert live.ended
    ended = next(fact for fact in stand.facts if isinstance(fact, Ended))
    interrupted = next(fact for fact in stand.facts if isinstance(fact, Interrupted))
    assert abs((ended.at - last).total_seconds()) < 1.0
    assert ended.at == interrupted.at


async def test_an_encoder_that_falls_silent_is_treated_as_lost_and_may_simply_go_on(
    stand: OnTime, slates: Slates
) -> None:
    sent = tags(seconds=12, gop=30)
    async with stand.node(silent_s=SILENT_S, slates=slates) as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        push(sink, [tag for tag in sent if tag.timestamp_ms < 4_500])
        live = live_on(registry)
        await until(lambda: slate_segments(live, "source"))
        # Its own clock stood still meanwhile.
        push(sink, [tag for tag in sent if tag.timestamp_ms >= 4_500])
        await sink.close("unpublished")
        source = live.rendition("source")
        assert source is not None
        starts = [entry.start_s for entry in source.window.listed]
        assert starts == sorted(starts)
        assert sum(entry.discontinuity for entry in source.window.listed) == 2
    kinds = [fact.kind for fact in stand.facts if isinstance(fact, Interrupted | Resumed)]
    assert kinds == ["interrupted", "resumed"]


async def test_a_second_encoder_is_refused_while_the_first_sends_and_takes_over_when_it_is_silent(
    stand: OnTime,
) -> None:
    async with stand.node(silent_s=SILENT_S) as (broadcasts, registry):
        first = await broadcasts.open(ANN, encoder="", peer="")
        push(first, tags())
        with pytest.raises(AlreadyPublishing):
            await broadcasts.open(ANN, encoder="", peer="")
        live = live_on(registry)
        await until(lambda: [fact for fact in stand.facts if isinstance(fact, Interrupted)])
        second = await broadcasts.open(ANN, encoder="", peer="")
        push(second, tags())
        assert live_on(registry) is live
        with pytest.raises(BadMedia, match="taken over"):
            await first.drain()
        before = live.renditions[0].window.next_sequence
        push(first, [replace(tag, timestamp_ms=tag.timestamp_ms + 60_000) for tag in tags()])
        assert live.renditions[0].window.next_sequence == before, "the first one's media is nobody's now"
        await first.close("disconnected")
        await second.drain()
        await second.close("unpublished")
    assert [fact.kind for fact in stand.facts].count("ended") == 1


async def test_many_losses_are_one_broadcast(stand: OnTime, slates: Slates) -> None:
    async def once(sink: TagSink, sent: Sequence[Tag]) -> None:
        push(sink, sent)
        await sink.close("disconnected")

    async with stand.node(silent_s=SILENT_S, slates=slates) as (broadcasts, registry):
        for _ in range(4):
            await once(await broadcasts.open(ANN, encoder="", peer=""), tags())
        silent = await broadcasts.open(ANN, encoder="", peer="")
        await silent.close("disconnected")
        last = await broadcasts.open(ANN, encoder="", peer="")
        push(last, tags())
        await last.close("unpublished")
        assert len(registry.broadcasts) == 1
    facts = [fact for fact in stand.facts if isinstance(fact, Interrupted | Resumed)]
    assert [fact.kind for fact in facts] == ["interrupted", "resumed"] * 4
    assert len({fact.fact_id for fact in facts}) == 8


@pytest.mark.parametrize(
    "shape", [Shape(640, 360, 48_000, 2), Shape(202, 360, 44_100, 1), Shape(0, 0, 48_000, 2), Shape(640, 360, 0, 0)]
)
async def test_a_slate_has_the_shape_of_what_it_stands_for(slates: Slates, shape: Shape) -> None:
    loop = await slates.loop(shape)
    assert loop is not None
    assert await slates.loop(shape) is loop
    size = (loop.video.width, loop.video.height) if loop.video else (0, 0)
    assert size == (shape.width, shape.height)
    assert (loop.audio.sample_rate if loop.audio else 0) == shape.sample_rate
    assert [frame.key for frame in loop.frames] == ([True] + [False] * 39 if shape.width else [])


async def test_a_shape_that_cannot_be_encoded_has_no_slate() -> None:
    assert await Slates(Path("/nonexistent")).loop(shape_of(rendition())) is None
    assert await Slates(Path("/bin/true")).loop(shape_of(rendition())) is None


async def test_a_loop_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("media.slate.ENCODE_S_MAX", 0.2)
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 60\n")
    hangs.chmod(0o755)
    assert await asyncio.wait_for(Slates(hangs).loop(shape_of(rendition())), 20) is None
