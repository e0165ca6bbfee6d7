"""A publisher's FLV tags become samples, from the first key frame on; and tags become the FLV that FFmpeg reads.

The pipeline feeds `Demuxer` and gets `Began` (what the tracks are, also when they change) and then `Frame`s. Sans-IO; never raises for
what a publisher sent: bad tags are dropped and counted, a codec we cannot carry is named in `refused`. Memory is bounded by the maxima.
FLV: Adobe Flash Video File Format Specification 10.1, annex E; the FourCC forms: Enhanced RTMP v2.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from prometheus_client import Counter

from media import enhanced
from media.codecs import CodecError, aac_track, av1_track, avc_track, hevc_track, opus_duration, opus_track
from media.rtmp import amf0
from media.rtmp.errors import RtmpError
from media.sample import AudioTrack, Sample, Tag, TagType, VideoTrack

AUDIO_WAIT_MS_MAX: Final = 1_000
"""So long a broadcast waits, after its first key frame, to learn whether there is sound."""
VIDEO_WAIT_MS_MAX: Final = 3_000
"""Sound alone for so long is a broadcast without a picture."""
HELD_TAGS_MAX: Final = 2_000
HELD_BYTES_MAX: Final = 16 << 20
BYTES_A_MS_MAX: Final = 12_500
"""100 Mb/s of the encoder's own time."""
BURST_BYTES_MAX: Final = 32 << 20
"""So much more may come at once. What a publisher's clock does not pay for would pile up in a part, or a segment, that never ends."""
JUMP_MS_MAX: Final = 10_000
BACK_MS_MAX: Final = 3_000
"""An encoder's clock that steps so far ahead or back is another clock: the broadcast goes on from its own, at the next key frame."""
FILE_HEADER_BYTES, TAG_HEADER_BYTES, BACK_POINTER_BYTES = 13, 11, 4
AAC_FRAME: Final = 1024
ENCODER_CHARS_MAX: Final = 120
BANDWIDTH_UNKNOWN: Final = 2_500_000
_TICKS_PER_MS: Final = 90
_AVC, _AAC = 7, 10
_ENHANCED_AUDIO: Final = 9
_KEY, _COMMAND = 1, 5
_VIDEO_TRACKS: Final = {"avc1": avc_track, "hvc1": hevc_track, "av01": av1_track}

_dropped = Counter("tallylight_flv_tags_dropped", "Tags nothing could be made of", ["why"])


@dataclass(frozen=True, slots=True)
class Began:
    """What follows is made of these tracks. `headers`: the tags that tell FFmpeg so. `bandwidth` in bit/s and `encoder` as that says."""

    video: VideoTrack | None
    audio: AudioTrack | None
    headers: tuple[Tag, ...]
    bandwidth: int
    encoder: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """One access unit, as a sample and as the tag it came in, both on the broadcast's clock."""

    sample: Sample
    tag: Tag


@dataclass(frozen=True, slots=True)
class _Config:
    kind: TagType
    data: bytes
    fourcc: str


@dataclass(frozen=True, slots=True)
class _Data:
    key: bool
    cts_ms: int
    data: bytes


class Unsupported(Exception):
    """What we do not carry, a codec or so many bytes; the message names it."""


class Demuxer:
    def __init__(self, *, starts_at: Callable[[], int] = lambda: 0) -> None:
        """`starts_at`: where the first key frame stands on the broadcast's clock, in ms; asked when it has come."""
        self.refused: str | None = None
        self._starts_at = starts_at
        self._offset_ms = 0
        self._zero_ms: int | None = None  # the tag time that stands at the offset
        self._configs: dict[TagType, Tag] = {}
        self._metadata: dict[str, Any] = {}
        self._held: deque[Tag] = deque()
        self._held_bytes = 0
        self._changed = False
        self._newest_ms = 0
        self._unpaid_bytes = 0  # beyond what the time that passed allows
        self._strange_ms: int | None = None  # of one tag out of time, which may be alone
        self._video: VideoTrack | None = None
        self._audio: AudioTrack | None = None

    def receive(self, tag: Tag) -> list[Began | Frame]:
        if self.refused is not None:
            return []
        try:
            return list(self._receive(tag))
        except Unsupported as unsupported:
            self.refused = str(unsupported)
        except (CodecError, RtmpError, IndexError):
            _dropped.labels("malformed").inc()
        return []

    def _receive(self, tag: Tag) -> Iterator[Began | Frame]:
        if tag.type == TagType.SCRIPT:
            self._script(tag)
            return
        found = _video(tag.data) if tag.type == TagType.VIDEO else _audio(tag.data)
        match found:
            case None:
                return
            case _Config():
                self._configure(tag, found)
            case _Data() if self._zero_ms is None:
                yield from self._wait(tag, found)
            case _Data() if self._is_strange(tag):
                if not self._has_begun():  # a second one: time has jumped
                    yield from self._wait(tag, found)
            case _Data():
                if self._changed:
                    self._changed = False
                    yield self._began()
                frame = self._frame(tag, found)
                if frame is not None:
                    yield frame

    def _wait(self, tag: Tag, found: "_Data") -> Iterator[Began | Frame]:
        self._hold(tag, found)
        if self._may_begin(tag):
            yield from self._begin()

    def _has_begun(self) -> bool:
        return self._zero_ms is not None

    def _is_strange(self, tag: Tag) -> bool:
        """Whether a tag is out of time. One alone is dropped; with the second the encoder's time is another, and all begins anew."""
        before = self._strange_ms
        if -BACK_MS_MAX <= tag.timestamp_ms - self._newest_ms <= JUMP_MS_MAX:
            self._strange_ms = None
            self._pay(max(tag.timestamp_ms - self._newest_ms, 0))
            self._newest_ms = max(self._newest_ms, tag.timestamp_ms)
            return False
        _dropped.labels("out_of_time").inc()
        self._strange_ms = tag.timestamp_ms
        if before is not None and abs(tag.timestamp_ms - before) <= BACK_MS_MAX:
            self._zero_ms = self._strange_ms = None
            self._held.clear()
            self._held_bytes = 0
        return True

    def _pay(self, passed_ms: int) -> None:
        self._unpaid_bytes = max(0, self._unpaid_bytes - passed_ms * BYTES_A_MS_MAX)

    def _script(self, tag: Tag) -> None:
        values = amf0.read(tag.data)
        if len(values) > 1 and values[0] == "onMetaData" and isinstance(values[1], dict):
            self._metadata = values[1]

    def _configure(self, tag: Tag, found: _Config) -> None:
        before = self._configs.get(tag.type)
        if before is not None and before.data == tag.data:
            return
        if tag.type == TagType.VIDEO:
            self._video = _VIDEO_TRACKS[found.fourcc](found.data, frame_rate=_number(self._metadata.get("framerate")))
        else:
            self._audio = opus_track(found.data) if found.fourcc == "Opus" else aac_track(found.data)
        self._configs[tag.type] = tag
        self._changed = self._zero_ms is not None

    # -- the beginning --------------------------------------------------------------------------------------------

    def _hold(self, tag: Tag, found: _Data) -> None:
        if tag.type == TagType.VIDEO and self._video is None:
            _dropped.labels("before_its_configuration").inc()
            return
        if tag.type == TagType.AUDIO and self._audio is None:
            return
        if tag.type == TagType.VIDEO and not found.key and not self._has_key():
            _dropped.labels("before_the_first_key_frame").inc()
            return
        self._held.append(tag)
        self._held_bytes += len(tag.data)
        if self._has_key():
            return  # `_may_begin` sees to the maxima
        while len(self._held) > HELD_TAGS_MAX or self._held_bytes > HELD_BYTES_MAX:
            self._held_bytes -= len(self._held.popleft().data)

    def _has_key(self) -> bool:
        return any(tag.type == TagType.VIDEO for tag in self._held)

    def _may_begin(self, tag: Tag) -> bool:
        first = next((held for held in self._held if held.type == TagType.VIDEO), None)
        if first is None:
            no_video = self._video is None and bool(self._held)
            return no_video and tag.timestamp_ms - self._held[0].timestamp_ms > VIDEO_WAIT_MS_MAX
        if self._audio is not None or self._metadata.get("hasAudio") is False:
            return True
        silent = bool(self._metadata) and "audiocodecid" not in self._metadata
        waited = tag.timestamp_ms - first.timestamp_ms > AUDIO_WAIT_MS_MAX
        return silent or waited or self._held_bytes > HELD_BYTES_MAX or len(self._held) > HELD_TAGS_MAX

    def _begin(self) -> Iterator[Began | Frame]:
        first = next((held for held in self._held if held.type == TagType.VIDEO), self._held[0])
        self._zero_ms = self._newest_ms = first.timestamp_ms
        self._offset_ms = self._starts_at()
        yield self._began()
        while self._held:
            held = self._held.popleft()
            found = _video(held.data) if held.type == TagType.VIDEO else _audio(held.data)
            if isinstance(found, _Data) and (frame := self._frame(held, found)) is not None:
                yield frame
        self._held_bytes = 0

    def _began(self) -> Began:
        # Of its metadata FFmpeg gets the frame rate alone, so that it need not guess, each time differently.
        rate_known = {"framerate": self._video.frame_rate} if self._video and self._video.frame_rate else {}
        headers = [Tag(TagType.SCRIPT, 0, amf0.write("onMetaData", rate_known))]
        headers += [self._configs[kind] for kind in (TagType.VIDEO, TagType.AUDIO) if kind in self._configs]
        rate = _number(self._metadata.get("videodatarate")) + _number(self._metadata.get("audiodatarate"))
        bandwidth = round(rate * 1000) if 0 < rate < 1_000_000 else BANDWIDTH_UNKNOWN
        named = self._metadata.get("encoder")
        encoder = "".join(filter(str.isprintable, named))[:ENCODER_CHARS_MAX] if isinstance(named, str) else ""
        tags = tuple(replace(tag, timestamp_ms=0) for tag in headers)
        return Began(self._video, self._audio, tags, bandwidth, encoder)

    # -- frames ---------------------------------------------------------------------------------------------------

    def _frame(self, tag: Tag, found: _Data) -> Frame | None:
        assert self._zero_ms is not None
        at_ms = tag.timestamp_ms - self._zero_ms + self._offset_ms
        if at_ms < self._offset_ms:
            _dropped.labels("before_the_first_key_frame").inc()
            return None
        self._unpaid_bytes += len(tag.data)
        if self._unpaid_bytes > BURST_BYTES_MAX:
            raise Unsupported(f"more than {BYTES_A_MS_MAX * 8 // 1000} Mb/s by the encoder's own clock")
        if tag.type == TagType.VIDEO:
            if self._video is None:
                return None
            rate = self._video.frame_rate
            duration = round(self._video.timescale / rate) if rate else 0
            dts, cts = at_ms * _TICKS_PER_MS, found.cts_ms * _TICKS_PER_MS
            sample = Sample("video", dts, cts, duration, found.key, found.data)
        else:
            if self._audio is None:
                return None
            dts = round(at_ms * self._audio.sample_rate / 1000)
            duration = opus_duration(found.data) if self._audio.codec == "opus" else AAC_FRAME
            sample = Sample("audio", dts, 0, duration, True, found.data)
        return Frame(sample, replace(tag, timestamp_ms=at_ms))


def _video(body: bytes) -> _Config | _Data | None:
    first = body[0]
    if first & 0x80:
        return _extended_video(body)
    if first >> 4 == _COMMAND:
        return None
    if first & 15 != _AVC:
        raise Unsupported(f"video of FLV codec {first & 15}; H.264, HEVC and AV1 are what this server takes")
    if body[1] == 0:
        return _Config(TagType.VIDEO, body[5:], "avc1")
    if body[1] != 1 or len(body) < 6:
        return None
    return _Data(first >> 4 == _KEY, _signed24(body[2:5]), body[5:])


def _extended_video(body: bytes) -> _Config | _Data | None:
    if body[0] >> 4 & 7 == _COMMAND:
        return None
    found = enhanced.packet(body, video=True)
    if found is None or found.kind in (enhanced.SEQUENCE_END, enhanced.METADATA):
        return None
    if found.fourcc not in enhanced.VIDEO:
        raise Unsupported(f"video {found.fourcc!r}; H.264, HEVC and AV1 are what this server takes")
    key = body[0] >> 4 & 7 == _KEY
    match found.kind:
        case enhanced.SEQUENCE_START:
            return _Config(TagType.VIDEO, found.data, found.fourcc)
        case enhanced.CODED_FRAMES if found.fourcc == "av01" and found.data:
            return _Data(key, 0, found.data)
        case enhanced.CODED_FRAMES if len(found.data) > 3:
            return _Data(key, _signed24(found.data[:3]), found.data[3:])
        case enhanced.CODED_FRAMES_X if found.data:
            return _Data(key, 0, found.data)
        case _:
            return None


def _audio(body: bytes) -> _Config | _Data | None:
    codec = body[0] >> 4
    if codec == _ENHANCED_AUDIO:
        return _extended_audio(body)
    if codec != _AAC:
        raise Unsupported(f"audio of FLV codec {codec}; AAC and Opus are what this server takes")
    if body[1] == 0:
        return _Config(TagType.AUDIO, body[2:], "mp4a")
    return _Data(True, 0, body[2:]) if len(body) > 2 else None


def _extended_audio(body: bytes) -> _Config | _Data | None:
    found = enhanced.packet(body, video=False)
    if found is None or found.kind not in (enhanced.SEQUENCE_START, enhanced.CODED_FRAMES):
        return None
    if found.fourcc not in enhanced.AUDIO:
        raise Unsupported(f"audio {found.fourcc!r}; AAC and Opus are what this server takes")
    if found.kind == enhanced.SEQUENCE_START:
        return _Config(TagType.AUDIO, found.data, found.fourcc)
    return _Data(True, 0, found.data) if found.data else None


def _signed24(data: bytes) -> int:
    return int.from_bytes(data, signed=True)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and value == value else 0.0


# -- FLV as FFmpeg writes it -------------------------------------------------------------------------------------------


class FlvReader:
    """The tags of an FLV file that comes in pieces. Bounded by the largest tag there can be, 16 MiB."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._began = False

    def receive(self, data: bytes) -> list[Tag]:
        """E.2 to E.4.1. Tags of other types are passed over."""
        buffer, at, found = self._buffer, 0, []
        buffer += data
        if not self._began:
            if len(buffer) < FILE_HEADER_BYTES:
                return []
            at, self._began = FILE_HEADER_BYTES, True
        while len(buffer) - at >= TAG_HEADER_BYTES:
            size = int.from_bytes(buffer[at + 1 : at + 4])
            if len(buffer) - at < TAG_HEADER_BYTES + size + BACK_POINTER_BYTES:
                break
            timestamp_ms = int.from_bytes(buffer[at + 4 : at + 7]) | buffer[at + 7] << 24
            body = bytes(buffer[at + TAG_HEADER_BYTES : at + TAG_HEADER_BYTES + size])
            if buffer[at] & 31 in set(TagType):
                found.append(Tag(TagType(buffer[at] & 31), timestamp_ms, body))
            at += TAG_HEADER_BYTES + size + BACK_POINTER_BYTES
        del buffer[:at]
        return found


# -- FLV as FFmpeg reads it --------------------------------------------------------------------------------------------


def file_header(*, video: bool, audio: bool) -> bytes:
    """E.2, and the first back pointer."""
    return b"FLV\x01" + bytes([4 * audio | video]) + b"\x00\x00\x00\x09" + b"\x00\x00\x00\x00"


def tag_bytes(tag: Tag) -> bytes:
    """E.4.1: one tag and its back pointer. The timestamp is cut to the 32 bits there are."""
    at = tag.timestamp_ms & 0xFFFF_FFFF
    head = bytes([tag.type]) + len(tag.data).to_bytes(3) + (at & 0xFF_FFFF).to_bytes(3) + bytes([at >> 24]) + b"\0\0\0"
    return head + tag.data + (len(tag.data) + 11).to_bytes(4)
