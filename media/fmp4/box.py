"""MP4 boxes: how one is written and how the boxes inside another are walked. Used by the writer and the reader; knows no codec."""

import struct
from collections.abc import Iterator

_SIZE_AND_TYPE = struct.Struct(">I4s")
_LARGE_SIZE = struct.Struct(">Q")

HEADER_BYTES = 8
LARGE_HEADER_BYTES = 16


class Fmp4Error(ValueError):
    """The bytes are not the fragmented MP4 that we can read. Whoever sent them is at fault, and the stream cannot go on."""


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return _SIZE_AND_TYPE.pack(HEADER_BYTES + len(body), kind) + body


def full_box(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def header(view: memoryview, offset: int = 0) -> tuple[bytes, int, int] | None:
    """Type, header length and whole size of the box that begins at `offset`; None while its header is incomplete."""
    if len(view) - offset < HEADER_BYTES:
        return None
    size, kind = _SIZE_AND_TYPE.unpack_from(view, offset)
    if size == 1:
        if len(view) - offset < LARGE_HEADER_BYTES:
            return None
        (size,) = _LARGE_SIZE.unpack_from(view, offset + HEADER_BYTES)
        if size < LARGE_HEADER_BYTES:
            raise Fmp4Error(f"box {kind!r} is smaller than its own header")
        return kind, LARGE_HEADER_BYTES, size
    if size < HEADER_BYTES:
        # 0 would mean "to the end of the file", which a stream has not.
        raise Fmp4Error(f"box {kind!r} is smaller than its own header")
    return kind, HEADER_BYTES, size


def children(body: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Type and body of each box in `body`, which they must fill exactly."""
    offset = 0
    while offset < len(body):
        found = header(body, offset)
        if found is None:
            raise Fmp4Error("a box header is cut short")
        kind, header_length, size = found
        if offset + size > len(body):
            raise Fmp4Error(f"box {kind!r} reaches past the end of its parent")
        yield kind, body[offset + header_length : offset + size]
        offset += size


def child(body: memoryview, *path: bytes) -> memoryview:
    """The body of the first box at `path` below `body`."""
    for name in path:
        for kind, inner in children(body):
            if kind == name:
                body = inner
                break
        else:
            raise Fmp4Error(f"box {name!r} is missing")
    return body
