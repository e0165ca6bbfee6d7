"""From the last byte published to a recording that a player plays to its end: for 10 s and for 3 h, through the whole product.

The 10 s are published by FFmpeg in real time; the clock starts when it exits and stops when the recording's address is in the API and its
playlist, fetched there, has its end. The three hours are an encoding repeated without encoding it again, and published `--hurry` times
faster than it is shown: the media role packages, stores and tells of its segments as of any others, and the clock is the same.
Then FFmpeg reads each recording to its end over HTTP, and all its frames and segments are counted. The peer does what servers that record
to a file do: it remuxes the file to HLS when the broadcast is over (FFmpeg, stream copy).
"""

import argparse
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import m3u8

from bench.common import machine, report, say, spread
from bench.stack import Channel, Stack
from media import ffmpeg

FPS: Final = 30
SHORT_S: Final = 10
PIECE_S: Final = 60
CHECK_S: Final = 0.01
CHUNK_BYTES: Final = 64 * 1024
READY_S_MAX: Final = 120.0
SOURCE: Final = ["-f", "lavfi", "-i", f"testsrc2=size=640x360:rate={FPS}", "-f", "lavfi", "-i", "sine=frequency=440"]
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
HLS: Final = ["-f", "hls", "-hls_time", "2", "-hls_list_size", "0", "-hls_segment_type", "fmp4"]


@dataclass(frozen=True, slots=True)
class Recording:
    """`frames` and `segments_read`: what FFmpeg came upon, `segments` what the playlist names. Seconds but for those."""

    ready_s: float
    duration_s: float
    playlist_s: float
    playlist_bytes: int
    segments: int
    segments_read: int
    frames: int
    frames_published: int
    read_s: float


def short(stack: Stack, name: str) -> Recording:
    """FFmpeg publishes what it encodes."""
    channel = stack.open_channel(name)
    command = _publish(["-re", *SOURCE, "-t", str(SHORT_S), *ENCODING], channel)
    subprocess.run(command, check=True)
    return ready(stack, name, over=time.monotonic(), frames_published=SHORT_S * FPS)


def long(stack: Stack, name: str, path: Path, seconds: float, hurry: float) -> Recording:
    """FFmpeg publishes a file, which it is given bit by bit."""
    channel = stack.open_channel(name)
    command = _publish(["-f", "flv", "-i", "pipe:0", "-c", "copy"], channel)
    rate = path.stat().st_size / seconds * hurry
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process, path.open("rb") as file:
        assert process.stdin is not None
        began, given = time.monotonic(), 0
        while data := file.read(CHUNK_BYTES):
            process.stdin.write(data)
            given += len(data)
            time.sleep(max(0.0, began + given / rate - time.monotonic()))
        process.stdin.close()
        if process.wait():
            raise RuntimeError(f"FFmpeg ended with {process.returncode}")
        over = time.monotonic()
    return ready(stack, name, over=over, frames_published=read(str(path))[0])


def _publish(arguments: Sequence[str], channel: Channel) -> list[str]:
    return [str(ffmpeg.binary()), "-loglevel", "error", *arguments, "-f", "flv", channel.publish_url]


def ready(stack: Stack, name: str, *, over: float, frames_published: int) -> Recording:
    """What was published up to `over` is looked for, and read."""
    with httpx.Client(base_url=stack.url, timeout=30) as client:
        master_url = _vod_url(client, name, until=over + READY_S_MAX)
        master = m3u8.loads(client.get(master_url).raise_for_status().text)
        pictures = next(it.uri for it in master.playlists if it.stream_info.resolution)
        playlist_url = f"{master_url.rpartition('/')[0]}/{pictures}"
        asked = time.monotonic()
        text = client.get(playlist_url).raise_for_status().text
    found = time.monotonic()
    playlist = m3u8.loads(text)
    assert playlist.is_endlist
    frames, opened = read(f"{stack.url}{playlist_url}")
    return Recording(
        ready_s=round(found - over, 3),
        duration_s=round(sum(it.duration for it in playlist.segments), 2),
        playlist_s=round(found - asked, 3),
        playlist_bytes=len(text),
        segments=len(playlist.segments),
        segments_read=opened,
        frames=frames,
        frames_published=frames_published,
        read_s=round(time.monotonic() - found, 1),
    )


def _vod_url(client: httpx.Client, channel: str, *, until: float) -> str:
    while time.monotonic() < until:
        items = client.get(f"/api/v1/channels/{channel}/broadcasts").json()["items"]
        if items and items[0]["vod_url"]:
            return str(items[0]["vod_url"])
        time.sleep(CHECK_S)
    raise TimeoutError(f"no recording of {channel}")


def read(url: str) -> tuple[int, int]:
    """Frames of pictures, and segments, that FFmpeg reads up to the end of a playlist, or a file."""
    done = subprocess.run(
        [str(ffmpeg.binary()), "-nostdin", "-loglevel", "verbose", "-i", url, "-map", "0:v:0", "-c", "copy",
         "-progress", "pipe:1", "-f", "null", "-"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    frames = int([line[6:] for line in done.stdout.splitlines() if line.startswith("frame=")][-1])
    return frames, sum("HLS request for url" in line and ".m4s" in line for line in done.stderr.splitlines())


def whole(folder: Path, seconds: float) -> Path:
    """So many seconds in a file: one encoding over and over."""
    folder.mkdir(parents=True)
    piece_s = min(seconds, PIECE_S)
    piece, made = folder / "piece.flv", folder / "whole.flv"
    binary = str(ffmpeg.binary())
    subprocess.run([binary, "-loglevel", "error", *SOURCE, "-t", str(piece_s), *ENCODING, str(piece)], check=True)
    repeated = ["-stream_loop", "-1", "-i", str(piece), "-c", "copy", "-t", str(seconds)]
    subprocess.run([binary, "-loglevel", "error", *repeated, str(made)], check=True)
    return made


def remuxed(path: Path) -> float:
    """The peer: a recorded file becomes HLS."""
    over = time.monotonic()
    copying = ["-i", str(path), "-c", "copy", *HLS, str(path.with_name("index.m3u8"))]
    subprocess.run([str(ffmpeg.binary()), "-loglevel", "error", *copying], check=True)
    return time.monotonic() - over


def run(rounds: int, hours: float, hurry: float) -> None:
    on = machine()
    long_s = hours * 3600
    with tempfile.TemporaryDirectory(prefix="tallylight-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        with Stack(folder / "stack") as stack:
            mine = [short(stack, f"vod{number}") for number in range(rounds)]
            say(f"{SHORT_S} s: {[it.ready_s for it in mine]}")
        theirs = [remuxed(whole(folder / f"peer{number}", SHORT_S)) for number in range(rounds)]
        path = whole(folder / "long", long_s)
        # No rungs: they are made in real time, and this is not.
        with Stack(folder / "stack-long", rung_height_max=0) as stack:
            hours_long = long(stack, "long", path, long_s, hurry)
            say(f"{hours:g} h: {hours_long}")
        long_theirs = remuxed(path)
        say(f"{hours:g} h, remuxed: {long_theirs:.2f} s")
    median, peer_median = spread([it.ready_s for it in mine])["median"], spread(theirs)["median"]
    detail: dict[str, Any] = {
        f"{SHORT_S}_s": [asdict(it) for it in mine],
        f"{SHORT_S}_s_peer_s": [round(it, 3) for it in theirs],
        f"{hours:g}_h": asdict(hours_long),
        f"{hours:g}_h_published_times_real_time": hurry,
        f"{hours:g}_h_peer_s": round(long_theirs, 2),
        f"{hours:g}_h_ratio": round(long_theirs / hours_long.ready_s, 1),
        "limits": "ours counts the encoder's goodbye, the last fsync, the event, Kafka and the projection; the peer its file alone",
    }
    report(
        "vod_ready",
        figure=median,
        unit=f"s to a recording of {SHORT_S} s",
        peer="FFmpeg remuxing the recorded file to HLS",
        peer_figure=peer_median,
        ratio=peer_median / median,
        detail=detail,
        on=on,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument(
        "--hurry", type=float, default=40.0, help="how much faster than it is shown the long one is published"
    )
    options = parser.parse_args()
    run(options.rounds, options.hours, options.hurry)
