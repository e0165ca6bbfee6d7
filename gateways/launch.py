"""Processes of the supervisor and their output: engines started directly, roles forked from the zygote, every line to one sink.

Called by `gateways.supervisor` alone, from its event loop's thread, which must live as long as the processes: they die with it.
It restarts nothing; it tells.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from gateways.engines.process import dying_with_parent
from gateways.settings import PREFIX
from gateways.zygote import PADDING, REQUEST_BYTES_MAX

LINE_BYTES_MAX: Final = 16 * 1024
READ_BYTES: Final = 64 * 1024

LOST: Final = 255
"""The exit code we tell of a child whose zygote went away, and with it its real one."""

Sink = Callable[[str, str], None]
"""Takes who said it and the line."""


class Child(Protocol):
    """A process that was started."""

    pid: int

    @property
    def code(self) -> int | None:
        """None while it runs."""
        ...

    def signal(self, number: int) -> None: ...

    async def wait(self) -> int: ...


class Direct:
    """A child of our own: an engine, the front, the zygote."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.pid = process.pid
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._watch()

    def _watch(self) -> None:
        """The kernel's own handle on the process becomes readable when it ends."""
        descriptor = os.pidfd_open(self.pid)
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            self._ended.set_result(self.process.wait())

        loop.add_reader(descriptor, ended)

    @property
    def code(self) -> int | None:
        return self._ended.result() if self._ended.done() else None

    def signal(self, number: int) -> None:
        if self.code is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)


def start(name: str, command: Sequence[str], sink: Sink, *, environment: Mapping[str, str] | None = None) -> Direct:
    """Run in a session of its own, so that a terminal's Ctrl-C reaches only us."""
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            env=environment,
            start_new_session=True,
        )
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    _relay(name, reading, sink)
    return Direct(process)


class Forked:
    """A child of the zygote, which alone may wait for it; we reach it through the zygote."""

    def __init__(self, zygote: "Zygote", role: str, pid: int) -> None:
        self.role = role
        self.pid = pid
        self._zygote = zygote
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def code(self) -> int | None:
        return self.ended.result() if self.ended.done() else None

    def signal(self, number: int) -> None:
        if self.code is None:
            self._zygote.ask({"do": "signal", "pid": self.pid, "signal": number})

    async def wait(self) -> int:
        return await asyncio.shield(self.ended)


class ZygoteGone(Exception):
    """The zygote ended; its roles end with it."""


class Zygote:
    """Our end of `gateways.zygote`."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [*dying_with_parent("TERM"), sys.executable, "-m", "gateways.zygote", PADDING],
            stdin=theirs.fileno(),
            stdout=writing,
            stderr=writing,
            start_new_session=True,
        )
        theirs.close()
        os.close(writing)
        _relay("zygote", reading, sink)
        self.child = Direct(process)
        self.pid = process.pid
        self._warm = asyncio.Event()
        self._starting: dict[str, asyncio.Future[Forked]] = {}
        self._children: dict[int, Forked] = {}
        self._listening = asyncio.create_task(self._listen())

    @property
    def gone(self) -> bool:
        return self.child.code is not None or self._listening.done()

    async def warm(self) -> None:
        await self._warm.wait()

    async def start(self, role: str, environment: Mapping[str, str]) -> Forked:
        """Fork a role with these variables over our own; one of a name at a time. `ZygoteGone` when there is nothing to fork from."""
        await self.warm()
        if self.gone:
            raise ZygoteGone("there is nothing to fork it from")
        reading, writing = os.pipe()
        answer: asyncio.Future[Forked] = asyncio.get_running_loop().create_future()
        self._starting[role] = answer
        try:
            self.ask({"do": "start", "role": role, "environment": dict(environment)}, writing)
        finally:
            os.close(writing)
        _relay(role, reading, self._sink)
        return await answer

    def ask(self, request: Mapping[str, Any], *descriptors: int) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._ours, [json.dumps(request).encode()], descriptors)

    def close(self) -> None:
        """It takes the end of the channel as its own: it ends what it still has, then itself."""
        self._listening.cancel()
        self._ours.close()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while told := await loop.sock_recv(self._ours, REQUEST_BYTES_MAX):
                self._hear(json.loads(told))
        except ConnectionError:
            pass
        finally:
            self._warm.set()
            for waiting in self._starting.values():
                if not waiting.done():
                    waiting.set_exception(ZygoteGone("there is nothing to fork it from"))
            for child in self._children.values():
                child.ended.set_result(LOST)
            self._children.clear()

    def _hear(self, told: Mapping[str, Any]) -> None:
        match told["event"]:
            case "warm":
                self._warm.set()
            case "started":
                child = Forked(self, told["role"], told["pid"])
                self._children[child.pid] = child
                waiting = self._starting.pop(child.role)
                if not waiting.done():
                    waiting.set_result(child)
            case "ended":
                if (ended := self._children.pop(told["pid"], None)) is not None:
                    ended.ended.set_result(told["code"])


def _relay(name: str, descriptor: int, sink: Sink) -> None:
    """Pass a process's output on, line by line; one line has a maximum, so that nobody's output fills our memory."""
    os.set_blocking(descriptor, False)
    loop = asyncio.get_running_loop()
    pending = bytearray()

    def readable() -> None:
        try:
            chunk = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return
        pending.extend(chunk)
        while (end := pending.find(b"\n")) >= 0 or len(pending) >= LINE_BYTES_MAX:
            end = min(end, LINE_BYTES_MAX) if end >= 0 else LINE_BYTES_MAX
            sink(name, pending[:end].decode(errors="replace"))
            del pending[: end + (1 if pending[end : end + 1] == b"\n" else 0)]
        if not chunk:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            if pending:
                sink(name, pending.decode(errors="replace"))

    loop.add_reader(descriptor, readable)


def variables(settings: Mapping[str, object]) -> dict[str, str]:
    """The settings as environment variables."""
    return {f"{PREFIX}{name.upper()}": str(value) for name, value in settings.items()}
