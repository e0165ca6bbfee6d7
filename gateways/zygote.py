"""The process all roles are forked from: it imports once what they share, so that each starts at once and shares those pages.

Started by the supervisor through `Zygote` in `gateways.launch`, with one end of a socket as its standard input. It is asked to start a role
or to signal one, and tells which started and which ended. It never runs a thread or an event loop: a fork copies only the calling thread.
"""

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

REQUEST_BYTES_MAX: Final = 32 * 1024
ROLE_NAME_MAX: Final = 15
PADDING: Final = " " * 64  # room in our argument list for a child's own
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15

# What most roles import anyway. A missing one is no fault here: the role that needs it will say so.
SHARED: Final = (
    "gateways.roles",
    "gateways.log",
    "asyncio",
    "asyncpg",
    "aiokafka",
    "httpx",
    "orjson",
    "pydantic",
    "psycopg",
    "uuid_utils",
    "yoyo",
    "fastapi",
    "uvicorn",
    "h11",
    "httptools",
    "gateways.bootstrap",
)


def main() -> None:
    channel = socket.socket(fileno=os.dup(0))
    _import_shared()
    gc.collect()
    gc.freeze()  # a collection in a child would write to every shared page
    Zygote(channel).serve()


def _import_shared() -> None:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's would be threads before the fork
    for name in SHARED:
        try:
            importlib.import_module(name)
        except ImportError as missing:
            if missing.name not in (name, name.partition(".")[0]):
                traceback.print_exc()


class Zygote:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._names: dict[int, str] = {}
        self._woken, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(self._woken, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides
        self._wake = wake

    def serve(self) -> None:
        """Until the supervisor closes its end, which it also does by dying."""
        self._tell(event="warm")
        while True:
            readable, _, _ = select.select([self._channel.fileno(), self._woken], [], [])
            if self._woken in readable:
                with suppress(BlockingIOError):
                    os.read(self._woken, 4096)
                self._reap()
            if self._channel.fileno() in readable and not self._take():
                break
        for pid in list(self._names):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        while self._names:
            select.select([self._woken], [], [], 1.0)
            self._reap()

    def _take(self) -> bool:
        request, descriptors, _, _ = socket.recv_fds(self._channel, REQUEST_BYTES_MAX, 1)
        if not request:
            return False
        asked = json.loads(request)
        if asked["do"] == "start":
            self._start(asked["role"], asked["environment"], descriptors[0])
        elif asked["pid"] in self._names:
            with suppress(ProcessLookupError):
                os.kill(asked["pid"], asked["signal"])
        return True

    def _start(self, role: str, environment: dict[str, str], output: int) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self._become(role, environment, output, parent)
                from gateways.roles import run

                code = run(role)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
                if not isinstance(end.code, int | None):
                    print(end.code, file=sys.stderr)
            except BaseException:
                traceback.print_exc()
            finally:
                with suppress(Exception):
                    sys.stderr.flush()
                    sys.stdout.flush()
                os._exit(code)
        os.close(output)
        self._names[pid] = role
        self._tell(event="started", role=role, pid=pid)

    def _become(self, role: str, environment: dict[str, str], output: int, parent: int) -> None:
        """Everything that must differ from the parent, before any code of the role runs."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        self._channel.close()
        os.close(self._woken)
        os.close(self._wake)
        null = os.open(os.devnull, os.O_RDWR)
        for target, source in ((0, null), (1, output), (2, output)):
            os.dup2(source, target)
        os.close(null)
        os.close(output)
        os.environ.update(environment, TALLYLIGHT_SUPERVISOR_PID=str(parent))
        sys.argv = ["tallylight", "role", role]
        _reseed()
        libc.prctl(_PR_SET_NAME, f"tl-{role}"[:ROLE_NAME_MAX].encode())
        with suppress(OSError, ValueError):
            _show_arguments(["-m", "gateways.cli", "role", role])

    def _reap(self) -> None:
        while self._names:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if (role := self._names.pop(pid, None)) is not None:
                self._tell(event="ended", role=role, pid=pid, code=os.waitstatus_to_exitcode(status))

    def _tell(self, **event: Any) -> None:
        with suppress(OSError):  # nobody listens any more: the loop will find that out
            self._channel.send(json.dumps(event).encode())


def _reseed() -> None:
    """uuid_utils' generator lives outside Python and would give every child the same ids."""
    with suppress(ImportError):
        import uuid_utils

        uuid_utils.reseed_rng()


def _show_arguments(arguments: list[str]) -> None:
    """Let `ps` and `pgrep -f` see what this process is: the argument area is ours to write, its length is fixed.

    What is left over goes in front of the interpreter's path as slashes, which change nothing.
    """
    shown = Path("/proc/self/cmdline").read_bytes()
    begin = int(Path("/proc/self/stat").read_bytes().rpartition(b") ")[2].split()[45])
    rest = b"\0".join(argument.encode() for argument in arguments) + b"\0"
    path = sys.executable.encode() + b"\0"
    slashes = len(shown) - len(path) - len(rest)
    if slashes < 0:
        raise ValueError("no room")
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(begin)
        memory.write(b"/" * slashes + path + rest)


if __name__ == "__main__":
    main()
