"""Configuration records of a real encoder, and bytes that are none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.codecs import CodecError, aac_track, avc_track, parse_sps
from media.sample import TagType
from tests.media.tags import tags


@pytest.mark.parametrize("size", ["640x360", "854x480", "1918x1078", "202x360", "1280x720"])
def test_the_picture_has_the_size_that_was_encoded(size: str) -> None:
    header = next(tag for tag in tags(seconds=1, size=size, rate=25, audio=False) if tag.type == TagType.VIDEO)
    track = avc_track(header.data[5:])
    assert f"{track.width}x{track.height}" == size
    assert track.frame_rate == 25.0


def test_the_encoders_own_word_on_the_frame_rate_counts_more() -> None:
    header = next(tag for tag in tags(seconds=1) if tag.type == TagType.VIDEO)
    assert avc_track(header.data[5:], frame_rate=29.97).frame_rate == 29.97
    assert avc_track(header.data[5:], frame_rate=float("inf")).frame_rate == 30.0


def test_an_aac_configuration_names_its_codec() -> None:
    track = aac_track(bytes.fromhex("1190"))
    assert (track.codec, track.sample_rate, track.channels) == ("mp4a.40.2", 48_000, 2)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64), st.sampled_from([b"", b"\x01\x64\x00\x1f\xff\xe1\x00\x20", b"\x67\x64\x00\x1f"]))
def test_arbitrary_bytes_raise_nothing_but_their_own_error(rest: bytes, start: bytes) -> None:
    for read in (avc_track, parse_sps, aac_track):
        try:
            read(start + rest)
        except CodecError:
            continue
