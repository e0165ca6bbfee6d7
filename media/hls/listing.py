"""The validator's own reader of media playlists, so that a fault of our writer's is not read back as right. Pure: text in, tags out.

`merged` puts back what a delta update left out (6.2.5.1).
"""

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

ROUNDING_S: Final = 0.01
"""Durations are written with five digits, and there are many."""
_ATTRIBUTE: Final = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^",]*)')

Attributes = dict[str, str]


@dataclass(slots=True)
class PartLine:
    uri: str
    duration_s: float
    independent: bool
    gap: bool


@dataclass(slots=True)
class SegmentLines:
    number: int
    discontinuity: bool = False
    init: str = ""
    at: datetime | None = None
    gap: bool = False
    uri: str = ""
    duration_s: float = 0.0
    parts: list[PartLine] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return bool(self.uri)


@dataclass(slots=True)
class Playlist:
    """Tags as they stood. `hint`: the next part's address."""

    target_s: int = 0
    part_target_s: float = 0.0
    control: Attributes = field(default_factory=dict)
    first: int = 0
    breaks_before: int = 0
    skipped: int = 0
    kind: str = ""
    independent: bool = False
    hint: str = ""
    reports: list[Attributes] = field(default_factory=list)
    ended: bool = False
    segments: list[SegmentLines] = field(default_factory=list)

    @property
    def reaches(self) -> tuple[int, int]:
        """Number and part of the last part there is; part -1 where the last segment's are not listed."""
        last = self.segments[-1] if self.segments else None
        return (last.number, len(last.parts) - 1) if last is not None else (self.first - 1, -1)


def attributes(text: str) -> Attributes:
    """4.2: an attribute list."""
    return {name: value.strip('"') for name, value in _ATTRIBUTE.findall(text)}


def read(text: str) -> Playlist:
    """Raises `ValueError` for what is no playlist."""
    lines = text.split("\n")
    if lines[0] != "#EXTM3U" or lines[-1] != "":
        raise ValueError("it does not begin with #EXTM3U and end with a line's end")
    found, init, pending = Playlist(), "", None
    number = 0
    for line in lines[1:-1]:
        tag, _, value = line.partition(":")
        current = pending or SegmentLines(number, init=init)
        match tag:
            case "#EXT-X-TARGETDURATION":
                found.target_s = int(value)
            case "#EXT-X-PART-INF":
                found.part_target_s = float(attributes(value)["PART-TARGET"])
            case "#EXT-X-SERVER-CONTROL":
                found.control = attributes(value)
            case "#EXT-X-MEDIA-SEQUENCE":
                found.first = number = int(value)
            case "#EXT-X-DISCONTINUITY-SEQUENCE":
                found.breaks_before = int(value)
            case "#EXT-X-SKIP":
                found.skipped = int(attributes(value)["SKIPPED-SEGMENTS"])
                number += found.skipped
            case "#EXT-X-PRELOAD-HINT":
                found.hint = attributes(value)["URI"]
            case "#EXT-X-RENDITION-REPORT":
                found.reports.append(attributes(value))
            case "#EXT-X-ENDLIST":
                found.ended = True
            case "#EXT-X-PLAYLIST-TYPE":
                found.kind = value
            case "#EXT-X-INDEPENDENT-SEGMENTS":
                found.independent = True
            case "#EXT-X-DISCONTINUITY":
                current.discontinuity, pending = True, current
            case "#EXT-X-MAP":
                init = current.init = attributes(value)["URI"]
                pending = current
            case "#EXT-X-PROGRAM-DATE-TIME":
                current.at, pending = datetime.fromisoformat(value), current
            case "#EXT-X-GAP":
                current.gap, pending = True, current
            case "#EXT-X-PART":
                said = attributes(value)
                part = PartLine(
                    said["URI"], float(said["DURATION"]), said.get("INDEPENDENT") == "YES", said.get("GAP") == "YES"
                )
                current.parts.append(part)
                pending = current
            case "#EXTINF":
                current.duration_s, pending = float(value.rstrip(",")), current
            case _ if line and not line.startswith("#"):
                current.uri = line
                found.segments.append(current)
                number, pending = current.number + 1, None
    if pending is not None:
        found.segments.append(pending)
    return found


def merged(before: Playlist, now: Playlist) -> Playlist:
    """A delta update with what it skipped, as a player puts it together. Raises `ValueError` where that is not to be had."""
    if not now.skipped:
        return now
    last = now.first + now.skipped - 1
    known = [it for it in before.segments if now.first <= it.number <= last]
    if len(known) != now.skipped or not all(it.whole for it in known):
        raise ValueError(f"6.2.5.1 it skips up to segment {last}, which the playlist before did not have whole")
    kept_s = sum(it.duration_s or sum(part.duration_s for part in it.parts) for it in now.segments)
    if kept_s + ROUNDING_S < float(now.control.get("CAN-SKIP-UNTIL", "inf")):
        raise ValueError(f"6.2.5.1 it skips what is only {kept_s:.1f} s from its end")
    rest = [replace(it, init=it.init or known[-1].init) for it in now.segments]
    # A segment whose parts are not listed any more is not one that has changed.
    return replace(now, skipped=0, segments=[*(replace(it, parts=[]) for it in known), *rest])
