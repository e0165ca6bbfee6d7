"""A process that is confined: its priority, its memory, and a cgroup where there may be one; and that every FFmpeg of ours is."""

import os
import resource
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import psutil
import pytest
from starlette.applications import Starlette

from media import ffmpeg
from media.archive import Archive
from media.clips import Clips
from media.isolation import MEMORY_BYTES_MAX, NICENESS, Failed, confine, release, run
from media.slate import Shape, Slates
from media.storyboard import Storyboards
from media.vod import Vod
from tests.media.recorded import BROADCAST, Report, record
from tests.media.stage import served


def test_a_process_gets_a_lower_priority_and_a_limit_on_its_memory() -> None:
    with subprocess.Popen(["/bin/sleep", "60"], start_new_session=True) as process:
        try:
            group = confine(process.pid)
            assert os.getpriority(os.PRIO_PROCESS, process.pid) >= NICENESS
            assert resource.prlimit(process.pid, resource.RLIMIT_DATA) == (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX)
        finally:
            process.kill()
    release(group)


def test_what_wants_more_memory_than_the_limit_does_not_get_it() -> None:
    greedy = "import sys; sys.stdin.readline(); bytearray(3 << 30)"
    with subprocess.Popen(["python3", "-c", greedy], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        group = confine(process.pid)
        _, complaint = process.communicate(b"now\n", timeout=60)
        assert b"MemoryError" in complaint
        assert process.returncode == 1
    release(group)


def test_a_cgroup_is_made_where_the_kernel_lets_us_and_done_without_elsewhere(tmp_path: Path) -> None:
    assert confine(os.getpid() + 10**8, cgroups=tmp_path / "none") is None
    (tmp_path / "cgroup.subtree_control").write_text("cpu io memory\n")
    made = confine(10**9, cgroups=tmp_path)
    assert made is not None
    assert (made / "memory.max").read_text() == str(MEMORY_BYTES_MAX)
    assert (made / "cgroup.procs").read_text() == str(10**9)
    (tmp_path / "cgroup.subtree_control").write_text("io\n")
    assert confine(10**9, cgroups=tmp_path) is None


@pytest.fixture
def witness(tmp_path: Path) -> tuple[Path, Path]:
    """An FFmpeg that notes down, once it is confined, what it is confined to; and where it notes that."""
    script, notes = tmp_path / "witness", tmp_path / "notes"
    script.write_text(
        f"""#!/bin/sh
n=0
while grep -q "Max data size *unlimited" /proc/$$/limits && [ $n -lt 200 ]; do sleep 0.05; n=$((n+1)); done
echo $$ $(ps -o sid= -o nice= -p $$) $(grep "Max data size" /proc/$$/limits) >> {notes}
exec {ffmpeg.binary()} "$@"
"""
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script, notes


async def a_slate(binary: Path, folder: Path) -> None:
    assert await Slates(binary).loop(Shape(160, 90, 48_000, 1)) is not None


async def a_clip(binary: Path, folder: Path) -> None:
    archive = Archive.open(str(folder / "archive"))
    await record(archive, Report())

    async def about(clip_id: str) -> tuple[str, float, float]:
        return BROADCAST, 1.0, 3.0

    app = Starlette(routes=Clips(archive, about, binary).routes())
    async with served(app) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        assert (await client.get("/clips/clip1/index.m3u8")).status_code == 200
        assert (await client.get("/clips/clip1/clip.mp4")).status_code == 200


async def a_storyboard(binary: Path, folder: Path) -> None:
    archive = Archive.open(str(folder / "archive"))
    await record(archive, Report())
    await Storyboards(archive, Vod(archive), binary).make_of(BROADCAST)


@pytest.mark.parametrize("made", [a_slate, a_clip, a_storyboard])
async def test_what_is_made_beside_a_broadcast_is_made_by_a_confined_process(
    witness: tuple[Path, Path], tmp_path: Path, made: Callable[[Path, Path], Awaitable[None]]
) -> None:
    script, notes = witness
    await made(script, tmp_path)
    lines = [line.split() for line in notes.read_text().splitlines()]
    assert lines
    for pid, session, nice, *limit in lines:
        assert session == pid, "a session of its own"
        assert int(nice) >= NICENESS
        assert str(MEMORY_BYTES_MAX) in limit


async def test_what_a_process_makes_comes_back_and_one_that_fails_hangs_or_floods_is_gone() -> None:
    assert await run([sys.executable, "-c", "print(input())"], seconds_max=30, data=b"hello\n") == b"hello\n"
    with pytest.raises(Failed, match="no good"):
        await run([sys.executable, "-c", "raise SystemExit('no good')"], seconds_max=30)
    with pytest.raises(TimeoutError):
        await run([sys.executable, "-c", "import os\nwhile True: os.write(2, b'x')"], seconds_max=0.5)
    assert not [it for it in psutil.Process().children() if "os.write" in " ".join(it.cmdline())]
