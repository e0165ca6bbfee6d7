"""Where the time goes between the lens and the screen, stage by stage: what `glass_to_glass` says in one figure.

A clock is in the picture (`bench.clock`), the media plane notes when a frame passes it (`bench.stamped`), and hinted parts are held as
players hold them, at the origin and through the edge (Varnish, then the front's TLS) at once. Each segment's pictures are then decoded
and read, which tells when they were drawn. Last, the product's own player shows the broadcast in Chromium: how old its picture is, and how
much it keeps buffered ahead of it. All clocks are this machine's one.
"""

import argparse
import asyncio
import bisect
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import m3u8
import numpy as np

from bench.clock import BAND, BLOCKS, CHECK_BITS, READ_JS, ClockSource
from bench.common import machine, percentile, report, say
from bench.stack import free_ports
from bench.stamped import CHANNEL, NODE, SECRET, Served, Stamps, stamped
from bench.varnish import varnish
from bench.watching import SETTLE_S, WEB, Side, chromium, joined
from gateways import front
from gateways.engines.process import listening
from gateways.settings import FrontSettings
from media import ffmpeg
from media.fmp4.reader import Fmp4Reader
from media.pipeline import SOURCE
from media.sample import VIDEO_TIMESCALE, Sample

WIDTH, HEIGHT = 640, 360
ON_AIR_S: Final = 8.0
SAMPLE_S: Final = 0.2
HALF_A_FRAME: Final = VIDEO_TIMESCALE // 60
_PAGE: Final = f"""<!doctype html><link rel="modulepreload" data-hls href="./hls.mjs"><video muted playsinline width=640></video>
<script type="module">
import {{ Player }} from './player.js';
new Player(document.querySelector('video'), {{ live: true }}).start('/live/{CHANNEL}/index.m3u8');
</script>"""
_LOOK: Final = f"""() => {{
  const video = document.querySelector('video');
  const {{ buffered, currentTime }} = video;
  const shown = ({READ_JS})(video);
  const ahead = buffered.length ? buffered.end(buffered.length - 1) - currentTime : 0;
  return shown === null ? null : [(Date.now() - shown) / 1000, ahead];
}}"""

Stages = dict[str, list[float]]
"""Seconds, one value a part, by what took them."""


@dataclass(frozen=True, slots=True)
class Part:
    """`answered` and `through_edge`: when a client who had waited for it had all of it, in Unix seconds."""

    sequence: int
    answered: float
    through_edge: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Line:
    """A rendition's parts, from the first of a segment on."""

    name: str
    init: bytes
    parts: list[Part]


def clocks(media: bytes) -> list[float]:
    """The time each picture shows, in Unix seconds."""
    done = subprocess.run(
        [str(ffmpeg.binary()), "-loglevel", "error", "-f", "mp4", "-i", "pipe:0", "-fps_mode", "passthrough",
         "-vf", f"scale={WIDTH}:{HEIGHT}:flags=neighbor", "-pix_fmt", "gray", "-f", "rawvideo", "pipe:1"],
        input=media, capture_output=True, check=True,
    ).stdout  # fmt: skip
    pictures = np.frombuffer(done, dtype=np.uint8).reshape(-1, HEIGHT, WIDTH)
    middles = ((np.arange(BLOCKS) + 0.5) * WIDTH / BLOCKS).astype(int)
    found = []
    for row in pictures[:, int(HEIGHT * BAND / 2), middles]:
        word = int("".join("1" if value > 128 else "0" for value in row), 2)
        found.append((word >> CHECK_BITS) / 1000)
    return found


async def held(near: httpx.AsyncClient, far: httpx.AsyncClient, playlist: str, seconds: float) -> Line:
    """Parts, each asked for before it is made, of the origin (`near`) and of the edge (`far`)."""
    base = playlist.rpartition("/")[0]
    first = m3u8.loads((await near.get(playlist)).raise_for_status().text)
    init = (await near.get(f"{base}/{first.segment_map[-1].uri}")).content
    number = int(first.preload_hint.uri.removeprefix("part-").removesuffix(".m4s"))
    parts: list[Part] = []

    async def got(client: httpx.AsyncClient) -> tuple[float, bytes]:
        answer = (await client.get(f"{base}/part-{number}.m4s")).raise_for_status()
        return time.time(), answer.content

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        (answered, data), (through_edge, _) = await asyncio.gather(got(near), got(far))
        pictures = _pictures(init, data)
        if parts or (pictures and pictures[0].key):
            parts.append(Part(number, answered, through_edge, data))
        number += 1
    return Line(base.rpartition("/")[2], init, parts)


def _pictures(init: bytes, data: bytes) -> list[Sample]:
    return [it for it in Fmp4Reader().receive(init + data) if isinstance(it, Sample) and it.kind == "video"]


def stages(line: Line, stamps: Stamps) -> Stages:
    """What each of a line's parts took."""
    found: Stages = defaultdict(list)
    pictures = [_pictures(line.init, part.data) for part in line.parts]
    drawn = iter(clocks(line.init + b"".join(part.data for part in line.parts)))
    read, source, demuxed = (_Near(it) for it in (stamps.read, stamps.demuxed[SOURCE], stamps.demuxed[line.name]))
    made = stamps.made[line.name]
    for part, of_part in zip(line.parts, pictures, strict=True):
        shown = [at for _, at in zip(of_part, drawn, strict=False)]
        if not of_part or len(shown) < len(of_part) or part.sequence not in made:
            continue
        last = of_part[-1].dts
        was_read, came, pushed = read.at(last), source.at(last), demuxed.at(last)
        if was_read is None or came is None or pushed is None:
            continue
        found["encoder"].append(was_read - shown[-1])
        found["demuxer"].append(came - was_read)
        if line.name != SOURCE:
            found["transcoder"].append(pushed - came)
        found["packager"].append(made[part.sequence] - pushed)
        found["origin"].append(part.answered - made[part.sequence])
        found["edge"].append(part.through_edge - part.answered)
        found["newest_frame_at_the_player"].append(part.through_edge - shown[-1])
        found["oldest_frame_at_the_player"].append(part.through_edge - shown[0])
    return found


class _Near:
    """Stamps by decode time; parts tell a frame's to within the rounding of its predecessors' durations."""

    def __init__(self, stamps: dict[int, float]) -> None:
        self._times = sorted(stamps)
        self._stamps = stamps

    def at(self, dts: int) -> float | None:
        place = bisect.bisect(self._times, dts + HALF_A_FRAME) - 1
        if place < 0 or abs(self._times[place] - dts) > HALF_A_FRAME:
            return None
        return self._stamps[self._times[place]]


@contextmanager
def fronted(upstream: int, folder: Path) -> Iterator[str]:
    """The front's secure address; media come from `upstream`, and there is nothing else."""
    http, https = free_ports(2)
    place = f"127.0.0.1:{upstream}"
    settings = FrontSettings(
        data_dir=folder,
        http_port=http,
        https_port=https,
        api_upstream=place,
        chat_upstream=place,
        media_upstream=place,
    )
    process = subprocess.Popen(front.command(front.prepare(settings, folder)), env=front.environment(folder))
    try:
        while not listening("127.0.0.1", https):
            if process.poll() is not None:
                raise RuntimeError("the front did not start")
            time.sleep(0.02)
        yield f"https://localhost:{https}"
    finally:
        process.terminate()
        process.wait(20)


async def shown(origin: str, seconds: float) -> Stages:
    """The product's player, on a page with nothing else."""
    found: Stages = defaultdict(list)
    files = {name: WEB / "static" / name for name in ("player.js", "latency.js", "viewer.js")} | {
        "hls.mjs": WEB / "vendor" / "hls.mjs"
    }
    pages = {f"{origin}/bench/{name}": path.read_bytes() for name, path in files.items()}
    page_url = f"{origin}/bench/watch.html"
    side = Side(page_url, f"{origin}/live/{CHANNEL}/index.m3u8", pages | {page_url: _PAGE.encode()})
    async with chromium() as browser, joined(browser, side) as page:
        await asyncio.sleep(SETTLE_S)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            looked = await page.evaluate(_LOOK)
            if looked is not None:
                found["on_the_screen"].append(looked[0])
                found["buffered_ahead"].append(looked[1])
            await asyncio.sleep(SAMPLE_S)
    return found


def told(found: Stages) -> dict[str, Any]:
    return {
        name: {
            "median_ms": round(1000 * statistics.median(values), 1),
            "p95_ms": round(1000 * percentile(values, 0.95), 1),
        }
        for name, values in found.items()
    } | {"values": max(map(len, found.values()))}


async def measured(served: Served, secure_url: str, seconds: float) -> dict[str, Stages]:
    async with (
        httpx.AsyncClient(base_url=served.url, timeout=30) as near,
        httpx.AsyncClient(base_url=secure_url, timeout=30, verify=False) as far,
        ClockSource(served.publish_url),
    ):
        await asyncio.sleep(ON_AIR_S)
        master = m3u8.loads((await near.get(f"/live/{CHANNEL}/index.m3u8")).raise_for_status().text)
        with_pictures = [it for it in master.playlists if it.stream_info.resolution]
        ordered: Sequence[Any] = sorted(with_pictures, key=lambda it: -it.stream_info.resolution[1])
        lines = [await held(near, far, f"/live/{CHANNEL}/{it.uri}", seconds) for it in ordered[:2]]
        player = await shown(secure_url, seconds)
        stamps = await asyncio.to_thread(served.stamps)
    source, rung = (stages(line, stamps) for line in lines)
    return {"source": source, "rung": rung, "player": player}


async def run(seconds: float) -> None:
    on = machine()
    (edge,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="tallylight-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        with (
            stamped(folder / "archive") as served,
            varnish({NODE: ("127.0.0.1", served.port)}, folder / "edge", port=edge, secret=SECRET),
            fronted(edge, folder / "front") as secure_url,
        ):
            found = {what: told(it) for what, it in (await measured(served, secure_url, seconds)).items()}
    for what, it in found.items():
        say(f"{what}: {it}")
    screen, ahead = (found["player"][it]["median_ms"] for it in ("on_the_screen", "buffered_ahead"))
    newest = found["source"]["newest_frame_at_the_player"]["median_ms"]
    # What is newest in the buffer was the newest frame of a part, and has aged since.
    found["player"]["fetched_appended_decoded_drawn"] = {"median_ms": round(screen - ahead - newest, 1)}
    report(
        "stages", figure=screen / 1000, unit="s from the lens to the screen",
        peer="what lies before the player: the newest frame of a part, through the edge", peer_figure=newest / 1000,
        ratio=newest / screen, detail=found | {"limits": "encoder, media plane, edge and browser share this machine's cores"}, on=on,
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    asyncio.run(run(**vars(parser.parse_args())))
