"""What the supervisor does with processes that fail; the whole of it is run in `test_up`."""

import asyncio
import io
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateways import supervisor
from gateways.launch import Child, start
from gateways.logbook import Logbook
from gateways.settings import UpSettings
from gateways.supervisor import CannotStart, Service, Supervisor


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def settings(tmp_path: Path) -> UpSettings:
    return UpSettings(data_dir=tmp_path, log_format="console")


@pytest.fixture
def supervising(settings: UpSettings, log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    monkeypatch.setattr(supervisor, "BACKOFF_S", (0.0, 0.01, 0.01))
    monkeypatch.setattr(supervisor, "WATCH_S", 0.02)
    return Supervisor(settings, Logbook(settings, log))


def service(script: str, log: io.StringIO, *, ready: bool = False, alive: Callable[[], bool] | None = None) -> Service:
    async def launch() -> Child:
        return start("patient", [sys.executable, "-S", "-c", script], lambda name, line: None)

    async def is_ready() -> bool:
        return ready

    async def is_alive() -> bool:
        assert alive is not None
        return alive()

    return Service("patient", launch, signal.SIGTERM, 0.5, is_ready, is_alive if alive else None)


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not what():  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(0.005)


async def stopped(supervising: Supervisor) -> None:
    await supervising._stop_all()


async def test_what_never_stays_up_is_given_up_at_the_start(supervising: Supervisor, log: io.StringIO) -> None:
    dying = supervising._add(service("raise SystemExit(3)", log))
    with pytest.raises(CannotStart, match="patient does not stay up"):
        await supervising._ready(dying)
    assert "patient ended (code 3); starting it again" in log.getvalue()
    await supervising._stop(dying)


async def test_what_cannot_be_executed_is_tried_again_and_said(supervising: Supervisor, log: io.StringIO) -> None:
    async def launch() -> Child:
        return start("patient", ["/nonexistent/program"], lambda name, line: None)

    broken = service("", log)
    broken.launch = launch
    supervising._add(broken)
    with pytest.raises(CannotStart):
        await supervising._ready(broken)
    assert "patient could not be started" in log.getvalue()
    supervising._stopping.set()
    await supervising._stop(broken)


async def test_what_stops_answering_is_killed_and_started_again(supervising: Supervisor, log: io.StringIO) -> None:
    answers = iter([True, *[False] * supervisor.DEAF_MAX])
    hung = supervising._add(service("import time; time.sleep(600)", log, alive=lambda: next(answers, True)))
    await until(lambda: hung.starts == 2)
    assert "patient has not answered" in log.getvalue()
    assert "SIGKILL" in log.getvalue()
    supervising._stopping.set()
    await supervising._stop(hung)


async def test_what_does_not_stop_when_asked_is_killed(
    supervising: Supervisor, log: io.StringIO, tmp_path: Path
) -> None:
    mark = tmp_path / "deaf"
    script = f"import signal, time, pathlib; signal.signal(15, signal.SIG_IGN); pathlib.Path({str(mark)!r}).touch(); time.sleep(600)"
    deaf = supervising._add(service(script, log))
    await until(mark.exists)
    supervising._stopping.set()
    await supervising._stop(deaf)
    assert deaf.child is not None
    assert deaf.child.code == -signal.SIGKILL
    assert "patient had to be killed" in log.getvalue()


async def test_a_second_ctrl_c_does_not_wait(supervising: Supervisor, log: io.StringIO, tmp_path: Path) -> None:
    mark = tmp_path / "deaf"
    script = f"import signal, time, pathlib; signal.signal(15, signal.SIG_IGN); pathlib.Path({str(mark)!r}).touch(); time.sleep(600)"
    deaf = service(script, log)
    deaf.stop_s_max = 3600
    supervising._add(deaf)
    await until(mark.exists)
    supervising._asked_to_stop()
    stopping = asyncio.create_task(supervising._stop(deaf))
    supervising._asked_to_stop()
    async with asyncio.timeout(20):
        await stopping
    assert "in a hurry" in log.getvalue()


async def test_a_wait_that_lasts_too_long_says_for_what(
    supervising: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "READY_S_MAX", 0.01)
    never: Awaitable[bool] = asyncio.Event().wait()
    with pytest.raises(CannotStart, match="the patient was not ready"):
        await supervising._until(never, "the patient")


async def test_one_database_without_the_other_is_refused(tmp_path: Path, log: io.StringIO) -> None:
    settings = UpSettings(data_dir=tmp_path, dsn="postgresql://x")  # type: ignore[arg-type]
    with pytest.raises(CannotStart, match="TALLYLIGHT_KEYS_DSN"):
        await Supervisor(settings, Logbook(settings, log))._start_postgres()


def test_a_moment_is_all_it_takes_to_make_one(settings: UpSettings, log: io.StringIO) -> None:
    began = time.monotonic()
    Supervisor(settings, Logbook(settings, log))
    assert time.monotonic() - began < 5
