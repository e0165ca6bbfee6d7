"""Reads fragmented MP4: what FFmpeg writes to a pipe, and what we wrote ourselves. Fed bytes, it gives tracks, then samples.

Sans-IO: bytes in, values out, any split of the bytes gives the same values. Bad input raises `Fmp4Error`, nothing else, and memory
stays within the maxima below. H.264, HEVC, AV1, AAC and Opus in fragments whose offsets count from their own moof; edit lists are ignored.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from media.codecs import CodecError, av1_track, hevc_track
from media.fmp4.box import Fmp4Error, child, children, header
from media.fmp4.writer import AUDIO_CONFIG_BOXES, VIDEO_CONFIG_BOXES
from media.sample import AudioTrack, Sample, VideoTrack

HEADER_BOX_BYTES_MAX = 1 << 20  # ftyp, moov, moof and whatever is skipped
MDAT_BYTES_MAX = 64 << 20
SAMPLES_PER_FRAGMENT_MAX = 20_000
TRACKS_MAX = 8

_NON_SYNC: Final = 0x1_0000
_TFHD_BASE_DATA_OFFSET, _TFHD_DESCRIPTION, _TFHD_DURATION, _TFHD_SIZE, _TFHD_FLAGS = 0x1, 0x2, 0x8, 0x10, 0x20
_TRUN_DATA_OFFSET, _TRUN_FIRST_FLAGS = 0x1, 0x4
_TRUN_DURATION, _TRUN_SIZE, _TRUN_FLAGS, _TRUN_CTS = 0x100, 0x200, 0x400, 0x800


_VIDEO_CODECS: Final[dict[bytes, Callable[[bytes], str]]] = {
    b"avc1": lambda config: f"avc1.{config[1]:02x}{config[2]:02x}{config[3]:02x}",
    b"hvc1": lambda config: hevc_track(config).codec,
    b"av01": lambda config: av1_track(config).codec,
}
"""Codec strings by sample entry, of the configuration in it."""


@dataclass(frozen=True, slots=True)
class Tracks:
    """What the moov declared. `frame_rate` of the video is not in it and stays 0."""

    video: VideoTrack | None
    audio: AudioTrack | None


@dataclass(slots=True)
class _Track:
    kind: Literal["video", "audio"]
    duration: int = 0
    size: int = 0
    flags: int = 0
    next_dts: int = 0


@dataclass(frozen=True, slots=True)
class _Placed:
    """A sample of a moof, before its bytes are there: `offset` counts from the moof's first byte."""

    track: _Track
    offset: int
    size: int
    dts: int
    cts: int
    duration: int
    key: bool


class Fmp4Reader:
    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0  # bytes of a box that nobody wants, still to come
        self._tracks: dict[int, _Track] | None = None
        self._placed: list[_Placed] | None = None
        self._moof_size = 0
        self._failed = False

    def receive(self, data: bytes) -> list[Tracks | Sample]:
        """Take the next bytes; give what they completed, in the order of the stream. After an error there is no more to read."""
        if self._failed:
            raise Fmp4Error("the stream has failed before")
        try:
            return self._receive(data)
        except (Fmp4Error, CodecError, struct.error, IndexError) as fault:
            self._failed = True
            self._buffer = bytearray()
            if isinstance(fault, Fmp4Error):
                raise
            raise Fmp4Error(
                str(fault) if isinstance(fault, CodecError) else "a box ends before its fields do"
            ) from fault

    def _receive(self, data: bytes) -> list[Tracks | Sample]:
        self._buffer += data
        found: list[Tracks | Sample] = []
        offset = min(self._skip, len(self._buffer))
        self._skip -= offset
        with memoryview(self._buffer) as view:
            while self._skip == 0:
                taken = self._box(view, offset, found)
                if taken == 0:
                    break
                offset += taken
                if offset > len(view):
                    self._skip, offset = offset - len(view), len(view)
        del self._buffer[:offset]
        return found

    def _box(self, view: memoryview, offset: int, found: list[Tracks | Sample]) -> int:
        """Handle the top-level box at `offset`. Returns its size (which may reach past the buffer if it is skipped), 0 to wait."""
        head = header(view, offset)
        if head is None:
            return 0
        kind, header_bytes, size = head
        wanted = kind in (b"moov", b"moof", b"mdat")
        if size > (MDAT_BYTES_MAX if kind == b"mdat" else HEADER_BOX_BYTES_MAX):
            raise Fmp4Error(f"box {kind!r} of {size} bytes is too large")
        if self._placed is not None and kind != b"mdat":
            raise Fmp4Error(f"a moof is followed by {kind!r}, not by its mdat")
        if not wanted:
            return size
        if offset + size > len(view):
            return 0
        with view[offset + header_bytes : offset + size] as body:
            if kind == b"moov":
                found.append(self._moov(body))
            elif kind == b"moof":
                self._placed = self._moof(body)
                self._moof_size = size
            else:
                self._mdat(view, offset, header_bytes, size, found)
        return size

    def _moov(self, moov: memoryview) -> Tracks:
        if self._tracks is not None:
            raise Fmp4Error("a second moov")
        self._tracks = {}
        video: VideoTrack | None = None
        audio: AudioTrack | None = None
        for kind, body in children(moov):
            if kind != b"trak":
                continue
            track_id = _track_id(child(body, b"tkhd"))
            match _declared(body):
                case VideoTrack() as declared if video is None:
                    video = declared
                    self._tracks[track_id] = _Track("video")
                case AudioTrack() as declared if audio is None:
                    audio = declared
                    self._tracks[track_id] = _Track("audio")
                case _:
                    raise Fmp4Error("more than one video and one audio track")
        for kind, body in children(child(moov, b"mvex")):
            if kind == b"trex":
                track_id, _, duration, size, flags = struct.unpack_from(">5I", body, 4)
                if track_id in self._tracks:
                    track = self._tracks[track_id]
                    track.duration, track.size, track.flags = duration, size, flags
        if not self._tracks:
            raise Fmp4Error("a moov without tracks")
        return Tracks(video, audio)

    def _moof(self, moof: memoryview) -> list[_Placed]:
        if self._tracks is None:
            raise Fmp4Error("a moof before the moov")
        placed: list[_Placed] = []
        # 8.8.8: where its data offset is absent, a run's data follows the run before it.
        position = 0
        for kind, traf in children(moof):
            if kind == b"traf":
                position = self._traf(traf, position, placed)
        return placed

    def _traf(self, traf: memoryview, position: int, placed: list[_Placed]) -> int:
        assert self._tracks is not None
        tfhd = child(traf, b"tfhd")
        flags = int.from_bytes(tfhd[1:4])
        (track_id,) = struct.unpack_from(">I", tfhd, 4)
        if track_id not in self._tracks:
            raise Fmp4Error(f"a fragment of track {track_id}, which the moov does not declare")
        if flags & _TFHD_BASE_DATA_OFFSET:
            raise Fmp4Error("data offsets from the file's start cannot be read from a pipe")
        track = self._tracks[track_id]
        defaults = [track.duration, track.size, track.flags]
        at = 8 + (4 if flags & _TFHD_DESCRIPTION else 0)
        for index, bit in enumerate((_TFHD_DURATION, _TFHD_SIZE, _TFHD_FLAGS)):
            if flags & bit:
                (defaults[index],) = struct.unpack_from(">I", tfhd, at)
                at += 4
        for kind, body in children(traf):
            if kind == b"tfdt":
                # Unsigned by the standard; FFmpeg writes what an audio encoder needs before the first sound as a negative time.
                (track.next_dts,) = struct.unpack_from(">q" if body[0] else ">I", body, 4)
            elif kind == b"trun":
                position = _trun(body, track, defaults, position, placed)
        return position

    def _mdat(self, view: memoryview, offset: int, header_bytes: int, size: int, found: list[Tracks | Sample]) -> None:
        if self._placed is None:
            raise Fmp4Error("an mdat without a moof before it")
        first, last = self._moof_size + header_bytes, self._moof_size + size
        base = offset - self._moof_size
        for it in self._placed:
            if it.offset < first or it.offset + it.size > last:
                raise Fmp4Error("a sample lies outside its mdat")
            data = bytes(view[base + it.offset : base + it.offset + it.size])
            found.append(Sample(it.track.kind, it.dts, it.cts, it.duration, it.key, data))
        self._placed = None


def _trun(body: memoryview, track: _Track, defaults: list[int], position: int, placed: list[_Placed]) -> int:
    flags = int.from_bytes(body[1:4])
    (count,) = struct.unpack_from(">I", body, 4)
    if len(placed) + count > SAMPLES_PER_FRAGMENT_MAX:
        raise Fmp4Error(f"a fragment of {len(placed) + count} samples is too long")
    at = 8
    if flags & _TRUN_DATA_OFFSET:
        (position,) = struct.unpack_from(">i", body, at)
        at += 4
    first_flags = defaults[2]
    if flags & _TRUN_FIRST_FLAGS:
        (first_flags,) = struct.unpack_from(">I", body, at)
        at += 4
    per_sample = [bit for bit in (_TRUN_DURATION, _TRUN_SIZE, _TRUN_FLAGS, _TRUN_CTS) if flags & bit]
    # Version 0 says unsigned, but writers put negative offsets there too, and no true offset is that large.
    layout = struct.Struct(">" + "".join("i" if bit == _TRUN_CTS else "I" for bit in per_sample))
    for index in range(count):
        values = dict(zip(per_sample, layout.unpack_from(body, at), strict=True))
        at += layout.size
        duration = values.get(_TRUN_DURATION, defaults[0])
        size = values.get(_TRUN_SIZE, defaults[1])
        sample_flags = values.get(_TRUN_FLAGS, first_flags if index == 0 else defaults[2])
        key = not sample_flags & _NON_SYNC
        placed.append(_Placed(track, position, size, track.next_dts, values.get(_TRUN_CTS, 0), duration, key))
        position += size
        track.next_dts += duration
    return position


def _track_id(tkhd: memoryview) -> int:
    (track_id,) = struct.unpack_from(">I", tkhd, 20 if tkhd[0] else 12)
    return int(track_id)


def _declared(trak: memoryview) -> VideoTrack | AudioTrack | None:
    mdia = child(trak, b"mdia")
    mdhd = child(mdia, b"mdhd")
    (timescale,) = struct.unpack_from(">I", mdhd, 20 if mdhd[0] else 12)
    if timescale == 0:
        raise Fmp4Error("a track without a timescale")
    entries = list(children(child(mdia, b"minf", b"stbl", b"stsd")[8:]))
    if len(entries) != 1:
        raise Fmp4Error(f"a track with {len(entries)} sample entries")
    kind, entry = entries[0]
    if kind in _VIDEO_CODECS:
        width, height = struct.unpack_from(">HH", entry, 24)
        config = bytes(child(entry[78:], VIDEO_CONFIG_BOXES[kind.decode()]))
        return VideoTrack(_VIDEO_CODECS[kind](config), config, width, height, 0.0, timescale)
    if kind == b"Opus":
        (channels,) = struct.unpack_from(">H", entry, 16)
        return AudioTrack("opus", bytes(child(entry[28:], AUDIO_CONFIG_BOXES["opus"])), timescale, channels)
    if kind == b"mp4a":
        (channels,) = struct.unpack_from(">H", entry, 16)
        config = _audio_specific_config(child(entry[28:], b"esds")[4:])
        object_type = config[0] >> 3 if config[0] >> 3 != 31 else 32 + ((config[0] & 7) << 3 | config[1] >> 5)
        return AudioTrack(f"mp4a.40.{object_type}", config, timescale, channels)
    raise Fmp4Error(f"no reader for sample entry {kind!r}")


def _audio_specific_config(descriptors: memoryview) -> bytes:
    """ISO/IEC 14496-1: ES descriptor > decoder config descriptor > decoder specific info."""
    es = _descriptor(descriptors, 0x03)
    if es[2] & 0xE0:
        raise Fmp4Error("an ES descriptor with a dependency, address or clock")
    return bytes(_descriptor(_descriptor(es[3:], 0x04)[13:], 0x05))


def _descriptor(view: memoryview, tag: int) -> memoryview:
    if view[0] != tag:
        raise Fmp4Error(f"descriptor {view[0]} where {tag} belongs")
    size = 0
    for at in range(1, 5):
        size = size << 7 | view[at] & 0x7F
        if not view[at] & 0x80:
            return view[at + 1 : at + 1 + size]
    raise Fmp4Error("a descriptor length of more than four bytes")
