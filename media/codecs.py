"""What H.264 and AAC configuration records say: the codec string, the picture's size and rate, the sample rate. Called by `media.flv`.

Sans-IO. Bad input raises `CodecError`, nothing else.
"""

from dataclasses import dataclass
from typing import Final

from media.sample import AudioTrack, VideoTrack

SIDE_MAX: Final = 8192
RATE_MAX: Final = 300.0
_SAMPLE_RATES: Final = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_WITH_CHROMA: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_CHANNELS: Final = (0, 1, 2, 3, 4, 5, 6, 8)


class CodecError(Exception):
    """A configuration record that is none, or asks for more than we take."""


@dataclass(frozen=True, slots=True)
class Sps:
    """Sizes in pixels after cropping; `frame_rate` 0 where the stream does not say."""

    width: int
    height: int
    frame_rate: float


def avc_track(config: bytes, *, frame_rate: float = 0.0) -> VideoTrack:
    """An AVCDecoderConfigurationRecord (ISO/IEC 14496-15 5.3.3.1). `frame_rate` is what the encoder says beside it, 0 where nothing."""
    if len(config) < 8 or config[0] != 1:
        raise CodecError("an AVC configuration of a version we do not know")
    if config[4] & 3 == 2 or config[5] & 31 == 0:
        raise CodecError("an AVC configuration without a parameter set")
    size = int.from_bytes(config[6:8])
    sps = parse_sps(config[8 : 8 + size])
    said = frame_rate if 1 <= frame_rate <= RATE_MAX else sps.frame_rate
    codec = f"avc1.{config[1]:02x}{config[2]:02x}{config[3]:02x}"
    return VideoTrack(codec, config, sps.width, sps.height, said)


def parse_sps(nal: bytes) -> Sps:
    """A sequence parameter set (ITU-T H.264 7.3.2.1.1), its NAL unit header included."""
    if len(nal) < 5 or nal[0] & 31 != 7:
        raise CodecError("no sequence parameter set")
    try:
        return _sps(_Bits(nal[1:].replace(b"\x00\x00\x03", b"\x00\x00")))
    except IndexError:
        raise CodecError("a sequence parameter set that ends before its fields do") from None


def aac_track(config: bytes) -> AudioTrack:
    """An AudioSpecificConfig (ISO/IEC 14496-3 1.6.2.1). The timescale is the core's rate, in which a frame has 1024 samples."""
    try:
        bits = _Bits(config)
        object_type = bits.take(5)
        if object_type == 31:
            object_type = 32 + bits.take(6)
        index = bits.take(4)
        rate = bits.take(24) if index == 15 else _SAMPLE_RATES[index]
        channels = bits.take(4)
    except IndexError:
        raise CodecError("an AAC configuration that ends before its fields do") from None
    if not 7000 <= rate <= 96000 or not object_type:
        raise CodecError(f"AAC of object type {object_type} at {rate} Hz")
    return AudioTrack(f"mp4a.40.{object_type}", config, rate, _CHANNELS[channels] if channels < len(_CHANNELS) else 2)


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self._data[self._at >> 3] >> (7 - (self._at & 7)) & 1
            self._at += 1
        return value

    def ue(self) -> int:
        """Exp-Golomb, 9.1."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise CodecError("an Exp-Golomb code of more than 32 bits")
        return (1 << zeros) - 1 + self.take(zeros)

    def se(self) -> int:
        value = self.ue()
        return (value + 1) // 2 if value & 1 else -(value // 2)


def _sps(bits: _Bits) -> Sps:
    profile = bits.take(8)
    bits.take(16)  # constraints and level
    bits.ue()
    chroma = 1
    if profile in _WITH_CHROMA:
        chroma = _chroma(bits)
    bits.ue()  # log2_max_frame_num_minus4
    order = bits.ue()
    if order == 0:
        bits.ue()
    elif order == 1:
        bits.take(1)
        bits.se()
        bits.se()
        for _ in range(min(bits.ue(), 255)):
            bits.se()
    bits.ue()  # max_num_ref_frames
    bits.take(1)
    width = (bits.ue() + 1) * 16
    map_units = bits.ue() + 1
    frames_only = bits.take(1)
    height = map_units * 16 * (2 - frames_only)
    if not frames_only:
        bits.take(1)
    bits.take(1)
    if bits.take(1):
        # 7.4.2.1.1: cropping counts in chroma samples.
        across = 2 if chroma in (1, 2) else 1
        down = (2 if chroma == 1 else 1) * (2 - frames_only)
        left, right, top, bottom = (bits.ue() for _ in range(4))
        width -= across * (left + right)
        height -= down * (top + bottom)
    if not (0 < width <= SIDE_MAX and 0 < height <= SIDE_MAX):
        raise CodecError(f"a picture of {width}x{height}")
    return Sps(width, height, _vui_rate(bits) if bits.take(1) else 0.0)


def _chroma(bits: _Bits) -> int:
    chroma = bits.ue()
    if chroma == 3 and bits.take(1):
        chroma = 0  # separate planes: cropped like monochrome
    bits.ue()
    bits.ue()
    bits.take(1)
    if bits.take(1):
        for index in range(8 if chroma != 3 else 12):
            if bits.take(1):
                _skip_scaling_list(bits, 16 if index < 6 else 64)
    return chroma


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


def _vui_rate(bits: _Bits) -> float:
    if bits.take(1) and bits.take(8) == 255:  # aspect ratio
        bits.take(32)
    if bits.take(1):  # overscan
        bits.take(1)
    if bits.take(1):  # video signal type
        bits.take(4)
        if bits.take(1):
            bits.take(24)
    if bits.take(1):  # chroma location
        bits.ue()
        bits.ue()
    if not bits.take(1):
        return 0.0
    # E.2.1: a field lasts a tick. Rates that may vary are a good guess all the same.
    units, scale = bits.take(32), bits.take(32)
    rate = scale / (2 * units) if units else 0.0
    return rate if 1 <= rate <= RATE_MAX else 0.0
