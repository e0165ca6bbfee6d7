"""The client's side of RTMP as bytes, for tests: written from the specification, not with the code under test."""

import struct
from typing import Any

HELLO = b"\x03" + bytes(1536)
C2 = bytes(1536)


def amf(*values: Any) -> bytes:
    out = b""
    for value in values:
        if value is None:
            out += b"\x05"
        elif isinstance(value, bool):
            out += bytes([1, value])
        elif isinstance(value, int | float):
            out += b"\x00" + struct.pack(">d", value)
        elif isinstance(value, str):
            out += b"\x02" + struct.pack(">H", len(value)) + value.encode()
        elif isinstance(value, list):
            out += b"\x0a" + struct.pack(">I", len(value)) + amf(*value)
        else:
            out += b"\x03" + b"".join(struct.pack(">H", len(n)) + n.encode() + amf(v) for n, v in value.items())
            out += b"\x00\x00\x09"
    return out


def chunk(kind: int, data: bytes, *, at: int = 0, stream: int = 0, cid: int = 3, size: int = 128) -> bytes:
    """One message with a type 0 header, in chunks of `size`."""

    def basic(fmt: int) -> bytes:
        if cid < 64:
            return bytes([fmt << 6 | cid])
        return bytes([fmt << 6, cid - 64]) if cid < 320 else bytes([fmt << 6 | 1]) + struct.pack("<H", cid - 64)

    extended = struct.pack(">I", at) if at >= 0xFFFFFF else b""
    out = basic(0) + min(at, 0xFFFFFF).to_bytes(3, "big") + len(data).to_bytes(3, "big") + bytes([kind])
    out += struct.pack("<I", stream) + extended
    for start in range(0, len(data), size):
        out += (basic(3) + extended if start else b"") + data[start : start + size]
    return out


def command(*values: Any, stream: int = 0, **where: Any) -> bytes:
    return chunk(20, amf(*values), stream=stream, **where)


CONNECT = command(
    "connect", 1, {"app": "live", "flashVer": "FMLE/3.0 (compatible; FMSc/1.0)", "tcUrl": "rtmp://x/live"}
)


def publish(key: str = "key") -> bytes:
    """What OBS and FFmpeg say between connect and the first tag."""
    return (
        command("releaseStream", 2, None, key)
        + command("FCPublish", 3, None, key)
        + command("createStream", 4, None)
        + command("publish", 5, None, key, "live", stream=1)
    )
