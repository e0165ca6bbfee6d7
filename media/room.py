"""What a broadcast costs a node, and whether there is room for it. Called by the pipeline, pure.

The unit is the megapixel encoded a second; everything else a broadcast costs is counted in it, as measured for each rung of each source by
`make bench NAME=transcode_realtime` (`docs/benchmarks.md`).
"""

from dataclasses import dataclass
from typing import Final

from media.ladder import FRAME_RATE_UNKNOWN, Rung, frame_rate, size
from media.sample import VideoTrack

SCALED: Final = 0.3
"""A megapixel of the source that a rung is scaled from, for every rung looks at all of them."""
DECODED: Final = 0.15
"""A megapixel of the source, once for all rungs."""
FFMPEG: Final = 6.0
"""FFmpeg itself."""
INGEST: Final = 2.5
"""A broadcast without rungs: RTMP, packaging, archive."""
RUNGS_SHARE_MAX: Final = 0.9
"""So much of a node may go to rungs; the rest is for broadcasts that get none, which are worth more than another's smallest rung."""


def cost(source: VideoTrack, rung: Rung) -> float:
    """Of one rung."""
    width, height = size(source, rung)
    rate = frame_rate(source, rung) or FRAME_RATE_UNKNOWN
    return (width * height + SCALED * source.width * source.height) * rate / 1e6


def _costs(source: VideoTrack, rungs: tuple[Rung, ...]) -> float:
    if not rungs:
        return 0.0
    decoded = source.width * source.height * (source.frame_rate or FRAME_RATE_UNKNOWN) / 1e6
    return FFMPEG + DECODED * decoded + sum(cost(source, rung) for rung in rungs)


@dataclass(slots=True)
class Room:
    """What a node can carry, and how much of it is given away."""

    capacity: float
    ingest: float = 0.0
    rungs: float = 0.0

    @property
    def taken(self) -> float:
        return self.ingest + self.rungs

    def enter(self) -> bool:
        """Whether there is room for one more broadcast, be it without rungs; `leave` gives that back."""
        if self.taken + INGEST > self.capacity:
            return False
        self.ingest += INGEST
        return True

    def leave(self) -> None:
        self.ingest = max(0.0, self.ingest - INGEST)

    def admit(self, source: VideoTrack | None, rungs: tuple[Rung, ...]) -> "Admitted":
        """Those rungs there is room for, the dearest left out first."""
        left = list(rungs) if source is not None else []
        while left and source is not None:
            wanted = _costs(source, tuple(left))
            if self.rungs + wanted <= RUNGS_SHARE_MAX * self.capacity and self.taken + wanted <= self.capacity:
                self.rungs += wanted
                return Admitted(self, source, tuple(left))
            left.remove(max(left, key=lambda rung: cost(source, rung)))
        return Admitted(self, source, ())


@dataclass(slots=True)
class Admitted:
    """The rungs of one broadcast and the room they hold, until `release`."""

    room: Room
    source: VideoTrack | None
    rungs: tuple[Rung, ...]

    def shed(self, rung: Rung) -> None:
        self._keep(tuple(it for it in self.rungs if it is not rung))

    def release(self) -> None:
        self._keep(())

    def _keep(self, rungs: tuple[Rung, ...]) -> None:
        if self.source is not None:
            freed = _costs(self.source, self.rungs) - _costs(self.source, rungs)
            self.room.rungs = max(0.0, self.room.rungs - freed)
        self.rungs = rungs
