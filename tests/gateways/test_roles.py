"""The frame every role shares, run as a real process with the lightest role inside."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateways.engines.process import free_port, wait_until

_RUN = [sys.executable, "-c", "import sys; from gateways.roles import run; sys.exit(run('sandbox'))"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "TALLYLIGHT_DATA_DIR": str(tmp_path),
        "TALLYLIGHT_SANDBOX_SECRET": "secret",
        "TALLYLIGHT_SANDBOX_PORT": str(free_port()),
        "TALLYLIGHT_HEALTH_PORT": str(free_port()),
        "TALLYLIGHT_LOG_FORMAT": "json",
    }


@pytest.fixture
def role(environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(_RUN, env=environment, stderr=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def _ready(environment: dict[str, str]) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{environment['TALLYLIGHT_HEALTH_PORT']}/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_role_becomes_ready_and_ends_in_order(
    role: "subprocess.Popen[bytes]", environment: dict[str, str], number: signal.Signals
) -> None:
    assert wait_until(lambda: _ready(environment), role, timeout_s=30)
    role.send_signal(number)
    _, log = role.communicate(timeout=20)
    assert role.returncode == 0
    assert b'"event": "stopped"' in log
    assert b"Traceback" not in log


def test_a_role_whose_port_is_taken_fails_and_says_so(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", int(environment["TALLYLIGHT_SANDBOX_PORT"]))):
        done = subprocess.run(_RUN, env=environment, capture_output=True, timeout=30, check=False)
    assert done.returncode == 1
    assert b"address already in use" in done.stderr.lower()


def test_a_role_without_its_supervisor_does_not_start(environment: dict[str, str]) -> None:
    done = subprocess.run(
        _RUN, env=environment | {"TALLYLIGHT_SUPERVISOR_PID": "1"}, capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert b"supervisor that started this role is gone" in done.stderr
