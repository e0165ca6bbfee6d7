"""Whether a process lives, asked of real ones: stopped, waiting, busy, and gone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from media.pulse import pulse

WAITS_S = 10.0


@contextmanager
def running(program: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.read(1)
    try:
        yield process
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()


def resting(pid: int) -> int:
    """Its pulse once it has nothing to do."""
    until = time.monotonic() + WAITS_S
    while (beat := pulse(pid)) is None or beat != pulse(pid):
        assert time.monotonic() < until
        time.sleep(0.01)
    return beat


ECHOES = "import os\nos.write(1, b'!')\nwhile data := os.read(0, 1): os.write(1, data)"


def test_one_that_does_something_has_a_pulse_and_one_that_is_stopped_has_none_whatever_it_is_given() -> None:
    with running(ECHOES) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        before = resting(process.pid)
        process.stdin.write(b"a")
        assert process.stdout.read(1) == b"a"
        alive = resting(process.pid)
        assert alive > before
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        stopped = resting(process.pid)
        process.stdin.write(b"b")
        time.sleep(0.05)
        assert pulse(process.pid) == stopped


def test_one_that_could_run_is_never_said_to_be_still() -> None:
    with running("import os\nos.write(1, b'!')\nwhile True: pass") as process:
        assert {pulse(process.pid) for _ in range(20)} == {None}


def test_nothing_is_said_of_one_that_is_gone_or_where_the_system_says_nothing(tmp_path: Path) -> None:
    with running(ECHOES) as process:
        pass
    assert pulse(process.pid) is None
    assert pulse(os.getpid(), proc=tmp_path) is None
