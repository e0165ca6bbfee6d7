"""Samples to parts: for any pattern of samples nothing is lost, nothing overlaps and every part keeps to the part target."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.hls import segmenter as segmenter_module
from media.hls.cuts import Cuts, Leader
from media.hls.segmenter import PART_S, PART_SHARE_MIN, Segmenter, part_target_s
from media.sample import Rendition, Sample, VideoTrack
from tests.media.hls.given import AUDIO, AVC_CONFIG, Noted, frames, interleaved, real, rendition, sound


def segmented(of: Rendition, samples: list[Sample] | tuple[Sample, ...], *, close: bool = True) -> Noted:
    noted = Noted(of)
    segmenter = Segmenter(of, Leader(Cuts(), every_sample_is_key=of.video is None), noted)
    for sample in samples:
        segmenter.push(sample)
    if close:
        segmenter.close()
    return noted


def check_times(noted: Noted, *, target_s: float = PART_S) -> None:
    """No gap and no overlap in either track; durations as declared and within bounds; audio where it starts."""
    end: dict[str, int] = {}
    for segment in noted.segments:
        for index, part in enumerate(segment.parts):
            assert part.duration_s <= target_s + 1e-9
            if index < len(segment.parts) - 1:
                assert part.duration_s >= PART_SHARE_MIN * target_s - 1e-9
            duration = 0
            for sample in noted.samples(part):
                assert end.get(sample.kind, sample.dts) == sample.dts
                end[sample.kind] = sample.dts + sample.duration
                duration += sample.duration if sample.kind == "video" else 0
            if noted.of.video is not None:
                assert duration / noted.of.video.timescale == pytest.approx(part.duration_s, abs=1e-6)


@pytest.mark.parametrize("b_frames", [0, 2])
def test_real_video_and_audio_become_segments_of_two_seconds_and_parts_that_hold_every_sample(b_frames: int) -> None:
    of, samples = real(b_frames=b_frames)
    noted = segmented(of, samples)
    assert [segment.duration_s for segment in noted.segments] == pytest.approx([2.0] * 5, abs=0.001)
    assert [segment.cut.number for segment in noted.segments] == [0, 1, 2, 3, 4]
    assert all(segment.parts[0].independent for segment in noted.segments)
    assert not any(part.independent for segment in noted.segments for part in segment.parts[1:])
    check_times(noted)
    out = [sample for part in noted.parts for sample in noted.samples(part)]
    assert [s.data for s in out if s.kind == "video"] == [s.data for s in samples if s.kind == "video"]
    first_s = noted.segments[0].start_s - 0.1
    heard = [s.data for s in samples if s.kind == "audio" and s.dts / 48_000 >= first_s]
    assert [s.data for s in out if s.kind == "audio"][-len(heard) + 10 :] == heard[10:]


def test_a_part_goes_out_with_its_last_sample_and_not_with_the_next_parts_first() -> None:
    of = rendition(audio=None)
    noted = segmented(of, frames(7), close=False)
    assert [part.frames for part in noted.parts] == [7]  # seven frames are 233 ms; an eighth would make 267


def test_a_part_waits_for_the_audio_that_starts_in_it_and_no_longer() -> None:
    samples = interleaved(frames(8), sound(20))
    reached = next(i for i, s in enumerate(samples) if s.kind == "audio" and s.dts + 1024 >= 48_000 * 7 // 30)
    assert segmented(rendition(), samples[:reached], close=False).parts == []
    noted = segmented(rendition(), samples[: reached + 1], close=False)
    assert [s.kind for s in noted.samples(noted.parts[0])].count("audio") == 11


def test_audio_that_is_late_or_gone_holds_nothing_up_for_long() -> None:
    noted = segmented(rendition(), [*frames(30)], close=False)
    assert len(noted.parts) >= 1
    with_some = segmented(rendition(), [*sound(3), *frames(90)], close=False)
    assert sum(part.frames for part in with_some.parts) >= 90 - 7


def test_parts_go_on_with_audio_alone_while_video_is_away() -> None:
    samples = interleaved(frames(15), sound(300))
    noted = segmented(rendition(), samples)
    check = [part.frames for part in noted.parts]
    assert sum(check) == 15
    assert check.count(0) >= 12
    assert all(part.duration_s <= PART_S for part in noted.parts)


def test_samples_before_the_first_key_frame_are_dropped() -> None:
    samples = interleaved(frames(120)[30:], sound(180))
    noted = segmented(rendition(), samples)
    assert noted.segments[0].start_s == pytest.approx(2.0)
    first = noted.samples(noted.parts[0])
    assert first[0].data == b"v180000"
    assert min(s.dts for s in first if s.kind == "audio") >= 2 * 48_000


def test_a_frame_of_unknown_duration_ends_where_the_next_begins() -> None:
    known = segmented(rendition(audio=None), frames(121))
    unknown = segmented(rendition(audio=None), frames(121, known=False))
    assert [part.data for part in known.parts] == [part.data for part in unknown.parts]


def test_a_short_group_of_pictures_makes_two_second_segments_and_a_long_one_its_own() -> None:
    short = segmented(rendition(audio=None), frames(300, gop=15))
    assert [s.duration_s for s in short.segments] == pytest.approx([2.0] * 5)
    long = segmented(rendition(audio=None), frames(500, gop=250))
    assert [s.duration_s for s in long.segments] == pytest.approx([250 / 30] * 2)
    endless = segmented(rendition(audio=None), frames(700, gop=10_000))
    assert max(s.duration_s for s in endless.segments) < 10.5


def test_audio_alone_is_cut_at_the_target() -> None:
    noted = segmented(rendition(video=None), sound(475))
    assert [s.duration_s for s in noted.segments[:-1]] == pytest.approx([2.0] * 5, abs=0.015)
    assert all(part.independent for part in noted.parts)
    out = [sample for part in noted.parts for sample in noted.samples(part)]
    assert out == sound(475)


def test_a_long_silence_of_everything_begins_a_new_timeline_at_a_key_frame() -> None:
    before = interleaved(frames(75), sound(117))
    after = interleaved(frames(120, start=10 * 90_000)[10:], sound(200, start=10 * 48_000))
    noted = segmented(rendition(), [*before, *after])
    assert [segment.cut.discontinuity for segment in noted.segments] == [False, False, True]
    assert noted.segments[1].duration_s == pytest.approx(0.5)
    assert noted.segments[2].start_s == pytest.approx(12.0)
    assert noted.samples(noted.segments[2].parts[0])[0].dts == 12 * 90_000


def test_a_short_hole_is_bridged_and_frames_are_still_shown_at_their_time() -> None:
    samples = [*frames(30), *frames(60, start=90_000 + 54_000, gop=1000)[1:]]
    noted = segmented(rendition(audio=None), samples)
    check_times(noted)
    shown = [s.dts + s.cts for part in noted.parts for s in noted.samples(part)]
    assert shown == [s.dts for s in samples]


@pytest.mark.parametrize(
    ("frame_rate", "target_s"),
    [(60, 0.25), (50, 0.25), (30, 0.25), (29.97, 0.25), (25, 0.25), (24, 0.25), (23.976, 0.252), (15, 0.268), (10, 0.301), (1, 1.001)],
)  # fmt: skip
def test_the_part_target_suits_the_frame_rate(frame_rate: float, target_s: float) -> None:
    assert part_target_s(1 / frame_rate) == target_s
    video = VideoTrack("avc1.64001f", AVC_CONFIG, 640, 360, frame_rate)
    stamps = [round(n * 1000 / frame_rate) * 90 for n in range(int(frame_rate * 6) + 1)]
    samples = [Sample("video", a, 0, b - a, n % round(2 * frame_rate) == 0, b"x") for n, (a, b) in enumerate(pairwise(stamps))]  # fmt: skip
    check_times(segmented(rendition(video=video, audio=None), samples), target_s=target_s)


@st.composite
def patterns(draw: st.DrawFn) -> list[Sample]:
    """Video with jitter, drops, holes up to two seconds, durations told, wrong or unknown, B-frames; and any audio beside."""
    video, dts = [], draw(st.integers(0, 200_000))
    for n in range(draw(st.integers(1, 120))):
        step = draw(st.sampled_from([1500, 2970, 3000, 3000, 3000, 3060, 3750, 9000, 0, 1, 40_000, 170_000]))
        said = draw(st.sampled_from([step, step, 3000, 0]))
        cts = draw(st.sampled_from([0, 0, 3000, 6000]))
        video.append(Sample("video", dts, cts, said, draw(st.integers(0, 20)) == 0 or n == 0, b"v%d" % n))
        dts += step
    start = draw(st.integers(0, 200_000))
    audio = sound(draw(st.integers(0, 300)), start=start)
    lag = draw(st.integers(0, 30_000))
    return sorted([*video, *audio], key=lambda s: s.dts / 90_000 if s.kind == "video" else (s.dts + lag) / 48_000)


@given(patterns())
@settings(max_examples=150, deadline=None)
def test_whatever_the_pattern_no_frame_is_lost_doubled_or_shown_at_another_time(samples: list[Sample]) -> None:
    for of in (rendition(), rendition(video=VideoTrack("avc1.64001f", AVC_CONFIG, 640, 360, 0.0))):
        noted = segmented(of, samples)
        out = [sample for part in noted.parts for sample in noted.samples(part)]
        shown = [(s.data, s.dts + s.cts) for s in out if s.kind == "video"]
        assert shown == [(s.data, s.dts + s.cts) for s in samples if s.kind == "video"]
        heard = [s.data for s in out if s.kind == "audio"]
        assert heard == [s.data for s in samples if s.kind == "audio"][-len(heard) :] if heard else True
        for a, b in pairwise(s for s in out if s.kind == "video"):
            assert a.dts + a.duration <= b.dts
        target_s = max(part.duration_s for part in noted.parts)
        assert target_s <= Segmenter(of, Leader(Cuts()), noted).part_target_s or of.video is not None
        assert all(segment.finished for segment in noted.segments)
        assert all(a.cut.number + 1 == b.cut.number for a, b in pairwise(noted.segments))


@given(patterns())
@settings(max_examples=100, deadline=None)
def test_whatever_the_pattern_of_video_alone_parts_are_gapless_and_within_the_target(samples: list[Sample]) -> None:
    video = [sample for sample in samples if sample.kind == "video"]
    noted = segmented(rendition(audio=None), video)
    for segment in noted.segments:
        for part in segment.parts[:-1]:
            assert PART_SHARE_MIN * PART_S - 1e-4 <= part.duration_s <= PART_S
    if not any(segment.cut.discontinuity for segment in noted.segments):
        check_times(noted)


def test_a_part_is_complete_at_so_many_bytes_however_little_time_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmenter_module, "PART_BYTES_MAX", 10_000)
    crowded = [Sample("video", n, 0, 1, n == 0, bytes([n]) * 3_000) for n in range(20)]
    noted = segmented(rendition(audio=None), crowded)
    assert max(len(part.data) for part in noted.parts) < 11_000
    assert [s.data for part in noted.parts for s in noted.samples(part)] == [s.data for s in crowded]


def test_sound_that_waits_for_its_picture_takes_so_many_bytes_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmenter_module, "AUDIO_QUEUE_BYTES_MAX", 10_000)
    segmenter = Segmenter(rendition(), Leader(Cuts()), Noted(rendition()))
    for n in range(200):
        segmenter.push(Sample("audio", n, 0, 1, True, bytes(3_000)))
    assert segmenter._audio is not None
    assert sum(len(sample.data) for sample in segmenter._audio._samples) <= 10_000


def test_bytes_of_a_hostile_publisher_raise_nothing() -> None:
    noted = Noted(rendition())
    segmenter = Segmenter(rendition(), Leader(Cuts()), noted)
    for dts in (-5, 0, 1 << 40, 3, -(1 << 50), 1 << 41, (1 << 41) + 1):
        for kind in ("video", "audio"):
            for duration in (0, 1, 1 << 40):
                segmenter.push(Sample(kind, dts, -(1 << 35), duration, True, b""))
    segmenter.close()


def test_audio_with_rounded_timestamps_stays_gapless() -> None:
    rounded = [Sample("audio", round(n * 1024 / 48) * 48, 0, 1024, True, b"%d" % n) for n in range(280)]
    noted = segmented(rendition(), interleaved(frames(180), rounded))
    check_times(noted)
    assert AUDIO.timescale == 48_000
