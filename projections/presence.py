"""Who is watching, as sketches: what those who serve viewers send to topic `presence`, and how the counts of many of them are merged.

Whoever serves viewers (chat pods, the origin) keeps a `Presence` and sends what `due` gives it, once in `WINDOW_S`: one record a channel,
never one a viewer. `app` merges them in a windowed Faust table. A sketch counts distinct viewers within some 1.6 % (one standard error);
a viewer seen by two pods is one viewer. Nothing here is a fact: counts may be lost, and the next window brings them anew.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from datasketches import hll_sketch, hll_union, tgt_hll_type

WINDOW_S: Final = 10
LOG2_REGISTERS: Final = 12
CHANNELS_MAX: Final = 10_000
"""Channels that one process counts at a time; what is beyond is left out until a window ends."""
SKETCH_BYTES_MAX: Final = 8192
POD_BYTES_MAX: Final = 200

_PREFIX: Final = struct.Struct(">2sBIH")
_MAGIC: Final = b"TP"
_VERSION: Final = 1


class Malformed(Exception):
    """Bytes that are no presence record. It is skipped: the next window brings another."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One pod's viewers of one channel in the window that began at `window_s` (seconds of the Unix epoch, a multiple of `WINDOW_S`)."""

    pod: str
    window_s: int
    sketch: bytes


class Presence:
    """Counts a process's viewers. `seen` whoever is there, at least once in each window; `due` gives what to send."""

    def __init__(self, pod: str) -> None:
        self._pod = pod
        self._window_s = 0
        self._sketches: dict[str, hll_sketch] = {}

    def seen(self, channel_id: str, viewers: Iterable[str], now_s: float) -> None:
        """`viewers`: whatever tells two of them apart (account id, else a session's id), the same in every process."""
        window_s = _window(now_s)
        if window_s > self._window_s and not self._sketches:
            self._window_s = window_s
        sketch = self._sketches.get(channel_id)
        if sketch is None:
            if len(self._sketches) >= CHANNELS_MAX:
                return
            sketch = self._sketches[channel_id] = hll_sketch(LOG2_REGISTERS, tgt_hll_type.HLL_8)
        for viewer in viewers:
            sketch.update(viewer)

    def due(self, now_s: float) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of each record to send now: nothing until the window that was being counted is over."""
        if not self._sketches or _window(now_s) <= self._window_s:
            return
        window_s, sketches = self._window_s, self._sketches
        self._sketches = {}
        for channel_id, sketch in sketches.items():
            yield channel_id.encode(), encode(Seen(self._pod, window_s, bytes(sketch.serialize_compact())))


def _window(now_s: float) -> int:
    return int(now_s) // WINDOW_S * WINDOW_S


def encode(seen: Seen) -> bytes:
    pod = seen.pod.encode()[:POD_BYTES_MAX]
    return _PREFIX.pack(_MAGIC, _VERSION, seen.window_s, len(pod)) + pod + seen.sketch


def decode(data: bytes) -> Seen:
    """Raises Malformed, and nothing else, whatever the bytes are."""
    if len(data) < _PREFIX.size:
        raise Malformed(f"{len(data)} bytes")
    magic, version, window_s, length = _PREFIX.unpack_from(data)
    if magic != _MAGIC or version != _VERSION:
        raise Malformed("not a presence record of this version")
    start = _PREFIX.size + length
    pod, sketch = data[_PREFIX.size : start], data[start:]
    if len(pod) != length or length > POD_BYTES_MAX or not 0 < len(sketch) <= SKETCH_BYTES_MAX:
        raise Malformed("cut short, or too long")
    if window_s % WINDOW_S:
        raise Malformed("not the beginning of a window")
    try:
        hll_sketch.deserialize(sketch)
        return Seen(pod.decode(), window_s, sketch)
    except (ValueError, RuntimeError, IndexError, MemoryError) as fault:
        raise Malformed(str(fault)) from fault


class Viewers:
    """Distinct viewers over any number of sketches."""

    def __init__(self, sketches: Iterable[bytes] = ()) -> None:
        self._union = hll_union(LOG2_REGISTERS)
        for sketch in sketches:
            self.add(sketch)

    def add(self, sketch: bytes) -> "Viewers":
        self._union.update(hll_sketch.deserialize(sketch))
        return self

    @property
    def count(self) -> int:
        return int(self._union.get_estimate() + 0.5)

    def sketch(self) -> bytes:
        return bytes(self._union.get_result(tgt_hll_type.HLL_8).serialize_compact())
