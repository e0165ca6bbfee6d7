"""A process that is confined: its priority, its memory, and a cgroup where there may be one."""

import os
import resource
import subprocess
from pathlib import Path

from media.isolation import MEMORY_BYTES_MAX, NICENESS, confine, release


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
