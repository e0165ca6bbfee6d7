"""Enhanced RTMP: HEVC, AV1 and Opus as FFmpeg sends them, carried as they are and made into rungs; and packets built by hand."""

import functools
import subprocess
from dataclasses import replace
from typing import Any

import imageio_ffmpeg
import pytest

from media import enhanced
from media.codecs import CodecError, av1_track, hevc_track, opus_duration, opus_track
from media.enhanced import packet
from media.flv import Began, Demuxer
from media.fmp4.writer import init_segment
from media.rtmp.session import ServerSession
from media.sample import Tag, TagType
from tests.media.encoded import decode
from tests.media.rtmp.wire import C2, HELLO, command, publish
from tests.media.tags import parse, tags
from tests.media.test_flv import demuxed
from tests.media.test_pipeline import ANN, Stand, frames_of, live_on, push, stand, until

__all__ = ["stand"]

ENCODERS = {
    "hvc1": [
        "-c:v",
        "libx265",
        "-preset",
        "ultrafast",
        "-x265-params",
        "log-level=error:keyint=30:min-keyint=30:bframes=0",
    ],
    "av01": ["-c:v", "libsvtav1", "-preset", "13", "-svtav1-params", "keyint=30:lookahead=0:scd=0"],
    "avc1": ["-c:v", "libx264", "-preset", "ultrafast", "-g", "30"],
}
SOUNDS = {"opus": ["-c:a", "libopus", "-b:a", "64k"], "mp4a": ["-c:a", "aac"]}


def connected(**said: Any) -> tuple[ServerSession, bytes]:
    """A session whose encoder publishes, and what it was answered."""
    session = ServerSession()
    session.receive_data(HELLO + C2 + command("connect", 1, {"app": "live", **said}) + publish())
    session.accept_publish()
    return session, session.data_to_send()


@functools.cache
def sent(video: str, audio: str, *, seconds: int = 4) -> tuple[Tag, ...]:
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-f", "lavfi",
        "-i", f"testsrc2=size=640x360:rate=30:duration={seconds}", "-f", "lavfi",
        "-i", f"sine=frequency=440:sample_rate=48000:duration={seconds}", "-pix_fmt", "yuv420p",
        *ENCODERS[video], *SOUNDS[audio], "-f", "flv", "-flvflags", "no_duration_filesize", "pipe:1",
    ]  # fmt: skip
    made = subprocess.run(command, capture_output=True, check=True, timeout=100)
    return tuple(parse(made.stdout))


@pytest.mark.parametrize(
    ("video", "audio", "codecs"),
    [("hvc1", "mp4a", "hvc1.1.6.L"), ("av01", "opus", "av01.0.0"), ("avc1", "opus", "avc1.")],
)
async def test_what_ffmpeg_sends_is_carried_as_it_is_and_its_rungs_are_h264_and_aac(
    stand: Stand, video: str, audio: str, codecs: str
) -> None:
    async with stand.node() as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        push(sink, sent(video, audio))
        live = live_on(registry)
        await sink.drain()
        await until(lambda: len(live.renditions) == 4)
        await sink.close("unpublished")
        source, rung = live.rendition("source"), live.rendition("240p")
        assert source is not None
        assert rung is not None
        assert source.rendition.codecs.startswith(codecs)
        assert source.rendition.codecs.endswith("opus" if audio == "opus" else "mp4a.40.2")
        assert source.rendition.video is not None
        assert (source.rendition.video.width, source.rendition.video.height) == (640, 360)
        assert rung.rendition.codecs.startswith("avc1.")
        assert rung.rendition.codecs.endswith("mp4a.40.2")
        assert frames_of(live, "source") == 120
        assert frames_of(live, "240p") == 120
        only = live.rendition("audio")
        assert only is not None
        assert only.rendition.codecs == ("opus" if audio == "opus" else "mp4a.40.2")


@pytest.mark.parametrize("video", ["hvc1", "av01"])
def test_the_codec_string_is_what_ffmpeg_itself_would_say(video: str) -> None:
    (began, *_), frames, demuxer = demuxed(sent(video, "mp4a"))
    assert demuxer.refused is None
    assert began.video is not None
    assert frames[0].sample.key
    media = init_segment(began.video, None)
    probed = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", "pipe:0"], input=media, capture_output=True, check=False
    )
    assert (b"hevc" if video == "hvc1" else b"av1") in probed.stderr
    assert b"640x360" in probed.stderr
    assert decode(media)[0] == 0


async def test_a_codec_that_changes_in_mid_stream_is_another_timeline(stand: Stand) -> None:
    later = [replace(tag, timestamp_ms=tag.timestamp_ms + 4_100) for tag in sent("hvc1", "mp4a")]
    async with stand.node() as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        push(sink, [*tags(seconds=4), *later])
        live = live_on(registry)
        await sink.drain()
        await sink.close("unpublished")
        source = live.rendition("source")
        assert source is not None
        assert [entry.discontinuity for entry in source.window.listed] == [False, False, True, False]
        assert [entry.init for entry in source.window.listed] == [0, 0, 1, 1]


def test_modifiers_are_stepped_over_and_of_many_tracks_the_first_is_taken() -> None:
    plain = b"\x91hvc1\x00\x00\x00frame"
    found = packet(plain, video=True)
    assert found is not None
    assert (found.kind, found.fourcc, found.data) == (1, "hvc1", b"\x00\x00\x00frame")
    nanoseconds = b"\x97" + b"\x02\x00\x01\x02" + b"\x01" + plain[1:]
    assert packet(nanoseconds, video=True) == found
    one = b"\x96" + b"\x01" + b"hvc1" + b"\x00" + plain[5:]
    assert packet(one, video=True) == found
    many = b"\x96" + b"\x11" + b"hvc1" + b"\x01\x00\x00\x02no" + b"\x00\x00\x00\x08" + plain[5:]
    assert packet(many, video=True) == found
    codecs = b"\x96" + b"\x21" + b"av01\x01\x00\x00\x02no" + b"hvc1\x00\x00\x00\x08" + plain[5:]
    assert packet(codecs, video=True) == found
    none = b"\x96" + b"\x11" + b"hvc1" + b"\x01\x00\x00\x02no"
    assert packet(none, video=True) is None


@pytest.mark.parametrize(
    "bad", [b"\x97", b"\x97\xff\xff", b"\x96", b"\x96\x21av", b"\x91", b"\x90hvc1", b"\x90hvc1\x01", b"\x95Opus"]
)
def test_packets_that_end_too_early_are_dropped(bad: bytes) -> None:
    demuxer = Demuxer()
    assert not demuxer.receive(Tag(TagType.VIDEO, 0, bad))
    assert not demuxer.receive(Tag(TagType.AUDIO, 0, bad))


@pytest.mark.parametrize(("fourcc", "kind"), [(b"vp09", TagType.VIDEO), (b"fLaC", TagType.AUDIO)])
def test_a_codec_we_do_not_carry_is_named(fourcc: bytes, kind: TagType) -> None:
    demuxer = Demuxer()
    demuxer.receive(Tag(kind, 0, b"\x90" + fourcc + b"config"))
    assert fourcc.decode() in (demuxer.refused or "")


def test_how_long_a_packet_of_opus_is() -> None:
    assert opus_duration(bytes([0b1111_1000])) == 960
    assert opus_duration(bytes([0b1111_1001])) == 1920
    assert opus_duration(bytes([0b0001_1000])) == 2880
    assert opus_duration(bytes([0b1110_0011, 3])) == 360
    assert opus_duration(bytes([0b0001_1011, 63])) == 0
    assert opus_duration(b"") == 0


def test_bad_configurations_are_refused_in_words() -> None:
    for parse_it, bad in (
        (hevc_track, b""), (hevc_track, b"\x01" + bytes(22)), (hevc_track, b"\x01" + bytes(21) + b"\x01\x21\x00\x01\x00\x03\x42\x01\x01"),
        (av1_track, b"\x81\x00\x00\x00"), (av1_track, b"\x81\x00\x00\x00\x0a\x00"), (av1_track, b"\x81\x00\x00\x00\x12\x00"),
    ):  # fmt: skip
        with pytest.raises(CodecError):
            parse_it(bad)
    for head in (b"OpusHea", b"OpusHead\x01\x08" + bytes(9), b"OpusTail" + bytes(11)):
        with pytest.raises(CodecError):
            opus_track(head)


def test_the_server_says_what_it_takes_and_asks_those_to_reconnect_who_know_how() -> None:
    session, answer = connected(fourCcList=["hvc1"], capsEx=1)
    assert b"fourCcList" in answer
    assert b"videoFourCcInfoMap" in answer
    for fourcc in (*enhanced.VIDEO, *enhanced.AUDIO):
        assert fourcc.encode() in answer
    assert session.request_reconnect("Maintenance.", "rtmp://other/live")
    asked = session.data_to_send()
    assert b"NetConnection.Connect.ReconnectRequest" in asked
    assert b"rtmp://other/live" in asked
    old, _ = connected()
    assert not old.request_reconnect("Maintenance.")
    assert not old.data_to_send()
    assert not ServerSession().request_reconnect("Maintenance.")


def test_began_names_both_tracks() -> None:
    (began, *_), _, _ = demuxed(sent("hvc1", "mp4a"))
    assert isinstance(began, Began)
    assert began.audio is not None
