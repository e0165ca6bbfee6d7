"""What a rung's time is made of: sources whose frames are no clock, or are more than it may have, and clocks that have run for weeks."""

import functools
from datetime import UTC, datetime

import pytest

from media import ffmpeg
from media.flv import Began, Demuxer, FlvReader, Frame, file_header, tag_bytes
from media.hls.live import LiveBroadcast, LiveRendition
from media.ladder import LADDER, rungs_for
from media.sample import Rendition, SampleSink, Tag, TagType
from media.transcoder import Transcoder
from tests.media.encoded import ffmpeg as made
from tests.media.hls.test_validator import Watching
from tests.media.tags import parse, tags
from tests.media.test_pipeline import ANN, Stand, live_on, stand
from tests.media.test_transcoder import pace

__all__ = ["stand"]

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@functools.cache
def slowing(*, seconds: int = 24, falls_s: int = 6) -> tuple[Tag, ...]:
    """Thirty frames a second, then ten; a key frame in 25 s."""
    done = made(
        "-f", "lavfi", "-i", f"testsrc2=size=640x360:rate=30:duration={seconds}", "-f", "lavfi",
        "-i", f"sine=frequency=440:sample_rate=48000:duration={seconds}", "-vf", f"select=lt(t\\,{falls_s})+not(mod(n\\,3))",
        "-fps_mode", "vfr", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "750", "-sc_threshold", "0",
        "-c:a", "aac", "-f", "flv", "-flvflags", "no_duration_filesize", "pipe:1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return tuple(parse(done.stdout))


async def test_rungs_keep_their_clock_though_the_source_falls_to_a_third_of_its_frame_rate(stand: Stand) -> None:
    async with stand.node() as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        await pace(sink, slowing())
        live = live_on(registry)
        await sink.close("unpublished")
        assert live.is_apart("source")
        for name in ("240p", "160p"):
            rung = live.rendition(name)
            assert rung is not None
            finished = [it for it in rung.window.rewindable if it.finished]
            assert max(it.duration_s for it in finished) < 2.5
            assert rung.target_duration == 2
            # It begins again once to go by the time; from then on it has a key frame at every cut.
            late = [it for it in finished if it.start_s > 16 and not it.gap][:-1]
            assert len(late) >= 2
            assert all(it.duration_s == pytest.approx(2.0, abs=0.1) for it in late), [it.duration_s for it in late]
            assert all(it.parts[0].independent for it in late)


@pytest.mark.parametrize(("rate", "expected"), [(120, 30.0), (75, 25.0)])
async def test_a_rung_has_as_many_frames_as_it_says_of_a_source_that_has_many_more(
    stand: Stand, rate: int, expected: float
) -> None:
    async with stand.node() as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        await pace(sink, tags(seconds=6, rate=rate, gop=2 * rate, audio=False))
        live = live_on(registry)
        await sink.close("unpublished")
        rung = live.rendition("240p")
        assert rung is not None
        assert f"FRAME-RATE={expected:.3f}" in live.master()
        agreed = Watching(live)
        agreed.look()
        entries = [it for it in rung.window.rewindable if it.finished]
        frames = agreed.watches["240p"].samples
        assert frames / sum(it.duration_s for it in entries) == pytest.approx(expected, rel=0.04)


async def test_rungs_go_on_with_their_source_past_the_32_bits_of_flv() -> None:
    zero_ms = 2**32 - 4_000
    broadcast = LiveBroadcast(channel="ann", channel_id="c1", address="e1-b1", started_at=START)
    broadcast.has_rungs = True
    watching = Watching(broadcast)
    demuxer = Demuxer(starts_at=lambda: zero_ms)
    source: SampleSink | None = None
    worker: Transcoder | None = None
    for tag in tags(seconds=10):
        for found in demuxer.receive(tag):
            match found:
                case Began(video=video, audio=audio):
                    source = broadcast.add(Rendition("source", found.bandwidth, video, audio))
                    worker = Transcoder(
                        found,
                        rungs_for(video, top_height=240, ladder=LADDER)[:1],
                        broadcast,
                        binary=ffmpeg.binary(),
                        added=lambda _: None,
                        name="b1",
                    )
                case Frame() if source is not None and worker is not None:
                    source.push(found.sample)
                    worker.tag(found.tag, key=found.sample.key)
    assert source is not None
    assert worker is not None
    source.close()
    await worker.close()
    rung, leader = broadcast.rendition("240p"), broadcast.rendition("source")
    assert rung is not None
    assert leader is not None
    broadcast.end()
    assert starts(rung) == pytest.approx(starts(leader), abs=0.04)
    assert starts(rung)[0] == pytest.approx(zero_ms / 1000, abs=1.0)
    assert watching.findings == []
    assert watching.watches["240p"].samples >= 0.98 * watching.watches["source"].samples


def starts(live: LiveRendition) -> list[float]:
    return [it.start_s for it in live.window.listed if it.finished and not it.gap]


def test_what_ffmpeg_writes_goes_on_past_32_bits() -> None:
    reader = FlvReader()
    written = [2**32 - 20, 2**32 - 40, 2**32 + 5, 2**33 - 100]
    flv = file_header(video=True, audio=False)
    # From one to the other it is never as far as half of all there is.
    flv += b"".join(tag_bytes(Tag(TagType.VIDEO, at, b"x")) for at in (*written[:3], 2**32 + 2**31 - 1, written[3]))
    assert [tag.timestamp_ms for tag in reader.receive(flv)] == [*written[:3], 2**32 + 2**31 - 1, written[3]]
