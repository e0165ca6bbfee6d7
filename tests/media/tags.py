"""FLV tags as an encoder sends them: real ones, made by FFmpeg."""

import functools

from media.sample import Tag, TagType
from tests.media.encoded import FRAMES_A_SECOND, HEIGHT, WIDTH, ffmpeg


@functools.cache
def tags(
    *,
    seconds: int = 6,
    gop: int = 60,
    size: str = f"{WIDTH}x{HEIGHT}",
    rate: int = FRAMES_A_SECOND,
    b_frames: int = 0,
    video: bool = True,
    audio: bool = True,
    codec: str = "libx264",
) -> tuple[Tag, ...]:
    inputs: list[str] = []
    codecs: list[str] = []
    if video:
        inputs += ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}"]
        codecs += ["-c:v", codec]
        if codec == "libx264":
            codecs += ["-preset", "ultrafast", "-pix_fmt", "yuv420p", "-bf", str(b_frames), "-g", str(gop)]
            codecs += ["-keyint_min", str(gop), "-sc_threshold", "0", "-threads", "1"]
    if audio:
        inputs += ["-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=48000:duration={seconds}"]
        codecs += ["-c:a", "aac", "-b:a", "96k"]
    made = ffmpeg(*inputs, *codecs, "-f", "flv", "-flvflags", "no_duration_filesize", "pipe:1")
    assert made.returncode == 0, made.stderr
    return tuple(parse(made.stdout))


def parse(flv: bytes) -> list[Tag]:
    found, at = [], 13
    while at + 11 <= len(flv):
        size = int.from_bytes(flv[at + 1 : at + 4])
        timestamp = int.from_bytes(flv[at + 4 : at + 7]) | flv[at + 7] << 24
        found.append(Tag(TagType(flv[at]), timestamp, flv[at + 11 : at + 11 + size]))
        at += 11 + size + 4
    return found
