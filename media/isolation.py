"""What keeps an FFmpeg from hurting anything else: lower priority, a limit on its memory, and a cgroup where one may be made.

The transcoder and SRT call `confine` as soon as their process runs, in a session of its own; slates, storyboards and clips `run` one to its
end. What cannot be had is done without.
"""

import asyncio
import os
import resource
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

NICENESS: Final = 5
MEMORY_BYTES_MAX: Final = 2 << 30
"""A ladder of 1080p60 takes some 600 MiB; what wants more than this has gone wrong."""
CGROUPS: Final = Path("/sys/fs/cgroup")
CPU_WEIGHT: Final = 50
"""Of 100 by default: everything of ours comes first."""
COMPLAINT_CHARS_MAX: Final = 300


def confine(pid: int, *, niceness: int = NICENESS, cgroups: Path = CGROUPS) -> Path | None:
    """The cgroup it is in now, which `release` removes; None where there may be none."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
    with suppress(OSError, ValueError):
        resource.prlimit(pid, resource.RLIMIT_DATA, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    with suppress(OSError, ValueError):
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
    group = cgroups / f"tallylight-ffmpeg-{pid}"
    try:
        if not {"memory", "cpu"} <= set((cgroups / "cgroup.subtree_control").read_text().split()):
            return None
        group.mkdir()
        (group / "memory.max").write_text(str(MEMORY_BYTES_MAX))
        (group / "cpu.weight").write_text(str(CPU_WEIGHT))
        (group / "cgroup.procs").write_text(str(pid))
    except OSError:
        release(group)
        return None
    return group


def release(group: Path | None) -> None:
    """Once its process has ended."""
    if group is not None:
        with suppress(OSError):
            group.rmdir()


class Failed(RuntimeError):
    """A process ended with an error; the message is the end of what it said."""


async def run(arguments: Sequence[str], *, seconds_max: float, data: bytes = b"", niceness: int = NICENESS) -> bytes:
    """What a confined process makes of the data. Raises `Failed`, TimeoutError and OSError; nothing of it is left in any case."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    group = confine(process.pid, niceness=niceness)
    try:
        async with asyncio.timeout(seconds_max):
            made, complaints = await process.communicate(data)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        release(group)
    if process.returncode:
        raise Failed(complaints.decode(errors="replace")[-COMPLAINT_CHARS_MAX:])
    return made
