"""The RTMP handshake of a server (Adobe RTMP 1.0, 5.2): C0 C1 → S0 S1 S2, then C2.

The plain form: clients that open with the digest form (OBS, FFmpeg, Flash) accept it. C2 is read and not compared, as every server does,
because encoders echo in different ways.
"""

import os
from typing import Final

from media.rtmp.errors import RtmpError

VERSION: Final = 3
SIZE: Final = 1536


class Handshake:
    """Feed it bytes; `is_done` says when the chunk stream begins, `take_rest` gives what of it had come already."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._answered = False
        self._done = False
        self._rest = b""

    def receive(self, data: bytes) -> bytes:
        """The bytes to send back. Raises RtmpError for another protocol."""
        self._buffer += data
        if self._buffer and self._buffer[0] != VERSION:
            raise RtmpError(f"RTMP version {self._buffer[0]}, not {VERSION}")
        answer = b""
        if not self._answered and len(self._buffer) >= 1 + SIZE:
            c1 = bytes(self._buffer[1 : 1 + SIZE])
            s1 = bytes(8) + os.urandom(SIZE - 8)
            answer = bytes([VERSION]) + s1 + c1
            self._answered = True
        if self._answered and len(self._buffer) >= 1 + 2 * SIZE:
            self._rest = bytes(self._buffer[1 + 2 * SIZE :])
            self._buffer.clear()
            self._done = True
        return answer

    def take_rest(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest

    def is_done(self) -> bool:
        return self._done
