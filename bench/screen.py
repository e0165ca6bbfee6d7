"""A window on an X screen that shows the clock of `bench.clock`, for OBS to capture; and OBS streaming it.

The window speaks just enough of the X protocol (X11R7, "X Window System Protocol", version 11) to put pictures into itself: the blocks of
one picture are one request, so that no capture sees half a clock. Used by `bench.glass_to_glass`.
"""

import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from bench.clock import BAND, luma
from tests.e2e import obs

FPS: Final = 30
START_S_MAX: Final = 30.0
ROWS_A_REQUEST: Final = 45
"""A request of the plain protocol holds 256 KiB."""
RAISE_S: Final = 1.0
"""OBS opens windows of its own above ours."""
_INPUT_OUTPUT, _OVERRIDE_REDIRECT, _STACK_MODE, _ABOVE, _Z_PIXMAP = 1, 1 << 9, 1 << 6, 0, 2
_CREATE_WINDOW, _MAP_WINDOW, _CONFIGURE_WINDOW, _CREATE_GC, _PUT_IMAGE = 1, 8, 12, 55, 72


@contextmanager
def obs_streaming(url: str) -> Iterator[None]:
    """OBS, as the tests have it, publishing its screen; on that, the clock."""
    missing = obs.available()
    if missing:
        raise RuntimeError(f"missing: {missing}; make bench NAME=glass_to_glass installs them")
    with obs.streaming(url) as started:
        display, authority = _screen_of(psutil.Process(started.pid))
        with _Window(display, authority, obs.WIDTH, obs.HEIGHT):
            yield


def _screen_of(started: psutil.Process) -> tuple[str, Path]:
    """The display that OBS was given, and the file with the key to it."""
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        for process in started.children(recursive=True):
            with suppress(psutil.Error, KeyError):
                if process.name() == "obs":
                    environment = process.environ()
                    return environment["DISPLAY"], Path(environment["XAUTHORITY"])
        time.sleep(0.1)
    raise TimeoutError("OBS did not start")


class _Window:
    def __init__(self, display: str, authority: Path, width: int, height: int) -> None:
        self._display = int(display.removeprefix(":").split(".")[0])
        self._cookie = _cookie(authority)
        self._size = (width, height)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> "_Window":
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(f"/tmp/.X11-unix/X{self._display}")
        self._open()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(5)
        self._socket.close()

    def _open(self) -> None:
        """Connection setup (section 8), then a window and a graphics context."""
        name = b"MIT-MAGIC-COOKIE-1"
        hello = struct.pack("<BxHHHHxx", ord("l"), 11, 0, len(name), len(self._cookie))
        self._socket.sendall(hello + _padded(name) + _padded(self._cookie))
        status, length = struct.unpack("<BxxxxxH", self._exactly(8))
        setup = self._exactly(4 * length)
        if status != 1:
            raise ConnectionError(setup.decode(errors="replace"))
        (base,) = struct.unpack_from("<I", setup, 4)
        vendor, formats = struct.unpack_from("<H", setup, 16)[0], setup[21]
        screen = 32 + (vendor + 3) // 4 * 4 + 8 * formats
        (root,) = struct.unpack_from("<I", setup, screen)
        self._depth = setup[screen + 38]
        self._window, self._gc = base, base + 1
        width, height = self._size
        created = struct.pack(
            "<IIhhHHHHIII", self._window, root, 0, 0, width, height, 0, _INPUT_OUTPUT, 0, _OVERRIDE_REDIRECT, 1
        )
        self._request(_CREATE_WINDOW, 0, created)
        self._request(_MAP_WINDOW, 0, struct.pack("<I", self._window))
        self._request(_CREATE_GC, 0, struct.pack("<III", self._gc, self._window, 0))

    def _draw(self) -> None:
        width, height = self._size
        band = int(height * BAND)
        rows = [0, band, *range(band + ROWS_A_REQUEST, height, ROWS_A_REQUEST), height]
        start, number = time.monotonic(), 0
        with suppress(OSError):
            while not self._ending.is_set():
                if number % round(RAISE_S * FPS) == 0:
                    self._request(_CONFIGURE_WINDOW, 0, struct.pack("<IHxxI", self._window, _STACK_MODE, _ABOVE))
                time.sleep(max(0.0, start + number / FPS - time.monotonic()))
                grey = luma(time.time_ns() // 1_000_000, number, width, height).astype(np.uint32)
                pixels = (grey | grey << 8 | grey << 16).astype("<u4")
                for top, bottom in itertools.pairwise(rows):
                    place = struct.pack(
                        "<IIHHhhBBxx", self._window, self._gc, width, bottom - top, 0, top, 0, self._depth
                    )
                    self._request(_PUT_IMAGE, _Z_PIXMAP, place + pixels[top:bottom].tobytes())
                number += 1

    def _request(self, opcode: int, detail: int, body: bytes) -> None:
        self._socket.sendall(struct.pack("<BBH", opcode, detail, 1 + len(body) // 4) + body)

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            more = self._socket.recv(count - len(found))
            if not more:
                raise ConnectionError("the X server hung up")
            found += more
        return found


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _cookie(authority: Path) -> bytes:
    """The first entry's key: family, then address, number, name and data, each behind its length."""
    data, at, fields = authority.read_bytes(), 2, []
    for _ in range(4):
        (length,) = struct.unpack_from(">H", data, at)
        fields.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    return fields[3]
