"""SRT ingest: libsrt's listener, and FFmpeg to make of the MPEG-TS that comes the tags that RTMP would have brought.

libsrt (Haivision's own, from the system) is called by ctypes, for FFmpeg's listener takes one caller and tells nobody its stream id. The
stream key stands in `streamid`: as it is, as `publish:KEY`, or as `#!::r=KEY,m=publish` (SRT Access Control). A thread a connection moves
bytes from libsrt into FFmpeg's pipe and touches nothing else.
"""

import asyncio
import ctypes
import ctypes.util
import os
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge

from media import isolation
from media.flv import FlvReader
from media.port import Denied, Grant
from media.rtmp.server import FailedKeys
from media.sample import AlreadyPublishing, BadMedia, Ingest, NoRoom, TagSink

log = structlog.get_logger()

NAMES: Final = (
    "srt",
    "srt-openssl",
    "srt-gnutls",
    "libsrt.so.1.5",
    "libsrt-openssl.so.1.5",
    "libsrt-gnutls.so.1.5",
    "libsrt.1.5.dylib",
)
CONNECTIONS_MAX: Final = 200
BACKLOG: Final = 16
MESSAGE_BYTES_MAX: Final = 1456
"""What a packet of libsrt's live mode carries at most."""
LATENCY_MS: Final = 120
"""libsrt's own default: so long a lost packet may still be repeated. A caller may ask for more."""
READ_BYTES: Final = 64 * 1024
STREAM_ID_CHARS_MAX: Final = 512
SILENCE_S_MAX: Final = 20
PASSPHRASE_MIN, PASSPHRASE_MAX = 10, 79

_INVALID, _ERROR = -1, -1
_RCVTIMEO, _LATENCY, _PASSPHRASE, _STREAMID, _PEERIDLETIMEO = 14, 23, 26, 46, 55

_open = Gauge("tallylight_srt_connections", "SRT connections that are open")
_refused = Counter("tallylight_srt_refusals_total", "SRT callers that were turned away", ["reason"])

Authorise = Callable[[str, str], Awaitable[Grant | Denied]]


class SrtUnavailable(Exception):
    """libsrt is not on this machine; the message says how to get it."""


def library() -> Any:
    """libsrt, loaded. Raises `SrtUnavailable`."""
    for name in NAMES:
        path = ctypes.util.find_library(name) if "." not in name else name
        if path:
            with suppress(OSError):
                return _declared(ctypes.CDLL(path))
    raise SrtUnavailable("SRT needs libsrt 1.5 (Debian: apt-get install libsrt1.5-openssl).")


def _declared(srt: Any) -> Any:
    srt.srt_getlasterror_str.restype = ctypes.c_char_p
    srt.srt_setsockflag.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
    srt.srt_getsockflag.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)]
    srt.srt_bind.argtypes = srt.srt_accept.argtypes = srt.srt_getsockname.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    srt.srt_bind.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
    srt.srt_recvmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
    return srt


def stream_key(stream_id: str) -> str:
    """The key a caller names; empty where it names none, or wants something else than to publish."""
    if not stream_id.startswith("#!::"):
        return stream_id.removeprefix("publish:")
    fields = dict(field.partition("=")[::2] for field in stream_id[4:].split(","))
    return fields.get("r", "").rpartition("/")[2] if fields.get("m", "publish") == "publish" else ""


class SrtServer:
    """Listens until `close`. `passphrase`, 10 to 79 characters, encrypts; empty: whoever has a key may come in the clear."""

    def __init__(self, authorise: Authorise, ingest: Ingest, *, binary: Path, passphrase: str = "") -> None:
        if passphrase and not PASSPHRASE_MIN <= len(passphrase) <= PASSPHRASE_MAX:
            raise ValueError(f"a passphrase has {PASSPHRASE_MIN} to {PASSPHRASE_MAX} characters")
        self._srt = library()
        self._authorise = authorise
        self._ingest = ingest
        self._binary = binary
        self._passphrase = passphrase.encode()
        self._failed = FailedKeys()
        self._listener = _INVALID
        self._publishers: set[asyncio.Task[None]] = set()
        self._sockets: set[int] = set()
        self._closing = self._draining = False

    def start(self, host: str, port: int) -> int:
        """Listen; the bound port is returned. Raises OSError."""
        self._srt.srt_startup()
        self._listener = self._srt.srt_create_socket()
        self._set(self._listener, _LATENCY, LATENCY_MS)
        if self._passphrase:
            self._srt.srt_setsockflag(self._listener, _PASSPHRASE, self._passphrase, len(self._passphrase))
        address = (
            struct.pack("=H", socket.AF_INET)
            + struct.pack(">H", port)
            + socket.inet_aton(socket.gethostbyname(host))
            + bytes(8)
        )
        if (
            self._srt.srt_bind(self._listener, address, len(address)) == _ERROR
            or self._srt.srt_listen(self._listener, BACKLOG) == _ERROR
        ):
            raise OSError(f"SRT port {port}: {self._srt.srt_getlasterror_str().decode()}")
        bound, length = ctypes.create_string_buffer(16), ctypes.c_int(16)
        self._srt.srt_getsockname(self._listener, bound, ctypes.byref(length))
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._accept, args=(loop,), daemon=True, name="srt-accept").start()
        return int(struct.unpack(">H", bound.raw[2:4])[0])

    def drain(self) -> None:
        """Take no new callers. Those that are on go on: SRT has no word for "go elsewhere"."""
        self._draining = True

    async def close(self) -> None:
        """Take no more; publishers that are on are disconnected."""
        self._closing = True
        if self._listener != _INVALID:
            self._srt.srt_close(self._listener)
        for opened in tuple(self._sockets):
            self._srt.srt_close(opened)
        if self._publishers:
            await asyncio.wait(set(self._publishers), timeout=5)
        for task in self._publishers:
            task.cancel()
        await asyncio.gather(*self._publishers, return_exceptions=True)

    def _set(self, opened: int, flag: int, value: int) -> None:
        held = ctypes.c_int(value)
        self._srt.srt_setsockflag(opened, flag, ctypes.byref(held), ctypes.sizeof(held))

    def _accept(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread of its own: libsrt's accept waits."""
        while not self._closing:
            peer, length = ctypes.create_string_buffer(128), ctypes.c_int(128)
            opened = self._srt.srt_accept(self._listener, peer, ctypes.byref(length))
            if opened == _INVALID:
                time.sleep(0.05)
                continue
            address = socket.inet_ntoa(peer.raw[4:8])
            try:
                loop.call_soon_threadsafe(self._came, opened, address)
            except RuntimeError:  # the loop is closed
                return

    def _came(self, opened: int, peer: str) -> None:
        if self._closing or len(self._publishers) >= CONNECTIONS_MAX:
            self._srt.srt_close(opened)
            return
        if self._draining:
            self._refuse(peer, "draining")
            self._srt.srt_close(opened)
            return
        task = asyncio.create_task(self._publisher(opened, peer))
        self._publishers.add(task)
        self._sockets.add(opened)
        task.add_done_callback(self._publishers.discard)

    async def _publisher(self, opened: int, peer: str) -> None:
        _open.inc()
        try:
            sink = await self._admitted(opened, peer)
            if sink is not None:
                try:
                    await self._publish(opened, sink)
                finally:
                    # SRT knows no farewell that means more than a broken line: it may come back.
                    await asyncio.shield(sink.close("disconnected"))
        except BadMedia as bad:
            log.info("srt.refused", peer=peer, reason="media", why=str(bad))
        finally:
            _open.dec()
            self._sockets.discard(opened)
            await asyncio.to_thread(self._srt.srt_close, opened)

    async def _admitted(self, opened: int, peer: str) -> TagSink | None:
        now = time.monotonic()
        if self._failed.blocked(peer, now):
            self._refuse(peer, "rate")
            return None
        granted = await self._authorise(stream_key(self._stream_id(opened)), peer)
        if isinstance(granted, Denied):
            if granted.reason == "unknown":
                self._failed.note(peer, now)
            self._refuse(peer, granted.reason)
            return None
        try:
            sink = await self._ingest.open(granted, encoder="SRT", peer=peer)
        except (AlreadyPublishing, NoRoom) as fault:
            self._refuse(peer, "publishing" if isinstance(fault, AlreadyPublishing) else "no_room")
            return None
        log.info("srt.publishing", peer=peer, channel=granted.channel)
        return sink

    def _refuse(self, peer: str, reason: str) -> None:
        _refused.labels(reason).inc()
        log.info("srt.refused", peer=peer, reason=reason)

    def _stream_id(self, opened: int) -> str:
        held, length = ctypes.create_string_buffer(STREAM_ID_CHARS_MAX + 1), ctypes.c_int(STREAM_ID_CHARS_MAX)
        if self._srt.srt_getsockflag(opened, _STREAMID, held, ctypes.byref(length)) == _ERROR:
            return ""
        return held.raw[: length.value].decode("utf-8", "replace")

    async def _publish(self, opened: int, sink: TagSink) -> None:
        read, write = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                str(self._binary), "-hide_banner", "-nostats", "-loglevel", "error", "-fflags", "nobuffer", "-flags", "low_delay",
                "-probesize", "256k", "-analyzeduration", "1000000", "-f", "mpegts", "-i", "pipe:0",
                "-map", "0:v:0?", "-map", "0:a:0?", "-c", "copy", "-flush_packets", "1",
                "-flvflags", "no_duration_filesize", "-f", "flv", "pipe:1",
                stdin=read, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, start_new_session=True, limit=1 << 20,
            )  # fmt: skip
        except BaseException:
            os.close(write)
            raise
        finally:
            os.close(read)
        group = isolation.confine(process.pid)
        feeding = threading.Thread(target=self._feed, args=(opened, write), daemon=True, name="srt-feed")
        feeding.start()
        assert process.stdout is not None
        reader = FlvReader()
        try:
            while data := await process.stdout.read(READ_BYTES):
                for tag in reader.receive(data):
                    sink.tag(tag)
                await sink.drain()
        finally:
            self._srt.srt_close(opened)
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            await process.wait()
            await asyncio.to_thread(feeding.join, 2)
            isolation.release(group)

    def _feed(self, opened: int, write: int) -> None:
        """In a thread of its own: from libsrt into the pipe, until one of both ends."""
        buffer = ctypes.create_string_buffer(MESSAGE_BYTES_MAX)
        with suppress(OSError):
            for length in self._received(opened, buffer):
                os.write(write, buffer.raw[:length])
        os.close(write)

    def _received(self, opened: int, buffer: Any) -> Iterator[int]:
        self._set(opened, _RCVTIMEO, SILENCE_S_MAX * 1000)
        while (length := self._srt.srt_recvmsg(opened, buffer, MESSAGE_BYTES_MAX)) > 0:
            yield length
