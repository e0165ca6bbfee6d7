"""The reader on FFmpeg's real output, on any split of it, and on bytes that are wrong."""

import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.fmp4.box import Fmp4Error, box, full_box
from media.fmp4.reader import MDAT_BYTES_MAX, SAMPLES_PER_FRAGMENT_MAX, Fmp4Reader, Tracks
from media.fmp4.writer import Run, init_segment, media_fragment
from media.sample import AudioTrack, Sample, VideoTrack
from tests.media.encoded import FRAMES_A_SECOND, fragmented_mp4

VIDEO = VideoTrack("avc1.64001f", b"\x01\x64\x00\x1f\xff\xe1\x00", 640, 360, 0.0)
AUDIO = AudioTrack("mp4a.40.2", b"\x11\x90", 48_000, 2)
INIT = init_segment(VIDEO, AUDIO)


def fragment(dts: int = 0) -> bytes:
    video, audio = Run(is_video=True, dts=dts), Run(is_video=False, dts=dts)
    video.append(3000, 0, True, b"v" * 50)
    video.append(3000, 10, False, b"w" * 20)
    audio.append(1024, 0, True, b"a" * 9)
    return media_fragment(1, [video, audio])


def read_in_pieces(data: bytes, cuts: list[int]) -> list[Tracks | Sample]:
    reader = Fmp4Reader()
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [found for a, b in itertools.pairwise(edges) for found in reader.receive(data[a:b])]


def test_every_frame_that_ffmpeg_encoded_comes_out_in_decode_order_without_gaps() -> None:
    _, *samples = Fmp4Reader().receive(fragmented_mp4(seconds=4, gop=60))
    video = [s for s in samples if isinstance(s, Sample) and s.kind == "video"]
    assert len(video) == 4 * FRAMES_A_SECOND
    assert [i for i, s in enumerate(video) if s.key] == [0, 60]
    assert all(a.dts + a.duration == b.dts for a, b in itertools.pairwise(video))
    audio = [s for s in samples if isinstance(s, Sample) and s.kind == "audio"]
    assert {s.key for s in audio} == {True}
    assert all(a.dts + a.duration == b.dts for a, b in itertools.pairwise(audio))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(min_value=0), max_size=40))
def test_any_split_of_the_bytes_gives_the_same_values(cuts: list[int]) -> None:
    data = INIT + box(b"free", bytes(300)) + fragment() + box(b"sidx", bytes(9)) + fragment(6000)
    assert read_in_pieces(data, cuts) == read_in_pieces(data, [])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.integers(min_value=0), st.integers(min_value=0, max_value=3))
def test_wrong_bytes_anywhere_raise_nothing_but_the_readers_own_error(junk: bytes, at: int, extra: int) -> None:
    data = bytearray(INIT + fragment())
    at %= len(data)
    data[at : at + len(junk) - extra] = junk
    reader = Fmp4Reader()
    try:
        reader.receive(bytes(data))
    except Fmp4Error:
        with pytest.raises(Fmp4Error, match="failed before"):
            reader.receive(fragment())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_nothing_but_the_readers_own_error(junk: bytes) -> None:
    try:
        Fmp4Reader().receive(INIT)
        Fmp4Reader().receive(junk)
    except Fmp4Error:
        pass


def moof_with(*traf: bytes) -> bytes:
    return box(b"moof", full_box(b"mfhd", 0, 0, bytes(4)), box(b"traf", *traf))


TFHD = full_box(b"tfhd", 0, 0x20000, struct.pack(">I", 1))


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (struct.pack(">I4s", MDAT_BYTES_MAX + 1, b"mdat"), "too large"),
        (struct.pack(">I4s", 1 << 30, b"moov"), "too large"),
        (struct.pack(">I4s", 0, b"moof"), "smaller than its own header"),
        (struct.pack(">I4sQ", 1, b"mdat", 8), "smaller than its own header"),
        (INIT, "second moov"),
        (box(b"mdat", b"x"), "without a moof"),
        (moof_with(TFHD) + box(b"free"), "not by its mdat"),
        (moof_with(full_box(b"tfhd", 0, 0, struct.pack(">I", 9))), "does not declare"),
        (moof_with(full_box(b"tfhd", 0, 1, struct.pack(">IQ", 1, 0))), "from a pipe"),
        (moof_with(b"\0\0\0\x09tfhd\0"), "before its fields do"),
        (moof_with(TFHD, full_box(b"trun", 0, 0, struct.pack(">I", SAMPLES_PER_FRAGMENT_MAX + 1))), "too long"),
        (moof_with(TFHD, full_box(b"trun", 0, 0x200, struct.pack(">II", 1, 5))) + box(b"mdat"), "outside its mdat"),
        (moof_with(TFHD, full_box(b"trun", 0, 0x1, struct.pack(">Ii", 1, -5))) + box(b"mdat"), "outside its mdat"),
        (moof_with(), "missing"),
        (box(b"moof", b"\0\0\0\x20mfhd"), "past the end of its parent"),
        (box(b"moof", b"\0\0"), "cut short"),
    ],
)
def test_bad_input_names_what_is_wrong(bad: bytes, complaint: str) -> None:
    reader = Fmp4Reader()
    reader.receive(INIT)
    with pytest.raises(Fmp4Error, match=complaint):
        reader.receive(bad)


def test_a_fragment_before_the_moov_is_refused() -> None:
    with pytest.raises(Fmp4Error, match="before the moov"):
        Fmp4Reader().receive(fragment())


def test_a_large_skipped_box_is_not_kept_in_memory() -> None:
    reader = Fmp4Reader()
    assert reader.receive(struct.pack(">I4s", 1_000_000, b"free") + bytes(10)) == []
    for _ in range(10):
        reader.receive(bytes(99_000))
        assert len(reader._buffer) == 0
    reader.receive(bytes(1_000_000 - 18 - 990_000))
    assert isinstance(reader.receive(INIT)[0], Tracks)


def test_runs_that_leave_their_fields_to_defaults_are_read_and_so_is_a_large_mdat() -> None:
    tfhd = full_box(b"tfhd", 0, 0x20000 | 0x8 | 0x10 | 0x20, struct.pack(">IIII", 1, 3000, 4, 0x1010000))
    tfdt = full_box(b"tfdt", 0, 0, struct.pack(">I", 77))
    trun_bytes, moof_bytes = 24, 8 + 16 + 8 + len(tfhd) + len(tfdt) + 24 + 20
    first = full_box(b"trun", 0, 0x5, struct.pack(">IiI", 2, moof_bytes + 16, 0x2000000))
    second = full_box(b"trun", 0, 0x4, struct.pack(">II", 1, 0x2000000))
    assert len(first) == trun_bytes
    moof = moof_with(tfhd, tfdt, first, second)
    assert len(moof) == moof_bytes
    reader = Fmp4Reader()
    reader.receive(INIT)
    assert reader.receive(moof + struct.pack(">I4sQ", 1, b"mdat", 16 + 12) + b"keyPbye!KEYP") == [
        Sample("video", 77, 0, 3000, True, b"keyP"),
        Sample("video", 3077, 0, 3000, False, b"bye!"),
        Sample("video", 6077, 0, 3000, True, b"KEYP"),
    ]
