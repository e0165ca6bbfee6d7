"""Writes the fragmented MP4 that players get: one init segment a rendition, one moof+mdat a part.

The segmenter fills a `Run` per track and calls `media_fragment`; sample bytes are copied once, into the part. Knows nothing of playlists.
"""

import struct
from collections.abc import Sequence

from media.fmp4.box import box, full_box
from media.sample import AudioTrack, VideoTrack

VIDEO_TRACK_ID = 1
AUDIO_TRACK_ID = 2

# ISO/IEC 14496-12 8.8.3.1: sample_depends_on 2 (depends on no other) for a sync sample; 1 and sample_is_non_sync_sample for the rest.
SYNC_SAMPLE_FLAGS = 0x0200_0000
NON_SYNC_SAMPLE_FLAGS = 0x0101_0000

_TFHD_DEFAULT_BASE_IS_MOOF = 0x02_0000
_TRUN_VIDEO_FLAGS = (
    0x1 | 0x100 | 0x200 | 0x400 | 0x800
)  # data offset; per sample duration, size, flags, composition offset
_TRUN_AUDIO_FLAGS = 0x1 | 0x100 | 0x200  # every audio sample is a sync sample presented when decoded
_MOOF_AND_MFHD = struct.Struct(">I4sI4sII")
_TRAF_TO_TRUN = struct.Struct(">I4s I4sII I4sIQ I4sIIi")
_MDAT_HEADER = struct.Struct(">I4s")
_UNITY_MATRIX = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)

# The sample entry's codec configuration box, by the codec string's first element (RFC 6381). A new codec is one line here.
VIDEO_CONFIG_BOXES = {"avc1": b"avcC", "hvc1": b"hvcC", "av01": b"av1C"}
AUDIO_CONFIG_BOXES = {"mp4a": b"esds", "opus": b"dOps"}
SAMPLE_ENTRIES = {"opus": b"Opus"}  # where it is not spelled as the codec string


class Run:
    """One track's samples of a fragment, already in the order and form in which the boxes want them."""

    __slots__ = ("_fields", "_is_video", "data", "dts", "end", "has_key", "size")

    def __init__(self, *, is_video: bool, dts: int) -> None:
        self._is_video = is_video
        self._fields: list[int] = []
        self.data: list[bytes] = []
        self.dts = dts
        self.end = dts
        self.size = 0
        self.has_key = False

    def __len__(self) -> int:
        return len(self.data)

    def append(self, duration: int, cts: int, key: bool, data: bytes) -> None:
        """The next sample is decoded when the one before it ends: a run has no gap by construction."""
        size = len(data)
        if self._is_video:
            flags = SYNC_SAMPLE_FLAGS if key else NON_SYNC_SAMPLE_FLAGS
            self._fields += (duration, size, flags, cts & 0xFFFF_FFFF)
        else:
            self._fields += (duration, size)
        self.data.append(data)
        self.end += duration
        self.size += size
        self.has_key = self.has_key or key

    def stretch(self, ticks: int) -> None:
        """Make the last sample last `ticks` longer (or shorter, but at least one tick)."""
        at = -4 if self._is_video else -2
        ticks = max(ticks, 1 - self._fields[at])
        self._fields[at] += ticks
        self.end += ticks

    def traf_bytes(self) -> int:
        return _TRAF_TO_TRUN.size + 4 * len(self._fields)

    def traf(self, data_offset: int) -> bytes:
        track_id = VIDEO_TRACK_ID if self._is_video else AUDIO_TRACK_ID
        trun_flags = _TRUN_VIDEO_FLAGS if self._is_video else _TRUN_AUDIO_FLAGS
        fields = self._fields
        start = _TRAF_TO_TRUN.pack(
            *(self.traf_bytes(), b"traf"),
            *(16, b"tfhd", _TFHD_DEFAULT_BASE_IS_MOOF, track_id),
            *(20, b"tfdt", 1 << 24, self.dts),
            *(20 + 4 * len(fields), b"trun", 1 << 24 | trun_flags, len(self.data), data_offset),
        )
        return start + struct.pack(f">{len(fields)}I", *fields)


def media_fragment(sequence: int, runs: Sequence[Run]) -> bytes:
    """moof and mdat with the samples of all runs, each track's together."""
    moof_size = _MOOF_AND_MFHD.size + sum(run.traf_bytes() for run in runs)
    pieces = [_MOOF_AND_MFHD.pack(moof_size, b"moof", 16, b"mfhd", 0, sequence & 0xFFFF_FFFF)]
    offset = moof_size + _MDAT_HEADER.size
    for run in runs:
        pieces.append(run.traf(offset))
        offset += run.size
    pieces.append(_MDAT_HEADER.pack(offset - moof_size, b"mdat"))
    for run in runs:
        pieces += run.data
    return b"".join(pieces)


def init_segment(video: VideoTrack | None, audio: AudioTrack | None) -> bytes:
    """ftyp and moov for a rendition with either track or both."""
    traks, trexs = [], []
    if video is not None:
        traks.append(_video_trak(video))
        trexs.append(_trex(VIDEO_TRACK_ID, NON_SYNC_SAMPLE_FLAGS))
    if audio is not None:
        traks.append(_audio_trak(audio))
        trexs.append(_trex(AUDIO_TRACK_ID, SYNC_SAMPLE_FLAGS))
    if not traks:
        raise ValueError("a rendition has at least one track")
    mvhd = full_box(
        *(b"mvhd", 0, 0),
        struct.pack(">IIIIIHHQ", 0, 0, 1000, 0, 0x10000, 0x0100, 0, 0),
        _UNITY_MATRIX,
        bytes(24),
        struct.pack(">I", AUDIO_TRACK_ID + 1),
    )
    ftyp = box(b"ftyp", b"iso6", struct.pack(">I", 512), b"iso6", b"iso5", b"mp41")
    return ftyp + box(b"moov", mvhd, *traks, box(b"mvex", *trexs))


def _trex(track_id: int, flags: int) -> bytes:
    return full_box(b"trex", 0, 0, struct.pack(">5I", track_id, 1, 0, 0, flags))


def _trak(
    track_id: int, size: tuple[int, int], volume: int, timescale: int, handler: bytes, media_header: bytes, entry: bytes
) -> bytes:
    width, height = size
    tkhd = full_box(
        *(b"tkhd", 0, 0x3),  # enabled, in movie
        struct.pack(">IIIIIQHHHH", 0, 0, track_id, 0, 0, 0, 0, 0, volume, 0),
        _UNITY_MATRIX,
        struct.pack(">II", width << 16, height << 16),
    )
    und = 0x55C4  # ISO 639-2/T "und", three five-bit letters
    mdhd = full_box(b"mdhd", 0, 0, struct.pack(">IIIIHH", 0, 0, timescale, 0, und, 0))
    hdlr = full_box(b"hdlr", 0, 0, bytes(4), handler, bytes(12), b"Tallylight\0")
    dref = full_box(b"dref", 0, 0, struct.pack(">I", 1), full_box(b"url ", 0, 0x1))
    stbl = box(
        b"stbl",
        full_box(b"stsd", 0, 0, struct.pack(">I", 1), entry),
        full_box(b"stts", 0, 0, bytes(4)),
        full_box(b"stsc", 0, 0, bytes(4)),
        full_box(b"stsz", 0, 0, bytes(8)),
        full_box(b"stco", 0, 0, bytes(4)),
    )
    minf = box(b"minf", media_header, box(b"dinf", dref), stbl)
    return box(b"trak", tkhd, box(b"mdia", mdhd, hdlr, minf))


def _video_trak(track: VideoTrack) -> bytes:
    fourcc = track.codec.partition(".")[0]
    config = box(VIDEO_CONFIG_BOXES[fourcc], track.config)
    no_pre_defined = bytes(16)
    seventy_two_dpi = struct.pack(">II", 0x480000, 0x480000)
    entry = box(
        fourcc.encode(),
        struct.pack(">6xH", 1),
        no_pre_defined,
        struct.pack(">HH", track.width, track.height),
        seventy_two_dpi,
        struct.pack(">4xH32xHh", 1, 0x18, -1),
        config,
    )
    vmhd = full_box(b"vmhd", 0, 1, bytes(8))
    return _trak(VIDEO_TRACK_ID, (track.width, track.height), 0, track.timescale, b"vide", vmhd, entry)


def _audio_trak(track: AudioTrack) -> bytes:
    fourcc = track.codec.partition(".")[0]
    kind = AUDIO_CONFIG_BOXES[fourcc]
    config = _esds(track.config) if kind == b"esds" else box(kind, track.config)
    # 16.16 fixed point has no room for rates from 65,536 Hz up; there the codec's own configuration says it.
    rate = track.sample_rate << 16 if track.sample_rate < 1 << 16 else 0
    name = SAMPLE_ENTRIES.get(fourcc, fourcc.encode())
    entry = box(name, struct.pack(">6xH8xHHHHI", 1, track.channels, 16, 0, 0, rate), config)
    smhd = full_box(b"smhd", 0, 0, bytes(4))
    return _trak(AUDIO_TRACK_ID, (0, 0), 0x0100, track.timescale, b"soun", smhd, entry)


def _esds(audio_specific_config: bytes) -> bytes:
    """ISO/IEC 14496-14 5.6 and 14496-1 7.2.6: ES, decoder config, decoder specific info and sync layer descriptors."""
    decoder_specific = _descriptor(0x05, audio_specific_config)
    mpeg4_audio, audio_stream = 0x40, 0x05 << 2 | 1
    decoder_config = _descriptor(0x04, struct.pack(">BB3xII", mpeg4_audio, audio_stream, 0, 0), decoder_specific)
    sync_layer = _descriptor(0x06, b"\x02")
    return full_box(b"esds", 0, 0, _descriptor(0x03, struct.pack(">HB", AUDIO_TRACK_ID, 0), decoder_config, sync_layer))


def _descriptor(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    length = bytes((0x80 | size >> 21 & 0x7F, 0x80 | size >> 14 & 0x7F, 0x80 | size >> 7 & 0x7F, size & 0x7F))
    return bytes((tag,)) + length + body
