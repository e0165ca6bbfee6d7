"""`tallylight up` as its user runs it: a real folder, real engines, real processes, and nothing left of them afterwards."""

import json
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from bench.stack import Stack

WAIT_S_MAX = 40.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("up")) as running:
        yield running


def eventually(what: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while not what():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def _ready(stack: Stack) -> bool:
    try:
        return httpx.get(f"{stack.url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _role_pid(stack: Stack, name: str) -> int | None:
    try:
        return stack.role(name).pid
    except (LookupError, psutil.NoSuchProcess):
        return None


def _running(stack: Stack) -> dict[str, object]:
    return dict(json.loads((stack.folder / "data" / "running.json").read_text()))


def test_it_prints_where_to_watch_and_where_to_broadcast(stack: Stack) -> None:
    eventually(lambda: "Tallylight is ready" in stack.log.read_text(), "never said it was ready")
    said = stack.log.read_text()
    assert f"http://localhost:{stack.http_port}/" in said
    assert f"rtmp://localhost:{stack.rtmp_port}/live" in said


def test_every_line_of_the_log_names_its_role(stack: Stack) -> None:
    before, _, _ = stack.log.read_text().partition("Tallylight is ready")
    names = {line.partition("│")[0].strip() for line in before.splitlines() if line}
    assert {"up", "postgres", "sandbox"} <= names
    assert all("│" in line for line in before.splitlines() if line)


def test_everything_in_the_folder_is_its_owners_alone(stack: Stack) -> None:
    data = stack.folder / "data"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    for name in ("secrets.json", "running.json"):
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600


def test_a_role_that_is_killed_comes_back_as_another_process(stack: Stack) -> None:
    before = stack.role("sandbox").pid
    os.kill(before, signal.SIGKILL)
    eventually(lambda: _role_pid(stack, "sandbox") not in (None, before), "the role did not come back")
    eventually(lambda: _ready(stack), "not ready again")
    assert "sandbox ended (SIGKILL)" in stack.log.read_text()


def test_roles_come_back_when_the_process_they_are_forked_from_is_killed(stack: Stack) -> None:
    before = stack.role("sandbox")
    parent = before.parent()
    assert parent is not None
    parent.kill()
    eventually(lambda: _role_pid(stack, "sandbox") not in (None, before.pid), "the role did not come back")
    eventually(lambda: _ready(stack), "not ready again")


def test_a_second_one_on_the_same_folder_is_refused_and_told_by_whom(stack: Stack) -> None:
    other = Stack(stack.folder)
    refused = other.run("up")
    assert refused.returncode == 1
    assert f"in use by another `tallylight up` (process {_running(stack)['pid']})" in refused.stderr
    assert _ready(stack)


@pytest.mark.parametrize(("attribute", "variable"), [("http_port", "HTTP_PORT"), ("rtmp_port", "RTMP_PORT")])
def test_a_taken_port_is_named_with_its_setting_before_anything_starts(
    tmp_path: Path, attribute: str, variable: str
) -> None:
    stack = Stack(tmp_path)
    with socket.create_server(("127.0.0.1", getattr(stack, attribute))):
        refused = stack.run("up")
    assert refused.returncode == 1
    assert f"Port {getattr(stack, attribute)}" in refused.stderr
    assert f"TALLYLIGHT_{variable}" in refused.stderr
    assert not (tmp_path / "data" / "postgres").exists()


def test_a_setting_that_makes_no_sense_is_named(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    stack.http_port = 70000
    refused = stack.run("up")
    assert refused.returncode == 2
    assert "TALLYLIGHT_HTTP_PORT" in refused.stderr


def test_ctrl_c_leaves_no_process_and_the_next_start_finds_the_data(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    with stack:
        processes = stack.processes()
        with psycopg.connect(str(_running(stack)["dsn"]), autocommit=True) as connection:
            connection.execute("CREATE TABLE public.kept AS SELECT 42 AS answer")
        secrets = (tmp_path / "data" / "secrets.json").read_text()
        assert stack.stop() == 0
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert alive == []
    assert not (tmp_path / "data" / "running.json").exists()
    with stack:
        assert (tmp_path / "data" / "secrets.json").read_text() == secrets
        with psycopg.connect(str(_running(stack)["dsn"])) as connection:
            assert connection.execute("SELECT answer FROM public.kept").fetchone() == (42,)


def test_after_kill_9_nothing_stays_and_it_starts_again_on_the_same_ports(tmp_path: Path) -> None:
    stack = Stack(tmp_path).start()
    processes = stack.processes()
    processes[0].kill()
    assert stack.stop() == -signal.SIGKILL
    with stack:
        assert not [process for process in processes[1:] if _lives(process)]


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_ctrl_c_while_it_starts_ends_it_too(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    process = subprocess.Popen(
        [*Stack.command(), "up"], env=stack.environment, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stderr is not None
    assert b"data in" in process.stderr.readline()
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=WAIT_S_MAX)
    assert process.returncode == 0
    assert b"Traceback" not in said
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
