"""Checks a broadcast against the rules of LL-HLS (draft-pantos-hls-rfc8216bis), from outside: by its playlists over time and its bytes.

`Watch` is fed each rendition's playlists as they change, and a function that fetches what they name; its findings say what is broken, with
the section that says so. Used by the tests. Has a reader of playlists of its own, so that a fault of our
writer's is not read back as right. Pure but for the fetching.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from media.fmp4.box import Fmp4Error
from media.fmp4.reader import Fmp4Reader, Tracks
from media.sample import Sample

ROUNDING_S: Final = 0.002
"""Durations are written with five digits and program times with three."""
SYNC_S_MAX: Final = 0.020
FINDINGS_MAX: Final = 200
_ATTRIBUTE: Final = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^",]*)')

Attributes = dict[str, str]
Fetch = Callable[[str], bytes | None]
"""The bytes at an address in a playlist; None where there are none (any more)."""


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
    hint: str = ""
    reports: list[Attributes] = field(default_factory=list)
    ended: bool = False
    segments: list[SegmentLines] = field(default_factory=list)


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


class Watch:
    """One rendition, from its first playlist to its last."""

    def __init__(self, name: str, fetch: Fetch) -> None:
        self.name = name
        self.findings: list[str] = []
        self.segments: dict[int, SegmentLines] = {}
        self.breaks: dict[int, int] = {}
        """Segment number → its discontinuity sequence number."""
        self.samples = 0
        self._fetch = fetch
        self._before: Playlist | None = None
        self._media = _Media(self)

    def playlist(self, text: str) -> None:
        try:
            now = read(text)
        except (ValueError, KeyError) as fault:
            self.found(f"unreadable playlist: {fault}")
            return
        self._alone(now)
        if self._before is not None:
            self._after(self._before, now)
        self._before = now
        for segment in now.segments:
            self._seen(segment, now)

    def found(self, what: str) -> None:
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(f"{self.name}: {what}")

    def check(self, true: bool, what: str) -> None:
        if not true:
            self.found(what)

    # -- one playlist -----------------------------------------------------------------------------------------------

    def _alone(self, now: Playlist) -> None:
        control = now.control
        target, part = now.target_s, now.part_target_s
        self.check(target > 0, "4.4.3.1 no target duration")
        self.check(control.get("CAN-BLOCK-RELOAD") == "YES", "4.4.3.8 no blocking reload")
        self.check(
            float(control.get("PART-HOLD-BACK", 0)) >= 3 * part - ROUNDING_S,
            "4.4.3.8 PART-HOLD-BACK below 3 part targets",
        )
        self.check(
            float(control.get("HOLD-BACK", 3 * target)) >= 3 * target, "4.4.3.8 HOLD-BACK below 3 target durations"
        )
        if "CAN-SKIP-UNTIL" in control:
            self.check(
                float(control["CAN-SKIP-UNTIL"]) >= 6 * target, "4.4.3.8 CAN-SKIP-UNTIL below 6 target durations"
            )
        self.check(bool(now.hint) != now.ended, "B.1 a preload hint stands exactly while there is no end")
        for segment in now.segments:
            self._segment(segment, now)
        after_s = 0.0
        for segment in reversed(now.segments):
            if segment.parts and segment.whole:
                self.check(after_s <= 3 * target + ROUNDING_S, f"6.2.2 parts of {segment.number} are listed too long")
            after_s += segment.duration_s or sum(it.duration_s for it in segment.parts)

    def _segment(self, segment: SegmentLines, now: Playlist) -> None:
        name = f"segment {segment.number}"
        self.check(segment.at is not None, f"B.1 {name} has no program date time")
        self.check(bool(segment.init), f"4.4.4.5 {name} has no initialisation segment")
        if segment.whole:
            self.check(round(segment.duration_s) <= now.target_s, f"4.4.3.1 {name} lasts {segment.duration_s}")
            if segment.parts:
                parts_s = sum(it.duration_s for it in segment.parts)
                self.check(
                    abs(parts_s - segment.duration_s) < ROUNDING_S * len(segment.parts),
                    f"{name} is not as long as its parts",
                )
                has_gap = any(it.gap for it in segment.parts)
                self.check(segment.gap or not has_gap, f"4.4.4.9 {name} lacks a part and is no gap")
        for index, part in enumerate(segment.parts):
            self.check(part.duration_s <= now.part_target_s + ROUNDING_S, f"4.4.4.9 {part.uri} lasts {part.duration_s}")
            is_last = index == len(segment.parts) - 1
            excused = is_last or part.independent or part.gap or segment.parts[index + 1].gap
            enough = part.duration_s >= 0.85 * now.part_target_s - ROUNDING_S
            self.check(enough or excused, f"4.4.4.9 {part.uri} lasts only {part.duration_s}")

    # -- a playlist and the one before it ------------------------------------------------------------------------------

    def _after(self, before: Playlist, now: Playlist) -> None:
        self.check(not before.ended or now.ended, "4.4.3.4 the end was taken back")
        self.check(
            before.target_s == now.target_s,
            f"4.4.3.1 the target duration went from {before.target_s} to {now.target_s}",
        )
        self.check(now.first >= before.first, "6.2.2 the media sequence number fell")
        gone = [it for it in before.segments if it.number < now.first]
        left = before.breaks_before + sum(it.discontinuity for it in gone)
        if not before.skipped and not now.skipped:
            self.check(left == now.breaks_before, f"6.2.2 discontinuity sequence {now.breaks_before}, not {left}")
        last = before.segments[-1].number if before.segments else before.first
        self.check(not now.segments or now.segments[-1].number >= last, "6.2.2 a segment was taken back")
        if before.hint and now.segments:
            new = [part.uri for it in now.segments for part in it.parts if part.uri not in _parts_of(before)]
            if new:
                self.check(new[0] == before.hint, f"4.4.5.3 {before.hint} was hinted at, {new[0]} came")

    def _seen(self, segment: SegmentLines, now: Playlist) -> None:
        known = self.segments.get(segment.number)
        if known is None:
            self.segments[segment.number] = segment
            upto = [it for it in now.segments if it.number <= segment.number]
            self.breaks[segment.number] = now.breaks_before + sum(it.discontinuity for it in upto)
        else:
            for what in ("discontinuity", "init", "at"):
                self.check(
                    getattr(known, what) == getattr(segment, what), f"6.2.1 {what} of segment {segment.number} changed"
                )
            known_parts = [it.uri for it in known.parts]
            if segment.parts:
                self.check(
                    [it.uri for it in segment.parts][: len(known_parts)] == known_parts,
                    f"6.2.1 parts of {segment.number} changed",
                )
                known.parts = segment.parts
            if known.whole and segment.whole:
                self.check(
                    known.duration_s == segment.duration_s, f"6.2.1 the duration of segment {segment.number} changed"
                )
            known.uri, known.duration_s, known.gap = segment.uri, segment.duration_s, segment.gap
        if segment.whole:
            self._media.segment(self.segments[segment.number])

    def fetched(self, uri: str) -> bytes | None:
        return self._fetch(uri)


class _Media:
    """The bytes of a rendition's segments, in order: decode times without gaps, key frames, sound in step with the picture."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._next = -1
        self._init = ""
        self._reader = Fmp4Reader()
        self._tracks: Tracks | None = None
        self._ends: dict[str, int] = {}
        self._ending: tuple[float, float, str] | None = None

    def segment(self, segment: SegmentLines) -> None:
        if segment.number < self._next:
            return
        follows = segment.number == self._next
        self._next = segment.number + 1
        if segment.discontinuity or not follows or segment.gap:
            self._ends, self._ending = {}, None
        if segment.gap:
            return
        watch = self._watch
        data = watch.fetched(segment.uri)
        if data is None:
            watch.found(f"segment {segment.number} cannot be fetched")
            return
        parts = [watch.fetched(it.uri) for it in segment.parts]
        if parts and None not in parts:
            watch.check(b"".join(it or b"" for it in parts) == data, f"segment {segment.number} is not its parts")
        try:
            samples = list(self._samples(segment, data))
        except (Fmp4Error, RuntimeError) as fault:
            watch.found(f"segment {segment.number} cannot be read: {fault}")
            return
        self._timeline(segment, samples)

    def _samples(self, segment: SegmentLines, data: bytes) -> Iterator[Sample]:
        if segment.init != self._init:
            self._init, self._reader, self._ends = segment.init, Fmp4Reader(), {}
            init = self._watch.fetched(segment.init)
            for found in self._reader.receive(init or b""):
                if isinstance(found, Tracks):
                    self._tracks = found
        for found in self._reader.receive(data):
            if isinstance(found, Sample):
                self._watch.samples += 1
                yield found

    def _timeline(self, segment: SegmentLines, samples: list[Sample]) -> None:
        watch, tracks = self._watch, self._tracks
        if tracks is None:
            watch.found(f"{segment.init} has no tracks")
            return
        scales = {
            "video": tracks.video.timescale if tracks.video else 0,
            "audio": tracks.audio.timescale if tracks.audio else 0,
        }
        leading = "video" if tracks.video else "audio"
        watch.check(any(it.kind == leading for it in samples), f"segment {segment.number} has no {leading}")
        first = next((it for it in samples if it.kind == leading), None)
        watch.check(first is None or first.key, f"B.1 segment {segment.number} does not begin with a key frame")
        spans: dict[str, tuple[int, int]] = {}
        for sample in samples:
            end = self._ends.get(sample.kind)
            if end is not None and end != sample.dts:
                where = f"{sample.kind} of segment {segment.number}"
                if sample.kind == "video" or sample.dts < end:
                    watch.found(f"{where}: decode time {sample.dts} after {end}")
            self._ends[sample.kind] = sample.dts + sample.duration
            start = spans.get(sample.kind, (sample.dts, 0))[0]
            spans[sample.kind] = (start, sample.dts + sample.duration)
        if self._ending is not None and not segment.discontinuity:
            self._in_step(*self._ending)
        self._ending = None
        if "video" in spans and "audio" in spans:
            frame_s = max(it.duration for it in samples if it.kind == "audio") / scales["audio"]
            begins_s, ends_s = (
                spans["audio"][edge] / scales["audio"] - spans["video"][edge] / scales["video"] for edge in (0, 1)
            )
            self._in_step(begins_s, frame_s, f"begins in segment {segment.number}")
            # An encoder that stops need not stop both at once: how it ends counts where something follows.
            self._ending = (ends_s, frame_s, f"ends in segment {segment.number}")

    def _in_step(self, apart_s: float, frame_s: float, where: str) -> None:
        # Sound goes with the part in which it starts, so its edges lie up to a frame of it behind.
        self._watch.check(
            -SYNC_S_MAX <= apart_s <= frame_s + SYNC_S_MAX, f"sound is {apart_s:.3f} s off where it {where}"
        )


def together(watches: Iterable[Watch]) -> list[str]:
    """6.2.4: what renditions must have in common. Those whose segments are counted apart are compared by time alone."""
    found: list[str] = []
    ordered = list(watches)
    for one, other in pairwise(ordered):
        for number in sorted(one.segments.keys() & other.segments.keys()):
            a, b = one.segments[number], other.segments[number]
            if not (a.whole and b.whole) or a.at is None or b.at is None:
                continue
            if one.breaks[number] != other.breaks[number]:
                found.append(f"{one.name}, {other.name}: 6.2.4 discontinuity sequences differ at segment {number}")
            if abs(a.at - b.at) > timedelta(seconds=0.05):
                found.append(f"{one.name}, {other.name}: segment {number} is not of the same time")
            elif abs(a.duration_s - b.duration_s) > 0.05:
                found.append(f"{one.name}, {other.name}: segment {number} is {a.duration_s} and {b.duration_s} long")
    return found[:FINDINGS_MAX]


def _parts_of(playlist: Playlist) -> set[str]:
    return {part.uri for it in playlist.segments for part in it.parts}
