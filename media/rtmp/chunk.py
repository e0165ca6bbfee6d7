"""The chunk layer (Adobe RTMP 1.0, 5.3): messages cut into interleaved chunks, with headers that repeat only what changed.

Sans-IO: bytes in, whole messages out. Memory is bounded: a message has a maximum, so has their sum, so has the number of chunk streams.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from media.rtmp.errors import RtmpError

CHUNK_BYTES_FIRST: Final = 128
CHUNK_BYTES_MAX: Final = 0xFFFFFF
"""No message is longer, so no chunk need be (5.4.1)."""
MESSAGE_BYTES_MAX: Final = 8 * 1024 * 1024
"""A key frame of 4K at hundreds of megabits fits; nothing honest is larger."""
PENDING_BYTES_MAX: Final = 16 * 1024 * 1024
EARLY_BYTES_MAX: Final = 64 * 1024
"""One message, and all unfinished ones together, of a client nobody knows yet: what it has to say is a few hundred bytes."""
STREAMS_MAX: Final = 64
_EXTENDED: Final = 0xFFFFFF

SET_CHUNK_SIZE: Final = 1
ABORT: Final = 2


class Message(NamedTuple):
    """One RTMP message: `timestamp_ms` is the 32-bit one of the wire."""

    type: int
    stream_id: int
    timestamp_ms: int
    data: bytes


@dataclass(slots=True)
class _ChunkStream:
    type: int = 0
    stream_id: int = 0
    timestamp_ms: int = 0
    delta_ms: int = 0
    length: int = 0
    extended: bool = False
    wide_ms: int = 0
    begun: bool = False
    parts: bytearray = field(default_factory=bytearray)
    partial: bool = False


class ChunkReader:
    """`receive` bytes, get messages. Set Chunk Size and Abort are acted upon here, since they change how what follows is read.

    Born with the maxima of a peer that is trusted; with those of one that is not yet, `early`, until `trust`.
    """

    def __init__(self, *, early: bool = False) -> None:
        self._message_bytes_max = EARLY_BYTES_MAX if early else MESSAGE_BYTES_MAX
        self._pending_bytes_max = EARLY_BYTES_MAX if early else PENDING_BYTES_MAX
        self._buffer = bytearray()
        self._at = 0
        self._streams: dict[int, _ChunkStream] = {}
        self._chunk_bytes = CHUNK_BYTES_FIRST
        self._pending = 0

    def trust(self) -> None:
        self._message_bytes_max, self._pending_bytes_max = MESSAGE_BYTES_MAX, PENDING_BYTES_MAX

    def receive(self, data: bytes) -> Iterator[Message]:
        self._buffer += data
        while True:
            start = self._at
            message = self._chunk()
            if self._at == start:
                break
            if message is not None:
                if message.type == SET_CHUNK_SIZE:
                    self._set_chunk_size(message.data)
                elif message.type == ABORT:
                    self._abort(message.data)
                else:
                    yield message
        # Cut off once what was read, not at each chunk: that would be quadratic.
        del self._buffer[: self._at]
        self._at = 0

    def _chunk(self) -> Message | None:
        """Read one chunk, or nothing (and leave `_at`) while it is not whole."""
        buffer, at = self._buffer, self._at
        end = len(buffer)
        if at >= end:
            return None
        fmt, chunk_id = buffer[at] >> 6, buffer[at] & 0x3F
        at += 1
        if chunk_id < 2:
            # 5.3.1.1: 0 → one more byte, 64 to 319; 1 → two more, little-endian, 64 to 65599.
            width = chunk_id + 1
            if at + width > end:
                return None
            chunk_id = 64 + int.from_bytes(buffer[at : at + width], "little")
            at += width
        stream = self._streams.get(chunk_id)
        if stream is None:
            if len(self._streams) >= STREAMS_MAX:
                raise RtmpError(f"more than {STREAMS_MAX} chunk streams")
            stream = _ChunkStream()
        if fmt != 0 and not stream.begun:
            raise RtmpError(f"chunk stream {chunk_id} begins with header type {fmt}")
        size = (11, 7, 3, 0)[fmt]
        if at + size > end:
            return None
        field_ms = int.from_bytes(buffer[at : at + 3], "big") if size else 0
        extended = field_ms == _EXTENDED if size else stream.extended
        body = at + size
        wide_ms = field_ms
        if extended:
            if body + 4 > end:
                return None
            wide_ms = int.from_bytes(buffer[body : body + 4], "big")
            # A type 3 chunk repeats it (5.3.1.3), but some encoders leave it out there: told by its value.
            if size or wide_ms == stream.wide_ms:
                body += 4
            else:
                wide_ms = stream.wide_ms
        length = int.from_bytes(buffer[at + 3 : at + 6], "big") if size >= 7 else stream.length
        if length > self._message_bytes_max:
            raise RtmpError(f"a message of {length} bytes, at most {self._message_bytes_max}")
        if stream.partial and fmt != 3:
            raise RtmpError(f"a new message on chunk stream {chunk_id} before the last one's end")
        take = min(self._chunk_bytes, length - len(stream.parts))
        if body + take > end:
            return None
        if not stream.partial:
            self._begin(stream, fmt, buffer, at, wide_ms, length, extended=extended)
        self._streams[chunk_id] = stream
        return self._body(stream, body, take)

    @staticmethod
    def _begin(
        stream: _ChunkStream, fmt: int, buffer: bytearray, at: int, wide_ms: int, length: int, *, extended: bool
    ) -> None:
        stream.begun = True
        stream.extended = extended
        stream.wide_ms = wide_ms
        if fmt <= 1:
            stream.length = length
            stream.type = buffer[at + 6]
        if fmt == 0:
            stream.stream_id = struct.unpack_from("<I", buffer, at + 7)[0]
            stream.timestamp_ms = wide_ms
            # By 5.3.1.2.4 a message of type 3 after one of type 0 takes its timestamp as a delta; encoders mean no delta at all.
            stream.delta_ms = 0
        else:
            if fmt != 3:
                stream.delta_ms = wide_ms
            stream.timestamp_ms = (stream.timestamp_ms + stream.delta_ms) & 0xFFFFFFFF

    def _body(self, stream: _ChunkStream, body: int, take: int) -> Message | None:
        stream.parts += self._buffer[body : body + take]
        self._at = body + take
        if len(stream.parts) < stream.length:
            stream.partial = True
            self._pending += take
            if self._pending > self._pending_bytes_max:
                raise RtmpError(f"more than {self._pending_bytes_max} bytes of unfinished messages")
            return None
        self._pending -= len(stream.parts) - take
        message = Message(stream.type, stream.stream_id, stream.timestamp_ms, bytes(stream.parts))
        stream.parts = bytearray()
        stream.partial = False
        return message

    def _set_chunk_size(self, data: bytes) -> None:
        # 5.4.1: the first bit is zero, the size at least 1.
        size = int.from_bytes(data[:4], "big") if len(data) >= 4 else 0
        if not 1 <= size <= 0x7FFFFFFF:
            raise RtmpError(f"chunk size {size}")
        self._chunk_bytes = min(size, CHUNK_BYTES_MAX)

    def _abort(self, data: bytes) -> None:
        stream = self._streams.get(int.from_bytes(data[:4], "big"))
        if stream is not None and stream.partial:
            self._pending -= len(stream.parts)
            stream.parts = bytearray()
            stream.partial = False


def write(message: Message, chunk_id: int, *, chunk_bytes: int = CHUNK_BYTES_FIRST) -> bytes:
    """A message as chunks, with a full header. `chunk_id` 2 to 63."""
    timestamp = min(message.timestamp_ms, _EXTENDED)
    extended = struct.pack(">I", message.timestamp_ms) if timestamp == _EXTENDED else b""
    out = bytearray([chunk_id])
    out += timestamp.to_bytes(3, "big") + len(message.data).to_bytes(3, "big")
    out += bytes([message.type]) + struct.pack("<I", message.stream_id) + extended
    for start in range(0, len(message.data), chunk_bytes):
        if start:
            out += bytes([0xC0 | chunk_id]) + extended
        out += message.data[start : start + chunk_bytes]
    return bytes(out)
