"""The one folder in which `tallylight up` keeps everything: who holds it, the secrets made once, and what runs on it now.

Called by the supervisor, which takes it, and by commands beside a running stack, which read from it how to reach the engines.
It never opens the folder to others: everything in it is its owner's alone.
"""

import base64
import fcntl
import json
import os
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Final

import psutil

from gateways.engines.process import FolderInUse

SECRET_BYTES: Final = 32
STALE_STOP_S_MAX: Final = 15.0


@dataclass(frozen=True, slots=True)
class Secrets:
    """What must stay the same as long as the data does."""

    token_secret: str
    master_key: str
    sandbox_secret: str
    playback_secret: str


@dataclass(frozen=True, slots=True)
class Running:
    """How to reach the stack that holds the folder, and which processes it started (pid → when it was created)."""

    pid: int
    dsn: str
    keys_dsn: str
    bootstrap_servers: str
    public_url: str
    rtmp_url: str
    processes: dict[str, float] = field(default_factory=dict)

    def lives(self) -> bool:
        """Whether it runs still: one that was killed could not say that it ended."""
        return psutil.pid_exists(self.pid)


class DataFolder:
    """One folder; `take` it before writing anything into it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    def take(self) -> None:
        """Hold it alone until `release` or our end, kill -9 included. `FolderInUse` names who has it."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (self.path / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
            lock.close()
            by = f" (process {holder})" if holder else ""
            raise FolderInUse(
                f"{self.path} is in use by another `tallylight up`{by}. Stop that one, or choose another folder with TALLYLIGHT_DATA_DIR."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def release(self) -> None:
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.close()
            self._lock = None

    def sub(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def secrets(self) -> Secrets:
        """Those of the folder, made and written durably the first time."""
        path = self.path / "secrets.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        # A folder of an older release lacks what that had no use for.
        made = {it.name: base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).decode() for it in fields(Secrets)}
        if not made.keys() <= known.keys():
            known = made | known
            _write_private(path, json.dumps(known, indent=1))
        return Secrets(**{name: known[name] for name in made})

    def secrets_if_any(self) -> Secrets | None:
        """Those of a folder that has some, for whoever only reads."""
        return self.secrets() if (self.path / "secrets.json").exists() else None

    def running(self) -> Running | None:
        """What the last `up` said of itself; None when it ended in order."""
        try:
            return Running(**json.loads((self.path / "running.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def say_running(self, running: Running) -> None:
        _write_private(self.path / "running.json", json.dumps(asdict(running)), durable=False)

    def forget_running(self) -> None:
        (self.path / "running.json").unlink(missing_ok=True)

    def end_stale(self) -> int:
        """We hold the folder, so whatever a killed `up` left is nobody's: end it. How many there were."""
        before = self.running()
        stale = (
            [found for pid, created in before.processes.items() if (found := _same(int(pid), created))]
            if before
            else []
        )
        for process in stale:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(stale, timeout=STALE_STOP_S_MAX)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=STALE_STOP_S_MAX)
        self.forget_running()
        return len(stale)


def _same(pid: int, created: float) -> psutil.Process | None:
    """The process of that pid, unless the number has gone to another since."""
    try:
        process = psutil.Process(pid)
        return (
            process if abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE else None
        )
    except psutil.NoSuchProcess:
        return None


def _write_private(path: Path, text: str, *, durable: bool = True) -> None:
    """Whole or not at all, and readable by the owner alone."""
    partial = path.with_name(f".{path.name}-{os.getpid()}")
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    partial.rename(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
