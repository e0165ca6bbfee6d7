"""The embedded engines, run for real: as whoever runs the tests, and forced down the path for roots without user namespaces."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from gateways.engines import run_as
from gateways.engines.broker import Broker, ensure_topics
from gateways.engines.postgres import THROWAWAY, Postgres
from gateways.engines.process import EngineFailed, FolderInUse
from gateways.engines.run_as import RunAs


def _write(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (42)")


def _read(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT n FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def test_data_survives_a_stop_and_a_start(tmp_path: Path) -> None:
    first = Postgres(tmp_path / "pg")
    first.start()
    _write(first.ensure_database("books"))
    first.stop()
    second = Postgres(tmp_path / "pg")
    second.start()
    try:
        assert _read(second.dsn("books")) == 42
    finally:
        second.stop()


def test_a_crash_leaves_a_pid_file_and_the_next_start_recovers(tmp_path: Path) -> None:
    first = Postgres(tmp_path / "pg")
    first.start()
    _write(first.ensure_database("books"))
    first.kill()
    pid_file = first.cluster / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    lines[0] = str(os.getpid())  # as after a reboot: the number lives, as someone else
    pid_file.write_text("\n".join(lines) + "\n")
    second = Postgres(tmp_path / "pg")
    second.start()
    try:
        assert _read(second.dsn("books")) == 42
    finally:
        second.stop()


def test_an_orphaned_server_is_ended_before_the_next_start(tmp_path: Path) -> None:
    first = Postgres(tmp_path / "pg", settings=THROWAWAY)
    first.start()
    orphan = psutil.Process(int((first.cluster / "postmaster.pid").read_text().splitlines()[0]))
    first.release()
    second = Postgres(tmp_path / "pg", settings=THROWAWAY)
    second.start()
    try:
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    finally:
        second.stop()
        first.stop()


def test_a_folder_in_use_is_refused_by_name(tmp_path: Path, postgres: Postgres) -> None:
    with pytest.raises(FolderInUse, match=str(postgres.folder)):
        Postgres(postgres.folder).start()


def test_the_password_is_needed_and_private(postgres: Postgres) -> None:
    assert (postgres.home / "password").stat().st_mode & 0o777 == 0o600
    assert postgres.cluster.stat().st_mode & 0o777 == 0o700
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.dsn().replace(postgres.password, "guessed"))


def test_a_port_that_is_taken_is_said_with_postgres_own_words(tmp_path: Path, postgres: Postgres) -> None:
    with pytest.raises(EngineFailed, match="Address already in use"):
        Postgres(tmp_path / "pg", port=postgres.port, settings=THROWAWAY).start()


@pytest.fixture
def reachable() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tallylight-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_without_user_namespaces_root_runs_it_as_an_unprivileged_user(tmp_path: Path, reachable: Path) -> None:
    if os.geteuid() != 0:
        # A normal user never needs this path: the choice says so.
        assert run_as.choose() is not RunAs.UNPRIVILEGED
        return
    server = Postgres(tmp_path / "pg", settings=THROWAWAY, way=RunAs.UNPRIVILEGED, public_root=reachable)
    server.start()
    try:
        _write(server.ensure_database("books"))
        pid = int((server.cluster / "postmaster.pid").read_text().splitlines()[0])
        assert psutil.Process(pid).uids().real == run_as.unprivileged().pw_uid
        assert server.home.stat().st_mode & 0o777 == 0o700
    finally:
        server.stop()
    again = Postgres(tmp_path / "pg", settings=THROWAWAY, way=RunAs.UNPRIVILEGED, public_root=reachable)
    again.start()
    try:
        assert _read(again.dsn("books")) == 42
    finally:
        again.stop()


async def test_topics_are_created_once_and_asking_again_is_fine(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    try:
        for _ in range(2):
            await ensure_topics(broker.bootstrap, {"chat": 8, "money": 4})
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
        await admin.start()
        described = await admin.describe_topics(["chat", "money"])
        await admin.close()
        assert {topic["topic"]: len(topic["partitions"]) for topic in described} == {"chat": 8, "money": 4}
    finally:
        broker.stop()
