"""Real H.264 and AAC for the media tests, made once a session by the wheel's FFmpeg, and a real decoder to judge what we made of it."""

import functools
import subprocess

import imageio_ffmpeg

WIDTH, HEIGHT, FRAMES_A_SECOND = 640, 360, 30


def ffmpeg(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-loglevel", "warning", *arguments]
    if stdin:
        command.remove("-nostdin")
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)


@functools.cache
def fragmented_mp4(
    *, seconds: int = 10, gop: int = 60, video: bool = True, audio: bool = True, b_frames: int = 0
) -> bytes:
    """What the transcoder's FFmpeg writes to the pipeline: fragmented MP4, a fragment a frame."""
    sources: list[str] = []
    codecs: list[str] = []
    if video:
        sources += ["-f", "lavfi", "-i", f"testsrc2=size={WIDTH}x{HEIGHT}:rate={FRAMES_A_SECOND}:duration={seconds}"]
        codecs += [
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-pix_fmt",
            "yuv420p",
            "-bf",
            str(b_frames),
            "-g",
            str(gop),
        ]
        codecs += ["-keyint_min", str(gop), "-sc_threshold", "0", "-video_track_timescale", "90000", "-threads", "1"]
    if audio:
        sources += ["-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=48000:duration={seconds}"]
        codecs += ["-c:a", "aac", "-b:a", "96k"]
    # Not frag_every_frame: with two tracks it writes negative durations. One of 1 ms gives a fragment a frame and exact ones.
    # The encoder's priming lies before time zero, so time starts at 1 s.
    container = [
        "-movflags",
        "+empty_moov+default_base_moof+frag_discont",
        "-frag_duration",
        "1000",
        "-f",
        "mp4",
        "pipe:1",
    ]
    made = ffmpeg(*sources, *codecs, "-output_ts_offset", "1", "-avoid_negative_ts", "disabled", *container)
    assert made.returncode == 0, made.stderr
    return made.stdout


def decode(mp4: bytes) -> tuple[int, bytes]:
    """How many video frames a decoder finds in the bytes, and everything that it complains about."""
    done = ffmpeg("-xerror", "-f", "mp4", "-i", "pipe:0", "-fps_mode", "passthrough", "-enc_time_base:v", "1:90000",
                  "-progress", "pipe:1", "-f", "null", "-", stdin=mp4)  # fmt: skip
    frames = [int(line[6:]) for line in done.stdout.splitlines() if line.startswith(b"frame=")]
    return frames[-1] if frames else 0, done.stderr
