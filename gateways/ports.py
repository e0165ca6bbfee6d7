"""The ports `tallylight up` needs: which public one is taken and by what setting it moves, and private ones nobody else will get.

Called by the supervisor before it starts anything, and by `tallylight doctor`. Never connects anywhere.
"""

import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from gateways.front import addresses
from gateways.settings import PREFIX, UpSettings

HOST: Final = "127.0.0.1"
_PRIVATE_FROM: Final = 20_000
_TRIES_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Public:
    """A port that people or their programs are told."""

    setting: str
    purpose: str
    port: int
    hosts: Sequence[str]

    @property
    def variable(self) -> str:
        return f"{PREFIX}{self.setting.upper()}"


def public(settings: UpSettings) -> Sequence[Public]:
    """Those in use; a port of 0 is not (https) or is picked free (the engines)."""
    outside = addresses(settings.front_host)
    every = (
        Public("http_port", "web pages, API and players", settings.http_port, outside),
        Public("https_port", "the same over TLS", settings.https_port, outside),
        Public("rtmp_port", "broadcasts from OBS", settings.rtmp_port, outside),
        Public("postgres_port", "the embedded Postgres", settings.postgres_port, [HOST]),
        Public("broker_port", "the embedded broker", settings.broker_port, [HOST]),
    )
    return [one for one in every if one.port]


def taken(ports: Sequence[Public]) -> list[str]:
    """A sentence for each that cannot be had."""
    found = []
    for one in ports:
        reason = next((reason for host in one.hosts if (reason := _refused(host, one.port))), None)
        if reason is not None:
            holder = _holder(one.port)
            by = f" by {holder}" if holder else ""
            found.append(f"Port {one.port} ({one.purpose}) is {reason}{by}. Free it, or set {one.variable} to another.")
    same = {one.port: one for one in ports}
    found.extend(
        f"{one.variable} and {same[one.port].variable} are both {one.port}. Set one of them to another."
        for one in ports
        if same[one.port] is not one
    )
    return found


def private(count: int) -> Iterator[int]:
    """Ports below the range the kernel hands to outgoing connections, so that a role that is restarted finds its own still free."""
    first_ephemeral = 32_768
    with suppress(OSError):
        first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    span = (
        range(_PRIVATE_FROM, first_ephemeral)
        if first_ephemeral > _PRIVATE_FROM + 1000
        else range(_PRIVATE_FROM, 65_000)
    )
    for port in random.sample(span, _TRIES_MAX):
        if count == 0:
            return
        if _refused(HOST, port) is None:
            count -= 1
            yield port


def _refused(host: str, port: int) -> str | None:
    """Why we could not listen there; None when we could."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
            # Two may bind a port with SO_REUSEADDR; only one may listen.
            probe.listen(1)
    except PermissionError:
        return "not for a normal user"
    except OSError as error:
        return "taken" if error.errno == 98 else f"out of reach ({error.strerror or error})"
    return None


def _holder(port: int) -> str | None:
    """Who listens there, as far as we may see."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return None
