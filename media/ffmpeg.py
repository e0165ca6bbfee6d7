"""The command line of a broadcast's FFmpeg, built with ffmpeg-python: FLV in on a pipe, one fragmented MP4 a rung out on a pipe of its own.

Called by the transcoder. Each flag is there for latency or for the common cuts; `docs/decisions/0003-one-ffmpeg-a-broadcast.md` says why.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import ffmpeg
import imageio_ffmpeg

from media.hls.segmenter import PART_S
from media.ladder import Rung, halves
from media.sample import VideoTrack

GOP_MAX: Final = 600
"""Key frames come from the source; this is for a source that has none for long."""
_HALVE: Final = "key+gte(t-prev_selected_t,0.030)+isnan(prev_selected_t)"
"""The fps filter would lose the key frames that `force_key_frames source` needs."""


def binary(path: str = "") -> Path:
    """FFmpeg's path: the one that was set, or the wheel's."""
    return Path(path or imageio_ffmpeg.get_ffmpeg_exe())


def command(binary_path: Path, source: VideoTrack, outputs: Sequence[tuple[Rung, int]], *, audio: bool) -> list[str]:
    """`outputs`: each rung and the file descriptor on which it comes out."""
    # Not `nobuffer`: with it what FFmpeg looked at to know the streams, the first group of pictures, is lost.
    flv = ffmpeg.input(
        "pipe:0",
        f="flv",
        flags="low_delay",
        probesize="32k",
        analyzeduration="0",
        copyts=None,
        threads="1",
    )
    picture = flv.video.filter("select", _HALVE) if halves(source) else flv.video
    copies = picture.split() if len(outputs) > 1 else [picture]
    streams = []
    for index, (rung, descriptor) in enumerate(outputs):
        copy = copies[index] if len(outputs) > 1 else copies[0]
        portrait = source.height > source.width
        size = (rung.height, -2) if portrait else (-2, rung.height)
        scaled = copy.filter("scale", *size)
        tracks = [scaled, flv.audio] if audio else [scaled]
        streams.append(ffmpeg.output(*tracks, f"pipe:{descriptor}", **_encoding(rung, audio=audio)))
    graph = ffmpeg.merge_outputs(*streams) if len(streams) > 1 else streams[0]
    arguments: list[str] = ffmpeg.compile(graph, cmd=str(binary_path))
    return [arguments[0], "-hide_banner", "-nostats", "-loglevel", "warning", *arguments[1:]]


def _encoding(rung: Rung, *, audio: bool) -> dict[str, Any]:
    """`-enc_time_base` 1:90000 keeps the source's timestamps to the tick; `avoid_negative_ts` would shift them."""
    sound = {"c:a": "copy"} if audio else {}
    return sound | {
        "f": "mp4",
        "c:v": "libx264",
        "preset": "superfast",
        "tune": "zerolatency",
        "pix_fmt": "yuv420p",
        "bf": 0,
        "g": GOP_MAX,
        "sc_threshold": 0,
        "force_key_frames": "source",
        "fps_mode": "passthrough",
        "enc_time_base": "1:90000",
        "avoid_negative_ts": "disabled",
        "movflags": "+frag_keyframe+empty_moov+default_base_moof+frag_discont",
        "frag_duration": round(PART_S * 1_000_000),
        "flush_packets": 1,
        "threads:v": 1,
        "b:v": f"{rung.video_kbps}k",
        "maxrate:v": f"{rung.video_kbps * 5 // 4}k",
        "bufsize:v": f"{rung.video_kbps}k",
    }
