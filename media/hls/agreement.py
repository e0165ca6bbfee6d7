"""What the renditions of one broadcast must have in common (6.2.4), checked from outside: `media.hls.validator` watches each, this all.

One rendition may be `apart`: its segments are its own, because its key frames are too far apart for the others (docs/decisions/0005).
Of it is asked what players switch by: the same time in its bytes, the same dates, as many discontinuities before each moment.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from itertools import combinations
from typing import Final

from media.hls.validator import FINDINGS_MAX, SYNC_S_MAX, Fetch, Watch

ALIKE_S_MAX: Final = 0.05
"""Rates differ, so boundaries do: by a frame at most."""


class Agreement:
    """Feed every rendition's playlists through `playlist`, in the order in which they came."""

    def __init__(self, *, recorded: bool = False) -> None:
        self.watches: dict[str, Watch] = {}
        self._recorded = recorded
        self._seen: dict[str, dict[str, tuple[int, int]]] = {}
        """Rendition → how far all were when its playlist was last read."""
        self._said: dict[str, tuple[int, int, str]] = {}
        """Rendition → how far another's report says it is, and which one's."""

    def watch(self, name: str, fetch: Fetch) -> Watch:
        return self.watches.setdefault(name, Watch(name, fetch, recorded=self._recorded))

    def playlist(self, name: str, text: str) -> None:
        watch, before = self.watches[name], self.watches[name].latest
        watch.playlist(text)
        now = watch.latest
        if now is None or now is before or self._recorded:
            return
        self._keeps(watch)
        if before is not None and now.reaches == before.reaches:
            return
        if not now.ended:
            self._reports(watch)
        self._seen[name] = {it.name: it.latest.reaches for it in self.watches.values() if it.latest is not None}

    def _keeps(self, watch: Watch) -> None:
        """What others said of it is so."""
        said = self._said.pop(watch.name, None)
        assert watch.latest is not None
        if said is not None and said[:2] > watch.latest.reaches:
            watch.found(f"4.4.5.4 {said[2]} said that it reaches {said[:2]}, and it reaches {watch.latest.reaches}")

    def _reports(self, watch: Watch) -> None:
        assert watch.latest is not None
        said = {it["URI"].split("/")[-2]: it for it in watch.latest.reports}
        for other in self.watches.values():
            if other is watch or other.latest is None or other.latest.ended:
                continue
            report = said.get(other.name)
            if report is None:
                watch.found(f"B.1 no rendition report of {other.name}")
                continue
            reaches = int(report["LAST-MSN"]), int(report.get("LAST-PART", -1))
            known = self._seen.get(watch.name, {}).get(other.name, (-1, -1))
            if reaches < known:
                watch.found(f"4.4.5.4 it says that {other.name} reaches {reaches}, and it reached {known} before")
            self._said[other.name] = max(self._said.get(other.name, (-1, -1, "")), (*reaches, watch.name))

    def findings(self, *, apart: Collection[str] = ()) -> list[str]:
        found = [it for watch in self.watches.values() for it in watch.findings]
        return found + together(list(self.watches.values()), apart=apart)


def together(watches: Sequence[Watch], *, apart: Collection[str] = ()) -> list[str]:
    """6.2.4, of what was watched so far."""
    found: list[str] = []
    for one, other in combinations(watches, 2):
        said = _by_time(one, other) if one.name in apart or other.name in apart else _by_number(one, other)
        found += [f"{one.name}, {other.name}: {it}" for it in (*said, *_by_bytes(one, other))]
    return found[:FINDINGS_MAX]


def _by_number(one: Watch, other: Watch) -> Iterator[str]:
    if one.latest is not None and other.latest is not None and one.latest.target_s != other.latest.target_s:
        yield f"6.2.4 target durations of {one.latest.target_s} and {other.latest.target_s}"
    for number in sorted(one.segments.keys() & other.segments.keys()):
        a, b = one.segments[number], other.segments[number]
        if not (a.whole and b.whole) or a.at is None or b.at is None:
            continue
        if one.breaks[number] != other.breaks[number]:
            yield f"6.2.4 discontinuity sequences differ at segment {number}"
        if abs(a.at - b.at) > timedelta(seconds=ALIKE_S_MAX):
            yield f"segment {number} is not of the same time"
        elif abs(a.duration_s - b.duration_s) > ALIKE_S_MAX:
            yield f"segment {number} is {a.duration_s} and {b.duration_s} long"


def _by_time(one: Watch, other: Watch) -> Iterator[str]:
    """In the middle of each segment, both have had as many discontinuities."""
    for number, segment in one.segments.items():
        if segment.at is None or not segment.whole:
            continue
        middle = segment.at + timedelta(seconds=segment.duration_s / 2)
        for there, its in other.segments.items():
            if its.at is None or not its.whole or not its.at <= middle < its.at + timedelta(seconds=its.duration_s):
                continue
            if one.breaks[number] != other.breaks[there]:
                yield f"6.2.4 discontinuity sequences differ at {middle.isoformat()}"


def _by_bytes(one: Watch, other: Watch) -> Iterator[str]:
    """6.2.4: matching content has matching timestamps: from time in the bytes to date it is as far in both, all the time."""
    zeros = [*_zeros(one), *_zeros(other)]
    if zeros and max(zeros) - min(zeros) > SYNC_S_MAX:
        yield f"6.2.4 times in their bytes and dates lie up to {max(zeros) - min(zeros):.3f} s apart"


def _zeros(watch: Watch) -> list[float]:
    """By each segment: the date, in seconds, at which the time in the bytes would be 0."""
    return [
        at.timestamp() - begins_s
        for number, begins_s in watch.begins_s.items()
        if (at := watch.segments[number].at) is not None
    ]
