"""What viewers see while the encoder is away: a picture and silence, encoded beforehand, that fill every rendition without a transcoder.

The pipeline prepares the loops when a broadcast begins and shows them when its encoder is lost. One loop a shape of rendition, kept for
all broadcasts of the node. A shape that cannot be encoded has no slate: its viewers wait.
"""

import asyncio
import math
import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import ffmpeg
import structlog

from media.fmp4.box import Fmp4Error
from media.fmp4.reader import Fmp4Reader, Tracks
from media.hls.cuts import SEGMENT_S
from media.hls.live import LiveBroadcast
from media.sample import AudioTrack, Rendition, Sample, SampleSink, VideoTrack

log = structlog.get_logger()

PICTURE: Final = Path(__file__).with_name("slate.png")
FRAME_RATE: Final = 20
LOOPS_MAX: Final = 64
ENCODE_S_MAX: Final = 20.0
TICK_S: Final = 0.1
NICENESS: Final = 15
SILENCE_FRAME: Final = 4
"""The first frames of an encoder are not yet what it makes of silence."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes in pixels, 0 without video; `sample_rate` in Hz, 0 without audio."""

    width: int
    height: int
    sample_rate: int
    channels: int


@dataclass(frozen=True, slots=True)
class Loop:
    """`frames` last a segment, with a key frame at their start; `silence` is one frame of audio, which can be repeated for ever."""

    video: VideoTrack | None
    audio: AudioTrack | None
    frames: tuple[Sample, ...]
    silence: Sample | None


def shape_of(rendition: Rendition) -> Shape:
    video, audio = rendition.video, rendition.audio
    return Shape(
        video.width - video.width % 2 if video else 0,
        video.height - video.height % 2 if video else 0,
        audio.sample_rate if audio else 0,
        min(audio.channels or 2, 2) if audio else 0,
    )


class Slates:
    """The node's loops, each as long as a segment."""

    def __init__(self, binary: Path, *, loop_s: float = SEGMENT_S) -> None:
        self._binary = binary
        self._loop_s = loop_s
        self._loops: OrderedDict[Shape, Loop | None] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()

    async def loop(self, shape: Shape) -> Loop | None:
        async with self._one_at_a_time:
            if shape not in self._loops:
                self._loops[shape] = await self._encoded(shape)
                while len(self._loops) > LOOPS_MAX:
                    self._loops.popitem(last=False)
            self._loops.move_to_end(shape)
            return self._loops[shape]

    async def _encoded(self, shape: Shape) -> Loop | None:
        process: asyncio.subprocess.Process | None = None
        try:
            async with asyncio.timeout(ENCODE_S_MAX):
                process = await asyncio.create_subprocess_exec(
                    *command(self._binary, shape, loop_s=self._loop_s),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.DEVNULL,
                    start_new_session=True,
                )
                with suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
                made, _ = await process.communicate()
            return _loop(made)
        except (TimeoutError, OSError, Fmp4Error) as fault:
            log.warning("slate.none", shape=shape, error=f"{type(fault).__name__}: {fault}")
            return None
        finally:
            if process is not None and process.returncode is None:
                process.kill()


def command(binary: Path, shape: Shape, *, loop_s: float) -> list[str]:
    """FFmpeg's: the picture and silence in, fragmented MP4 out."""
    tracks, options = [], dict[str, str | int]()
    if shape.width:
        picture = ffmpeg.input(str(PICTURE), loop=1, framerate=FRAME_RATE, t=loop_s)
        fitted = picture.filter("scale", shape.width, shape.height, force_original_aspect_ratio="decrease")
        tracks.append(fitted.filter("pad", shape.width, shape.height, -1, -1, color="0x101216"))
        options |= {"c:v": "libx264", "preset": "veryfast", "tune": "stillimage", "pix_fmt": "yuv420p", "bf": 0}
        options |= {"g": round(FRAME_RATE * loop_s), "sc_threshold": 0, "video_track_timescale": 90_000}
    if shape.sample_rate:
        layout = "mono" if shape.channels == 1 else "stereo"
        tracks.append(ffmpeg.input(f"anullsrc=r={shape.sample_rate}:cl={layout}", f="lavfi", t=loop_s))
        options |= {"c:a": "aac", "b:a": "32k"}
    made = ffmpeg.output(*tracks, "pipe:1", f="mp4", movflags="+frag_keyframe+empty_moov+default_base_moof", **options)
    arguments: list[str] = ffmpeg.compile(made, cmd=str(binary))
    return [arguments[0], "-hide_banner", "-loglevel", "error", "-nostdin", *arguments[1:]]


def _loop(made: bytes) -> Loop | None:
    tracks: Tracks | None = None
    frames: list[Sample] = []
    sounds: list[Sample] = []
    for found in Fmp4Reader().receive(made):
        match found:
            case Tracks():
                tracks = found
            case Sample(kind="video"):
                frames.append(found)
            case Sample():
                sounds.append(found)
    if tracks is None or not (frames or len(sounds) > SILENCE_FRAME):
        return None
    video = replace(tracks.video, frame_rate=float(FRAME_RATE)) if tracks.video is not None else None
    return Loop(video, tracks.audio, tuple(frames), sounds[SILENCE_FRAME] if tracks.audio is not None else None)


class Slate:
    """One showing, in all renditions that a broadcast has. Ends with `close`, after which the encoder's media may come."""

    def __init__(
        self, live: LiveBroadcast, loops: dict[str, Loop], *, from_ms: int, clock: Callable[[], float]
    ) -> None:
        """`loops` by rendition name; `from_ms` on the broadcast's clock; `clock` in seconds, monotonic."""
        self._clock = clock
        self._began_at = clock()
        self._from_s = from_ms / 1000
        # The source leads: it is the first to be given samples, and the first to stop.
        names = [it.name for it in live.renditions if it.name in loops]
        self._turns = [
            _Turn(loops[name], live.add(_as(live, name, loops[name]), slate=True), self._from_s) for name in names
        ]
        self._task = asyncio.create_task(self._show())

    @property
    def until_ms(self) -> int:
        """How far the broadcast's clock has gone."""
        return math.ceil((self._from_s + self._clock() - self._began_at) * 1000)

    def close(self) -> None:
        self._task.cancel()
        for turn in self._turns:
            turn.sink.close()

    async def _show(self) -> None:
        while True:
            for turn in self._turns:
                turn.push(self.until_ms / 1000)
            await asyncio.sleep(TICK_S)


class _Turn:
    """A loop going round in one rendition."""

    def __init__(self, loop: Loop, sink: SampleSink, from_s: float) -> None:
        self.sink = sink
        self._loop = loop
        self._from_s = from_s
        self._frame = self._sound = 0

    def push(self, until_s: float) -> None:
        video, audio = self._loop.video, self._loop.audio
        while video is not None and self._from_s + self._frame / FRAME_RATE <= until_s:
            frame = self._loop.frames[self._frame % len(self._loop.frames)]
            dts = round((self._from_s + self._frame / FRAME_RATE) * video.timescale)
            self.sink.push(replace(frame, dts=dts, cts=0, duration=video.timescale // FRAME_RATE))
            self._frame += 1
        silence = self._loop.silence
        while audio is not None and silence is not None:
            start = round(self._from_s * audio.timescale) + self._sound * silence.duration
            if start > until_s * audio.timescale:
                return
            self.sink.push(replace(silence, dts=start, cts=0))
            self._sound += 1


def _as(live: LiveBroadcast, name: str, loop: Loop) -> Rendition:
    found = live.rendition(name)
    assert found is not None
    return Rendition(name, found.rendition.bandwidth, loop.video, loop.audio)
