"""What a broadcaster is told of their stream: situations that go wrong in the field, each with the advice it must bring and no other."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from media.flv import Began, Demuxer, Frame
from media.health import Advice, StreamHealth, Vitals, advice
from media.sample import AudioTrack, Sample, Tag, TagType, VideoTrack
from tests.media.tags import tags
from tests.media.test_pipeline import ANN, Stand, push
from tests.media.test_pipeline import stand as stand

VIDEO = VideoTrack("avc1.64001f", b"", 1280, 720, 30.0)
AUDIO = AudioTrack("mp4a.40.2", b"", 48_000, 2)
FRAME_BYTES = 20_000

Arrival = tuple[float, float, bool]
"""When a frame comes, where it stands in the media, and whether it is a key frame."""


def frame(at_s: float, *, key: bool) -> Frame:
    sample = Sample("video", round(at_s * 90_000), 0, 3_000, key, b"")
    return Frame(sample, Tag(TagType.VIDEO, round(at_s * 1000), bytes(FRAME_BYTES)))


def steady(seconds: float, *, key_every: int = 60, speed: float = 1.0) -> Iterator[Arrival]:
    for number in range(round(seconds * 30)):
        yield number / 30 / speed, number / 30, number % key_every == 0


def thinned(arrivals: Iterator[Arrival], every: int) -> Iterator[Arrival]:
    """Frames the encoder had no time for."""
    return (arrival for number, arrival in enumerate(arrivals) if number % every or arrival[2])


def stuttering(arrivals: Iterator[Arrival]) -> Iterator[Arrival]:
    """A line that holds everything back for a second, every two."""
    for arrives, at_s, key in arrivals:
        yield arrives + (max(0.0, 1.2 - arrives % 2) if arrives > 1 else 0.0), at_s, key


def observed(
    arrivals: Iterator[Arrival], *, encoded: Callable[[float], float | None] = lambda _: None, **what: Any
) -> Any:
    now = [0.0]
    vitals = Vitals(lambda: now[0], lambda: encoded(now[0]))
    vitals.began(Began(VIDEO, AUDIO, (), 0))
    for arrives, at_s, key in arrivals:
        now[0] = arrives
        vitals.frame(frame(at_s, key=key))
    measured = vitals.measured()
    fields = {
        "broadcast_id": "b", "channel_id": "c", "channel": "ann", "node": "n", "state": "live", "encoder": "", "on_air_s": now[0],
        "video_codec": VIDEO.codec, "audio_codec": AUDIO.codec, "width": 1280, "height": 720, "nominal_frame_rate": 30.0,
        "interruptions": 0, "transcoder_lag_s": None, "transcoder_speed": measured.encoded_speed, "renditions": ("480p",),
        "renditions_no_room": (), "renditions_shed": (), "archive_lost": 0, "archive_waiting_bytes": 0, "advice": (),
        "bitrate": measured.bitrate, "frame_rate": measured.frame_rate, "speed": measured.speed,
        "key_frame_interval_s": measured.key_frame_interval_s, "late_frames": measured.late_frames,
        "missing_frames": measured.missing_frames,
    } | what  # fmt: skip
    found = StreamHealth.model_validate(fields)
    return found.model_copy(update={"advice": advice(found, measured)})


def codes(health: StreamHealth) -> list[str]:
    return [it.code for it in health.advice]


def test_a_stream_in_order_is_measured_and_needs_no_advice() -> None:
    health = observed(steady(30), encoded=lambda now: now - 0.4)
    assert health.advice == ()
    assert health.frame_rate == pytest.approx(30, abs=0.5)
    assert health.bitrate == pytest.approx(FRAME_BYTES * 8 * 30, rel=0.02)
    assert (health.key_frame_interval_s, health.speed, health.transcoder_speed) == (2.0, 1.0, 1.0)
    assert (health.late_frames, health.missing_frames) == (0, 0)


@pytest.mark.parametrize(
    ("arrivals", "what", "expected"),
    [
        (steady(30, key_every=240), {}, "key_frames_far_apart"),
        (steady(7, key_every=100_000), {}, "key_frames_far_apart"),
        (steady(30, speed=0.8), {}, "slower_than_real_time"),
        (steady(60, speed=8.0), {}, "faster_than_real_time"),
        (thinned(steady(30), 10), {}, "frames_missing"),
        (stuttering(steady(30)), {}, "frames_late"),
        (steady(30), {"renditions": (), "bitrate": 12_000_000}, "bitrate_high"),
        (steady(30), {"audio_codec": None}, "no_audio"),
        (steady(30), {"video_codec": None}, "no_video"),
        (steady(30), {"video_codec": "hvc1.1.6.L93.B0"}, "codec_not_everywhere"),
        (steady(30), {"renditions_shed": ("1080p60",)}, "renditions_shed"),
        (steady(30), {"renditions_no_room": ("1080p60",)}, "renditions_no_room"),
        (steady(30), {"transcoder_lag_s": 5.0}, "transcoder_behind"),
        (steady(30), {"archive_lost": 2}, "archive_fails"),
        (steady(30), {"archive_waiting_bytes": 100 << 20}, "archive_slow"),
        (steady(30), {"state": "interrupted"}, "no_media"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_named_and_nothing_else(
    arrivals: Iterator[Arrival], what: dict[str, Any], expected: str
) -> None:
    assert codes(observed(arrivals, **what)) == [expected]


def test_the_advice_of_far_key_frames_says_what_to_set_and_where() -> None:
    (said,) = observed(steady(30, key_every=240)).advice
    assert said == Advice(
        code="key_frames_far_apart",
        text="Key frames every 8 s, so viewers join slowly: set 2 s in OBS under Output → Keyframe Interval.",
    )


def test_a_clock_that_jumps_for_hours_is_no_crowd_of_missing_frames() -> None:
    jump = [(arrives, at_s + (7_200 if at_s > 10 else 0), key) for arrives, at_s, key in steady(30)]
    back = [(arrives, at_s - (8 if at_s > 20 else 0), key) for arrives, at_s, key in jump]
    assert observed(iter(back)).missing_frames == 0


def test_bitrate_falls_when_nothing_comes() -> None:
    now = [0.0]
    vitals = Vitals(lambda: now[0], lambda: None)
    for arrives, at_s, key in steady(10):
        now[0] = arrives
        vitals.frame(frame(at_s, key=key))
    full = vitals.measured().bitrate
    now[0] += 5
    assert vitals.measured().bitrate < 0.7 * full
    now[0] += 10
    assert vitals.measured().bitrate == 0


def test_memory_is_bounded_by_the_window() -> None:
    vitals = Vitals(iter(range(10**6)).__next__, lambda: None)
    for number in range(5_000):
        vitals.frame(frame(number / 30, key=True))
    assert len(vitals._bins) <= 11
    assert len(vitals._keys) <= 6


def test_real_media_is_measured_as_it_was_made() -> None:
    now = [0.0]
    vitals = Vitals(lambda: now[0], lambda: None)
    demuxer = Demuxer(starts_at=lambda: 0)
    for tag in tags(seconds=12, gop=45):
        now[0] = tag.timestamp_ms / 1000
        for found in demuxer.receive(tag):
            if isinstance(found, Began):
                vitals.began(found)
            else:
                vitals.frame(found)
    measured = vitals.measured()
    assert measured.key_frame_interval_s == 1.5
    assert measured.frame_rate == pytest.approx(30, abs=1)
    assert (measured.missing_frames, measured.late_frames) == (0, 0)


async def test_a_broadcast_tells_how_it_is_and_when_nothing_comes(stand: Stand) -> None:
    async with stand.node() as (broadcasts, _):
        assert broadcasts.health() == []
        sink = await broadcasts.open(ANN, encoder="OBS 30", peer="")
        assert broadcasts.health() == [], "nothing is on air before media comes"
        push(sink, tags(seconds=12, gop=240))
        (health,) = broadcasts.health()
        assert (health.channel, health.encoder, health.state) == ("ann", "OBS 30", "live")
        assert (health.video_codec or "")[:4] == "avc1"
        assert health.renditions == ("240p", "160p")
        assert health.key_frame_interval_s == 8.0
        await sink.close("disconnected")
        (health,) = broadcasts.health()
        assert (health.state, health.interruptions) == ("interrupted", 1)
        assert codes(health) == ["no_media"]
