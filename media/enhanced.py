"""Enhanced RTMP (v2) tags: what kind of packet, of which codec, and where its bytes are. Called by `media.flv`.

Sans-IO. Modifiers are stepped over, of several tracks the first is taken. Bad input raises `IndexError`, which the demuxer counts.
"""

from dataclasses import dataclass
from typing import Final

SEQUENCE_START: Final = 0
CODED_FRAMES: Final = 1
SEQUENCE_END: Final = 2
CODED_FRAMES_X: Final = 3
"""Of video: coded frames whose composition time is nothing. Audio has none."""
METADATA: Final = 4
_MULTITRACK_VIDEO, _MULTITRACK_AUDIO, _MODIFIER = 6, 5, 7
_ONE_TRACK, _MANY_TRACKS, _MANY_CODECS = 0, 1, 2
MODIFIERS_MAX: Final = 8

FORWARDS: Final = 4
"""FourCcInfoMask.CanForward: what this server does with every codec it names."""
VIDEO: Final = {"avc1": FORWARDS, "hvc1": FORWARDS, "av01": FORWARDS}
AUDIO: Final = {"mp4a": FORWARDS, "Opus": FORWARDS}
CAPABILITIES: Final = 1 | 4
"""capsEx: it may ask to reconnect, and understands modifiers."""


@dataclass(frozen=True, slots=True)
class Packet:
    kind: int
    fourcc: str
    data: bytes


def packet(body: bytes, *, video: bool) -> Packet | None:
    """A tag's first or only track; None where it has none of use."""
    kind, at = body[0] & 15, 1
    for _ in range(MODIFIERS_MAX):
        if kind != _MODIFIER:
            break
        size = body[at] + 1
        at += 1
        if size == 256:
            size = int.from_bytes(body[at : at + 2]) + 1
            at += 2
        at += size
        kind = body[at] & 15
        at += 1
    if kind == (_MULTITRACK_VIDEO if video else _MULTITRACK_AUDIO):
        return _first_track(body, at)
    if kind in (_MULTITRACK_VIDEO, _MULTITRACK_AUDIO, _MODIFIER):
        return None
    return Packet(kind, _fourcc(body, at), body[at + 4 :])


def _first_track(body: bytes, at: int) -> Packet | None:
    many, kind = body[at] >> 4, body[at] & 15
    at += 1
    fourcc = ""
    if many != _MANY_CODECS:
        fourcc, at = _fourcc(body, at), at + 4
    while at < len(body):
        if many == _MANY_CODECS:
            fourcc, at = _fourcc(body, at), at + 4
        track, at = body[at], at + 1
        size = len(body) - at
        if many != _ONE_TRACK:
            size, at = int.from_bytes(body[at : at + 3]), at + 3
        if track == 0:
            return Packet(kind, fourcc, body[at : at + size])
        at += size
    return None


def _fourcc(body: bytes, at: int) -> str:
    if len(body) < at + 4:
        raise IndexError("a tag that ends in its FourCC")
    return body[at : at + 4].decode("latin-1")
