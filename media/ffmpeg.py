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
from media.ladder import FRAME_RATE_UNKNOWN, Rung, every, frame_rate, size
from media.sample import AudioTrack, VideoTrack

EARLY_S: Final = 0.004
"""Timestamps in FLV are rounded to the millisecond."""


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
    from_s: float = 0.0,
    by_clock: bool = False,
) -> list[str]:
    """`outputs`: each rung and the file descriptor on which it comes out. Key frames come from the source; where it has none for longer
    than `segment_s`, a rung has one so long after its last, for it must be cut: counted in frames, or `by_clock`, where the source's
    come at no constant rate and its key frames are of no use. `from_s`: earlier pictures are decoded, for others need
    them, and no more; the first after them is a key frame."""
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
    video = flv.video.filter("select", f"gte(t,{from_s - EARLY_S:.4f})") if from_s > 0 else flv.video
    copies = video.split() if len(outputs) > 1 else [video]
    streams = []
    for index, (rung, descriptor) in enumerate(outputs):
        picture = copies[index]
        if (taken := every(source, rung)) > 1:
            # By time, half a frame early. The fps filter would lose the key frames that `force_key_frames source` needs.
            after_s = (taken - 0.5) / source.frame_rate
            picture = picture.filter("select", f"key+gte(t-prev_selected_t,{after_s:.5f})+isnan(prev_selected_t)")
        scaled = picture.filter("scale", *size(source, rung))
        for name, value in encoder.upload:
            scaled = scaled.filter(name, *([value] if value else []))
        tracks = [scaled, flv.audio] if audio is not None else [scaled]
        rate = frame_rate(source, rung) or FRAME_RATE_UNKNOWN
        options = _encoding(rung, encoder, audio=audio) | _keys(rate, segment_s, by_clock=by_clock)
        streams.append(ffmpeg.output(*tracks, f"pipe:{descriptor}", **options))
    graph = ffmpeg.merge_outputs(*streams) if len(streams) > 1 else streams[0]
    arguments: list[str] = ffmpeg.compile(graph, cmd=str(binary_path))
    devices = [str(word) for name, value in encoder.inputs.items() for word in (f"-{name}", value)]
    return [arguments[0], "-hide_banner", "-nostats", "-loglevel", "warning", *devices, *arguments[1:]]


def _keys(rate: float, segment_s: float, *, by_clock: bool) -> dict[str, Any]:
    frames = round(segment_s * rate)
    if not by_clock:
        return {"g": frames, "force_key_frames": "source"}
    since = f"gte(t-prev_forced_t,{segment_s - EARLY_S:.3f})"
    return {"g": 10 * frames, "force_key_frames": f"expr:if(isnan(prev_forced_t),1,{since})"}


def _encoding(rung: Rung, encoder: Encoder, *, audio: AudioTrack | None) -> dict[str, Any]:
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
