"""The command line of a broadcast's FFmpeg, built with ffmpeg-python: FLV in on a pipe, one fragmented MP4 a rung out on a pipe of its own.

Called by the transcoder. Each flag is there for latency or for the common cuts; `docs/decisions/0003-one-ffmpeg-a-broadcast.md` says why.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import ffmpeg
import imageio_ffmpeg

from media.encoders import LIBX264, Encoder
from media.hls.cuts import SEGMENT_S
from media.hls.segmenter import PART_S
from media.ladder import FRAME_RATE_UNKNOWN, Rung, frame_rate, halves, size
from media.sample import AudioTrack, VideoTrack

_HALVE: Final = "key+gte(t-prev_selected_t,0.030)+isnan(prev_selected_t)"
"""The fps filter would lose the key frames that `force_key_frames source` needs."""


def binary(path: str = "") -> Path:
    """FFmpeg's path: the one that was set, or the wheel's."""
    return Path(path or imageio_ffmpeg.get_ffmpeg_exe())


def command(
    binary_path: Path,
    source: VideoTrack,
    outputs: Sequence[tuple[Rung, int]],
    *,
    audio: AudioTrack | None,
    encoder: Encoder = LIBX264,
    segment_s: float = SEGMENT_S,
) -> list[str]:
    """`outputs`: each rung and the file descriptor on which it comes out. Key frames come from the source; where it has none for longer
    than `segment_s`, a rung has one so long after its last, for it must be cut."""
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
    copies = flv.video.split() if len(outputs) > 1 else [flv.video]
    streams = []
    for index, (rung, descriptor) in enumerate(outputs):
        picture = copies[index]
        if halves(source, rung):
            picture = picture.filter("select", _HALVE)
        scaled = picture.filter("scale", *size(source, rung))
        for name, value in encoder.upload:
            scaled = scaled.filter(name, *([value] if value else []))
        tracks = [scaled, flv.audio] if audio is not None else [scaled]
        options = _encoding(
            rung, frame_rate(source, rung) or FRAME_RATE_UNKNOWN, encoder, audio=audio, segment_s=segment_s
        )
        streams.append(ffmpeg.output(*tracks, f"pipe:{descriptor}", **options))
    graph = ffmpeg.merge_outputs(*streams) if len(streams) > 1 else streams[0]
    arguments: list[str] = ffmpeg.compile(graph, cmd=str(binary_path))
    devices = [str(word) for name, value in encoder.inputs.items() for word in (f"-{name}", value)]
    return [arguments[0], "-hide_banner", "-nostats", "-loglevel", "warning", *devices, *arguments[1:]]


def _encoding(
    rung: Rung, rate: float, encoder: Encoder, *, audio: AudioTrack | None, segment_s: float
) -> dict[str, Any]:
    """`-enc_time_base` 1:90000 keeps the source's timestamps to the tick; `avoid_negative_ts` would shift them."""
    sound: dict[str, Any] = {}
    if audio is not None:
        # AAC plays everywhere: what is something else is made into it.
        sound = {"c:a": "copy"} if audio.codec.startswith("mp4a") else {"c:a": "aac", "b:a": "128k"}
    return {
        **sound,
        "f": "mp4",
        "c:v": encoder.name,
        **encoder.options,
        "bf": 0,
        "g": round(segment_s * rate),
        "force_key_frames": "source",
        "fps_mode": "passthrough",
        "enc_time_base": "1:90000",
        "avoid_negative_ts": "disabled",
        "movflags": "+frag_keyframe+empty_moov+default_base_moof+frag_discont",
        "frag_duration": round(PART_S * 1_000_000),
        "flush_packets": 1,
        "level:v": rung.level,
        "b:v": f"{rung.video_kbps}k",
        "maxrate:v": f"{rung.video_kbps * 5 // 4}k",
        "bufsize:v": f"{rung.video_kbps}k",
    }
