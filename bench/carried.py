"""How many broadcasts without a ladder one core carries: more and more are published, until their media come late.

The server has core 0 to itself, encoders and everything else the others. Ours is the media role of the whole product, its parts are held
as players hold them; nginx-rtmp makes segments of the same streams, and its playlists are looked at on disk, which costs it nothing.
Late is what comes more than `LATE_S` after what came soonest, by the media's own clock. Used by `bench.media_overhead`.
"""

import asyncio
import os
import random
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx
import m3u8
import psutil

from bench.common import percentile, say
from bench.nginx import nginx
from bench.stack import Stack, free_ports
from media import ffmpeg
from media.fmp4.reader import Fmp4Reader
from media.sample import VIDEO_TIMESCALE, Sample

RAMP: Final = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 120, 140, 160, 180, 200, 250, 300, 350, 400, 450, 500)
KBPS: Final = 2_500
LATE_S: Final = 0.25
"""A part."""
SHARE_ON_TIME: Final = 0.95
PROBES: Final = 4
SETTLE_S: Final = 8.0
URLS_A_PROCESS: Final = 10
FULL: Final = 0.97
"""Cores that are so busy hold up whoever is on them."""
LOOK_S: Final = 0.02
CORE: Final = 0

Lags = Callable[[Sequence[int], float], Coroutine[Any, Any, list[float]]]


def encoded(folder: Path, kbps: int, size: str) -> Path:
    """Half a minute, as an encoder would send it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kbps}-{size}.flv"
    subprocess.run(
        [str(ffmpeg.binary()), "-loglevel", "error", "-f", "lavfi", "-i", f"testsrc2=size={size}:rate=30,noise=alls=20:allf=t",
         "-f", "lavfi", "-i", "sine=frequency=440", "-t", "30", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p",
         "-g", "60", "-b:v", f"{kbps}k", "-minrate", f"{kbps}k", "-maxrate", f"{kbps}k", "-bufsize", f"{kbps}k",
         "-c:a", "aac", "-f", "flv", str(path)],
        check=True,
    )  # fmt: skip
    return path


@contextmanager
def publishing(path: Path, urls: Sequence[str], *, cores: Sequence[int] = ()) -> Iterator[None]:
    """The file in real time, over and over, to each address. One FFmpeg for several, each behind a queue of its own."""
    pinned = ["taskset", "-c", ",".join(map(str, cores))] if cores else []
    outputs = (
        ["-f", "flv", urls[0]]
        if len(urls) == 1
        else ["-f", "tee", "-use_fifo", "1", "|".join(f"[f=flv]{url}" for url in urls)]
    )
    process = subprocess.Popen(
        [*pinned, str(ffmpeg.binary()), "-nostdin", "-loglevel", "error", "-re", "-stream_loop", "-1", "-i", str(path),
         "-map", "0", "-c", "copy", "-flags", "+global_header", *outputs]
    )  # fmt: skip
    try:
        yield
    finally:
        process.kill()
        process.wait()


def ours(folder: Path, steps: Sequence[int], seconds: float) -> dict[str, Any]:
    path = encoded(folder, KBPS, "1280x720")
    # Every account from an address of its own: how many one may open is limited. Encoders cannot be told apart so.
    settings: dict[str, object] = {
        "rung_height_max": 0,
        "broadcasts_max": steps[-1],
        "rtmp_connections_per_address_max": steps[-1] + 1,
        "trusted_proxies": "127.0.0.1/32,::1/128",
    }
    with Stack(folder / "stack", **settings) as stack:
        role = stack.role("media")
        for process in stack.processes():
            _pin(process, [CORE] if process.pid == role.pid else _others())

        def publish_to(number: int) -> str:
            return stack.open_channel(f"source{number}", peer=f"10.0.{number // 250}.{number % 250 + 1}").publish_url

        async def lags(numbers: Sequence[int], seconds: float) -> list[float]:
            async with httpx.AsyncClient(base_url=stack.url, timeout=30) as client:
                each = await asyncio.gather(*(_parts(client, f"source{number}", seconds) for number in numbers))
            return _relative(each)

        return _ramp("ours", path, steps, seconds, publish_to, lags, [role])


def nginx_rtmp(folder: Path, steps: Sequence[int], seconds: float) -> dict[str, Any]:
    path = encoded(folder, KBPS, "1280x720")
    (port,) = free_ports(1)
    hls = folder / "hls"
    hls.mkdir()
    live = f"server {{ listen 127.0.0.1:{port}; application live {{ live on; hls on; hls_path {hls}; hls_fragment 2s; }} }}"
    with nginx(folder / "nginx", port=port, rtmp=live, core=CORE) as process:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]

        async def lags(numbers: Sequence[int], seconds: float) -> list[float]:
            return _relative(await asyncio.gather(*(_segments(hls / f"s{number}.m3u8", seconds) for number in numbers)))

        return _ramp(
            "nginx-rtmp", path, steps, seconds, lambda number: f"rtmp://127.0.0.1:{port}/live/s{number}", lags, family
        )


def _ramp(
    who: str,
    path: Path,
    steps: Sequence[int],
    seconds: float,
    publish_to: Callable[[int], str],
    lags: Lags,
    served_by: list[psutil.Process],
) -> dict[str, Any]:
    """`served_by`: whose CPU is counted."""
    told: list[dict[str, Any]] = []
    carried, limit = 0, "the ramp's end"
    with ExitStack() as on_air, ThreadPoolExecutor(4) as pool:
        begun = 0
        for count in steps:
            urls = list(pool.map(publish_to, range(begun, count)))
            for first in range(0, len(urls), URLS_A_PROCESS):
                on_air.enter_context(publishing(path, urls[first : first + URLS_A_PROCESS], cores=_others()))
            begun = count
            time.sleep(SETTLE_S)
            before, idle_before, began = _cpu(served_by), _idle(), time.monotonic()
            found = asyncio.run(lags(random.sample(range(count), min(PROBES, count)), seconds))
            passed_s = time.monotonic() - began
            late_s = percentile(found, SHARE_ON_TIME) if found else passed_s
            core, busy = (_cpu(served_by) - before) / passed_s, 1 - (_idle() - idle_before) / passed_s / len(_others())
            told.append(
                {
                    "broadcasts": count,
                    "late_s": round(late_s, 3),
                    "core": round(core, 3),
                    "other_cores_busy": round(busy, 3),
                }
            )
            say(f"{who}: {told[-1]}")
            if late_s > LATE_S:
                limit = "the encoders' cores" if busy > FULL else "its core"
                break
            carried = count
    return {"carried": carried, "limited_by": limit, "steps": told}


async def _parts(client: httpx.AsyncClient, channel: str, seconds: float) -> list[float]:
    """When each part of the source came, less where it ends on the media's clock."""
    master = m3u8.loads((await client.get(f"/live/{channel}/index.m3u8")).raise_for_status().text)
    uri = next(it.uri for it in master.playlists if it.stream_info.resolution)
    base = f"/live/{channel}/{uri.rpartition('/')[0]}"
    first = m3u8.loads((await client.get(f"/live/{channel}/{uri}")).raise_for_status().text)
    init = (await client.get(f"{base}/{first.segment_map[-1].uri}")).content
    number = int(first.preload_hint.uri.removeprefix("part-").removesuffix(".m4s"))
    lags = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        answer = (await client.get(f"{base}/part-{number}.m4s")).raise_for_status()
        came = time.monotonic()
        pictures = [
            it for it in Fmp4Reader().receive(init + answer.content) if isinstance(it, Sample) and it.kind == "video"
        ]
        if pictures:
            lags.append(came - (pictures[-1].dts + pictures[-1].duration) / VIDEO_TIMESCALE)
        number += 1
    return lags


async def _segments(playlist: Path, seconds: float) -> list[float]:
    """The same of a playlist on disk: when each segment was in it, less the length of all before it."""
    lags: list[float] = []
    newest, length_s = -1, 0.0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        text = playlist.read_text() if playlist.exists() else ""
        found = m3u8.loads(text) if "#EXTINF" in text else None
        for number, segment in enumerate(found.segments, found.media_sequence) if found is not None else ():
            if number > newest:
                length_s += segment.duration
                if newest >= 0:  # those that were there already came some time before
                    lags.append(time.monotonic() - length_s)
        newest = max(newest, found.media_sequence + len(found.segments) - 1) if found is not None else newest
        await asyncio.sleep(LOOK_S)
    return lags


def _relative(each: Sequence[list[float]]) -> list[float]:
    """By how much each came later than the soonest of its broadcast."""
    return [lag - min(lags) for lags in each if lags for lag in lags]


def _others() -> list[int]:
    return list(range(1, os.cpu_count() or 1)) or [CORE]


def _pin(process: psutil.Process, cores: Sequence[int]) -> None:
    """All threads it has; those it starts later follow."""
    with suppress(psutil.Error, OSError):
        for thread in process.threads():
            os.sched_setaffinity(thread.id, cores)


def _cpu(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _idle() -> float:
    times = psutil.cpu_times(percpu=True)
    return sum(times[core].idle for core in _others())
