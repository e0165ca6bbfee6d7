"""What roles and people are told, from the settings of one `up`."""

from pathlib import Path

import pytest

from gateways import wiring
from gateways.folder import DataFolder, Running
from gateways.settings import UpSettings

PORTS = {"api": 20001, "chat": 20002, "media": 20003, "sandbox": 20004}
HEALTH = {"relay": 20005, "sandbox": 20006}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in UpSettings.model_fields:
        monkeypatch.delenv(f"TALLYLIGHT_{name.upper()}", raising=False)


def told(folder: Path, settings: UpSettings) -> dict[str, object]:
    data = DataFolder(folder)
    url = "http://localhost:8000"
    engines = Running(1, "postgresql://store", "postgresql://keys", "127.0.0.1:9", url, wiring.rtmp_url(settings))
    return wiring.role_environment(settings, data, engines, ports_of=PORTS, health_of=HEALTH)


def test_roles_are_told_where_the_engines_and_each_other_are(tmp_path: Path) -> None:
    known = told(tmp_path, UpSettings(data_dir=tmp_path))
    assert (known["dsn"], known["keys_dsn"]) == ("postgresql://store", "postgresql://keys")
    assert known["sandbox_url"] == "http://127.0.0.1:20004"
    assert known["health_urls"] == "relay=http://127.0.0.1:20005,sandbox=http://127.0.0.1:20006"
    assert known["rtmp_public_url"] == "rtmp://localhost:1935/live"
    assert (known["kafka_partitions"], known["kafka_fetch_wait_ms"]) == (8, 20)


def test_a_kafka_of_ones_own_keeps_its_own_settings(tmp_path: Path) -> None:
    known = told(tmp_path, UpSettings(data_dir=tmp_path, bootstrap_servers="kafka:9092"))
    assert "kafka_partitions" not in known


def test_what_the_user_set_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYLIGHT_MASTER_KEY", "mine")
    known = told(tmp_path, UpSettings(data_dir=tmp_path))
    assert "master_key" not in known
    assert "token_secret" in known


def test_secrets_stay_the_same_from_start_to_start(tmp_path: Path) -> None:
    settings = UpSettings(data_dir=tmp_path)
    first, second = told(tmp_path, settings), told(tmp_path, settings)
    assert [first[name] for name in ("token_secret", "master_key")] == [
        second[name] for name in ("token_secret", "master_key")
    ]


def test_opened_to_others_the_rtmp_port_opens_too(tmp_path: Path) -> None:
    assert told(tmp_path, UpSettings(data_dir=tmp_path))["rtmp_host"] == "127.0.0.1"
    assert told(tmp_path, UpSettings(data_dir=tmp_path, front_host="0.0.0.0"))["rtmp_host"] == "0.0.0.0"


@pytest.mark.parametrize(
    ("public_url", "rtmp"),
    [
        ("https://tally.example", "rtmp://tally.example:1935/live"),
        ("http://192.0.2.7:8000", "rtmp://192.0.2.7:1935/live"),
        ("http://[2001:db8::1]:8000", "rtmp://[2001:db8::1]:1935/live"),
    ],
)
def test_broadcasters_are_told_the_host_people_know(tmp_path: Path, public_url: str, rtmp: str) -> None:
    settings = UpSettings(data_dir=tmp_path, public_url=public_url)
    assert wiring.rtmp_url(settings) == rtmp
    assert public_url in wiring.welcome(settings, ready_after_s=1.0)
    assert rtmp in wiring.welcome(settings, ready_after_s=1.0)
