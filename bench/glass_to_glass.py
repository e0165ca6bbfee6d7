"""Seconds from the lens to the screen: ours from a synthetic source and from OBS, through the edge, and without low latency; and two peers.

A clock is drawn into the picture, pushed by RTMP, and read back off what Chromium shows; how old it is, is the latency. Players stay where
their join lands, so joins are spread over a segment. Ours is watched on its own watch page over the front's HTTP/2; players without low
latency, and those of the peers, are hls.js with its defaults. Samples begin 6 s after a join. Last, one viewer of ours stays for ten
minutes, and every wait, frozen picture and dropped frame is counted.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Browser

from bench import sides
from bench.common import machine, report, say
from bench.sides import Way
from bench.watching import Watched, answers, chromium, join, joins

SEGMENT_S: Final = 2.0
ON_AIR_S: Final = 6.0
"""What a viewer finds is a broadcast that has been on for a while."""
QUICK: Final = {"join_count": 2, "seconds": 4.0, "minutes": 0.5}
LONG: Final = "ten_minutes"
WAYS: Final[dict[str, Way]] = {
    "ours": sides.ours,
    "obs": sides.from_obs,
    "edge": sides.through_edge,
    "plain_2s": sides.plain(2),
    "plain_1s": sides.plain(1),
    "nginx_rtmp": sides.nginx_rtmp,
    "node_media_server": sides.node_media_server,
}


async def watch(browser: Browser, way: Way, folder: Path, join_count: int, seconds: float) -> dict[str, Any]:
    async with way(folder) as found:
        for side in found.values():
            await answers(side.playlist)
        await asyncio.sleep(ON_AIR_S)
        watched = await joins(browser, found, count=join_count, seconds=seconds, segment_s=SEGMENT_S)
    return {name: it.told() for name, it in watched.items()}


async def stay(browser: Browser, folder: Path, minutes: float) -> dict[str, Any]:
    """One viewer for so long."""
    watched = Watched()
    async with sides.ours(folder) as found:
        await answers(found["ours"].playlist)
        await asyncio.sleep(ON_AIR_S)
        await join(browser, found["ours"], watched, 60 * minutes)
    return watched.told()


async def run(names: list[str], join_count: int, seconds: float, minutes: float) -> None:
    on = machine()
    detail: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="tallylight-bench-", dir="/var/tmp") as folder:
        async with chromium() as browser:
            for name in names:
                say(f"{name}:")
                if name == LONG:
                    detail[name] = await stay(browser, Path(folder) / name, minutes)
                else:
                    detail |= await watch(browser, WAYS[name], Path(folder) / name, join_count, seconds)
    mine, theirs = detail["ours"], detail["nginx_rtmp"]
    if "edge" in detail:
        adds_s = detail["edge"]["median_s"] - detail["direct"]["median_s"]
        detail["edge_adds_ms"] = round(1000 * adds_s)
    report(
        "glass_to_glass",
        figure=mine["median_s"],
        unit="s",
        peer="nginx-rtmp, HLS segments of 2 s, hls.js with default settings",
        peer_figure=theirs["median_s"],
        ratio=theirs["median_s"] / mine["median_s"],
        detail={"p95_s": mine["p95_s"]}
        | detail
        | {"joins": join_count, "limits": "encoder, transcoder, server and browser share this machine's cores"},
        on=on,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--joins", type=int, default=6, dest="join_count")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long one viewer stays")
    parser.add_argument(
        "--quick", action="store_true", help="two joins, half a minute instead of ten: whether it works"
    )
    parser.add_argument("--sides", default=",".join([*WAYS, LONG]), help="ours and nginx_rtmp are watched in any case")
    options = parser.parse_args()
    wanted = [name for name in [*WAYS, LONG] if name in {"ours", "nginx_rtmp", *options.sides.split(",")}]
    lengths = (
        QUICK
        if options.quick
        else {"join_count": options.join_count, "seconds": options.seconds, "minutes": options.minutes}
    )
    asyncio.run(run(wanted, **lengths))
