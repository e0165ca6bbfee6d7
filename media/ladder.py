"""Which renditions a source gets beside itself. One table; a rung is a line of it. Called by the pipeline, pure.

An operator's own table is a JSON file of the same lines (`TALLYLIGHT_LADDER`), the dearest first.
"""

import math
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from media.sample import VideoTrack

HALVED_FROM_FPS: Final = 40.0
"""Rungs of more frames than this are for sources that have more."""
RATE_SLACK: Final = 1.02
"""Encoders' clocks and the milliseconds of RTMP: so much above it is still the same rate."""
SMALLER: Final = 0.9
"""A rung has less than this share of the source's height: closer ones would cost much and help nobody."""
RUNGS_MIN: Final = 2
"""The small rungs are for sources that have fewer of the others."""
FRAME_RATE_UNKNOWN: Final = 30.0
AUDIO: Final = "audio"
AUDIO_BANDWIDTH: Final = 192_000


class Rung(BaseModel):
    """`height` is the shorter side in pixels; the bit rate in kbit/s; `level` as in H.264 annex A. `small`: only where few are others."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,30}$")]
    height: Annotated[int, Field(ge=64, le=4320, multiple_of=2)]
    video_kbps: Annotated[int, Field(ge=50, le=100_000)]
    level: Annotated[str, Field(pattern=r"^[1-6](\.[0-3])?$")]
    frame_rate_max: Annotated[float, Field(gt=0, le=120)] = 30.0
    small: bool = False


LADDER: Final = (
    Rung(name="1080p60", height=1080, video_kbps=6_000, level="4.2", frame_rate_max=60.0),
    Rung(name="720p60", height=720, video_kbps=4_000, level="3.2", frame_rate_max=60.0),
    Rung(name="720p30", height=720, video_kbps=2_500, level="3.1"),
    Rung(name="480p", height=480, video_kbps=1_200, level="3.1"),
    Rung(name="360p", height=360, video_kbps=700, level="3.0"),
    Rung(name="240p", height=240, video_kbps=350, level="2.1", small=True),
    Rung(name="160p", height=160, video_kbps=180, level="1.3", small=True),
)
"""From the top. Bit rates for x264 superfast; levels allow for 21:9."""

_table: Final = TypeAdapter(tuple[Rung, ...])


class LadderInvalid(Exception):
    """The operator's table is none; the message says what is wrong with it."""


def read_ladder(path: Path) -> tuple[Rung, ...]:
    """Raises `LadderInvalid`."""
    try:
        rungs = _table.validate_json(path.read_bytes())
    except (OSError, ValidationError) as fault:
        raise LadderInvalid(f"{path}: {fault}") from None
    if len({rung.name for rung in rungs} - {"source", AUDIO}) < len(rungs):
        raise LadderInvalid(f"{path}: every rung has a name of its own, which is neither source nor {AUDIO}")
    return rungs


def rungs_for(source: VideoTrack | None, *, top_height: int, ladder: tuple[Rung, ...] = LADDER) -> tuple[Rung, ...]:
    """The lines of the table that make sense for a source: none above its size, its frame rate or `top_height`.

    One of its own size makes sense where it has fewer frames, and where the source is not H.264, which not everybody can play."""
    if source is None:
        return ()
    side = min(source.width, source.height)
    is_fast = (source.frame_rate or FRAME_RATE_UNKNOWN) > HALVED_FROM_FPS
    is_h264 = source.codec.startswith("avc1")
    timely = [it for it in ladder if it.height <= top_height and (is_fast or it.frame_rate_max <= HALVED_FROM_FPS)]
    fitting = [
        rung
        for rung in timely
        if rung.height < SMALLER * side or (rung.height <= side and (not is_h264 or every(source, rung) > 1))
    ]
    if not is_h264 and side <= top_height and all(rung.height < SMALLER * side for rung in fitting):
        fitting = [*_of_its_size(source, side - side % 2, ladder), *fitting]
    usual = [rung for rung in fitting if not rung.small]
    return tuple(usual + [rung for rung in fitting if rung.small][: max(0, RUNGS_MIN - len(usual))])


def _of_its_size(source: VideoTrack, side: int, ladder: tuple[Rung, ...]) -> list[Rung]:
    """The line above, made to fit; none where the table has none."""
    above = [rung for rung in ladder if rung.height >= SMALLER * side]
    if not above:
        return []
    nearest = min(above, key=lambda rung: (rung.height, -rung.frame_rate_max))
    rate = round(frame_rate(source, nearest) or FRAME_RATE_UNKNOWN)
    return [nearest.model_copy(update={"name": f"{side}p{rate}", "height": side, "small": False})]


def every(source: VideoTrack, rung: Rung) -> int:
    """Of so many frames the rung takes one."""
    return max(1, math.ceil(source.frame_rate / (rung.frame_rate_max * RATE_SLACK)))


def frame_rate(source: VideoTrack, rung: Rung) -> float:
    """0 where the source's is not known."""
    return source.frame_rate / every(source, rung)


def size(source: VideoTrack, rung: Rung) -> tuple[int, int]:
    """Width and height in pixels: the shorter side as the table says, the other in proportion and even."""
    longer, shorter = max(source.width, source.height), min(source.width, source.height)
    other = max(2, round(longer * rung.height / shorter / 2) * 2)
    return (rung.height, other) if source.height > source.width else (other, rung.height)
