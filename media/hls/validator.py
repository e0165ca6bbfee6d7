"""Checks a rendition against the rules of LL-HLS (draft-pantos-hls-rfc8216bis), from outside: by its playlists over time and its bytes.

`Watch` is fed a rendition's playlists as they change, live ones, rewound ones or a recording's, whole or as delta updates, and a function
that fetches what they name; its findings say what is broken, with the section that says so. What renditions must have in common is
`media.hls.agreement`'s. Used by the tests. Pure but for the fetching.
"""

from collections.abc import Callable, Iterator
from typing import Final

from media.fmp4.box import Fmp4Error
from media.fmp4.reader import Fmp4Reader, Tracks
from media.hls.listing import Playlist, SegmentLines, merged, read
from media.sample import Sample

ROUNDING_S: Final = 0.002
"""Durations are written with five digits and program times with three."""
SYNC_S_MAX: Final = 0.020
FINDINGS_MAX: Final = 200
Fetch = Callable[[str], bytes | None]
"""The bytes at an address in a playlist; None where there are none (any more)."""


class Watch:
    """One rendition, from its first playlist to its last. `recorded`: the playlist of a recording, which nobody waits for."""

    def __init__(self, name: str, fetch: Fetch, *, recorded: bool = False) -> None:
        self.name = name
        self.latest: Playlist | None = None
        self.findings: list[str] = []
        self.segments: dict[int, SegmentLines] = {}
        self.breaks: dict[int, int] = {}
        """Segment number → its discontinuity sequence number."""
        self.begins_s: dict[int, float] = {}
        """Segment number → when its first picture (or sound, where there are none) is shown, in the time of its bytes."""
        self.samples = 0
        self._fetch = fetch
        self._recorded = recorded
        self._media = _Media(self)

    def playlist(self, text: str) -> None:
        before = self.latest
        try:
            now = read(text)
            now = merged(before, now) if before is not None else now
            self.check(not now.skipped, "6.2.5.1 a delta update for one who has nothing yet")
        except (ValueError, KeyError) as fault:
            self.found(f"unreadable playlist: {fault}")
            return
        self._alone(now)
        if before is not None:
            self._after(before, now)
        self.latest = now
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
        self.check(now.target_s > 0, "4.4.3.1 no target duration")
        for segment in now.segments:
            self._segment(segment, now)
        if self._recorded:
            self.check(now.ended and now.kind == "VOD", "4.4.3.5 a recording has its end and says that it is one")
        else:
            self._low_latency(now)

    def _low_latency(self, now: Playlist) -> None:
        control, target, part = now.control, now.target_s, now.part_target_s
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

    @property
    def is_independent(self) -> bool:
        """Whether the playlist promises a key frame at each segment's beginning."""
        return self.latest is not None and self.latest.independent

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
        begins_with_key = first is None or first.key or not watch.is_independent
        watch.check(begins_with_key, f"4.4.2.1 segment {segment.number} does not begin with a key frame")
        shown = min(((it.dts + it.cts) / scales[leading] for it in samples if it.kind == leading), default=None)
        if shown is not None:
            watch.begins_s[segment.number] = shown
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


def _parts_of(playlist: Playlist) -> set[str]:
    return {part.uri for it in playlist.segments for part in it.parts}
