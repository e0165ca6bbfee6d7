"""What configuration records say (H.264, HEVC, AV1; AAC, Opus): the codec string, the picture's size and rate, the sample rate.

Called by `media.flv`.

Sans-IO. Bad input raises `CodecError`, nothing else.
"""

import re
from dataclasses import dataclass
from typing import Final

from media.sample import AudioTrack, VideoTrack

SIDE_MAX: Final = 8192
RATE_MAX: Final = 300.0
OPUS_RATE: Final = 48_000
OPUS_PACKET_MAX: Final = 5_760
"""RFC 6716: a packet is no longer than 120 ms."""
X264_SAYS_BYTES_MAX: Final = 4096
"""What x264 was told stands at the beginning of its first key frame."""
_X264_GROUP: Final = re.compile(rb"x264 - core .*? keyint=([0-9]{1,6}) ", re.DOTALL)
_HEVC_SPS: Final = 33
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


def union(*codecs: str) -> str:
    """What an attribute that lists codecs says where all of these are to be decoded, each once, in this order."""
    return ",".join(dict.fromkeys(codec for listed in codecs for codec in listed.split(",")))


def x264_group(key_frame: bytes) -> int:
    """The most frames from one key frame to the next, as x264 writes its settings into the stream (H.264 D.1.7); 0 where it does not."""
    found = _X264_GROUP.search(key_frame, 0, X264_SAYS_BYTES_MAX)
    return int(found[1]) if found else 0


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


def hevc_track(config: bytes, *, frame_rate: float = 0.0) -> VideoTrack:
    """An HEVCDecoderConfigurationRecord (ISO/IEC 14496-15 8.3.3.1); its codec string as in annex E.3."""
    if len(config) < 23 or config[0] != 1:
        raise CodecError("an HEVC configuration of a version we do not know")
    width, height = _hevc_size(_hevc_sps(config))
    space, tier, profile = config[1] >> 6, config[1] >> 5 & 1, config[1] & 31
    compatible = int(f"{int.from_bytes(config[2:6]):032b}"[::-1], 2)
    constraints = config[6:12].rstrip(b"\0")
    codec = f"hvc1.{'ABC'[space - 1] if space else ''}{profile}.{compatible:X}.{'LH'[tier]}{config[12]}"
    codec += "".join(f".{byte:X}" for byte in constraints)
    return VideoTrack(codec, config, width, height, frame_rate if 1 <= frame_rate <= RATE_MAX else 0.0)


def av1_track(config: bytes, *, frame_rate: float = 0.0) -> VideoTrack:
    """An AV1CodecConfigurationRecord (AV1 in ISO base media file format, 2.3.3) with its sequence header; its codec string as in 5."""
    if len(config) < 6 or config[0] != 0x81:
        raise CodecError("an AV1 configuration of a version we do not know")
    profile, level = config[1] >> 5, config[1] & 31
    tier, depth = config[2] >> 7, 8 + 2 * (config[2] >> 6 & 1) + 2 * (config[2] >> 5 & 1)
    try:
        width, height = _av1_size(_av1_header(config[4:]))
    except IndexError:
        raise CodecError("an AV1 sequence header that ends before its fields do") from None
    codec = f"av01.{profile}.{level:02}{'MH'[tier]}.{depth:02}"
    return VideoTrack(codec, config, width, height, frame_rate if 1 <= frame_rate <= RATE_MAX else 0.0)


def opus_track(head: bytes) -> AudioTrack:
    """An identification header (RFC 7845 5.1), or none where the encoder sends none. The configuration is the dOps box's body, which says
    the same in the other byte order (Opus in ISO base media file format, 4.3.2)."""
    if not head:
        head = b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00"
    if len(head) < 19 or head[:8] != b"OpusHead" or head[8] >> 4 or not head[9]:
        raise CodecError("an Opus header that is none")
    if head[18] != 0 or head[9] > 2:
        raise CodecError(f"Opus of {head[9]} channels")
    skip, rate, gain = head[10:12][::-1], head[12:16][::-1], head[16:18][::-1]
    return AudioTrack("opus", bytes([0, head[9]]) + skip + rate + gain + b"\0", OPUS_RATE, head[9])


def opus_duration(packet: bytes) -> int:
    """Samples at 48 kHz in a packet, by its first bytes (RFC 6716 3.1); 0 for a packet that is none."""
    if not packet:
        return 0
    kind = packet[0] >> 3
    if kind < 12:
        frame = (480, 960, 1920, 2880)[kind & 3]
    elif kind < 16:
        frame = (480, 960)[kind & 1]
    else:
        frame = (120, 240, 480, 960)[kind & 3]
    code = packet[0] & 3
    count = (1, 2, 2)[code] if code < 3 else (packet[1] & 63 if len(packet) > 1 else 0)
    return frame * count if frame * count <= OPUS_PACKET_MAX else 0


def _hevc_sps(config: bytes) -> bytes:
    """The first sequence parameter set among the record's arrays."""
    at = 23
    for _ in range(config[22]):
        if at + 3 > len(config):
            break
        kind, count = config[at] & 63, int.from_bytes(config[at + 1 : at + 3])
        at += 3
        for _ in range(count):
            size = int.from_bytes(config[at : at + 2])
            if kind == _HEVC_SPS:
                return config[at + 2 : at + 2 + size]
            at += 2 + size
            if at > len(config):
                break
    raise CodecError("an HEVC configuration without a sequence parameter set")


def _hevc_size(nal: bytes) -> tuple[int, int]:
    """ITU-T H.265 7.3.2.2, as far as the conformance window."""
    try:
        bits = _Bits(nal[2:].replace(b"\x00\x00\x03", b"\x00\x00"))
        bits.take(4)
        layers = bits.take(3)
        bits.take(1)
        _skip_profile_tier_level(bits, layers)
        bits.ue()
        chroma = bits.ue()
        separate = bits.take(1) if chroma == 3 else 0
        width, height = bits.ue(), bits.ue()
        if bits.take(1):
            across = 2 if chroma in (1, 2) and not separate else 1
            down = 2 if chroma == 1 and not separate else 1
            left, right, top, bottom = (bits.ue() for _ in range(4))
            width -= across * (left + right)
            height -= down * (top + bottom)
    except IndexError:
        raise CodecError("a sequence parameter set that ends before its fields do") from None
    return _sane(width, height)


def _skip_profile_tier_level(bits: "_Bits", layers: int) -> None:
    bits.take(88)
    bits.take(8)
    present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    if layers:
        bits.take(2 * (8 - layers))
    for profile, level in present:
        bits.take(88 * profile + 8 * level)


def _av1_header(units: bytes) -> bytes:
    """The sequence header's bytes (AV1 5.3): every unit here says its size."""
    at = 0
    while at < len(units):
        kind, extended, sized = units[at] >> 3 & 15, units[at] >> 2 & 1, units[at] >> 1 & 1
        at += 1 + extended
        size = len(units) - at
        if sized:
            size = shift = 0
            while True:
                size |= (units[at] & 127) << shift
                shift += 7
                at += 1
                if not units[at - 1] & 128 or shift > 28:
                    break
        if kind == 1:
            return units[at : at + size]
        at += size
    raise CodecError("an AV1 configuration without a sequence header")


def _av1_size(header: bytes) -> tuple[int, int]:
    """AV1 5.5.1, as far as the picture's size."""
    bits = _Bits(header)
    bits.take(4)
    if bits.take(1):
        bits.take(5)
    else:
        _skip_av1_operating_points(bits)
    across, down = bits.take(4) + 1, bits.take(4) + 1
    return _sane(bits.take(across) + 1, bits.take(down) + 1)


def _skip_av1_operating_points(bits: "_Bits") -> None:
    delay_bits = 0
    if bits.take(1):  # timing
        bits.take(64)
        if bits.take(1):
            bits.ue()
        if bits.take(1):  # decoder model
            delay_bits = bits.take(5) + 1
            bits.take(42)
    initial_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if initial_delay and bits.take(1):
            bits.take(4)


def _sane(width: int, height: int) -> tuple[int, int]:
    if not (0 < width <= SIDE_MAX and 0 < height <= SIDE_MAX):
        raise CodecError(f"a picture of {width}x{height}")
    return width, height


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
    width, height = _sane(width, height)
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
