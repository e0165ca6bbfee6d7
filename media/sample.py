"""What every stage of the media plane speaks: FLV tags in, samples between, and who takes a publisher's tags.

RTMP and SRT ingest hand `Tag`s to a `TagSink`; the pipeline turns tags (source) and FFmpeg's fragments (rungs) into `Sample`s;
the packager makes parts and segments of samples. No I/O here.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Literal, Protocol

from media.port import Grant

VIDEO_TIMESCALE = 90_000


class TagType(IntEnum):
    """FLV tag types (Adobe FLV 10.1, E.4.1), which are also RTMP message type ids."""

    AUDIO = 8
    VIDEO = 9
    SCRIPT = 18


@dataclass(frozen=True, slots=True)
class Tag:
    """One FLV tag body. `timestamp_ms` is unwrapped: it goes on past 2^32."""

    type: TagType
    timestamp_ms: int
    data: bytes


@dataclass(frozen=True, slots=True)
class VideoTrack:
    """`codec` as in RFC 6381 (avc1.64001f); `config` the avcC record's bytes; `frame_rate` 0 where unknown."""

    codec: str
    config: bytes
    width: int
    height: int
    frame_rate: float
    timescale: int = VIDEO_TIMESCALE


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """`codec` as in RFC 6381 (mp4a.40.2); `config` the AudioSpecificConfig's bytes; the timescale is the sample rate in Hz."""

    codec: str
    config: bytes
    sample_rate: int
    channels: int

    @property
    def timescale(self) -> int:
        return self.sample_rate


@dataclass(frozen=True, slots=True)
class Sample:
    """One access unit. Times are in the track's timescale from the broadcast's zero; `data` is length-prefixed NAL units or raw AAC."""

    kind: Literal["video", "audio"]
    dts: int
    cts: int
    duration: int
    key: bool
    data: bytes


class TagSink(Protocol):
    """Takes one publisher's tags. `tag` never blocks and never raises for what the publisher sent."""

    def tag(self, tag: Tag) -> None: ...

    async def drain(self) -> None:
        """Called after what was read is handed over. Waits while the pipeline is behind: the ingest stops reading its socket meanwhile,
        so that memory stays bounded. Raises `BadMedia`."""
        ...

    async def close(self, reason: Literal["unpublished", "disconnected"]) -> None: ...


class BadMedia(Exception):
    """No broadcast can be made of what this publisher sends; the message is for its user."""


class AlreadyPublishing(Exception):
    """Another encoder is live on this channel."""


class NoRoom(Exception):
    """This node cannot take another broadcast."""


class Ingest(Protocol):
    """Where an authorised publisher is handed over."""

    async def open(self, grant: Grant, *, encoder: str, peer: str) -> TagSink:
        """Begin (or resume) a broadcast. Raises `AlreadyPublishing` or `NoRoom`."""
        ...


@dataclass(frozen=True, slots=True)
class Rendition:
    """One choice of quality: `bandwidth` its peak in bit/s. `video` or `audio` may be missing, never both."""

    name: str
    bandwidth: int
    video: VideoTrack | None
    audio: AudioTrack | None

    @property
    def codecs(self) -> str:
        return ",".join(track.codec for track in (self.video, self.audio) if track)


@dataclass(frozen=True, slots=True)
class Segment:
    """A finished segment: `number` its media sequence number, `start_s` from the broadcast's zero, `data` all of its parts' bytes.
    `slate`: shown while the encoder was away. `apart`: numbered for this rendition alone, which cuts where no other does.
    `discontinuity`: time does not go on from the segment before, in any rendition."""

    rendition: str
    number: int
    start_s: float
    duration_s: float
    program_date_time: datetime
    data: bytes
    slate: bool = False
    apart: bool = False
    discontinuity: bool = False


class SampleSink(Protocol):
    """Takes one rendition's samples, each track in decode order; video and audio may be interleaved in any way."""

    def push(self, sample: Sample) -> None: ...

    def close(self) -> None:
        """No more samples come: the segment that is open ends here."""
        ...


class Packager(Protocol):
    """Makes one broadcast's parts and segments. The first rendition added is the source: its key frames decide the cuts."""

    def add(self, rendition: Rendition) -> SampleSink: ...

    def end(self) -> None:
        """The broadcast is over: players see the end of the playlists."""
        ...


class SegmentSink(Protocol):
    """Takes what the packager finished, to keep it (the archive). Never blocks, never raises."""

    def rendition(self, rendition: Rendition, init: bytes, *, slate: bool = False) -> None:
        """Comes before the rendition's first segment; `init` is its initialisation segment (ftyp, moov). `slate`: of what is shown in
        the encoder's place, and is no part of the recording."""
        ...

    def segment(self, segment: Segment) -> None: ...
