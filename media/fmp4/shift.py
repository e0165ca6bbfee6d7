"""Moves fragments of our own in time, so that what an interruption lies between follows on. `media.clips` writes downloads with it. Pure.

Knows our writer's fragments alone: a moof and an mdat each, decode times of 64 bits.
"""

import struct
from typing import Final

from media.fmp4.box import Fmp4Error, child, children, header
from media.fmp4.reader import Fmp4Reader, Tracks
from media.fmp4.writer import AUDIO_TRACK_ID, VIDEO_TRACK_ID

_VERSION: Final = 1


def timescales(init: bytes) -> dict[int, int]:
    """Track → ticks a second."""
    found = next((it for it in Fmp4Reader().receive(init) if isinstance(it, Tracks)), Tracks(None, None))
    both = ((VIDEO_TRACK_ID, found.video), (AUDIO_TRACK_ID, found.audio))
    return {track_id: track.timescale for track_id, track in both if track is not None}


def earlier(data: bytes, by_s: float, scales: dict[int, int]) -> bytes:
    """The same samples, decoded so much earlier. Raises `Fmp4Error` for what is no fragment of ours."""
    moved, at = bytearray(data), 0
    with memoryview(moved) as view:
        while at < len(view):
            head = header(view, at)
            if head is None:
                raise Fmp4Error("a box that ends too early")
            kind, header_bytes, size = head
            if kind == b"moof":
                for inner, traf in children(view[at + header_bytes : at + size]):
                    if inner == b"traf":
                        _earlier(traf, by_s, scales)
            at += size
    return bytes(moved)


def _earlier(traf: memoryview, by_s: float, scales: dict[int, int]) -> None:
    (track_id,) = struct.unpack_from(">I", child(traf, b"tfhd"), 4)
    tfdt = child(traf, b"tfdt")
    if tfdt[0] != _VERSION or track_id not in scales:
        raise Fmp4Error("a fragment that another wrote")
    (time,) = struct.unpack_from(">q", tfdt, 4)
    struct.pack_into(">q", tfdt, 4, max(0, time - round(by_s * scales[track_id])))
