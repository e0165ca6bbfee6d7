"""Whether a process lives: a number that grows while any of its threads runs. The transcoder asks when FFmpeg was fed and gave nothing.

It tells one that is stuck from one that is slow. A busy machine gives a process its turn late; one that is stopped, or waits for itself,
has no thread that runs or could run, whatever it is given. Linux alone says so (proc(5)).
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
_COULD_RUN: Final = frozenset("RD")
"""Running or waiting for its turn, and waiting for a disk."""


def pulse(pid: int, *, proc: Path = PROC) -> int | None:
    """Nanoseconds its threads have run; None where one of them could run now, or where the system does not say."""
    ran = 0
    try:
        for thread in (proc / str(pid) / "task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                # The name of a thread is in brackets and may hold anything; its state follows.
                if (thread / "stat").read_text().rpartition(")")[2].split()[0] in _COULD_RUN:
                    return None
                ran += int((thread / "schedstat").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return ran or None
