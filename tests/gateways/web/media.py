"""Real encoded pictures for the player's tests, made once a session by the wheel's FFmpeg."""

from pathlib import Path

from tests.media.encoded import ffmpeg

RECORDING_S = 150
RATE = 10


def recording(folder: Path) -> None:
    """A finished broadcast as HLS: one rendition, small enough that a busy machine plays it."""
    folder.mkdir(parents=True)
    made = ffmpeg(
        "-f", "lavfi", "-i", f"testsrc2=size=192x108:rate={RATE}:duration={RECORDING_S}",
        "-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=48000:duration={RECORDING_S}",
        "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "20", "-sc_threshold", "0", "-threads", "1",
        "-c:a", "aac", "-b:a", "32k", "-f", "hls", "-hls_time", "2", "-hls_playlist_type", "vod",
        "-hls_segment_type", "fmp4", "-master_pl_name", "index.m3u8", str(folder / "media.m3u8"),
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    master = folder / "index.m3u8"
    if "FRAME-RATE" not in master.read_text():
        # This muxer does not say so, and our own do.
        master.write_text(master.read_text().replace("#EXT-X-STREAM-INF:", f"#EXT-X-STREAM-INF:FRAME-RATE={RATE}.000,"))
