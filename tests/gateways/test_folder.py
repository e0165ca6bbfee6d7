"""The data folder: one holder, secrets that stay, and what a killed run left behind."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gateways.engines.process import FolderInUse
from gateways.folder import DataFolder, Running


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    taken = DataFolder(tmp_path / "data")
    taken.take()
    return taken


def test_a_second_holder_is_refused_and_told_who_has_it(folder: DataFolder) -> None:
    with pytest.raises(FolderInUse, match=rf"process {os.getpid()}\).*TALLYLIGHT_DATA_DIR"):
        DataFolder(folder.path).take()
    folder.release()
    DataFolder(folder.path).take()


def test_secrets_are_made_once_and_are_their_owners_alone(folder: DataFolder) -> None:
    made = folder.secrets()
    assert folder.secrets() == made
    assert len({made.token_secret, made.master_key, made.sandbox_secret, made.playback_secret}) == 4
    assert stat.S_IMODE((folder.path / "secrets.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700


def test_a_folder_of_an_older_release_gets_what_it_lacks_and_keeps_what_it_has(folder: DataFolder) -> None:
    path = folder.path / "secrets.json"
    path.write_text(json.dumps({"token_secret": "t", "master_key": "m", "sandbox_secret": "s"}))
    found = folder.secrets()
    assert (found.token_secret, found.master_key, found.sandbox_secret) == ("t", "m", "s")
    assert found.playback_secret
    assert folder.secrets() == found


def test_a_folder_without_secrets_gets_none_from_whoever_only_reads(folder: DataFolder) -> None:
    assert folder.secrets_if_any() is None
    assert folder.secrets() == folder.secrets_if_any()


def _running(*processes: psutil.Process) -> Running:
    created = {str(process.pid): process.create_time() for process in processes}
    return Running(1, "dsn", "keys", "bootstrap", "http://localhost", "rtmp://localhost", created)


def test_what_is_said_of_a_run_is_read_back_until_it_is_forgotten(folder: DataFolder) -> None:
    assert folder.running() is None
    folder.say_running(_running())
    assert folder.running() == _running()
    folder.forget_running()
    assert folder.running() is None


def test_a_half_written_note_counts_as_none(folder: DataFolder) -> None:
    (folder.path / "running.json").write_text('{"pid": 1')
    assert folder.running() is None


def test_processes_of_a_killed_run_are_ended_and_others_with_their_numbers_are_not(folder: DataFolder) -> None:
    sleeping = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    stale, other = subprocess.Popen(sleeping), subprocess.Popen(sleeping)
    try:
        said = _running(psutil.Process(stale.pid), psutil.Process(other.pid))
        said.processes[str(other.pid)] -= 1000  # the number went to another process since
        folder.say_running(said)
        assert folder.end_stale() == 1
        assert not psutil.pid_exists(stale.pid)
        assert other.poll() is None
        assert folder.running() is None
    finally:
        for process in (stale, other):
            process.kill()
            process.wait()
