"""What encoders say, step by step, each step only when the answer it waits for has come.

Not recordings: OBS Studio, Streamlabs and FMLE do not run here. They are made from what is known of the command sequences: OBS's and
Streamlabs Desktop's from their published sources (both are libobs with the same librtmp), the mobile one from those of Android's
RootEncoder, after which Streamlabs' own mobile apps need not be built, and FMLE's from descriptions of it. The media in them is real.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from media.sample import TagType
from tests.media.rtmp.wire import amf
from tests.media.tags import tags

FLASH: Final = "FMLE/3.0 (compatible; FMSc/1.0)"
LIBOBS: Final = "obs-output module (libobs version 30.2.3)"
KEY: Final = "live_secret"
SET_CHUNK_SIZE, WINDOW_ACK_SIZE, COMMAND, DATA = 1, 5, 20, 18
HANDSHAKE: Final = "the handshake"
PUBLISHING: Final = "NetStream.Publish.Start"


@dataclass(frozen=True)
class Step:
    """`waits_for`: the handshake, a code, a command's name, or a name and transaction that the server has sent."""

    waits_for: str
    sends: bytes


@dataclass(frozen=True)
class Dialogue:
    name: str
    steps: tuple[Step, ...]
    flash_version: str
    encoder: str
    """What its metadata call it."""


@dataclass
class Chunks:
    """Chunks as librtmp writes them: on a chunk stream that was used before, what repeats is left out."""

    size: int = 128
    _before: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def write(self, cid: int, kind: int, data: bytes, *, at: int = 0, stream: int = 0, large: bool = False) -> bytes:
        before = self._before.get(cid)
        if large or before is None or at < before[0]:
            head = bytes([cid]) + at.to_bytes(3, "big") + len(data).to_bytes(3, "big") + bytes([kind])
            head += struct.pack("<I", stream)
        elif before[1:] == (len(data), kind):
            head = bytes([2 << 6 | cid]) + (at - before[0]).to_bytes(3, "big")
        else:
            head = bytes([1 << 6 | cid]) + (at - before[0]).to_bytes(3, "big") + len(data).to_bytes(3, "big")
            head += bytes([kind])
        self._before[cid] = (at, len(data), kind)
        pieces = [data[start : start + self.size] for start in range(0, len(data), self.size)]
        written = head + bytes([3 << 6 | cid]).join(pieces)
        if kind == SET_CHUNK_SIZE:
            self.size = int.from_bytes(data, "big")
        return written


def ecma(count: int, members: Mapping[str, Any]) -> bytes:
    """An ECMA array; encoders do not always count right."""
    named = b"".join(struct.pack(">H", len(name)) + name.encode() + amf(value) for name, value in members.items())
    return b"\x08" + struct.pack(">I", count) + named + b"\x00\x00\x09"


def hello(uptime_ms: int = 0) -> bytes:
    """C0 and C1 of the plain handshake."""
    return b"\x03" + struct.pack(">II", uptime_ms, 0) + bytes(n * 37 % 256 for n in range(1528))


def media(chunks: Chunks, *, audio_cid: int = 4, video_cid: int = 4) -> bytes:
    """The sequence headers and a second of a real encoder's tags."""
    out = b""
    for tag in tags(seconds=1, gop=30):
        if tag.type != TagType.SCRIPT:
            cid = audio_cid if tag.type == TagType.AUDIO else video_cid
            out += chunks.write(cid, tag.type, tag.data, at=tag.timestamp_ms, stream=1, large=tag.timestamp_ms == 0)
    return out


_FACTS: Final = {"duration": 0.0, "fileSize": 0.0, "width": 640.0, "height": 360.0}
_SOUND: Final = {"audiodatarate": 160.0, "audiosamplerate": 48_000.0, "audiosamplesize": 16.0, "audiochannels": 2.0}
_LAYOUTS: Final = {"2.1": False, "3.1": False, "4.0": False, "4.1": False, "5.1": False, "7.1": False}


def librtmp(name: str, *, video_codec: float | str, audio_codec: float | str, count: int) -> Dialogue:
    """OBS Studio and Streamlabs Desktop; codecs are numbers in their metadata today, and were names in earlier versions."""
    chunks, url = Chunks(), "rtmp://localhost/live"
    connect = {"app": "live", "type": "nonprivate", "flashVer": FLASH, "swfUrl": url, "tcUrl": url}
    metadata = _FACTS | {"videocodecid": video_codec, "videodatarate": 2_500.0, "framerate": 30.0}
    metadata |= {"audiocodecid": audio_codec} | _SOUND | {"stereo": True} | _LAYOUTS | {"encoder": LIBOBS}
    steps = (
        Step("", hello(uptime_ms=123_456)),
        Step(
            HANDSHAKE,
            bytes(1536)
            + chunks.write(2, SET_CHUNK_SIZE, (4096).to_bytes(4, "big"), large=True)
            + chunks.write(3, COMMAND, amf("connect", 1, connect), large=True),
        ),
        Step(
            "_result 1",
            chunks.write(3, COMMAND, amf("releaseStream", 2, None, KEY))
            + chunks.write(3, COMMAND, amf("FCPublish", 3, None, KEY))
            + chunks.write(3, COMMAND, amf("createStream", 4, None)),
        ),
        Step("_result 4", chunks.write(4, COMMAND, amf("publish", 5, None, KEY, "live"), stream=1, large=True)),
        Step(
            PUBLISHING,
            chunks.write(4, DATA, amf("@setDataFrame", "onMetaData") + ecma(count, metadata), stream=1, large=True)
            + media(chunks),
        ),
        Step(
            "",
            chunks.write(3, COMMAND, amf("FCUnpublish", 6, None, KEY))
            + chunks.write(3, COMMAND, amf("deleteStream", 7, None, 1.0)),
        ),
    )
    return Dialogue(name, steps, FLASH, LIBOBS)


def fmle() -> Dialogue:
    """Adobe's encoder: it asks for a bandwidth check that nobody answers, and publishes once onFCPublish lets it. Metadata: an object."""
    chunks, flash = Chunks(), "FMLE/3.0 (compatible; FMSc/1.0)"
    connect = {"app": "live", "swfUrl": "rtmp://localhost/live", "tcUrl": "rtmp://localhost/live", "flashVer": flash}
    metadata = {"author": "", "presetname": "Custom", "encoder": "Flash Media Live Encoder 3.2", "videocodecid": "avc1"}
    metadata |= {"audiocodecid": "mp4a"}
    steps = (
        Step("", hello()),
        Step(HANDSHAKE, bytes(1536) + chunks.write(3, COMMAND, amf("connect", 1, connect), large=True)),
        Step(
            "_result 1",
            chunks.write(2, WINDOW_ACK_SIZE, (2_500_000).to_bytes(4, "big"), large=True)
            + chunks.write(3, COMMAND, amf("releaseStream", 2, None, KEY))
            + chunks.write(3, COMMAND, amf("FCPublish", 3, None, KEY))
            + chunks.write(3, COMMAND, amf("createStream", 4, None))
            + chunks.write(3, COMMAND, amf("_checkbw", 5, None), large=True),
        ),
        Step("onFCPublish", chunks.write(8, COMMAND, amf("publish", 0, None, KEY, "live"), stream=1, large=True)),
        Step(
            PUBLISHING,
            chunks.write(4, DATA, amf("@setDataFrame", "onMetaData", metadata), stream=1, large=True)
            + media(chunks, audio_cid=6, video_cid=7),
        ),
        Step("", chunks.write(3, COMMAND, amf("FCUnpublish", 6, None, KEY))),
    )
    return Dialogue("FMLE", steps, flash, "Flash Media Live Encoder 3.2")


def mobile() -> Dialogue:
    """A phone: commands with timestamps, properties nobody needs, metadata without @setDataFrame's wrapping, closeStream at the end."""
    chunks, flash = Chunks(), "FMLE/3.0 (compatible; Lavf57.56.101)"
    connect = {
        "app": "live", "flashVer": flash, "swfUrl": "", "tcUrl": "rtmp://localhost/live", "fpad": False,
        "capabilities": 239.0, "audioCodecs": 3191.0, "videoCodecs": 252.0, "videoFunction": 1.0, "pageUrl": "",
        "objectEncoding": 0.0,
    }  # fmt: skip
    metadata = _FACTS | {"videocodecid": 7.0, "framerate": 30.0, "audiocodecid": 10.0, "stereo": False}
    steps = (
        Step("", hello(uptime_ms=987_654_321)),
        Step(HANDSHAKE, bytes(1536) + chunks.write(3, COMMAND, amf("connect", 1, connect), at=12, large=True)),
        Step(
            "_result 1",
            chunks.write(5, COMMAND, amf("releaseStream", 2, None, KEY), at=40, large=True)
            + chunks.write(5, COMMAND, amf("FCPublish", 3, None, KEY), at=41, large=True)
            + chunks.write(3, COMMAND, amf("createStream", 4, None), at=41, large=True),
        ),
        Step("_result 4", chunks.write(5, COMMAND, amf("publish", 5, None, KEY, "live"), at=60, stream=1, large=True)),
        Step(
            PUBLISHING,
            chunks.write(5, DATA, amf("onMetaData") + ecma(0, metadata), at=70, stream=1, large=True)
            + media(chunks, audio_cid=7, video_cid=6),
        ),
        Step("", chunks.write(5, COMMAND, amf("closeStream", 6, None), at=1100, stream=1, large=True)),
    )
    return Dialogue("a phone (RootEncoder)", steps, flash, "")


DIALOGUES: Final = (
    librtmp("OBS Studio", video_codec=7.0, audio_codec=10.0, count=20),
    librtmp("Streamlabs Desktop", video_codec=7.0, audio_codec=10.0, count=20),
    librtmp("OBS Studio of before, whose codecs have names", video_codec="avc1", audio_codec="mp4a", count=14),
    fmle(),
    mobile(),
)
