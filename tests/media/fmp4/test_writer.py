"""The writer's output, judged by FFmpeg's decoder and by our own reader."""

import struct

import pytest

from media.fmp4.box import children
from media.fmp4.reader import Fmp4Reader, Tracks
from media.fmp4.writer import Run, init_segment, media_fragment
from media.sample import AudioTrack, Sample, VideoTrack
from tests.media.encoded import FRAMES_A_SECOND, HEIGHT, WIDTH, decode, fragmented_mp4


def read(mp4: bytes) -> tuple[Tracks, list[Sample]]:
    tracks, *samples = Fmp4Reader().receive(mp4)
    assert isinstance(tracks, Tracks)
    return tracks, [sample for sample in samples if isinstance(sample, Sample)]


def runs_of(samples: list[Sample]) -> list[Run]:
    runs = []
    for kind in ("video", "audio"):
        mine = [sample for sample in samples if sample.kind == kind]
        if mine:
            run = Run(is_video=kind == "video", dts=mine[0].dts)
            for sample in mine:
                run.append(sample.duration, sample.cts, sample.key, sample.data)
            runs.append(run)
    return runs


@pytest.mark.parametrize("b_frames", [0, 2])
def test_what_was_read_and_written_again_decodes_without_a_complaint_to_the_same_frames(b_frames: int) -> None:
    tracks, samples = read(fragmented_mp4(seconds=2, b_frames=b_frames))
    out = init_segment(tracks.video, tracks.audio)
    for sequence in range(14):
        quarter = [s for s in samples if s.dts * 4 // (90_000 if s.kind == "video" else 48_000) == sequence]
        out += media_fragment(sequence + 1, runs_of(quarter))
    frames, complaints = decode(out)
    assert complaints == b""
    assert frames == 2 * FRAMES_A_SECOND
    assert read(out)[0] == tracks
    in_order = sorted(samples, key=lambda s: (s.kind, s.dts))
    assert sorted(read(out)[1], key=lambda s: (s.kind, s.dts)) == in_order


def test_an_init_segment_says_size_rate_and_codecs_and_a_parser_reads_them_back() -> None:
    tracks, _ = read(fragmented_mp4(seconds=2))
    assert tracks.video is not None
    assert tracks.audio is not None
    assert (tracks.video.width, tracks.video.height, tracks.video.timescale) == (WIDTH, HEIGHT, 90_000)
    assert tracks.video.codec.startswith("avc1.")
    assert (tracks.audio.codec, tracks.audio.sample_rate) == ("mp4a.40.2", 48_000)
    assert read(init_segment(tracks.video, tracks.audio))[0] == tracks
    assert read(init_segment(tracks.video, None))[0] == Tracks(tracks.video, None)
    assert read(init_segment(None, tracks.audio))[0] == Tracks(None, tracks.audio)


def test_a_rendition_without_any_track_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one track"):
        init_segment(None, None)


def test_decode_times_beyond_32_bits_negative_offsets_and_a_long_rate_survive() -> None:
    run = Run(is_video=True, dts=1 << 40)
    run.append(3000, -1, True, b"key")
    run.append(2999, 6000, False, b"later")
    run.stretch(5)
    audio = Run(is_video=False, dts=7)
    audio.append(1024, 0, True, b"aac")
    video_track = VideoTrack("avc1.64001f", b"\x01\x64\x00\x1f\xff", 16, 16, 30.0)
    audio_track = AudioTrack("mp4a.40.2", b"\x11\x90", 96_000, 2)
    tracks, samples = read(init_segment(video_track, audio_track) + media_fragment(1, [run, audio]))
    assert tracks.audio == audio_track
    assert samples == [
        Sample("video", 1 << 40, -1, 3000, True, b"key"),
        Sample("video", (1 << 40) + 3000, 6000, 3004, False, b"later"),
        Sample("audio", 7, 0, 1024, True, b"aac"),
    ]
    assert run.end == (1 << 40) + 6004


def test_a_sample_never_gets_shorter_than_one_tick() -> None:
    run = Run(is_video=True, dts=0)
    run.append(10, 0, True, b"")
    run.stretch(-100)
    assert run.end == 1


@pytest.mark.parametrize(("codec", "name"), [("hvc1.1.6.L93.B0", b"hvcC"), ("av01.0.04M.08", b"av1C")])
def test_other_video_codecs_carry_their_own_configuration(codec: str, name: bytes) -> None:
    init = init_segment(VideoTrack(codec, b"config", 16, 16, 30.0), None)
    assert struct.pack(">I4s", 14, name) + b"config" in init
    assert [kind for kind, _ in children(memoryview(init))] == [b"ftyp", b"moov"]


def test_opus_carries_its_own_configuration() -> None:
    assert b"dOpsconfig" in init_segment(None, AudioTrack("opus", b"config", 48_000, 2))
