"""How fast the ladder is encoded, in seconds of media a second, for sources of several sizes; what a core encodes, in megapixels a second.

Each source is made first, then fed as fast as FFmpeg takes it, through the transcoder's own command line. The peer is the same
FFmpeg with the same rungs the way most guides write it: x264 `veryfast`, everything else as it comes.
"""

import argparse
import os
import resource
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from bench.common import machine, report, say
from media import ffmpeg
from media.ladder import Rung, frame_rate, rungs_for, size
from media.room import cost
from media.sample import AudioTrack, VideoTrack

SOURCES: Final = ((1280, 720, 30.0), (1920, 1080, 30.0), (1920, 1080, 60.0))
AUDIO: Final = AudioTrack("mp4a.40.2", b"", 48_000, 2)


@dataclass(frozen=True, slots=True)
class Source:
    track: VideoTrack
    rungs: tuple[Rung, ...]
    path: Path
    seconds: float


def made(folder: Path, width: int, height: int, rate: float, seconds: float) -> Source:
    """Moving noise over a test picture: harder than a camera's, easier than a game's."""
    path = folder / f"{width}x{height}@{rate:g}.flv"
    picture = f"testsrc2=size={width}x{height}:rate={rate}:duration={seconds},noise=alls=6:allf=t"
    subprocess.run(
        [str(ffmpeg.binary()), "-loglevel", "error", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", f"sine=duration={seconds}",
         "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-b:v", "6M", "-g", str(round(2 * rate)), "-c:a", "aac",
         "-flvflags", "no_duration_filesize", str(path)],
        check=True,
    )  # fmt: skip
    track = VideoTrack("avc1.640028", b"", width, height, rate)
    return Source(track, rungs_for(track, top_height=1080), path, seconds)


def ours(source: Source) -> float:
    """Seconds of media a second."""
    nowhere = [os.open(os.devnull, os.O_WRONLY) for _ in source.rungs]
    try:
        arguments = ffmpeg.command(
            ffmpeg.binary(), source.track, list(zip(source.rungs, nowhere, strict=True)), audio=AUDIO
        )
        with source.path.open("rb") as data:
            return _timed(source, arguments, stdin=data, pass_fds=nowhere)
    finally:
        for descriptor in nowhere:
            os.close(descriptor)


def _megapixels(track: VideoTrack, rung: Rung) -> float:
    """That come out in a second of media."""
    width, height = size(track, rung)
    return width * height * frame_rate(track, rung) / 1e6


def alone(source: Source, rung: Rung) -> dict[str, float]:
    """Cores that one rung takes by itself in real time, FFmpeg and decoding in it; and what a node reckons for the rung alone."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ours(replace(source, rungs=(rung,)))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cores": round(used_s / source.seconds, 4), "reckoned_mpx": round(cost(source.track, rung), 1)}


def peer(source: Source) -> float:
    outputs: list[str] = []
    for rung in source.rungs:
        width, height = size(source.track, rung)
        rate = str(min(rung.frame_rate_max, source.track.frame_rate))
        outputs += ["-map", "0:v", "-map", "0:a", "-vf", f"scale={width}:{height}", "-r", rate, "-c:v", "libx264"]
        outputs += ["-preset", "veryfast", "-b:v", f"{rung.video_kbps}k", "-c:a", "aac", "-f", "mpegts", os.devnull]
    return _timed(source, [str(ffmpeg.binary()), "-y", "-loglevel", "error", "-i", str(source.path), *outputs])


def _timed(source: Source, arguments: list[str], **how: Any) -> float:
    began = time.monotonic()
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **how)
    return source.seconds / (time.monotonic() - began)


def run(seconds: float, rounds: int) -> None:
    on = machine()
    detail: dict[str, Any] = {
        "seconds": seconds,
        "rounds": rounds,
        "limits": "all of the machine's cores, and nothing else on them",
    }
    figures, peers, per_core = [], [], []
    with tempfile.TemporaryDirectory(prefix="tallylight-bench-", dir="/var/tmp") as folder:
        for width, height, rate in SOURCES:
            source = made(Path(folder), width, height, rate, seconds)
            mine = [ours(source) for _ in range(rounds)]
            theirs = [peer(source) for _ in range(rounds)]
            pixels = sum(_megapixels(source.track, rung) for rung in source.rungs)
            each = pixels * statistics.median(mine) / (os.cpu_count() or 1)
            name = f"{height}p{rate:g}"
            say(f"{name}: {statistics.median(mine):.2f}× real time, peer {statistics.median(theirs):.2f}×")
            detail[name] = {
                "rungs": [rung.name for rung in source.rungs],
                "megapixels_a_second_of_media": round(pixels, 1),
                "ours": [round(it, 2) for it in mine],
                "peer": [round(it, 2) for it in theirs],
                "megapixels_a_second_a_core": round(each, 1),
                "rungs_alone": {rung.name: alone(source, rung) for rung in source.rungs},
            }
            figures.append(statistics.median(mine))
            peers.append(statistics.median(theirs))
            per_core.append(each)
    detail["megapixels_a_second_a_core"] = round(min(per_core), 1)
    report(
        "transcode_realtime",
        figure=figures[1],
        unit="seconds of media a second, 1080p30 and its ladder",
        peer="the same FFmpeg and rungs with x264 veryfast",
        peer_figure=peers[1],
        ratio=figures[1] / peers[1],
        detail=detail,
        on=on,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    run(options.seconds, options.rounds)
