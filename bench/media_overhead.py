"""What the media plane costs besides FFmpeg: all CPU of its processes, over FFmpeg's alone for the same ladder; and broadcasts a core.

First one broadcast of 6 Mb/s with the heaviest ladder that runs in real time here, in the whole product: CPU time of the media plane's
processes (the media role and what it starts but FFmpeg, and the front that serves players), over the CPU time of its FFmpeg. Beside that
the media role alone, the whole product with its engines, and what the broadcast adds to the product at rest. Then broadcasts without a
ladder, more and more of them, until parts come late (`bench.carried`), against nginx-rtmp making HLS of the same streams in the same
ramp. Encoders only copy a file; their own CPU is in no figure.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from bench.carried import RAMP, encoded, nginx_rtmp, ours, publishing
from bench.common import machine, report, say
from bench.stack import Channel, Stack

SETTLE_S: Final = 20.0
"""The first seconds also make the slates and start FFmpeg."""
LAG_S_MAX: Final = 2.0
SOURCES: Final = {"1080p30": "1920x1080", "720p30": "1280x720"}
"""From the heaviest ladder down."""
MEDIA_PLANE: Final = ("media", "front")
ENGINES: Final = {"postgres": "postgres", "tansu": "broker", "caddy": "front", "ffmpeg": "ffmpeg"}
"""Processes by what stands in their names; the others are roles, or the supervisor's."""


def used(stack: Stack) -> dict[str, float]:
    """CPU seconds so far, by what used them. What ended is lost: nothing ends while we look."""
    found: dict[str, float] = defaultdict(float)
    for process in stack.processes():
        with suppress(psutil.Error):
            name, line, times = process.name(), process.cmdline(), process.cpu_times()
            engine = next((what for part, what in ENGINES.items() if part in name), None)
            found[engine or (line[-1] if line[-2:-1] == ["role"] else "supervisor")] += times.user + times.system
    return found


def over(stack: Stack, seconds: float) -> dict[str, float]:
    """CPU a second of each."""
    before, began = used(stack), time.monotonic()
    time.sleep(seconds)
    after, passed_s = used(stack), time.monotonic() - began
    return {name: round((after[name] - before.get(name, 0.0)) / passed_s, 4) for name in after}


def ladder(folder: Path, source: str, seconds: float) -> dict[str, Any] | None:
    """None where its rungs are not made in real time."""
    path = encoded(folder, 6_000, SOURCES[source])
    # Whether it runs here is measured, not guessed from the number of cores.
    with Stack(folder / source, transcode_mpx_s=10_000) as stack:
        channel = stack.open_channel("ladder")
        time.sleep(SETTLE_S / 2)
        at_rest = over(stack, seconds / 2)
        with publishing(path, [channel.publish_url]):
            time.sleep(SETTLE_S)
            each = over(stack, seconds)
            health = _health(stack, channel)
    say(f"{source}: {each}, at rest {at_rest}, {health}")
    if health["renditions_shed"] or health["transcoder_lag_s"] is None or health["transcoder_lag_s"] > LAG_S_MAX:
        return None
    theirs = each.pop("ffmpeg")
    whole, rest = sum(each.values()), sum(at_rest.values()) - at_rest.get("ffmpeg", 0.0)
    return {
        "source": f"{source}, 6 Mb/s",
        "renditions": health["renditions"],
        "transcoder_lag_s": health["transcoder_lag_s"],
        "ffmpeg_a_core": theirs,
        "each_a_core": each,
        "at_rest_a_core": at_rest,
        "media_plane": round(sum(each[name] for name in MEDIA_PLANE) / theirs, 4),
        "media_role_alone": round(each["media"] / theirs, 4),
        "whole_product": round(whole / theirs, 4),
        "marginal": round((whole - rest) / theirs, 4),
    }


def _health(stack: Stack, channel: Channel) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {channel.access_token}"}
    answer = httpx.get(f"{stack.url}/api/v1/channels/{channel.name}/stream-health", headers=headers)
    found = answer.raise_for_status().json()["broadcast"]
    return {name: found[name] for name in ("renditions", "renditions_shed", "transcoder_lag_s", "transcoder_speed")}


def run(seconds: float, step_seconds: float, most: int) -> None:
    on = machine()
    with tempfile.TemporaryDirectory(prefix="tallylight-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        found = (ladder(folder, source, seconds) for source in SOURCES)
        with_ladder = next((it for it in found if it is not None), None)
        if with_ladder is None:
            raise SystemExit("No ladder runs in real time on this machine.")
        steps = [count for count in RAMP if count <= most]
        mine = ours(folder / "ours", steps, step_seconds)
        theirs = nginx_rtmp(folder / "nginx-rtmp", steps, step_seconds)
    report(
        "media_overhead",
        figure=with_ladder["media_plane"],
        unit="CPU of our media plane's processes over FFmpeg's",
        peer="nginx-rtmp: broadcasts without a ladder that one core carries",
        peer_figure=theirs["carried"],
        ratio=mine["carried"] / theirs["carried"] if theirs["carried"] else 0.0,
        detail={
            "ladder": with_ladder,
            "source_only": {"ours": mine, "nginx_rtmp": theirs},
            "limits": "nobody watches; ours also makes parts, a playlist a part, hashes and fsyncs an archive; nginx-rtmp writes segments",
        },
        on=on,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the ladder is looked at")
    parser.add_argument("--step-seconds", type=float, default=12.0, help="how long each step of the ramp is looked at")
    parser.add_argument("--most", type=int, default=RAMP[-1], help="where the ramp ends")
    options = parser.parse_args()
    run(options.seconds, options.step_seconds, options.most)
