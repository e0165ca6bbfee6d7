"""What varnishd is given: its command line, and the nodes as VCL. `cache.vcl` beside this is the policy; this only names backends."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gateways.engines.process import EngineFailed, dying_with_parent
from media.playback import EDGE, TOKEN, Signer

POLICY: Final = Path(__file__).with_name("cache.vcl")
HELD_S_MAX: Final = 30
"""The origin holds a request for at most 25 s."""
CONNECT_S_MAX: Final = 1
IDLE_S: Final = 60
"""Longer than Caddy keeps a connection, so that no request meets a closing one."""
PROBE_PATH: Final = "/live/"
"""What every origin answers at once, with 404: nothing lives there."""
_NODE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]{1,253}")


class NodesInvalid(Exception):
    """The list of media nodes is none; the message says why."""


def read_nodes(text: str) -> dict[str, tuple[str, int]]:
    """`media-1=host:port,media-2=host:port` by name. Raises `NodesInvalid`."""
    found: dict[str, tuple[str, int]] = {}
    for entry in filter(None, (each.strip() for each in text.split(","))):
        name, _, address = entry.partition("=")
        try:
            parts = urlsplit(f"//{address}")
            host, port = (parts.hostname, parts.port) if not parts.path else (None, None)
        except ValueError:
            host, port = None, None
        if not _NODE.fullmatch(name) or name in found or not host or not _HOST.fullmatch(host) or not port:
            raise NodesInvalid(f"{entry!r}: a node is name=host:port, each name once")
        found[name] = (host, port)
    if not found:
        raise NodesInvalid("there is no media node: name=host:port,name=host:port")
    return found


def nodes_vcl(nodes: Mapping[str, tuple[str, int]]) -> str:
    """Backends, and the four subroutines by which `cache.vcl` chooses between them."""
    names = list(nodes)
    probe = (
        f'probe alive {{ .url = "{PROBE_PATH}"; .expected_response = 404; .interval = 1s; .timeout = 3s; '
        # Slow is not gone: only a node that answers hardly any of ten is passed over.
        ".window = 10; .threshold = 2; .initial = 2; }"
    )
    backends = [
        f'backend node_{index} {{ .host = "{host}"; .port = "{port}"; .probe = alive; .connect_timeout = {CONNECT_S_MAX}s; '
        f".first_byte_timeout = {HELD_S_MAX}s; .between_bytes_timeout = 10s; .max_connections = 4096; }}"
        for index, (host, port) in enumerate(nodes.values())
    ]
    chosen = [f"set req.backend_hint = node_{index};" for index in range(len(names))]
    trying = [f'if (req.http.Tallylight-Try == "{index}") {{ {it} }}' for index, it in enumerate(chosen)]
    following = [
        f'if (req.http.Tallylight-Try == "{index}") {{ set req.http.Tallylight-Try = "{index + 1}"; '
        'set req.http.Tallylight-Next = "1"; return; }'
        for index in range(len(names) - 1)
    ]
    # A broadcast's address: node, start of the process in hex, broadcast.
    owning = [
        f'if (req.url ~ "^/live/[^/]+/{re.escape(name)}-[0-9a-f]+-[^/]+/") {{ {it} return; }}'
        for name, it in zip(names, chosen, strict=True)
    ]
    lines = [
        "# Written by gateways.edge.vcl from TALLYLIGHT_NODES.",
        "import directors;",
        probe,
        *backends,
        "sub vcl_init { new all = directors.round_robin();",
        *(f"    all.add_backend(node_{index});" for index in range(len(names))),
        "}",
        "sub try_node { set req.http.Tallylight-Node = req.http.Tallylight-Try;",
        *trying,
        "}",
        "sub next_node {",
        *following,
        "}",
        "sub any_node { unset req.http.Tallylight-Node; set req.backend_hint = all.backend(); }",
        "sub node_of_address { unset req.http.Tallylight-Node;",
        *owning,
        "    # Nobody's, or of a node that is no more: whichever answers says so.",
        "    set req.backend_hint = all.backend();",
        "}",
    ]
    return "\n".join(lines) + "\n"


def tokens_vcl(signer: Signer) -> str:
    """The two subroutines that have the key: `read_token`, which is `media.playback.Signer.channel_of`, and `prove`."""
    token = "req.http.Tallylight-Token"  # noqa: S105 - where it stands
    # Held against each other under another key: how far two signatures agree cannot be told from how long that takes.
    compared = [
        f'digest.hmac_sha256("compare:{signer.key}", {signature})'
        for signature in (
            f'"0x" + regsub({token}, "^.*\\.", "")',
            f'digest.hmac_sha256("{signer.key}", regsub({token}, "\\.[^.]*$", ""))',
        )
    ]
    until = f'regsub({token}, "^[^.]*\\.([0-9]*)\\..*$", "\\1")'
    lines = [
        "# Written by gateways.edge.vcl from TALLYLIGHT_PLAYBACK_SECRET.",
        "import digest;",
        "sub read_token {",
        f'    if ({token} ~ "^{TOKEN}$"',
        f"        && {compared[0]}",
        f"            == {compared[1]}",
        f"        && std.integer({until}, 0) > std.time2integer(now, 0)) {{",
        f'        set req.http.Tallylight-Opens = regsub({token}, "\\..*$", "");',
        "    }",
        "}",
        f'sub prove {{ set bereq.http.{EDGE} = "{signer.edge}"; }}',
    ]
    return "\n".join(lines) + "\n"


def prepare(nodes: Mapping[str, tuple[str, int]], folder: Path, signer: Signer) -> Path:
    """Write the configuration below `folder`; where it begins."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "nodes.vcl").write_text(nodes_vcl(nodes))
    with open(os.open(folder / "tokens.vcl", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(tokens_vcl(signer))
    path = folder / "cache.vcl"
    path.write_text(POLICY.read_text())
    return path


def command(config: Path, *, host: str, port: int, storage_mib: int, nodes: int) -> list[str]:
    """varnishd in the foreground, working in the configuration's folder; it dies with the thread that spawned it. Raises `EngineFailed`."""
    parameters = {
        "vcl_path": config.parent,
        "timeout_idle": IDLE_S,
        "max_restarts": nodes + 2,  # each asked once, and the best of them again
        # Held requests wait without a thread; those that fetch for them have one each.
        "thread_pool_min": 50,
        "default_ttl": 0,
        "http_max_hdr": 64,
    }
    return [
        *dying_with_parent("TERM"),
        tool("varnishd"),
        "-F",
        *("-n", str(working(config))),
        *("-j", "none"),
        *("-a", f"{host}:{port},HTTP"),
        *("-f", str(config)),
        *("-s", f"malloc,{storage_mib}m"),
        *("-T", "none"),
        *(word for name, value in parameters.items() for word in ("-p", f"{name}={value}")),
    ]


def working(config: Path) -> Path:
    """varnishd's own folder, by which its tools find it."""
    return config.parent / "varnishd"


def tool(name: str) -> str:
    """Raises `EngineFailed` where Varnish is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise EngineFailed(f"There is no {name}: the edge needs Varnish 7 (Debian: apt-get install varnish).")
    return found
