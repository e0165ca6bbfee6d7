"""Requests a second that one core of the origin answers, for playlists and for parts, against nginx serving the same bytes from files.

Each server has core 0 to itself and wrk the others: 64 connections, kept alive. The origin runs as the media role runs it, under uvicorn;
its broadcast stands still, as it does between two parts.
"""

import argparse
import multiprocessing
import os
import re
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

import httpx

from bench.common import machine, report, say
from bench.nginx import nginx
from bench.stack import free_ports

CONNECTIONS: Final = 64
PARTS: Final = 60


def serve(port: int, ready: Any) -> None:
    """A broadcast of some segments behind uvicorn, on core 0."""
    import uvicorn
    from starlette.applications import Starlette

    from gateways.serving import bound
    from media.hls.live import LiveRegistry
    from media.origin import Origin
    from tests.media.stage import START, Encoder

    os.sched_setaffinity(0, {0})
    registry = LiveRegistry(epoch="n-1", clock=lambda: 0.0)
    broadcast = registry.open(channel="ann", channel_id="c1", broadcast_id="b1", started_at=START)
    encoder = Encoder(broadcast)
    encoder.until(8, 3)
    ready.put(encoder.path)
    with bound("127.0.0.1", port) as listening:
        config = uvicorn.Config(
            Starlette(routes=Origin(registry).routes()), access_log=False, log_level="warning", lifespan="off",
            timeout_keep_alive=30, loop="asyncio", server_header=False,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listening])


def load(url: str, seconds: float) -> tuple[float, float]:
    """Requests a second, and the 99th percentile in ms."""
    others = ",".join(str(core) for core in range(1, os.cpu_count() or 2)) or "0"
    done = subprocess.run(
        ["taskset", "-c", others, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "--latency",
         "-H", "Accept-Encoding: gzip", url],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    if "Non-2xx" in done:
        raise RuntimeError(done)
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", done)[0])
    tail, unit = re.findall(r"99%\s+([\d.]+)(us|ms|s)", done)[0]
    return rate, float(tail) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def run(seconds: float, rounds: int) -> None:
    on = machine()
    port, peer_port = free_ports(2)
    ready: Any = multiprocessing.get_context("spawn").Queue()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(port, ready), daemon=True)
    process.start()
    path = ready.get()
    detail: dict[str, Any] = {
        "connections": CONNECTIONS,
        "seconds": seconds,
        "limits": "one core a server; the client has the other",
    }
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="tallylight-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        served = {"playlist": "index.m3u8", "part": f"part-{PARTS}.m4s"}
        sizes = {}
        for kind, file in served.items():
            answer = httpx.get(f"http://127.0.0.1:{port}{path}/{file}", headers={"Accept-Encoding": "identity"})
            answer.raise_for_status()
            (folder / file).write_bytes(answer.content)
            sizes[kind] = len(answer.content)
        http = f"gzip_static off; server {{ listen 127.0.0.1:{peer_port}; root {folder}; }}"
        with nginx(folder / "nginx", port=peer_port, http=http, core=0):
            for kind, file in served.items():
                for _ in range(rounds):
                    for who, url in (
                        ("ours", f"http://127.0.0.1:{port}{path}/{file}"),
                        ("peer", f"http://127.0.0.1:{peer_port}/{file}"),
                    ):
                        rate, tail = load(url, seconds)
                        of = found.setdefault(kind, {})
                        of.setdefault(who, []).append(rate)
                        of.setdefault(f"{who}_p99_ms", []).append(tail)
                        say(f"{kind} {who}: {rate:.0f}/s, p99 {tail:.1f} ms")
    process.terminate()
    for kind, of in found.items():
        detail[kind] = {"bytes": sizes[kind]} | {who: [round(it, 1) for it in values] for who, values in of.items()}
    mine, theirs = (statistics.median(found["playlist"][who]) for who in ("ours", "peer"))
    report(
        "origin", figure=mine, unit="playlists a second on one core", peer="nginx serving the same files", peer_figure=theirs,
        ratio=mine / theirs, detail=detail, on=on,
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    run(options.seconds, options.rounds)
