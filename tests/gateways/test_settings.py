"""Settings: what is missing or wrong is said by the variable's name, and no secret is ever printed."""

import base64
import re
from pathlib import Path

import pytest

from gateways.settings import MediaSettings, RelaySettings, SandboxSettings, SettingsInvalid, default_data_dir

_KEY = base64.urlsafe_b64encode(bytes(32)).decode()


def test_every_missing_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TALLYLIGHT_DSN", "TALLYLIGHT_KEYS_DSN", "TALLYLIGHT_MASTER_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsInvalid) as refused:
        RelaySettings.load()
    assert str(refused.value).splitlines() == [
        "TALLYLIGHT_DSN: Field required",
        "TALLYLIGHT_KEYS_DSN: Field required",
        "TALLYLIGHT_MASTER_KEY: Field required",
    ]


def test_a_wrong_value_is_named_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYLIGHT_DSN", "postgresql://x")
    monkeypatch.setenv("TALLYLIGHT_KEYS_DSN", "postgresql://y")
    monkeypatch.setenv("TALLYLIGHT_MASTER_KEY", base64.urlsafe_b64encode(b"hunter2").decode())
    with pytest.raises(SettingsInvalid, match=r"TALLYLIGHT_MASTER_KEY: .*32 random bytes") as refused:
        RelaySettings.load()
    assert "hunter2" not in str(refused.value)
    assert base64.urlsafe_b64encode(b"hunter2").decode() not in str(refused.value)


def test_secrets_do_not_print(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYLIGHT_DSN", "postgresql://u:sesame@h/d")
    monkeypatch.setenv("TALLYLIGHT_KEYS_DSN", "postgresql://u:sesame@h/k")
    monkeypatch.setenv("TALLYLIGHT_MASTER_KEY", _KEY)
    settings = RelaySettings.load()
    assert settings.master_key_bytes == bytes(32)
    assert "sesame" not in repr(settings)
    assert _KEY not in repr(settings)


def test_a_port_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYLIGHT_SANDBOX_SECRET", "s")
    monkeypatch.setenv("TALLYLIGHT_SANDBOX_PORT", "65536")
    with pytest.raises(SettingsInvalid, match="TALLYLIGHT_SANDBOX_PORT"):
        SandboxSettings.load()


def test_the_page_on_backups_names_the_folder_that_recordings_lie_in(tmp_path: Path) -> None:
    known = {"dsn": "x", "keys_dsn": "x", "master_key": _KEY, "playback_secret": "x", "data_dir": tmp_path}
    folder = Path(MediaSettings.load(**known).archive).relative_to(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    assert re.findall(r"below the data folder's `([^`]+)`", page) == [str(folder)]
    elsewhere = MediaSettings.load(**known, archive_url="s3://bucket/x")
    assert elsewhere.archive == "s3://bucket/x"


def test_root_and_a_normal_user_keep_data_where_custom_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_data_dir() == Path("/var/lib/tallylight")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert default_data_dir() == tmp_path / "tallylight"


def test_segments_last_one_to_six_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("DSN", "postgresql://x"),
        ("KEYS_DSN", "postgresql://y"),
        ("MASTER_KEY", _KEY),
        ("PLAYBACK_SECRET", "x"),
    ):
        monkeypatch.setenv(f"TALLYLIGHT_{name}", value)
    assert MediaSettings.load().segment_s == 2
    monkeypatch.setenv("TALLYLIGHT_SEGMENT_S", "1.5")
    assert MediaSettings.load().segment_s == 1.5
    for wrong in ("0.9", "6.5"):
        monkeypatch.setenv("TALLYLIGHT_SEGMENT_S", wrong)
        with pytest.raises(SettingsInvalid, match="TALLYLIGHT_SEGMENT_S"):
            MediaSettings.load()
