"""What the media plane costs besides FFmpeg: all CPU of our processes, over FFmpeg's alone for the same ladder; and broadcasts a core.

First one broadcast of 6 Mb/s with its ladder, in the whole product: CPU time of every process of ours but FFmpeg, less what the product
uses at rest, over the CPU time of its FFmpeg. Then several broadcasts without a ladder: CPU of the media role for each, against nginx-rtmp
making HLS of the same streams. Encoders only copy a file; their own CPU is in neither figure.
"""

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil

from bench.common import machine, report, say
from bench.nginx import nginx
from bench.stack import Stack, free_ports
from media import ffmpeg

SETTLE_S: Final = 8.0


def encoded(folder: Path, kbps: int, size: str) -> Path:
    """Half a minute, as an encoder would send it."""
    path = folder / f"{kbps}.flv"
    subprocess.run(
        [str(ffmpeg.binary()), "-loglevel", "error", "-f", "lavfi", "-i", f"testsrc2=size={size}:rate=30,noise=alls=20:allf=t",
         "-f", "lavfi", "-i", "sine=frequency=440", "-t", "30", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p",
         "-g", "60", "-b:v", f"{kbps}k", "-minrate", f"{kbps}k", "-maxrate", f"{kbps}k", "-bufsize", f"{kbps}k",
         "-c:a", "aac", "-f", "flv", str(path)],
        check=True,
    )  # fmt: skip
    return path


@contextmanager
def publishing(path: Path, *urls: str) -> Iterator[None]:
    started = [
        subprocess.Popen(
            [str(ffmpeg.binary()), "-nostdin", "-loglevel", "error", "-re", "-stream_loop", "-1", "-i", str(path),
             "-c", "copy", "-f", "flv", url]
        )
        for url in urls
    ]  # fmt: skip
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def cpu(processes: list[psutil.Process]) -> tuple[float, float]:
    """CPU seconds so far of all but FFmpegs, and of FFmpegs. Threads of processes that ended are lost: nothing ends while we look."""
    mine, theirs = 0.0, 0.0
    for process in processes:
        with suppress(psutil.Error):
            times = process.cpu_times()
            used = times.user + times.system
            if "ffmpeg" in process.name():
                theirs += used
            else:
                mine += used
    return mine, theirs


def over(stack: Stack, seconds: float) -> tuple[float, float]:
    """CPU a second of ours and of FFmpeg."""
    before, began = cpu(stack.processes()), time.monotonic()
    time.sleep(seconds)
    after, passed_s = cpu(stack.processes()), time.monotonic() - began
    return (after[0] - before[0]) / passed_s, (after[1] - before[1]) / passed_s


def role(stack: Stack, seconds: float) -> float:
    """CPU a second of the media role's own process."""
    process = stack.role("media")
    before, began = cpu([process])[0], time.monotonic()
    time.sleep(seconds)
    return (cpu([process])[0] - before) / (time.monotonic() - began)


def ladder(folder: Path, seconds: float) -> dict[str, Any]:
    path = encoded(folder, 6_000, "1280x720")
    with Stack(folder / "ladder") as stack:
        channel = stack.open_channel("ladder")
        time.sleep(SETTLE_S)
        at_rest, _ = over(stack, seconds / 2)
        with publishing(path, channel.publish_url):
            time.sleep(SETTLE_S)
            ours, theirs = over(stack, seconds)
            media = role(stack, seconds / 2)
    say(f"ladder: {ours:.3f} of a core, {at_rest:.3f} at rest, media role {media:.3f}, FFmpeg {theirs:.3f}")
    return {
        "ours_a_core": round(ours, 4),
        "at_rest_a_core": round(at_rest, 4),
        "media_role_a_core": round(media, 4),
        "ffmpeg_a_core": round(theirs, 4),
        "overhead": round((ours - at_rest) / theirs, 4),
        "overhead_of_media_role": round(media / theirs, 4),
    }


def source_only(folder: Path, count: int, seconds: float) -> tuple[float, float]:
    """CPU a second and broadcast of the media role, and of nginx-rtmp."""
    path = encoded(folder, 2_500, "1280x720")
    os.environ["TALLYLIGHT_RUNG_HEIGHT_MAX"] = "0"
    try:
        with Stack(folder / "source") as stack:
            channels = [stack.open_channel(f"source{number}") for number in range(count)]
            time.sleep(SETTLE_S)
            at_rest = role(stack, seconds / 2)
            with publishing(path, *(channel.publish_url for channel in channels)):
                time.sleep(SETTLE_S)
                mine = (role(stack, seconds) - at_rest) / count
    finally:
        del os.environ["TALLYLIGHT_RUNG_HEIGHT_MAX"]
    (port,) = free_ports(1)
    (folder / "hls").mkdir()
    live = f"server {{ listen 127.0.0.1:{port}; application live {{ live on; hls on; hls_path {folder}/hls; hls_fragment 2s; }} }}"
    with nginx(folder / "nginx", port=port, rtmp=live) as process:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        with publishing(path, *(f"rtmp://127.0.0.1:{port}/live/s{number}" for number in range(count))):
            time.sleep(SETTLE_S)
            before, began = cpu(family)[0], time.monotonic()
            time.sleep(seconds)
            theirs = (cpu(family)[0] - before) / (time.monotonic() - began) / count
    say(f"source only, {count}: {mine:.4f} of a core each, nginx-rtmp {theirs:.4f}")
    return mine, theirs


def run(seconds: float, broadcasts: int) -> None:
    on = machine()
    with tempfile.TemporaryDirectory(prefix="tallylight-bench-", dir="/var/tmp") as folder:
        with_ladder = ladder(Path(folder), seconds)
        mine, theirs = source_only(Path(folder), broadcasts, seconds)
    report(
        "media_overhead", figure=with_ladder["overhead"], unit="CPU of our processes over FFmpeg's",
        peer="nginx-rtmp, source only, CPU a broadcast",
        peer_figure=theirs, ratio=theirs / mine,
        detail={
            "ladder": with_ladder,
            "source_only": {
                "broadcasts": broadcasts, "ours_a_core_each": round(mine, 4), "nginx_rtmp_a_core_each": round(theirs, 4),
                "ours_broadcasts_a_core": round(1 / mine, 1), "nginx_rtmp_broadcasts_a_core": round(1 / theirs, 1),
            },
            "limits": "ours also makes parts, playlists a part, checks, hashes and fsyncs an archive; nginx-rtmp writes segments",
        },
        on=on,
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--broadcasts", type=int, default=8)
    options = parser.parse_args()
    run(options.seconds, options.broadcasts)
