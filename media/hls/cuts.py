"""Where a broadcast's segments begin. The source's segmenter decides (`Leader`), those of the rungs keep to it (`Follower`).

One table a broadcast: segment number → start, so that every rendition, a restarted one too, agrees on numbers and boundaries. Where the
source's key frames are further apart than segments may be, it gets a table of its own, and the rungs cut on a clock. Times are
presentation times in seconds from the broadcast's zero, for these are what source and rungs have in common. Never touches a sample.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol

SEGMENT_S: Final = 2.0
SEGMENT_S_MAX: Final = 10.4
"""Longest group of pictures we wait for (x264's default of 250 frames at 24/s); then a segment begins without a key frame."""
KEY_EARLY_S_MAX: Final = 0.4
"""A key frame so much before the target still cuts: better 1.6 s than a whole group of pictures more."""
HOLE_S_MIN: Final = 0.5
"""A source that comes back after a longer hole begins a new timeline for players."""
LIMIT_S: Final = 0.4
"""A segment may be so much longer than the target duration says (4.4.3.1 allows 0.5 s: what is left is for rounding)."""
JOIN_S_MAX: Final = 0.25
"""A rung may begin a segment so late after the cut; else it waits for the next."""
JOIN_WAIT_S_MAX: Final = 5.0
"""A rung whose key frames never meet a cut begins at any of them after so long."""
CUTS_KEPT: Final = 256
APART_AFTER_S: Final = 1.0
"""A source whose first key frame is so much later than a segment's end cuts apart from its rungs."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Segment `number` begins at `start_s`. `discontinuity`: no media lies between the segment before and this one."""

    number: int
    start_s: float
    discontinuity: bool


class Cuts:
    def __init__(self) -> None:
        self._cuts: deque[Cut] = deque(maxlen=CUTS_KEPT)
        self.decided_until_s = -1.0
        """No cut will be made at or before this time any more."""
        self.clock_s = 0.0
        """Above 0: the source is not what cuts here; the first rung with a key frame after so long does."""
        self.broken_at_s: float | None = None
        """On a clock: a new timeline began here, which the next cut tells."""
        self.limit_s = SEGMENT_S_MAX
        """On a clock: no segment is longer."""
        self._by_clock: Cuts | None = None

    def restore(self, cuts: Iterable[Cut]) -> None:
        """Those of a former life, with which numbers go on."""
        self._cuts.clear()
        self._cuts.extend(cuts)

    def apart(self, clock_s: float, limit_s: float) -> "Cuts":
        """The table from which the source goes on alone; this one goes by the clock from now on."""
        own = Cuts()
        own._cuts.extend(self._cuts)
        own.decided_until_s = self.decided_until_s
        own._by_clock = self
        self.clock_s, self.limit_s = clock_s, limit_s
        return own

    def by_clock(self, time_s: float, *, key: bool, tolerance_s: float) -> Cut | None:
        """The cut that a rung's frame at `time_s` makes, if it is time for one."""
        last = self.last
        if last is None or time_s <= last.start_s:
            return None
        elapsed_s = time_s - last.start_s
        if key and self.broken_at_s is not None and time_s >= self.broken_at_s - tolerance_s:
            self.broken_at_s = None
            return self.add(time_s, discontinuity=True)
        # The next key frame may be a whole turn of the clock away: where that would be too late, this one will do.
        is_time = elapsed_s >= self.clock_s - tolerance_s or elapsed_s + self.clock_s > self.limit_s + tolerance_s
        if not (key and is_time) and elapsed_s + 2 * tolerance_s <= self.limit_s:
            return None
        while time_s - last.start_s > self.limit_s:
            # No rung was there for long: what is missing has the length of segments, too.
            last = self.add(last.start_s + self.clock_s, discontinuity=False)
        return self.add(time_s, discontinuity=False)

    def add(self, start_s: float, *, discontinuity: bool) -> Cut:
        if discontinuity and self._by_clock is not None:
            self._by_clock.broken_at_s = start_s
        number = self._cuts[-1].number + 1 if self._cuts else 0
        cut = Cut(number, start_s, discontinuity)
        self._cuts.append(cut)
        return cut

    @property
    def last(self) -> Cut | None:
        return self._cuts[-1] if self._cuts else None

    def at(self, time_s: float) -> Cut | None:
        """The cut whose segment `time_s` lies in."""
        return next((cut for cut in reversed(self._cuts) if cut.start_s <= time_s), None)

    def between(self, first: int, end: int) -> list[tuple[Cut, float]]:
        """The segments from number `first` up to, without, `end`, each with its duration."""
        return [
            (cut, following.start_s - cut.start_s)
            for cut, following in pairwise(self._cuts)
            if first <= cut.number < end
        ]


class Guide(Protocol):
    @property
    def undecided_s(self) -> float:
        """A segment no longer than this may still turn out to be another's business."""
        ...

    def expects(self, group_s: float) -> None: ...

    def at(self, time_s: float, *, key: bool, tolerance_s: float, hole: bool = False) -> Cut | None:
        """Does a new segment begin with the frame at `time_s`? Asked once for every frame, in order."""
        ...


class Leader:
    """The source's: cuts at the first key frame from the target duration on, and without one only where `limit_s` says so.

    `every_sample_is_key`: audio cuts at the target itself. `anew`: it is not what the segments before were made of. `apart`: gives the
    table with which to go on where key frames are too far apart for the rungs to wait for. `limit_s`: how long a segment may be by now;
    `declare` is told beforehand how long they will be.
    """

    def __init__(
        self,
        cuts: Cuts,
        *,
        segment_s: float = SEGMENT_S,
        every_sample_is_key: bool = False,
        anew: bool = False,
        apart: Callable[[], Cuts] | None = None,
        limit_s: Callable[[], float] = lambda: SEGMENT_S_MAX,
        declare: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._cuts = cuts
        self._apart = apart
        self._anew = anew
        self._limit_s = limit_s
        self._declare = declare
        self._segment_s = segment_s
        self._early_s = 0.0 if every_sample_is_key else min(KEY_EARLY_S_MAX, segment_s / 5)
        self._began = False
        self._end_s = cuts.decided_until_s
        self._group_s_max = 0.0
        self._key_s = 0.0

    @property
    def undecided_s(self) -> float:
        return self._segment_s + APART_AFTER_S if self._apart is not None else 0.0

    def expects(self, group_s: float) -> None:
        """The encoder says how far apart its key frames are, at most."""
        self._group_s_max = group_s

    def at(self, time_s: float, *, key: bool, tolerance_s: float, hole: bool = False) -> Cut | None:
        last = self._cuts.last
        if not self._began:
            self._decided(time_s)
            if not key:
                return None
            self._began, self._key_s = True, time_s
            follows = 0 <= time_s - self._end_s < HOLE_S_MIN and not self._anew
            return self._cuts.add(time_s, discontinuity=last is not None and not follows)
        assert last is not None
        elapsed_s = time_s - last.start_s
        if key and self._group_s_max > self._segment_s + APART_AFTER_S:
            self._foresee(elapsed_s, tolerance_s)
        if hole or (key and self._will_do(time_s, elapsed_s, tolerance_s)):
            return self._cut(time_s, hole=hole)
        if elapsed_s >= self._segment_s + APART_AFTER_S or elapsed_s + 2 * tolerance_s > self._limit_s():
            self._part()
        if elapsed_s + 2 * tolerance_s > self._limit_s():
            return self._cut(time_s, hole=False)
        if self._apart is None or elapsed_s < self._segment_s - tolerance_s:
            self._decided(time_s)
        # Else the segment is longer than it should be: whether the rungs must go their own way shows in a moment.
        return None

    def _will_do(self, time_s: float, elapsed_s: float, tolerance_s: float) -> bool:
        """Whether to cut at this key frame: it is time to, or the next one, as far off as this was, would come too late."""
        group_s, self._key_s = time_s - self._key_s, time_s
        if elapsed_s >= self._segment_s - max(self._early_s, tolerance_s):
            return True
        return elapsed_s >= self._segment_s / 2 and elapsed_s + group_s > self._limit_s()

    def _foresee(self, elapsed_s: float, tolerance_s: float) -> None:
        """A key frame long before it must be. At a whole second somebody wants them there; else the picture changed, and the next may be
        as far off as the encoder says: that is declared while nobody has seen anything yet."""
        group_s, self._group_s_max = self._group_s_max, 0.0
        if abs(elapsed_s - round(elapsed_s)) > tolerance_s:
            self._part()
            self._declare(group_s)

    def _cut(self, time_s: float, *, hole: bool) -> Cut:
        self._decided(time_s)
        return self._cuts.add(time_s, discontinuity=hole)

    def _part(self) -> None:
        if self._apart is not None:
            self._cuts, self._apart = self._apart(), None

    def _decided(self, time_s: float) -> None:
        self._cuts.decided_until_s = max(self._cuts.decided_until_s, time_s)


class Follower:
    """A rung's: cuts where the source did, by time alone, so that a lost key frame costs a key frame and not the numbering.

    `may_cut`: whether, on a clock, it is one of those whose key frames say where."""

    def __init__(self, cuts: Cuts, *, after: int = -1, may_cut: Callable[[], bool] = lambda: True) -> None:
        self._cuts = cuts
        self._may_cut = may_cut
        self._number = after
        self._began = False
        self._waits_since_s: float | None = None
        self.undecided_s = 0.0

    def expects(self, group_s: float) -> None:
        """What is said of the source is not for a rung."""

    def at(self, time_s: float, *, key: bool, tolerance_s: float, hole: bool = False) -> Cut | None:
        cut = None
        if self._cuts.clock_s and (key or self._began):
            may_cut = self._may_cut()
            if may_cut:
                self._cuts.decided_until_s = max(self._cuts.decided_until_s, time_s)
            cut = self._cuts.by_clock(time_s, key=key and may_cut, tolerance_s=tolerance_s)
        cut = cut or self._cuts.at(time_s + tolerance_s)
        if cut is None or cut.number <= self._number:
            return None
        if not self._began:
            if self._waits_since_s is None:
                self._waits_since_s = time_s
            waited_long = time_s - self._waits_since_s > JOIN_WAIT_S_MAX
            if not key or (time_s - cut.start_s > JOIN_S_MAX and not waited_long):
                return None
            self._began = True
        self._number = cut.number
        return cut
