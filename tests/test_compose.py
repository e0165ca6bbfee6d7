"""compose.yaml and the image, held to the settings and roles they name. No Docker runs here: this reads, it does not start."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from gateways.roles import ROLES
from gateways.settings import PREFIX, FrontSettings, Settings

ROOT = Path(__file__).parents[1]
ENGINES = {"postgres", "postgres-keys", "kafka-1", "kafka-2", "kafka-3"}
SECRETS = {
    "POSTGRES_PASSWORD": "p",
    "KEYS_PASSWORD": "k",
    "TALLYLIGHT_TOKEN_SECRET": "t",
    "TALLYLIGHT_SANDBOX_SECRET": "s",
    "TALLYLIGHT_PLAYBACK_SECRET": "p",
    "TALLYLIGHT_MASTER_KEY": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "compose.yaml").read_text()))


def _interpolated(value: str) -> str:
    """As Compose does it, with the secrets above in the environment."""

    def replace(found: re.Match[str]) -> str:
        name, how, rest = found.groups()
        if name in SECRETS:
            return SECRETS[name]
        assert how == ":-", f"{name} is neither a secret that is asked for nor has it a default"
        return rest

    return re.sub(r"(?<!\$)\$\{(\w+)(:[-?])?([^}]*)\}", replace, value)


def _environment(service: dict[str, Any]) -> dict[str, str]:
    return {name: _interpolated(value) for name, value in (service.get("environment") or {}).items()}


def _roles(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in compose["services"].items() if name not in ENGINES}


def test_every_role_has_a_container_and_every_container_a_role(compose: dict[str, Any]) -> None:
    named = {service["command"][1] for service in _roles(compose).values()}
    assert named >= {*ROLES, "front"}
    assert named <= {"api", "chat", "media", "relay", "projector", "sandbox", "edge", "front"}


def test_each_container_is_told_all_its_role_must_know(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: dict[str, type[Settings]] = {name: role.settings for name, role in ROLES.items()} | {"front": FrontSettings}
    for name, service in _roles(compose).items():
        if name not in kinds:
            continue
        with monkeypatch.context() as patched:
            for variable, value in _environment(service).items():
                patched.setenv(variable, value)
            try:
                kinds[name]()
            except ValidationError as missing:
                pytest.fail(f"{name}: {missing}")


def test_no_container_is_told_what_no_role_understands(compose: dict[str, Any]) -> None:
    kinds: list[type[Settings]] = [Settings, *_all_settings(Settings)]
    known = {f"{PREFIX}{field.upper()}" for kind in kinds for field in kind.model_fields}
    for name, service in _roles(compose).items():
        unknown = {variable for variable in _environment(service) if variable.startswith(PREFIX)} - known
        assert not unknown, f"{name}: {unknown}"


def _all_settings(kind: type[Settings]) -> list[type[Settings]]:
    return [found for child in kind.__subclasses__() for found in (child, *_all_settings(child))]


def test_volumes_networks_and_dependencies_exist(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in compose["volumes"], f"{name}: {volume}"
        assert set(service["networks"]) <= set(compose["networks"]), name
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] == "service_healthy"
            # A role's check comes with the image.
            assert "healthcheck" in compose["services"][other] or other not in ENGINES


def test_hosts_that_are_named_are_services(compose: dict[str, Any]) -> None:
    for name, service in _roles(compose).items():
        for variable, value in _environment(service).items():
            for host in re.findall(
                r"(?:@|//|^|,|=)((?:postgres(?!ql)|kafka|api|chat|media|edge|sandbox|relay|projector)[\w-]*)[:/]", value
            ):
                assert host in compose["services"], f"{name} {variable}: {host}"


def test_no_role_runs_as_root_or_writes_outside_its_volumes(compose: dict[str, Any]) -> None:
    image = (ROOT / "Dockerfile").read_text()
    for target in ("role", "edge"):
        stage = image[image.index(f" AS {target}\n") :].partition("\nFROM ")[0]
        assert re.findall(r"^USER (.+)$", stage, re.MULTILINE)[-1] == "10001:10001", target
    for name, service in _roles(compose).items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name


def test_the_image_holds_every_package_and_the_lock() -> None:
    image = (ROOT / "Dockerfile").read_text()
    for package in ("domain", "commands", "eventstore", "projections", "media", "gateways"):
        assert f"COPY {package} {package}\n" in image
    assert "--require-hashes -r requirements.lock" in image


def test_no_secret_stands_in_the_file(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for variable, value in (service.get("environment") or {}).items():
            if re.search(r"PASSWORD|SECRET|MASTER_KEY", variable):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), f"{name} {variable}"
