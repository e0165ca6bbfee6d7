"""A thousand players on one edge: how often the origin is asked, and how late the last of those who wait for a part is served.

Real Varnish with our policy before a real origin. Every player holds a blocking reload and then the part it hinted at, again and again; the
broadcast is stretched in time (a part every `--pace` seconds), so that a thousand players fit on this machine beside what they measure:
how often an object is fetched does not depend on the pace. The peer is nginx with `proxy_cache_lock`, the usual edge. Then, with 50 players
and parts as fast as they come, the wait of the last one.
"""

import argparse
import asyncio
import shutil
import statistics
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.common import machine, percentile, report, say
from bench.nginx import nginx
from bench.stack import free_ports
from gateways.edge import vcl
from gateways.engines.process import listening
from media.playback import Signer
from tests.media.stage import Encoder, Stage, staged

READ_BYTES: Final = 64 * 1024


@dataclass
class Played:
    """`late_s`: for each part, when the last player had it after the origin had."""

    late_s: list[float] = field(default_factory=list)
    asked: int = 0
    objects: int = 0
    origin: int = 0
    failed: int = 0

    def told(self) -> dict[str, Any]:
        return {
            "requests": self.asked,
            "origin_requests": self.origin,
            "hit_ratio": round(1 - self.origin / self.asked, 5),
            "origin_requests_an_object": round(self.origin / self.objects, 3),
            "last_waiter_median_ms": round(statistics.median(self.late_s) * 1000, 1),
            "last_waiter_p95_ms": round(percentile(self.late_s, 0.95) * 1000, 1),
            "failed": self.failed,
        }


class Player:
    """A connection that asks for one thing after the other. As little work as HTTP/1.1 allows: there are a thousand."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def get(self, path: str) -> int:
        """Its status, once the whole answer is there."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: edge\r\nAccept-Encoding: gzip\r\n\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        lowered = head.lower()
        at = lowered.find(b"content-length:")
        if at >= 0:
            await self._reader.readexactly(int(lowered[at + 15 : lowered.index(b"\r", at)]))
        elif b"chunked" in lowered:
            while size := int((await self._reader.readline()).split(b";")[0], 16):
                await self._reader.readexactly(size + 2)
            await self._reader.readline()
        return int(head[9:12])

    def close(self) -> None:
        self._writer.close()


@contextmanager
def ours(origin: int, folder: Path) -> Iterator[int]:
    (port,) = free_ports(1)
    nodes = {"media-1": ("127.0.0.1", origin)}
    config = vcl.prepare(nodes, folder / "varnish", Signer("bench"))
    process = subprocess.Popen(
        vcl.command(config, host="127.0.0.1", port=port, storage_mib=256, nodes=1),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not listening("127.0.0.1", port):
            if process.poll() is not None:
                raise RuntimeError("varnishd did not start")
        yield port
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder / "varnish", ignore_errors=True)


@contextmanager
def peer(origin: int, folder: Path) -> Iterator[int]:
    (port,) = free_ports(1)
    http = f"""
      proxy_cache_path {folder}/cache keys_zone=media:10m; proxy_http_version 1.1; proxy_set_header Connection "";
      upstream origin {{ server 127.0.0.1:{origin}; keepalive 64; }}
      server {{ listen 127.0.0.1:{port} backlog=4096; location / {{
        proxy_pass http://origin; proxy_cache media; proxy_cache_lock on; proxy_cache_lock_timeout 30s; proxy_cache_lock_age 30s; }} }}"""
    with nginx(folder / "nginx", port=port, http=http):
        yield port


async def play(stage: Stage, encoder: Encoder, port: int, players: int, parts: int, pace_s: float) -> Played:
    loop = asyncio.get_running_loop()
    found = Played()
    crowd = [Player(port) for _ in range(players)]
    for first in range(0, players, 100):
        await asyncio.gather(*(player.connect() for player in crowd[first : first + 100]))
    statuses: Counter[int] = Counter()
    before = _media(stage)
    for _ in range(parts):
        number, part = encoder.live.window.next
        reload = f"{encoder.path}/index.m3u8?_HLS_msn={number}&_HLS_part={part}"
        media = f"{encoder.path}/part-{encoder.live.window.next_sequence}.m4s"
        holding = [asyncio.create_task(player.get(reload)) for player in crowd]
        await stage.held(1)
        await asyncio.sleep(pace_s)  # everybody is waiting
        encoder.until(*((number, part + 1) if part < 8 else (number + 1, 0)))
        made = loop.time()
        statuses.update(await asyncio.gather(*holding))
        found.late_s.append(loop.time() - made)
        statuses.update(await asyncio.gather(*(player.get(media) for player in crowd)))
        found.asked += 2 * players
        found.objects += 2
    found.origin = _media(stage) - before
    found.failed = sum(count for status, count in statuses.items() if status != 200)
    for player in crowd:
        player.close()
    return found


def _media(stage: Stage) -> int:
    return sum(count for path, count in stage.asked.items() if path != vcl.PROBE_PATH)


async def run(players: int, parts: int, pace: float) -> None:
    on = machine()
    told: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="tallylight-bench-", dir="/var/tmp") as name:
        for who, edge in (("ours", ours), ("peer", peer)):
            told[who] = {}
            for crowd, rounds in ((players, parts), (50, 3 * parts)):
                async with staged(epoch="media-1-a1") as stage:
                    encoder = Encoder(stage.open())
                    encoder.until(2, 0)
                    with edge(int(stage.url.rpartition(":")[2]), Path(name) / f"{who}-{crowd}") as port:
                        seen = await play(stage, encoder, port, crowd, rounds, pace if crowd > 50 else 0.2)
                told[who][str(crowd)] = seen.told()
                say(f"{who}, {crowd} players: {seen.told()}")
    mine, theirs = (told[who]["50"]["last_waiter_p95_ms"] for who in ("ours", "peer"))
    report(
        "edge", figure=mine, unit="ms until the last of 50 has a held answer, p95", peer="nginx with proxy_cache_lock",
        peer_figure=theirs, ratio=theirs / mine,
        detail=told | {"limits": "players, edge and origin share this machine's cores; a thousand players are one Python process"}, on=on,
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--players", type=int, default=1000)
    parser.add_argument("--parts", type=int, default=20)
    parser.add_argument("--pace", type=float, default=1.5)
    asyncio.run(run(**vars(parser.parse_args())))
