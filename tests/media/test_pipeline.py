"""Whole broadcasts with a real FFmpeg behind them: what players would see, what the archive keeps, what is told; and things going wrong."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from media import ffmpeg, manifest
from media.archive import Archive
from media.hls.live import LiveBroadcast, LiveRegistry
from media.pipeline import Broadcasts, Node, Reporter
from media.port import Ended, Fact, Grant, RecordingReady, RenditionAdded, SegmentsArchived, Started
from media.sample import AlreadyPublishing, BadMedia, NoRoom, Tag, TagSink
from media.slate import Slates
from media.transcoder import Transcoder
from tests.media.encoded import decode
from tests.media.tags import tags

START = datetime(2026, 1, 2, tzinfo=UTC)
ANN = Grant(channel_id="c1", channel="ann", title="Hello", category="Music")
BOB = Grant(channel_id="c2", channel="bob")
WAIT_S_MAX = 30.0


@dataclass
class Stand:
    folder: Path
    facts: list[Fact] = field(default_factory=list)
    now: datetime = START

    async def put(self, fact: Fact) -> bool:
        self.facts.append(fact)
        return True

    def kinds(self, channel_id: str = "c1") -> list[str]:
        return [fact.kind for fact in self.facts if fact.channel_id == channel_id]

    @asynccontextmanager
    async def node(
        self,
        *,
        most: int = 5,
        resume_s: float = 30.0,
        silent_s: float = 3.0,
        slates: Slates | None = None,
        registry: LiveRegistry | None = None,
        top_height: int = 480,
        segment_s: float = 2.0,
    ) -> AsyncIterator[tuple[Broadcasts, LiveRegistry]]:
        registry = registry or LiveRegistry(epoch="e1", clock=time.monotonic, rewind_s=7200.0, segment_s=segment_s)
        reporter = Reporter(self.put)
        node = Node(
            registry,
            Archive.open(str(self.folder)),
            reporter,
            name="media-1",
            binary=ffmpeg.binary(),
            top_height=top_height,
            now=lambda: self.now,
            new_id=uuid4,
            slates=slates,
        )
        broadcasts = Broadcasts(node, most=most, resume_s=resume_s, silent_s=silent_s)
        try:
            yield broadcasts, registry
        finally:
            await broadcasts.close()
            await reporter.close()


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


def push(sink: TagSink, sent: Sequence[Tag]) -> None:
    for tag in sent:
        sink.tag(tag)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while not true():  # noqa: ASYNC110 - neither the packager nor FFmpeg tells us
            await asyncio.sleep(0.01)


def live_on(registry: LiveRegistry, channel: str = "ann") -> LiveBroadcast:
    found = registry.on_channel(channel)
    assert found is not None
    return found


def transcoder_of(broadcasts: Broadcasts, channel_id: str = "c1") -> Transcoder:
    found = broadcasts._by_channel[channel_id]._transcoder
    assert found is not None
    return found


def frames_of(live: LiveBroadcast, name: str) -> int:
    rendition = live.rendition(name)
    assert rendition is not None
    window = rendition.window
    media = b"".join(entry.data or b"" for entry in window.listed)
    count, complaints = decode(window.inits[0] + media)
    assert not complaints
    return count


async def test_a_broadcast_is_seen_in_every_rendition_kept_and_told(stand: Stand) -> None:
    async with stand.node() as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="OBS", peer="192.0.2.1")
        push(sink, [tag for tag in tags() if tag.timestamp_ms < 1_500])
        live = live_on(registry)
        await until(lambda: len(live.renditions) == 4)
        push(sink, [tag for tag in tags() if tag.timestamp_ms >= 1_500])
        await sink.close("unpublished")
        assert [rendition.name for rendition in live.renditions] == ["source", "audio", "240p", "160p"]
        assert [frames_of(live, name) for name in ("source", "240p", "160p")] == [180, 180, 180]
        numbers = [[entry.number for entry in rendition.window.listed] for rendition in live.renditions]
        assert numbers == [[0, 1, 2]] * 4
    started, ended = stand.facts[0], next(fact for fact in stand.facts if isinstance(fact, Ended))
    assert isinstance(started, Started)
    assert (started.title, started.category, started.encoder, started.node) == ("Hello", "Music", "OBS", "media-1")
    assert ended.reason == "unpublished"
    named = [(fact.name, fact.width, fact.height) for fact in stand.facts if isinstance(fact, RenditionAdded)]
    assert sorted(named) == [("160p", 284, 160), ("240p", 426, 240), ("audio", 0, 0), ("source", 640, 360)]
    told = [fact for fact in stand.facts if isinstance(fact, SegmentsArchived)]
    assert [(fact.number, len(fact.objects)) for fact in told] == [(0, 4), (1, 4), (2, 4)]
    assert isinstance(stand.facts[-1], RecordingReady)
    recording = await manifest.read(Archive.open(str(stand.folder)).store, started.broadcast_id)
    assert recording is not None
    assert recording.ended_at is not None
    assert abs(recording.duration_s - 6.0) < 0.1


async def test_a_transcoder_that_dies_is_started_again_and_the_source_never_stops(stand: Stand) -> None:
    sent = tags(seconds=12, gop=30)
    async with stand.node() as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        other = await broadcasts.open(BOB, encoder="", peer="")
        push(sink, [tag for tag in sent if tag.timestamp_ms < 5_000])
        push(other, sent)
        live, unhurt = live_on(registry), live_on(registry, "bob")
        await until(lambda: len(live.renditions) == 4 and len(unhurt.renditions) == 4)
        before = live.rendition("240p")
        assert before is not None
        await until(lambda: before.window.last_number >= 1)
        transcoder = transcoder_of(broadcasts)
        killed = transcoder.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await until(lambda: transcoder.pid not in (None, killed))
        push(sink, [tag for tag in sent if tag.timestamp_ms >= 5_000])
        await sink.close("unpublished")
        await other.close("unpublished")
        source, rung = live.rendition("source"), live.rendition("240p")
        assert source is not None
        assert rung is not None
        assert frames_of(live, "source") == frames_of(unhurt, "240p") == 12 * 30
        assert rung.window.last_number == source.window.last_number
        # Everything came at once, far faster than it was shown: what FFmpeg had not begun again by then is named as missing.
        assert 2 * 30 <= frames_of(live, "240p") < 12 * 30
        assert any(entry.gap for entry in rung.window.listed)


async def test_who_comes_back_in_time_goes_on_in_the_same_broadcast(stand: Stand) -> None:
    async with stand.node() as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        push(sink, tags())
        await sink.close("disconnected")
        first = live_on(registry)
        stand.now = START + timedelta(seconds=10)
        again = await broadcasts.open(ANN, encoder="", peer="")
        push(again, tags())
        assert live_on(registry) is first
        await again.close("unpublished")
        source = first.rendition("source")
        assert source is not None
        entries = list(source.window.listed)
        assert [entry.start_s for entry in entries][3] == 10.0
        assert [entry.discontinuity for entry in entries] == [False, False, False, True, False, False]
    kinds = [kind for kind in stand.kinds() if kind not in ("rendition", "segments")]
    assert kinds == ["started", "interrupted", "resumed", "ended", "recording"]


async def test_who_stays_away_has_ended(stand: Stand) -> None:
    async with stand.node(resume_s=0.05) as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        push(sink, tags())
        live = live_on(registry)
        await sink.close("disconnected")
        await until(lambda: "recording" in stand.kinds())
        assert live.ended
        assert not broadcasts.is_live(live.address)
        fresh = await broadcasts.open(ANN, encoder="", peer="")
        push(fresh, tags())
        assert live_on(registry) is not live
        await fresh.close("unpublished")
    ended = [fact for fact in stand.facts if isinstance(fact, Ended)]
    assert [fact.reason for fact in ended] == ["disconnected", "unpublished"]
    assert len({fact.fact_id for fact in stand.facts}) == len(stand.facts)


async def test_one_encoder_a_channel_and_so_many_broadcasts_a_node(stand: Stand) -> None:
    async with stand.node(most=1) as (broadcasts, _):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        with pytest.raises(AlreadyPublishing):
            await broadcasts.open(ANN, encoder="", peer="")
        with pytest.raises(NoRoom):
            await broadcasts.open(BOB, encoder="", peer="")
        await sink.close("disconnected")
        await (await broadcasts.open(BOB, encoder="", peer="")).close("unpublished")
    assert not stand.facts, "nobody sent media: there was no broadcast"


async def test_a_codec_that_cannot_be_carried_ends_in_words_and_no_broadcast(stand: Stand) -> None:
    async with stand.node() as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        push(sink, tags(codec="flv", audio=False))
        with pytest.raises(BadMedia, match=r"H\.264"):
            await sink.drain()
        await sink.close("disconnected")
        assert registry.on_channel("ann") is None
    assert not stand.facts


async def test_a_picture_that_changes_its_size_is_a_new_init_and_new_rungs(stand: Stand) -> None:
    small, later = tags(size="320x240"), 8_000
    moved = [replace(tag, timestamp_ms=tag.timestamp_ms + later) for tag in small]
    async with stand.node() as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        push(sink, [*tags(), *moved])
        live = live_on(registry)
        await sink.close("unpublished")
        source = live.rendition("source")
        assert source is not None
        assert len(source.window.inits) == 2
        assert [fact.kind for fact in stand.facts].count("started") == 1
        assert source.playlist().count("EXT-X-MAP") == 2


async def test_a_stop_of_the_node_closes_recordings(stand: Stand) -> None:
    async with stand.node() as (broadcasts, _):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        push(sink, tags())
    assert [kind for kind in stand.kinds() if kind in ("ended", "recording")] == ["ended", "recording"]
    await sink.close("disconnected")
    assert stand.kinds().count("ended") == 1
