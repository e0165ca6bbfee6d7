"""AMF0 values (Adobe AMF0 1.0), as commands and metadata use them: bounded in depth and count, whatever the bytes say."""

import struct
from typing import Any, Final

from media.rtmp.errors import RtmpError

DEPTH_MAX: Final = 8
VALUES_MAX: Final = 1024


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.values = 0

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise RtmpError("AMF0 ends in the middle of a value")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def text(self, width: int) -> str:
        return self.take(int.from_bytes(self.take(width), "big")).decode("utf-8", "replace")

    def value(self, depth: int) -> Any:
        self.values += 1
        if depth > DEPTH_MAX or self.values > VALUES_MAX:
            raise RtmpError("AMF0 nested too deep or too long")
        marker = self.take(1)[0]
        match marker:
            case 0:
                return struct.unpack(">d", self.take(8))[0]
            case 1:
                return self.take(1)[0] != 0
            case 2:
                return self.text(2)
            case 3:
                return self.members(depth)
            case 5 | 6 | 13:
                return None
            case 8:
                self.take(4)  # a count that encoders get wrong; the end marker rules
                return self.members(depth)
            case 10:
                count = int.from_bytes(self.take(4), "big")
                if count > VALUES_MAX:
                    raise RtmpError("an AMF0 array too long")
                return [self.value(depth + 1) for _ in range(count)]
            case 11:
                date = struct.unpack(">d", self.take(8))[0]
                self.take(2)
                return date
            case 12:
                return self.text(4)
            case 16:
                self.text(2)
                return self.members(depth)
            case _:
                raise RtmpError(f"AMF0 marker {marker}")

    def members(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while True:
            name = self.text(2)
            if not name and self.data[self.at : self.at + 1] == b"\x09":
                self.at += 1
                return found
            found[name] = self.value(depth + 1)


def read(data: bytes) -> list[Any]:
    """All values of a message. Raises RtmpError."""
    reader = _Reader(data)
    values = []
    while reader.at < len(data):
        values.append(reader.value(0))
    return values


def end_of_first(data: bytes) -> int:
    """Where the first value ends. Raises RtmpError."""
    reader = _Reader(data)
    reader.value(0)
    return reader.at


def write(*values: Any) -> bytes:
    """None, bool, int, float, str, and dicts and lists of them."""
    return b"".join(map(_encode, values))


def _encode(value: Any) -> bytes:
    match value:
        case None:
            return b"\x05"
        case bool():
            return bytes([1, value])
        case int() | float():
            return b"\x00" + struct.pack(">d", value)
        case str():
            raw = value.encode()
            return b"\x02" + len(raw).to_bytes(2, "big") + raw
        case dict():
            members = b"".join(len(n.encode()).to_bytes(2, "big") + n.encode() + _encode(v) for n, v in value.items())
            return b"\x03" + members + b"\x00\x00\x09"
        case list():
            return b"\x0a" + len(value).to_bytes(4, "big") + b"".join(map(_encode, value))
        case _:
            raise TypeError(f"{type(value).__name__} has no AMF0 form here")
