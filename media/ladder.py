"""Which renditions a source gets beside itself. One table; a rung is a line of it. Called by the transcoder, pure."""

from dataclasses import dataclass
from typing import Final

from media.sample import VideoTrack

RUNGS_MAX: Final = 2
HALVED_FROM_FPS: Final = 40.0


@dataclass(frozen=True, slots=True)
class Rung:
    """`height` in pixels; the bit rate in kbit/s."""

    name: str
    height: int
    video_kbps: int


LADDER: Final = (
    Rung("720p", 720, 2_500),
    Rung("480p", 480, 1_200),
    Rung("360p", 360, 700),
    Rung("240p", 240, 350),
    Rung("160p", 160, 180),
)
"""From the top. Bit rates of 30 frames/s, x264 superfast."""


def rungs_for(source: VideoTrack | None, *, top_height: int, rungs_max: int = RUNGS_MAX) -> tuple[Rung, ...]:
    """The next lines of the table below the source's height, none above `top_height`: what the machine can carry."""
    if source is None:
        return ()
    lower = [
        rung for rung in LADDER if rung.height <= top_height and rung.height < 0.9 * min(source.width, source.height)
    ]
    return tuple(lower[:rungs_max])


def halves(source: VideoTrack) -> bool:
    """Whether the rungs take every other frame."""
    return source.frame_rate > HALVED_FROM_FPS
