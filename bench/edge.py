"""A thousand players on one edge and on two: how late the last of those who wait for an object has it, and how often the origin is asked.

Real Varnish with our policy before a real origin. A player asks for the master playlist, its media playlist and its initialisation segment,
and then, on two connections, for the reload that blocks and for the part that is hinted at, both held, again and again. Whoever asked
before the origin had the object waited for it. The hit ratio is Varnish's own: `varnishstat` over all that players ask. A crowd's broadcast
is stretched in time (a part every `--pace` seconds), so that a thousand players fit on this machine beside what they measure: how often an
object is fetched does not depend on the pace. The 50 are given parts as fast as they take them, and a smaller crowd parts at real pace.
The peer is nginx with `proxy_cache_lock`, the usual edge.
"""

import argparse
import asyncio
import itertools
import os
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.common import machine, percentile, report, say
from bench.nginx import nginx
from bench.stack import free_ports
from bench.varnish import Counters, varnish
from gateways.edge import vcl
from media.sample import Sample
from tests.media.hls.given import frames
from tests.media.stage import PARTS_A_SEGMENT, Encoder, Stage, staged

FRAME_BYTES: Final = 5_000
"""1.2 Mb/s at 30 frames/s."""
WAITERS: Final = 50

Ask = Callable[[], Counters]


@dataclass
class Waits:
    """How late the waiters of each object had it, in seconds after the origin did. Numbers without waiters are not in it."""

    last: list[float] = field(default_factory=list)
    waiters: int = 0

    def told(self) -> dict[str, Any]:
        return {
            "objects": len(self.last),
            "waiters": self.waiters,
            "last_waiter_median_ms": round(statistics.median(self.last) * 1000, 1),
            "last_waiter_p95_ms": round(percentile(self.last, 0.95) * 1000, 1),
        }


@dataclass
class Crowd:
    """What players asked, when, and got. Times are the loop's."""

    asked: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """Of each held object: when a player asked, and when it had the answer."""
    made: dict[str, float] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    requests: int = 0
    addresses: set[str] = field(default_factory=set)

    def waits(self, kind: str) -> Waits:
        found = Waits()
        for name, asked in self.asked.items():
            made = self.made.get(name)
            if made is None or not name.startswith(kind):
                continue
            waited = [had for at, had in asked if at < made]
            if waited:
                found.last.append(max(waited) - made)
                found.waiters += len(waited)
        return found


class Connection:
    """Asks for one thing after the other. As little work as HTTP/1.1 allows: there are thousands."""

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


class Player:
    """One viewer: two connections, as a player's reload and part are under way at once."""

    def __init__(self, port: int, encoder: Encoder, crowd: Crowd) -> None:
        self._reloads, self._parts = Connection(port), Connection(port)
        self._encoder = encoder
        self._crowd = crowd

    async def join(self) -> None:
        await self._reloads.connect()
        await self._parts.connect()
        path = self._encoder.path
        for asked in (
            f"/live/{self._encoder.broadcast.channel}/index.m3u8",
            f"{path}/index.m3u8",
            f"{path}/init-0.mp4",
        ):
            await self._get(self._reloads, asked)

    async def watch(self, parts: int) -> None:
        (number, part), sequence = self._encoder.live.window.next, self._encoder.live.window.next_sequence
        path = self._encoder.path
        for ahead in range(parts):
            segment, index = number + (part + ahead) // PARTS_A_SEGMENT, (part + ahead) % PARTS_A_SEGMENT
            await asyncio.gather(
                self._held(
                    f"reload {sequence + ahead}",
                    self._reloads,
                    f"{path}/index.m3u8?_HLS_msn={segment}&_HLS_part={index}",
                ),
                self._held(f"part {sequence + ahead}", self._parts, f"{path}/part-{sequence + ahead}.m4s"),
            )

    async def _held(self, name: str, connection: Connection, path: str) -> None:
        loop = asyncio.get_running_loop()
        at = loop.time()
        await self._get(connection, path)
        self._crowd.asked[name].append((at, loop.time()))

    async def _get(self, connection: Connection, path: str) -> None:
        self._crowd.requests += 1
        self._crowd.addresses.add(path)
        self._crowd.statuses[await connection.get(path)] += 1

    def leave(self) -> None:
        self._reloads.close()
        self._parts.close()


@contextmanager
def ours(origin: int, folder: Path) -> Iterator[tuple[int, Ask | None]]:
    (port,) = free_ports(1)
    with varnish({"media-1": ("127.0.0.1", origin)}, folder, port=port) as counters:
        yield port, counters


@contextmanager
def peer(origin: int, folder: Path) -> Iterator[tuple[int, Ask | None]]:
    (port,) = free_ports(1)
    http = f"""
      proxy_cache_path {folder}/cache keys_zone=media:10m; proxy_http_version 1.1; proxy_set_header Connection "";
      upstream origin {{ server 127.0.0.1:{origin}; keepalive 64; }}
      server {{ listen 127.0.0.1:{port} backlog=4096; location / {{
        proxy_pass http://origin; proxy_cache media; proxy_cache_lock on; proxy_cache_lock_timeout 30s; proxy_cache_lock_age 30s; }} }}"""
    with nginx(folder / "nginx", port=port, http=http):
        yield port, None


async def watched(
    stage: Stage, encoder: Encoder, ports: list[int], players: int, parts: int, pace_s: float | None
) -> Crowd:
    """`pace_s` seconds from part to part; None: as long as the part lasts."""
    crowd = Crowd()
    everybody = [Player(ports[number % len(ports)], encoder, crowd) for number in range(players)]
    for first in range(0, players, 100):
        await asyncio.gather(*(player.join() for player in everybody[first : first + 100]))
    watching = [asyncio.create_task(player.watch(parts)) for player in everybody]
    await stage.held(2 * len(ports))
    loop = asyncio.get_running_loop()
    due = loop.time() + (pace_s or 1.0)  # everybody is waiting
    for _ in range(parts):
        await asyncio.sleep(due - loop.time())
        sequence, lasts_s = _next(encoder)
        due += pace_s or lasts_s
        crowd.made[f"reload {sequence}"] = crowd.made[f"part {sequence}"] = loop.time()
    await asyncio.gather(*watching)
    for player in everybody:
        player.leave()
    return crowd


def _next(encoder: Encoder) -> tuple[int, float]:
    """The next part is made: its number, and how long it lasts."""
    window = encoder.live.window
    (number, part), sequence = window.next, window.next_sequence
    encoder.until(*((number, part + 1) if part < PARTS_A_SEGMENT - 1 else (number + 1, 0)))
    segment = window.segment(number) or window.open
    assert segment is not None
    return sequence, segment.parts[part].duration_s


def told(crowd: Crowd, before: list[Counters], after: list[Counters], origin_requests: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "requests": crowd.requests,
        "objects": len(crowd.addresses),
        "origin_requests": origin_requests,
        "origin_requests_an_object": round(origin_requests / len(crowd.addresses), 3),
        "failed": crowd.requests - crowd.statuses[200],
        "held_parts": crowd.waits("part").told(),
        "held_reloads": crowd.waits("reload").told(),
    }
    if before:
        seen = {name: sum(b[name] - a[name] for a, b in zip(before, after, strict=True)) for name in before[0]}
        # Who waited for another's fetch is a hit in Varnish's count. (`client_req` counts whoever waited twice.)
        looked_up = seen["cache_hit"] + seen["cache_miss"] + seen["s_pass"]
        found |= {"varnish": seen, "hit_ratio": round(seen["cache_hit"] / looked_up, 5)}
    else:
        found["hit_ratio"] = round(1 - origin_requests / crowd.requests, 5)
    return found


async def settled(ask: Ask) -> Counters:
    """Varnish's threads sum up what they counted when they are through with their connections."""
    seen = ask()
    while True:
        await asyncio.sleep(1)
        before, seen = seen, ask()
        if seen == before:
            return seen


def _samples() -> Iterator[Sample]:
    data = os.urandom(FRAME_BYTES)
    for group in itertools.count():
        for sample in frames(60, start=group * 60 * 3000):
            yield Sample(sample.kind, sample.dts, sample.cts, sample.duration, sample.key, data)


async def run(players: int, parts: int, pace: float, real_pace_players: int) -> None:
    on = machine()
    rounds: dict[str, tuple[int, int, int, float | None]] = {
        # name: players, edges, parts, seconds from part to part
        f"{players}": (players, 1, parts, pace),
        f"{players}_two_edges": (players, 2, parts, pace),
        f"{WAITERS}": (WAITERS, 1, 3 * parts, 0.2),
        f"{real_pace_players}_real_pace": (real_pace_players, 1, 3 * parts, None),
    }
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="tallylight-bench-", dir="/var/tmp") as name:
        for who, edge in (("ours", ours), ("peer", peer)):
            found[who] = {}
            for what, (crowd, edges, count, pace_s) in rounds.items():
                async with staged(epoch="media-1-a1") as stage:
                    encoder = Encoder(stage.open(), samples=_samples())
                    encoder.until(2, 0)
                    origin = int(stage.url.rpartition(":")[2])
                    with ExitStack() as opened:
                        places = [
                            opened.enter_context(edge(origin, Path(name) / f"{who}-{what}-{number}"))
                            for number in range(edges)
                        ]
                        counters = [ask for _, ask in places if ask is not None]
                        before, asked = [ask() for ask in counters], _asked(stage)
                        seen = await watched(stage, encoder, [port for port, _ in places], crowd, count, pace_s)
                        after = [await settled(ask) for ask in counters]
                        found[who][what] = told(seen, before, after, _asked(stage) - asked)
                say(f"{who}, {what}: {found[who][what]}")
    mine, theirs = (found[who][f"{WAITERS}"]["held_parts"]["last_waiter_p95_ms"] for who in ("ours", "peer"))
    crowd_seen = found["ours"][f"{players}"]
    report(
        "edge", figure=mine, unit=f"ms until the last of {WAITERS} has a held part, p95", peer="nginx with proxy_cache_lock",
        peer_figure=theirs, ratio=theirs / mine,
        detail={
            "held_part_p95_ms": mine,
            "held_reload_p95_ms": found["ours"][f"{WAITERS}"]["held_reloads"]["last_waiter_p95_ms"],
            "hit_ratio": crowd_seen["hit_ratio"],
            "hit_ratio_bound": round(1 - crowd_seen["objects"] / crowd_seen["requests"], 5),
        }
        | found
        | {"limits": "players, edge and origin share this machine's cores; all players are one Python process; no TLS before the edge"},
        on=on,
    )  # fmt: skip


def _asked(stage: Stage) -> int:
    return sum(count for path, count in stage.asked.items() if path != vcl.PROBE_PATH)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--players", type=int, default=1000)
    parser.add_argument("--parts", type=int, default=20)
    parser.add_argument("--pace", type=float, default=2.0, help="seconds from part to part for the crowd")
    parser.add_argument("--real-pace-players", type=int, default=100)
    asyncio.run(run(**vars(parser.parse_args())))
