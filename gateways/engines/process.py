"""What the embedded engines share: free ports, child processes that die with their parent, patient waiting.

Called by the engines beside it and by the supervisor. Never touches a process it was not given.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

POLL_S: Final = 0.02
KILL_WAIT_S: Final = 5.0


class EngineFailed(Exception):
    """An engine did not start, or died while starting. The message carries the end of its own output."""


class FolderInUse(Exception):
    """Another running Tallylight holds the data folder."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on at this instant."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@cache
def _setpriv() -> str | None:
    return shutil.which("setpriv")


def dying_with_parent(signal_name: str) -> list[str]:
    """A command prefix: the kernel sends this signal when the *thread* that spawned the process ends, kill -9 included.

    So spawn from a thread that lives as long as the child should. Without util-linux's setpriv there is no such guard.
    """
    setpriv = _setpriv()
    return [setpriv, "--pdeathsig", signal_name, "--no-new-privs", "--"] if setpriv else []


def wait_until(ready: Callable[[], bool], process: "subprocess.Popen[bytes]", *, timeout_s: float) -> bool:
    """Poll until ready, False when the process ends or the time is over first."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if ready():
            return True
        if process.poll() is not None:
            return False
        time.sleep(POLL_S)
    return False


def stop(process: "subprocess.Popen[bytes]", signal_number: int, *, timeout_s: float) -> None:
    """Ask with the signal, then kill. Returns when the process is gone."""
    if process.poll() is None:
        process.send_signal(signal_number)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait(KILL_WAIT_S)


def tail(path: Path, *, bytes_max: int = 2000) -> str:
    """The end of a log file, for an error message."""
    if not path.exists():
        return ""
    with path.open("rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - bytes_max))
        return log.read().decode(errors="replace").strip()


def listening(host: str, port: int) -> bool:
    """Does anybody accept connections there?"""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((host, port)) == 0
