"""From the last byte published to a recording that a player plays to its end: for 10 s through the whole product, for 3 h of made segments.

The 10 s are published by FFmpeg at real time; the clock starts when it exits and stops when the recording's playlist has its end, which
FFmpeg then plays through. The three hours are segments of a real encoding, handed to the recorder as the packager hands them. The peer
does what servers that record to a file do: it remuxes the file to HLS when the broadcast is over (FFmpeg, stream copy).
"""

import argparse
import asyncio
import subprocess
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx

from bench.common import machine, report, say, spread
from bench.stack import Stack
from media import ffmpeg, manifest
from media.archive import Archive
from media.vod import master_playlist, media_playlist
from tests.media.recorded import BROADCAST, START, Report, encoded, recorder, segment

SEGMENT_S: Final = 2
CHECK_S: Final = 0.01
SOURCE: Final = ["-f", "lavfi", "-i", "testsrc2=size=640x360:rate=30", "-f", "lavfi", "-i", "sine=frequency=440"]
ENCODING: Final = [
    "-c:v",
    "libx264",
    "-preset",
    "ultrafast",
    "-pix_fmt",
    "yuv420p",
    "-g",
    "60",
    "-b:v",
    "1M",
    "-c:a",
    "aac",
]


def published(stack: Stack, name: str, seconds: int) -> tuple[float, int]:
    """Seconds until the recording has its end, and how many frames FFmpeg plays of it."""
    channel = stack.open_channel(name)
    subprocess.run(
        [str(ffmpeg.binary()), "-loglevel", "error", "-re", *SOURCE, "-t", str(seconds), *ENCODING, "-f", "flv", channel.publish_url],
        check=True,
    )  # fmt: skip
    over = time.monotonic()
    with httpx.Client(base_url=stack.url) as client:
        while True:
            items = client.get(f"/api/v1/channels/{name}/broadcasts").json()["items"]
            if items and items[0]["vod_url"]:
                break
            time.sleep(CHECK_S)
        url = items[0]["vod_url"]
        assert client.get(url).status_code == 200
    ready_s = time.monotonic() - over
    return ready_s, frames(f"{stack.url}{url}")


def frames(url: str) -> int:
    done = subprocess.run(
        [str(ffmpeg.binary()), "-nostdin", "-loglevel", "error", "-i", url, "-map", "0:v:0", "-progress", "pipe:1", "-f", "null", "-"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return int([line[6:] for line in done.splitlines() if line.startswith("frame=")][-1])


async def long(folder: Path, hours: float) -> dict[str, Any]:
    """Hours of segments, all but the last stored; from the last one's end to the playlists."""
    archive = Archive.open(str(folder))
    facts = Report()
    recording = recorder(archive, facts)
    rendition, init, segments = encoded()
    recording.rendition(rendition, init)
    count = round(hours * 3600 / SEGMENT_S)
    for number in range(count):
        recording.segment(segment("source", number, segments[number % len(segments)]))
        if number % 50 == 49:
            await facts.until(facts=number - 4)
    over = time.monotonic()
    await recording.close(START + timedelta(hours=hours))
    closed_s = time.monotonic() - over
    found = await manifest.read(archive.store, BROADCAST)
    assert found is not None
    text = media_playlist(found, "source")
    master_playlist(found)
    ready_s = time.monotonic() - over
    assert text.count("#EXTINF") == count
    return {
        "segments": count,
        "closed_s": round(closed_s, 3),
        "ready_s": round(ready_s, 3),
        "playlist_bytes": len(text),
    }


def remuxed(folder: Path, seconds: float) -> float:
    """The peer: a recorded FLV of so many seconds becomes HLS."""
    folder.mkdir(parents=True)
    short, whole = folder / "short.flv", folder / "whole.flv"
    binary = str(ffmpeg.binary())
    piece_s = min(seconds, 60)
    subprocess.run([binary, "-loglevel", "error", *SOURCE, "-t", str(piece_s), *ENCODING, str(short)], check=True)
    loops = str(max(0, round(seconds / piece_s) - 1))
    subprocess.run(
        [binary, "-loglevel", "error", "-stream_loop", loops, "-i", str(short), "-c", "copy", str(whole)], check=True
    )
    over = time.monotonic()
    playlist = [
        "-f",
        "hls",
        "-hls_time",
        "2",
        "-hls_list_size",
        "0",
        "-hls_segment_type",
        "fmp4",
        str(folder / "index.m3u8"),
    ]
    subprocess.run([binary, "-loglevel", "error", "-i", str(whole), "-c", "copy", *playlist], check=True)
    return time.monotonic() - over


def run(rounds: int, hours: float) -> None:
    on = machine()
    mine, played = [], []
    with tempfile.TemporaryDirectory(prefix="tallylight-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        with Stack(folder / "stack") as stack:
            for number in range(rounds):
                ready_s, count = published(stack, f"vod{number}", 10)
                say(f"10 s: ready after {ready_s:.2f} s, {count} frames play")
                mine.append(ready_s)
                played.append(count)
        theirs = [remuxed(folder / f"peer{number}", 10) for number in range(rounds)]
        three = asyncio.run(long(folder / "long", hours))
        say(f"{hours:g} h: {three}")
        three_theirs = remuxed(folder / "peer-long", hours * 3600)
        say(f"{hours:g} h, remuxed: {three_theirs:.2f} s")
    report(
        "vod_ready", figure=spread(mine)["median"], unit="s to a recording of 10 s", peer="FFmpeg remuxing the recorded file to HLS",
        peer_figure=spread(theirs)["median"], ratio=spread(theirs)["median"] / spread(mine)["median"],
        detail={
            "ours_s": [round(it, 3) for it in mine], "peer_s": [round(it, 3) for it in theirs], "frames_played": played,
            f"{hours:g}_h": three, f"{hours:g}_h_peer_s": round(three_theirs, 2),
            f"{hours:g}_h_ratio": round(three_theirs / three["ready_s"], 1),
            "limits": "ours counts the encoder's goodbye, the last fsync, the event, Kafka and the projection; the peer its file alone",
        },
        on=on,
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hours", type=float, default=3.0)
    options = parser.parse_args()
    run(options.rounds, options.hours)
