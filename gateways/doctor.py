"""`tallylight doctor`: can this machine run Tallylight, and if not, what is missing and what helps.

Called by `gateways.cli`. It looks, and leaves nothing behind: whatever it starts to see whether it starts, it stops.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateways import front, ports
from gateways.engines.broker import Broker
from gateways.engines.postgres import THROWAWAY, Postgres
from gateways.engines.process import EngineFailed
from gateways.folder import DataFolder
from gateways.settings import UpSettings

FFMPEG_S_MAX: Final = 20
ENCODERS: Final = ("libx264", "aac")
DISK_FREE_MIB_MIN: Final = 1024
MEMORY_FREE_MIB_MIN: Final = 700
OPEN_FILES_MIN: Final = 1024


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    well: bool
    detail: str


def examine(settings: UpSettings) -> Iterator[Finding]:
    """One finding after the other, each a question of its own."""
    yield Finding("Python", sys.version_info >= (3, 11), sys.version.split()[0])
    for name, look in (
        ("data folder", lambda: _folder(settings)),
        ("ports", lambda: _ports(settings)),
        ("disk", lambda: _disk(settings)),
        ("memory", _memory),
        ("open files", _open_files),
        ("Postgres", _postgres),
        ("broker", _broker),
        ("front", _front),
        ("FFmpeg", _ffmpeg),
        ("encoder", _encoder),
        ("SRT", _srt),
    ):
        yield _asked(name, look)


class _Unwell(Exception):
    """What is wrong, and what helps."""


def _asked(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, look())
    except (_Unwell, EngineFailed, OSError, subprocess.SubprocessError) as wrong:
        return Finding(name, False, str(wrong))


def _folder(settings: UpSettings) -> str:
    path = settings.data_dir
    if (running := DataFolder(path).running()) is not None and running.lives():
        return f"{path}, in use by process {running.pid}"
    nearest = next(parent for parent in (path, *path.parents) if parent.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise _Unwell(f"{nearest} cannot be written. Choose another with TALLYLIGHT_DATA_DIR.")
    if path.exists() and path.stat().st_uid != os.geteuid():
        raise _Unwell(f"{path} belongs to another user. Choose another with TALLYLIGHT_DATA_DIR.")
    return f"{path}{'' if path.exists() else ' (will be made)'}"


def _ports(settings: UpSettings) -> str:
    wanted = ports.public(settings)
    running = DataFolder(settings.data_dir).running()
    if running is not None and running.lives():
        return "in use by the Tallylight that runs here"
    if problems := ports.taken(wanted):
        raise _Unwell(" ".join(problems))
    return ", ".join(f"{one.port} {one.purpose}" for one in wanted)


def _disk(settings: UpSettings) -> str:
    nearest = next(parent for parent in (settings.data_dir, *settings.data_dir.parents) if parent.exists())
    free_mib = shutil.disk_usage(nearest).free // 2**20
    if free_mib < DISK_FREE_MIB_MIN:
        raise _Unwell(f"{free_mib} MiB free, {DISK_FREE_MIB_MIN} wanted")
    return f"{free_mib} MiB free"


def _memory() -> str:
    import psutil

    free_mib = psutil.virtual_memory().available // 2**20
    if free_mib < MEMORY_FREE_MIB_MIN:
        raise _Unwell(f"{free_mib} MiB available, {MEMORY_FREE_MIB_MIN} wanted")
    return f"{free_mib} MiB available"


def _open_files() -> str:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES_MIN:
        raise _Unwell(f"{hard} allowed a process, {OPEN_FILES_MIN} wanted: raise it with ulimit -n")
    return "unlimited" if hard == resource.RLIM_INFINITY else f"{hard} a process"


def _postgres() -> str:
    with tempfile.TemporaryDirectory(prefix="tallylight-doctor-") as folder:
        server = Postgres(Path(folder) / "postgres", settings=THROWAWAY)
        try:
            server.start()
        finally:
            server.stop()
    return "starts and stops"


def _broker() -> str:
    with tempfile.TemporaryDirectory(prefix="tallylight-doctor-") as folder:
        broker = Broker(Path(folder))
        try:
            broker.start()
        finally:
            broker.stop()
    return "starts and stops"


def _front() -> str:
    told = subprocess.run(
        [str(front.binary()), "version"], capture_output=True, text=True, check=True, timeout=FFMPEG_S_MAX
    )
    return f"Caddy {told.stdout.split()[0]}"


def _ffmpeg() -> str:
    binary = ffmpeg()
    told = subprocess.run(
        [binary, "-hide_banner", "-encoders"], capture_output=True, text=True, check=True, timeout=FFMPEG_S_MAX
    )
    encoders = {words[1] for line in told.stdout.splitlines() if len(words := line.split()) > 1}
    if missing := [name for name in ENCODERS if name not in encoders]:
        raise _Unwell(f"{binary} has no {' and no '.join(missing)}: install another and name it with TALLYLIGHT_FFMPEG")
    return f"{binary} with {', '.join(ENCODERS)}"


def _encoder() -> str:
    from media import encoders

    chosen = encoders.choose(Path(ffmpeg()))
    before = [it.name for it in encoders.CANDIDATES[: encoders.CANDIDATES.index(chosen)]]
    return chosen.name + (f" ({', '.join(before)} do not work here)" if before else "")


def _srt() -> str:
    """Never unwell: it is off unless a port is set."""
    from media.srt import SrtUnavailable, library

    try:
        library()
    except SrtUnavailable as missing:
        return f"off: {missing}"
    return "libsrt is here; TALLYLIGHT_SRT_PORT switches it on"


def ffmpeg() -> str:
    """The one named in the environment, or the wheel's."""
    from gateways.settings import PREFIX

    if named := os.environ.get(f"{PREFIX}FFMPEG"):
        return named
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())
