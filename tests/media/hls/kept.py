"""A sink of segments for the packager's tests."""

from dataclasses import dataclass, field

from media.sample import Rendition, Segment


@dataclass
class Kept:
    """A `SegmentSink` that keeps all it was given."""

    inits: list[tuple[str, bytes]] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)

    def rendition(self, rendition: Rendition, init: bytes, *, slate: bool = False) -> None:
        self.inits.append((rendition.name, init))

    def segment(self, segment: Segment) -> None:
        self.segments.append(segment)
