"""A clock drawn into video as black and white blocks, and the JavaScript that reads it back off a playing screen.

Row one of the picture carries 44 bits of Unix time in milliseconds and a 6-bit checksum, most significant bit first; the rest of the
picture moves, so that the encoder has real work. Used by `bench.glass_to_glass` and the end-to-end test; needs the wheel's FFmpeg.
"""

import asyncio
import contextlib
import subprocess
import time
from string import Template
from typing import Final

import imageio_ffmpeg
import numpy as np

BITS: Final = 44
CHECK_BITS: Final = 6
BLOCKS: Final = BITS + CHECK_BITS
BAND: Final = 0.12
"""The share of the picture's height that the blocks fill."""


def code(ms: int) -> list[int]:
    """The bits of a time, checksum last."""
    check = sum((ms >> (CHECK_BITS * i)) for i in range(8)) % (1 << CHECK_BITS)
    word = (ms << CHECK_BITS) | check
    return [(word >> shift) & 1 for shift in range(BLOCKS - 1, -1, -1)]


def luma(ms: int, number: int, width: int, height: int) -> "np.ndarray[tuple[int, int], np.dtype[np.uint8]]":
    """One picture that shows `ms`, in shades of grey."""
    x = np.arange(width, dtype=np.uint16)
    y = np.arange(height, dtype=np.uint16)[:, None]
    drawn = (((x + y + number * 3) // 2) % 160 + 40).astype(np.uint8)
    bits = np.array(code(ms), dtype=np.uint8) * 219 + 16
    drawn[: int(height * BAND)] = bits[np.minimum(x.astype(np.uint32) * BLOCKS // width, BLOCKS - 1)]
    return drawn


def frame(ms: int, number: int, width: int, height: int) -> bytes:
    """The same as yuv420p."""
    chroma = np.full(width * height // 2, 128, dtype=np.uint8)
    return luma(ms, number, width, height).tobytes() + chroma.tobytes()


READ_JS: Final = Template("""
(video) => {
  const BLOCKS = $blocks, CHECK = $check, BAND = $band;
  const canvas = new OffscreenCanvas(video.videoWidth, Math.max(1, Math.floor(video.videoHeight * BAND)));
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.drawImage(video, 0, 0);
  const row = context.getImageData(0, Math.floor(canvas.height / 2), canvas.width, 1).data;
  let word = 0n;
  for (let i = 0; i < BLOCKS; i++) {
    const x = Math.floor((i + 0.5) * canvas.width / BLOCKS);
    word = (word << 1n) | (row[4 * x] > 128 ? 1n : 0n);
  }
  const ms = word >> BigInt(CHECK);
  let check = 0n;
  for (let i = 0n; i < 8n; i++) check += ms >> (BigInt(CHECK) * i);
  if (check % (1n << BigInt(CHECK)) !== (word & ((1n << BigInt(CHECK)) - 1n))) return null;
  return Number(ms);
}
""").substitute(blocks=BLOCKS, check=CHECK_BITS, band=BAND)
"""A JavaScript function: a playing <video> in, the time its picture shows in Unix ms out, or null where it can't be read."""


class ClockSource:
    """An encoder with the clock in its picture, publishing to RTMP in real time until it is stopped."""

    def __init__(
        self,
        url: str,
        *,
        width: int = 640,
        height: int = 360,
        fps: int = 30,
        key_s: float = 2.0,
        bitrate: str = "1500k",
    ) -> None:
        self.url = url
        self.frames = 0
        self._size = (width, height)
        self._fps = fps
        self._command = [
            imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error",
            "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{width}x{height}", "-r", str(fps), "-i", "pipe:0",
            "-f", "lavfi", "-re", "-i", "sine=frequency=440:sample_rate=48000",
            "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-bf", "0", "-g", str(round(key_s * fps)),
            "-b:v", bitrate, "-maxrate", bitrate, "-bufsize", bitrate, "-pix_fmt", "yuv420p",
            "-c:a", "aac", "-b:a", "96k", "-shortest", "-flush_packets", "1", "-f", "flv", url,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "ClockSource":
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE)  # noqa: ASYNC220 - it is fed by a thread
        self._task = asyncio.create_task(asyncio.to_thread(self._draw))
        return self

    def _draw(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        start = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ValueError):
            while self._process.poll() is None:
                due = start + self.frames / self._fps
                time.sleep(max(0.0, due - time.monotonic()))
                self._process.stdin.write(frame(time.time_ns() // 1_000_000, self.frames, *self._size))
                self._process.stdin.flush()
                self.frames += 1

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def stop(self) -> None:
        """End as an encoder does: the input ends, FFmpeg says goodbye to the server."""
        if self._process is None or self._task is None:
            return
        self._process.send_signal(2)
        await asyncio.to_thread(self._process.wait, 10)
        await self._task

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
