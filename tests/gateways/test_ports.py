"""Ports: a taken one is named with who has it and what moves it; private ones stay out of the kernel's own range."""

import os
import socket
from pathlib import Path

import pytest

from gateways import ports
from gateways.engines.process import free_port
from gateways.settings import UpSettings


@pytest.fixture
def settings(tmp_path: Path) -> UpSettings:
    return UpSettings(data_dir=tmp_path, http_port=free_port(), https_port=free_port(), rtmp_port=free_port())


def test_free_ports_have_no_complaint(settings: UpSettings) -> None:
    assert ports.taken(ports.public(settings)) == []


def test_a_taken_port_is_named_with_its_holder_and_its_setting(settings: UpSettings) -> None:
    with socket.create_server(("127.0.0.1", settings.rtmp_port)):
        (said,) = ports.taken(ports.public(settings))
    assert f"Port {settings.rtmp_port} (broadcasts from OBS) is taken" in said
    assert f"(process {os.getpid()})" in said
    assert "set TALLYLIGHT_RTMP_PORT to another" in said


def test_a_port_taken_on_the_other_loopback_is_found_too(settings: UpSettings) -> None:
    with socket.create_server(("::1", settings.http_port), family=socket.AF_INET6):
        (said,) = ports.taken(ports.public(settings))
    assert "TALLYLIGHT_HTTP_PORT" in said


def test_two_settings_with_one_port_are_both_named(tmp_path: Path) -> None:
    port = free_port()
    settings = UpSettings(data_dir=tmp_path, http_port=port, https_port=port, rtmp_port=free_port())
    (said,) = ports.taken(ports.public(settings))
    assert "TALLYLIGHT_HTTP_PORT" in said
    assert "TALLYLIGHT_HTTPS_PORT" in said


def test_an_address_that_is_not_ours_is_out_of_reach(tmp_path: Path) -> None:
    settings = UpSettings(data_dir=tmp_path, front_host="192.0.2.1", https_port=0)
    assert all("out of reach" in said for said in ports.taken(ports.public(settings)))


def test_a_port_of_nought_is_not_asked_for(tmp_path: Path) -> None:
    settings = UpSettings(data_dir=tmp_path, https_port=0)
    assert {one.setting for one in ports.public(settings)} == {"http_port", "rtmp_port"}


def test_private_ports_are_distinct_and_below_the_ephemeral_range() -> None:
    found = list(ports.private(20))
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(set(found)) == 20
    assert max(found) < max(first_ephemeral, 21_000) or first_ephemeral <= 21_000
