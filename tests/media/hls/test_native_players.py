"""Players and checkers outside browsers that we did not write, from Debian: mpv and ffprobe, on what is live, rewindable and recorded."""

import asyncio
import json
import re
import shutil
from collections import defaultdict
from itertools import pairwise

import pytest

from tests.media.hls.test_players import OnAir, on_air

__all__ = ["on_air"]

PLAYED_S = 4
RUNS_S_MAX = 60
TOLD = re.compile(rb"AT=([\d.]+) DROPPED=(\d+)")
EVERY_PATH = pytest.mark.parametrize("path", ["/live/ann/index.m3u8", "/live/ann/dvr.m3u8", "/vod/{id}/index.m3u8"])


async def said(program: str, *arguments: str) -> tuple[bytes, bytes]:
    """What a program writes on both its outputs; it must end well."""
    assert shutil.which(program), f"{program} is missing: make test installs it, or says how to."
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )  # fmt: skip
    try:
        out, complaints = await asyncio.wait_for(process.communicate(), RUNS_S_MAX)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, (out, complaints)
    return out, complaints


async def address(on_air: OnAir, path: str) -> str:
    """Of what is asked for; a recording has been ended first."""
    if "{id}" in path:
        await on_air.end()
    return on_air.url + path.format(id=on_air.broadcast_id)


@EVERY_PATH
async def test_mpv_plays_it_at_its_own_pace_without_dropping_a_frame(on_air: OnAir, path: str) -> None:
    out, complaints = await said(
        "mpv", "--no-config", "--vo=null", "--ao=null", "--untimed=no", "--cache=no", f"--length={PLAYED_S}", "--load-scripts=no",
        "--term-status-msg=AT=${=time-pos} DROPPED=${decoder-frame-drop-count}\n", "--msg-level=all=warn,statusline=status",
        await address(on_air, path),
    )  # fmt: skip
    told = [(float(at), int(dropped)) for at, dropped in TOLD.findall(out + complaints)]
    assert told, (out, complaints)
    times = [at for at, _ in told]
    assert times[-1] - times[0] > PLAYED_S - 1
    assert all(later - earlier < 0.6 for earlier, later in pairwise(times)), "no jump"
    assert told[-1][1] == 0, "every frame is decoded"
    assert not re.search(rb"(?i)error|invalid|corrupt|discontinu", out + complaints), out + complaints


@EVERY_PATH
async def test_ffprobe_finds_every_packet_in_order_and_after_the_one_before(on_air: OnAir, path: str) -> None:
    # By itself FFmpeg begins three segments before the end.
    limits = [] if "{id}" in path else ["-read_intervals", f"%+{PLAYED_S}"]
    out, complaints = await said(
        "ffprobe", "-v", "error", *limits, "-show_packets", "-show_streams", "-of", "json", await address(on_air, path)
    )  # fmt: skip
    found = json.loads(out)
    kinds = {it["index"]: it["codec_type"] for it in found["streams"]}
    assert sorted(kinds.values()) == ["audio"] * 4 + ["video"] * 3, "the source, two rungs, and sound alone"
    packets = defaultdict(list)
    for packet in found["packets"]:
        packets[packet["stream_index"]].append(packet)
    assert packets.keys() == kinds.keys()
    for index, mine in packets.items():
        starts = [float(it["dts_time"]) for it in mine]
        spans = [float(it["duration_time"]) for it in mine]
        off = [
            round(later - earlier - span, 3)
            for (earlier, later), span in zip(pairwise(starts), spans, strict=False)
            if abs(later - earlier - span) > 0.002
        ]
        assert not off, f"{kinds[index]} {index}: each packet begins where the one before ends"
        assert starts[-1] - starts[0] > PLAYED_S - 1.5
        if kinds[index] == "video":
            assert mine[0]["flags"].startswith("K"), "it begins with a key frame"
    assert not complaints, complaints
