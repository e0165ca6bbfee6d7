"""Real encoders' tags, strange ones and arbitrary ones, and FFmpeg reading back what we write."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media import flv
from media.flv import Began, Demuxer, Frame
from media.rtmp import amf0
from media.sample import Tag, TagType
from tests.media.encoded import ffmpeg
from tests.media.tags import tags

SECONDS, RATE = 6, 30


def demuxed(given_tags: Any, *, offset_ms: int = 0) -> tuple[list[Began], list[Frame], Demuxer]:
    demuxer = Demuxer(starts_at=lambda: offset_ms)
    found = [item for tag in given_tags for item in demuxer.receive(tag)]
    return [it for it in found if isinstance(it, Began)], [it for it in found if isinstance(it, Frame)], demuxer


@pytest.mark.parametrize("b_frames", [0, 2])
def test_every_frame_of_an_encoder_becomes_a_sample_at_its_time(b_frames: int) -> None:
    began, frames, _ = demuxed(tags(b_frames=b_frames))
    video = [frame.sample for frame in frames if frame.sample.kind == "video"]
    (only,) = began
    assert only.video is not None
    assert only.audio is not None
    assert (only.video.width, only.video.height, only.video.frame_rate) == (640, 360, 30.0)
    assert only.video.codec.startswith("avc1.")
    assert only.audio.codec == "mp4a.40.2"
    assert (only.audio.sample_rate, only.audio.channels) == (48_000, 1)
    assert len(video) == SECONDS * RATE
    assert [n for n, sample in enumerate(video) if sample.key] == [0, 60, 120]
    assert video[0].dts == 0
    shown = sorted((sample.dts + sample.cts) / 90_000 for sample in video)
    assert all(abs(b - a - 1 / RATE) < 0.0021 for a, b in itertools.pairwise(shown))
    sound = [frame.sample for frame in frames if frame.sample.kind == "audio"]
    assert abs(sound[-1].dts / 48_000 - SECONDS) < 0.1


def test_nothing_before_the_first_key_frame_is_taken() -> None:
    late = [tag for tag in tags() if tag.timestamp_ms > 500 or tag.data[1] == 0 or tag.type == TagType.SCRIPT]
    _, frames, _ = demuxed(late)
    video = [frame.sample for frame in frames if frame.sample.kind == "video"]
    assert video[0].key
    assert video[0].dts == 0
    assert len(video) == 120
    assert min(frame.tag.timestamp_ms for frame in frames) >= 0


def test_a_publisher_who_comes_back_goes_on_where_the_broadcast_stands() -> None:
    _, frames, _ = demuxed(tags(), offset_ms=90_000)
    assert frames[0].sample.dts == 90_000 * 90
    assert frames[0].tag.timestamp_ms == 90_000


def test_without_metadata_a_picture_waits_a_moment_for_its_sound_and_then_goes_on_without() -> None:
    silent = [tag for tag in tags(audio=False) if tag.type != TagType.SCRIPT]
    demuxer = Demuxer()
    first = next(n for n, tag in enumerate(silent) if demuxer.receive(tag))
    assert silent[first].timestamp_ms > flv.AUDIO_WAIT_MS_MAX
    began, frames, _ = demuxed(silent)
    assert began[0].audio is None
    assert began[0].video is not None
    assert began[0].video.frame_rate > 0
    assert len(frames) == SECONDS * RATE


def test_sound_that_comes_late_is_a_change_of_tracks() -> None:
    whole = tags()
    late = [tag for tag in whole if tag.type == TagType.VIDEO]
    header = next(tag for tag in whole if tag.type == TagType.AUDIO)
    rest = [tag for tag in whole if tag.type == TagType.AUDIO and tag.timestamp_ms > 3_000]
    early, later = late[:100], late[100:]
    began, _, _ = demuxed([*early, replace(header, timestamp_ms=3_000), *later, *rest])
    assert [it.audio is None for it in began] == [True, False]


def test_sound_alone_is_a_broadcast_after_a_moment() -> None:
    began, frames, _ = demuxed(tags(video=False))
    assert began[0].video is None
    assert began[0].audio is not None
    assert len(frames) > 250
    assert all(frame.sample.kind == "audio" for frame in frames)


def test_enhanced_rtmp_h264_and_aac_are_the_same_samples() -> None:
    def enhanced(tag: Tag) -> Tag:
        body = tag.data
        if tag.type == TagType.VIDEO and body[0] & 15 == 7:
            head = bytes([0x80 | body[0] & 0x70 | (0 if body[1] == 0 else 1)]) + b"avc1"
            return replace(tag, data=head + (body[5:] if body[1] == 0 else body[2:]))
        if tag.type == TagType.AUDIO:
            return replace(tag, data=bytes([0x90 | body[1]]) + b"mp4a" + body[2:])
        return tag

    plain = [tag for tag in tags(b_frames=2) if tag.type == TagType.SCRIPT or tag.data[1] in (0, 1)]
    _, as_before, _ = demuxed(plain)
    _, frames, demuxer = demuxed([enhanced(tag) for tag in plain])
    assert demuxer.refused is None
    assert [frame.sample for frame in frames] == [frame.sample for frame in as_before]


def test_a_codec_that_we_cannot_carry_is_named() -> None:
    _, frames, demuxer = demuxed(tags(codec="flv", audio=False))
    assert not frames
    assert demuxer.refused is not None
    assert "H.264" in demuxer.refused


def test_ffmpeg_decodes_every_frame_of_what_is_written_for_it() -> None:
    began, frames, _ = demuxed(tags(b_frames=2))
    written = flv.file_header(video=True, audio=True)
    written += b"".join(flv.tag_bytes(tag) for tag in [*began[0].headers, *(frame.tag for frame in frames)])
    done = ffmpeg("-xerror", "-f", "flv", "-i", "pipe:0", "-progress", "pipe:1", "-f", "null", "-", stdin=written)
    assert done.returncode == 0
    assert not done.stderr
    counts = [int(line[6:]) for line in done.stdout.splitlines() if line.startswith(b"frame=")]
    assert counts[-1] == SECONDS * RATE


def test_sound_that_waits_for_a_key_frame_takes_so_many_bytes_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flv, "HELD_BYTES_MAX", 10_000)
    demuxer = Demuxer()
    for tag in tags():
        if tag.type == TagType.AUDIO or tag.data[1] == 0:
            demuxer.receive(tag)
    for number in range(100):
        assert demuxer.receive(Tag(TagType.AUDIO, number, b"\xaf\x01" + bytes(4_000))) == []
        assert demuxer._held_bytes <= 10_000
    assert demuxer._held_bytes == sum(len(held.data) for held in demuxer._held) > 0
    assert any(demuxer.receive(tag) for tag in tags() if tag.type == TagType.VIDEO), "and it begins all the same"


def test_a_clock_that_hardly_moves_does_not_pay_for_more_and_more_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flv, "BURST_BYTES_MAX", 1 << 20)
    _, _, demuxer = demuxed(tags())
    end_ms = tags()[-1].timestamp_ms
    picture = b"\x27\x01\x00\x00\x00" + bytes(100_000)
    for number in range(200):  # 24 Mb/s, two seconds of them at once
        assert demuxer.receive(Tag(TagType.VIDEO, end_ms + 33 * number, picture))
    for number in range(12):
        demuxer.receive(Tag(TagType.VIDEO, end_ms + 33 * 200 + number // 6, picture))
    assert demuxer.refused is not None
    assert "Mb/s" in demuxer.refused


_bodies = st.binary(max_size=40) | st.sampled_from([tag.data[:60] for tag in tags()[:12]])
_any_tags = st.lists(st.builds(Tag, st.sampled_from(list(TagType)), st.integers(-(2**40), 2**40), _bodies), max_size=30)


@settings(max_examples=200, deadline=None)
@given(_any_tags)
def test_arbitrary_tags_never_raise(strange: list[Tag]) -> None:
    _, frames, _ = demuxed([*strange, *tags()[:40], *strange])
    assert all(isinstance(frame.sample.data, bytes) for frame in frames)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=8), st.none() | st.floats() | st.text(max_size=5) | st.booleans(), max_size=5))
def test_whatever_metadata_say_the_frames_come(metadata: dict[str, Any]) -> None:
    said = Tag(TagType.SCRIPT, 0, amf0.write("onMetaData", {**metadata, "framerate": metadata.get("framerate", "x")}))
    media = [tag for tag in tags() if tag.type != TagType.SCRIPT]
    began, frames, _ = demuxed([said, *media])
    assert began
    assert began[0].bandwidth > 0
    assert sum(frame.sample.kind == "video" for frame in frames) == SECONDS * RATE
