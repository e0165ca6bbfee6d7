"""Which renditions a source gets beside itself. One table; a rung is a line of it. Called by the pipeline, pure.

An operator's own table is a JSON file of the same lines (`TALLYLIGHT_LADDER`), the dearest first.
"""

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from media.sample import VideoTrack

HALVED_FROM_FPS: Final = 40.0
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
    """The lines of the table that make sense for a source: none above its size, its frame rate or `top_height`."""
    if source is None:
        return ()
    side = min(source.width, source.height)
    rate = source.frame_rate or FRAME_RATE_UNKNOWN
    fitting = [
        rung
        for rung in ladder
        if rung.height <= top_height
        and rung.height < SMALLER * side
        and (rung.frame_rate_max <= HALVED_FROM_FPS or rate > HALVED_FROM_FPS)
    ]
    usual = [rung for rung in fitting if not rung.small]
    return tuple(usual + [rung for rung in fitting if rung.small][: max(0, RUNGS_MIN - len(usual))])


def halves(source: VideoTrack, rung: Rung) -> bool:
    """Whether the rung takes every other frame."""
    return source.frame_rate > HALVED_FROM_FPS >= rung.frame_rate_max


def frame_rate(source: VideoTrack, rung: Rung) -> float:
    """0 where the source's is not known."""
    return source.frame_rate / (2 if halves(source, rung) else 1)


def size(source: VideoTrack, rung: Rung) -> tuple[int, int]:
    """Width and height in pixels: the shorter side as the table says, the other in proportion and even."""
    longer, shorter = max(source.width, source.height), min(source.width, source.height)
    other = max(2, round(longer * rung.height / shorter / 2) * 2)
    return (rung.height, other) if source.height > source.width else (other, rung.height)
