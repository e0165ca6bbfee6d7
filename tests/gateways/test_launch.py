"""Processes and their output: engines started directly, roles forked from a warm zygote."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from gateways.engines.process import free_port
from gateways.launch import LINE_BYTES_MAX, LOST, Zygote, ZygoteGone, start, variables

Said = list[tuple[str, str]]


@pytest.fixture
def said() -> Said:
    return []


@pytest.fixture
async def zygote(said: Said) -> AsyncIterator[Zygote]:
    one = Zygote(lambda name, line: said.append((name, line)))
    yield one
    one.close()
    await one.child.wait()


def sandbox(folder: Path) -> dict[str, str]:
    settings = {"data_dir": folder, "sandbox_secret": "s", "sandbox_port": free_port(), "health_port": free_port()}
    return variables({**settings, "log_format": "console"})


async def until_said(said: Said, text: str) -> None:
    async with asyncio.timeout(30):
        while not any(text in line for _, line in said):  # noqa: ASYNC110 - said by another process
            await asyncio.sleep(0.01)


async def test_output_comes_line_by_line_with_the_name_of_who_said_it(said: Said) -> None:
    script = "import os; os.write(1, b'one\\ntw'); os.write(2, b'o\\nunfinished')"
    child = start("patient", [sys.executable, "-S", "-c", script], lambda name, line: said.append((name, line)))
    assert await child.wait() == 0
    await until_said(said, "unfinished")
    assert said == [("patient", "one"), ("patient", "two"), ("patient", "unfinished")]


async def test_a_line_without_an_end_is_cut_at_the_maximum(said: Said) -> None:
    script = f"import os; os.write(1, b'x' * {LINE_BYTES_MAX + 5} + b'\\nlast\\n')"
    child = start("patient", [sys.executable, "-S", "-c", script], lambda name, line: said.append((name, line)))
    await child.wait()
    await until_said(said, "last")
    assert [len(line) for _, line in said] == [LINE_BYTES_MAX, 5, 4]


async def test_a_role_shows_its_name_to_ps_and_its_log_to_us(zygote: Zygote, said: Said, tmp_path: Path) -> None:
    role = await zygote.start("sandbox", sandbox(tmp_path))
    await until_said(said, "ready")
    process = psutil.Process(role.pid)
    assert process.cmdline()[-2:] == ["role", "sandbox"]
    assert process.name() == "tl-sandbox"
    assert ("sandbox" in {name for name, line in said if "ready" in line}) is True
    role.signal(signal.SIGTERM)
    assert await role.wait() == 0


async def test_a_role_that_fails_tells_its_code(zygote: Zygote, said: Said, tmp_path: Path) -> None:
    environment = sandbox(tmp_path)
    del environment["TALLYLIGHT_SANDBOX_SECRET"]
    role = await zygote.start("sandbox", environment)
    assert await role.wait() == 1
    await until_said(said, "TALLYLIGHT_SANDBOX_SECRET")


async def test_roles_die_with_the_zygote_and_it_starts_no_more(zygote: Zygote, said: Said, tmp_path: Path) -> None:
    role = await zygote.start("sandbox", sandbox(tmp_path))
    process = psutil.Process(role.pid)
    os.kill(zygote.pid, signal.SIGKILL)
    assert await role.wait() == LOST
    await zygote.child.wait()
    await asyncio.to_thread(process.wait, 20)
    with pytest.raises(ZygoteGone):
        await zygote.start("sandbox", sandbox(tmp_path))


async def test_a_closed_zygote_ends_its_roles_in_order(said: Said, tmp_path: Path) -> None:
    zygote = Zygote(lambda name, line: said.append((name, line)))
    await zygote.start("sandbox", sandbox(tmp_path))
    await until_said(said, "ready")
    zygote.close()
    async with asyncio.timeout(20):
        assert await zygote.child.wait() == 0
    await until_said(said, "stopped")


def test_forks_do_not_share_the_randomness_of_ids() -> None:
    """uuid_utils draws from a generator outside Python, which a fork copies with its state."""
    script = (
        "import os, sys, uuid_utils\n"
        "from gateways.zygote import _reseed\n"
        "uuid_utils.uuid4()\n"
        "for _ in range(2):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        _reseed()\n"
        "        print(uuid_utils.uuid4(), flush=True)\n"
        "        os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    first, second = done.stdout.split()
    assert first != second
