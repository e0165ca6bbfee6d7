"""Where the time goes between the lens and the player: how old a part's newest and oldest frames are when the origin first gives it out.

A clock is in the picture (bench.clock). Hinted parts are held as players hold them, of the source and of its largest rung; each segment's
pictures are then decoded and read. What is left up to `glass_to_glass` is the player's: its distance from the live edge, and the screen.
"""

import argparse
import asyncio
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import m3u8
import numpy as np

from bench.clock import BAND, BLOCKS, CHECK_BITS, ClockSource
from bench.common import machine, percentile, report, say
from bench.stack import Stack
from media import ffmpeg
from media.fmp4.reader import Fmp4Reader
from media.sample import Sample

WIDTH, HEIGHT = 640, 360
SETTLE_S: Final = 8.0


@dataclass
class Ages:
    """Seconds, one a part."""

    newest: list[float] = field(default_factory=list)
    oldest: list[float] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        return {
            name: {"median_s": round(statistics.median(values), 3), "p95_s": round(percentile(values, 0.95), 3)}
            for name, values in (("newest_frame", self.newest), ("oldest_frame", self.oldest))
        } | {"parts": len(self.newest)}


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


async def look(client: httpx.AsyncClient, playlist: str, seconds: float) -> Ages:
    ages = Ages()
    base = playlist.rpartition("/")[0]
    first = m3u8.loads((await client.get(playlist)).text)
    init = (await client.get(f"{base}/{first.segment_map[-1].uri}")).content
    number = int(first.preload_hint.uri.removeprefix("part-").removesuffix(".m4s"))
    parts: list[tuple[float, bytes]] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        answer = await client.get(f"{base}/part-{number}.m4s")
        answer.raise_for_status()
        arrived = time.time()
        samples = _video(init, answer.content)
        if samples and samples[0].key and parts:
            _read(init, parts, ages)
            parts = []
        if parts or (samples and samples[0].key):
            parts.append((arrived, answer.content))
        number += 1
    return ages


def _video(init: bytes, data: bytes) -> list[Sample]:
    return [it for it in Fmp4Reader().receive(init + data) if isinstance(it, Sample) and it.kind == "video"]


def _read(init: bytes, parts: list[tuple[float, bytes]], ages: Ages) -> None:
    shown = clocks(init + b"".join(data for _, data in parts))
    at = 0
    for arrived, data in parts:
        count = len(_video(init, data))
        if count and at + count <= len(shown):
            ages.oldest.append(arrived - shown[at])
            ages.newest.append(arrived - shown[at + count - 1])
        at += count


async def run(seconds: float) -> None:
    on = machine()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="tallylight-bench-", dir="/var/tmp") as folder:
        stack = Stack(Path(folder))
        await asyncio.to_thread(stack.start)
        try:
            channel = await asyncio.to_thread(stack.open_channel, "clock")
            async with ClockSource(channel.publish_url), httpx.AsyncClient(base_url=stack.url, timeout=30) as client:
                await asyncio.sleep(SETTLE_S)
                master = m3u8.loads((await client.get("/live/clock/index.m3u8")).text)
                pictures = [it for it in master.playlists if it.stream_info.resolution]
                ordered = sorted(pictures, key=lambda it: -it.stream_info.resolution[1])
                for name, one in zip(("source", "rung"), ordered, strict=False):
                    found[name] = (await look(client, f"/live/clock/{one.uri}", seconds)).told()
                    say(f"{name}: {found[name]}")
        finally:
            await asyncio.to_thread(stack.stop)
    source, rung = (found[name]["newest_frame"]["median_s"] for name in ("source", "rung"))
    report(
        "stages", figure=source, unit="s from the lens to the origin, newest frame of a part", peer="the same of a transcoded rung",
        peer_figure=rung, ratio=rung / source, detail=found | {"limits": "the encoder is on this machine too"}, on=on,
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    asyncio.run(run(**vars(parser.parse_args())))
