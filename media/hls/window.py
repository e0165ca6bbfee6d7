"""What players can see of one rendition: the last segments with their parts, what just left the playlist but is still fetched, and,
without their bytes, the segments that a viewer can rewind to.

The segmenter's parts come in by `live`; the origin looks parts and segments up and waits through `on_change`. Memory is bounded by time
and by bytes; a segment that is only rewound to costs its line of text. Pure but for that callback: no clock, no I/O.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Final

WINDOW_S: Final = 16.0
"""A playlist lists so much, or 3 target durations where that is more (6.2.2)."""
BYTES_MAX: Final = 256 << 20
"""One rendition's bytes, whatever the bit rate: beyond, what has left the playlist goes first, then the window shrinks."""
PARTS_LISTED_TD: Final = 3
SEGMENTS_LISTED_MIN: Final = 3


@dataclass(frozen=True, slots=True)
class Part:
    """`sequence` counts a rendition's parts without regard to segments, so that the next part's address is known before its segment.
    `gap`: there are no such bytes."""

    sequence: int
    duration_s: float
    independent: bool
    data: bytes | memoryview
    gap: bool = False


@dataclass(slots=True)
class Entry:
    """A segment: open while `data` is None. `gap`: this rendition lacks it, or a part of it (a rung was being restarted). `slate`: not of
    the encoder. `lines`: its text in a playlist, once it is finished and its parts are not listed any more."""

    number: int
    start_s: float
    program_date_time: datetime
    init: int
    discontinuity: bool = False
    gap: bool = False
    slate: bool = False
    duration_s: float = 0.0
    parts: list[Part] = field(default_factory=list)
    data: bytes | None = None
    lines: str = ""

    @property
    def finished(self) -> bool:
        return self.data is not None


class Window:
    """`rewind_s`: so much can be rewound to; what has no bytes here any more is in the archive."""

    def __init__(self, *, on_change: Callable[[], None], window_s: float = WINDOW_S, rewind_s: float = 0.0) -> None:
        self._window_s = window_s
        self._rewind_s = rewind_s
        self._on_change = on_change
        self._entries: deque[Entry] = deque()
        self._total_s = 0.0  # of the finished ones
        self._listed_from = 0  # index of the first entry that the live playlist lists
        self._kept_from = 0  # index of the first entry whose bytes are here
        self._bytes = 0
        self._parts: dict[int, Part] = {}
        self.inits: list[bytes] = []
        self.version = 0
        self.discontinuity_sequence = 0
        """Of the live playlist."""
        self.rewind_discontinuity_sequence = 0
        self.ended = False
        self.next_sequence = 0
        """The next part's."""

    @property
    def listed(self) -> Iterator[Entry]:
        return islice(self._entries, self._listed_from, None)

    @property
    def rewindable(self) -> Iterator[Entry]:
        """All that can be rewound to, and the live ones behind."""
        return iter(self._entries) if self._rewind_s else self.listed

    @property
    def finished(self) -> int:
        """How many finished segments the live playlist lists."""
        return len(self._entries) - self._listed_from - (1 if self.open else 0)

    @property
    def open(self) -> Entry | None:
        return self._entries[-1] if self._entries and not self._entries[-1].finished else None

    @property
    def last_number(self) -> int:
        """Of the last segment, open or not; -1 where there is none yet."""
        return self._entries[-1].number if self._entries else -1

    @property
    def next(self) -> tuple[int, int]:
        """Media sequence number and part index of the part that comes next, as far as one can know."""
        entry = self.open
        return (entry.number, len(entry.parts)) if entry else (self.last_number + 1, 0)

    def segment(self, number: int) -> Entry | None:
        """Also one that has left the live playlist; None if unknown, open, a gap, or without its bytes here."""
        entry = self._at(number, self._kept_from)
        return entry if entry and entry.finished and not entry.gap else None

    def parts_of(self, number: int) -> int:
        """How many a segment has whose parts are here, those it lacks included."""
        entry = self._at(number, self._kept_from)
        return len(entry.parts) if entry is not None else 0

    def is_rewindable(self, number: int) -> bool:
        """Whether the segment is one that the archive has and this window has no more."""
        entry = self._at(number, 0)
        return entry is not None and entry.finished and not entry.gap and self._at(number, self._kept_from) is None

    def part(self, sequence: int) -> Part | None:
        found = self._parts.get(sequence)
        return None if found is None or found.gap else found

    def restore(self, entries: Iterable[Entry]) -> None:
        """Segments of a former life, finished: they can be rewound to, and the live playlist goes on behind them."""
        for entry in entries:
            self.begin(entry)
            self._total_s += entry.duration_s
            self.discontinuity_sequence += entry.discontinuity
        self._listed_from = self._kept_from = len(self._entries)

    def begin(self, entry: Entry) -> None:
        """The next segment; its number is one more than the last one's, or the window starts anew."""
        if self._entries and entry.number != self.last_number + 1:
            while self._entries:
                self._forget_first()
        self._entries.append(entry)

    def gap(self, entry: Entry) -> None:
        """A segment that this rendition has nothing of."""
        entry.gap, entry.data = True, b""
        self.begin(entry)
        self._total_s += entry.duration_s
        self.changed()

    def add(self, part: Part) -> None:
        entry = self.open
        assert entry is not None
        entry.parts.append(part)
        entry.duration_s += part.duration_s
        entry.gap = entry.gap or part.gap
        self._parts[part.sequence] = part
        self._bytes += len(part.data)
        self.next_sequence = part.sequence + 1
        self.changed()

    def finish(self, target_duration: int) -> Entry | None:
        """The open segment is complete: its parts become views of its bytes."""
        entry = self.open
        if entry is None:
            return None
        entry.data = b"".join(part.data for part in entry.parts)
        whole, offset = memoryview(entry.data), 0
        for index, part in enumerate(entry.parts):
            end = offset + len(part.data)
            view = Part(part.sequence, part.duration_s, part.independent, whole[offset:end], part.gap)
            entry.parts[index] = self._parts[part.sequence] = view
            offset = end
        self._total_s += entry.duration_s
        self._trim(target_duration)
        self.changed()
        return entry

    def end(self) -> None:
        self.ended = True
        self.changed()

    def changed(self) -> None:
        self.version += 1
        self._on_change()

    def _at(self, number: int, first: int) -> Entry | None:
        if not self._entries:
            return None
        index = number - self._entries[0].number
        return self._entries[index] if first <= index < len(self._entries) else None

    def _trim(self, target_duration: int) -> None:
        # 6.2.2: at least three target durations stay in the playlist, and what left it can be fetched for its own duration and the
        # playlist's longest more.
        keep_s = max(self._window_s, 3.0 * target_duration)
        listed_s = sum(entry.duration_s for entry in self.listed)
        while self.finished > SEGMENTS_LISTED_MIN and listed_s - self._entries[self._listed_from].duration_s >= keep_s:
            listed_s -= self._entries[self._listed_from].duration_s
            self._unlist()
        unlisted = [entry.duration_s for entry in islice(self._entries, self._kept_from, self._listed_from)]
        unlisted_s = sum(unlisted)
        for duration_s in unlisted:
            unlisted_s -= duration_s
            if unlisted_s < keep_s:
                break
            self._drop_bytes()
        while self._bytes > BYTES_MAX and (self._kept_from < self._listed_from or self.finished > SEGMENTS_LISTED_MIN):
            self._drop_bytes()
        while self._kept_from and self._total_s - self._entries[0].duration_s >= self._rewind_s:
            self._forget_first()

    def _unlist(self) -> None:
        self.discontinuity_sequence += self._entries[self._listed_from].discontinuity
        self._listed_from += 1

    def _drop_bytes(self) -> None:
        """Of the oldest segment that has them."""
        if self._kept_from == self._listed_from:
            self._unlist()
        entry = self._entries[self._kept_from]
        self._kept_from += 1
        for part in entry.parts:
            self._parts.pop(part.sequence, None)
            self._bytes -= len(part.data)
        entry.parts, entry.data = [], b""

    def _forget_first(self) -> None:
        if not self._kept_from:
            self._drop_bytes()
        entry = self._entries.popleft()
        self._kept_from -= 1
        self._listed_from -= 1
        self._total_s -= entry.duration_s if entry.finished else 0.0
        self.rewind_discontinuity_sequence += entry.discontinuity
