"""What keeps a broadcast's FFmpeg from hurting anything else: lower priority, a limit on its memory, and a cgroup where one may be made.

The transcoder calls `confine` as soon as the process runs, in a session of its own; what cannot be had is done without.
"""

import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

NICENESS: Final = 5
MEMORY_BYTES_MAX: Final = 2 << 30
"""A ladder of 1080p60 takes some 600 MiB; what wants more than this has gone wrong."""
CGROUPS: Final = Path("/sys/fs/cgroup")
CPU_WEIGHT: Final = 50
"""Of 100 by default: everything of ours comes first."""


def confine(pid: int, *, cgroups: Path = CGROUPS) -> Path | None:
    """The cgroup it is in now, which `release` removes; None where there may be none."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, NICENESS)
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
