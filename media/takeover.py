"""Going on with a broadcast that another node had, or a former life of this one: what it recorded, and what its viewers can rewind to.

Called by `media.pipeline` for an encoder that comes back in time. Whoever had the broadcast and still lives is waited for: it stores what
it has and lets its marker go. Then the manifest says all there is.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import obstore
import structlog
from obstore.exceptions import BaseError, NotFoundError

from media import manifest
from media.archive import OPEN, Archive, Past
from media.hls.before import Before, Former
from media.hls.cuts import HOLE_S_MIN, SEGMENT_S, Cut
from media.hls.window import Entry
from media.lease import Held
from media.manifest import Manifest, SegmentLine
from media.port import Started

log = structlog.get_logger()

YIELD_S_MAX: Final = 6.0
"""So long whoever lives is waited for."""
LOOK_S: Final = 0.1
INITS_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class Taken:
    """All there is to go on with: `started` as it was told, `past` for the recorder, `before` for the packager."""

    started: Started
    past: Past
    before: Before

    @property
    def end_s(self) -> float:
        """Where its clock stood when its last segment ended."""
        return max((line.start_s + line.duration_s for line in self.past.found.segments), default=0.0)


async def take(archive: Archive, held: Held, *, lives: bool, rewind_s: float, now: datetime) -> Taken | None:
    """None where there is nothing to go on with. Raises what obstore raises."""
    theirs, ours = f"{OPEN}/{held.node}/{held.broadcast_id}", archive.marker(held.broadcast_id)
    try:
        said = bytes(await (await obstore.get_async(archive.store, theirs)).bytes_async())
        started = Started.model_validate_json(said)
    except (NotFoundError, FileNotFoundError, ValueError):
        return None  # nothing was stored, or all of it is closed
    if theirs != ours:
        # Ours first: whatever becomes of us, somebody finds that the recording is open.
        await archive.put(ours, said)
        if lives:
            await _let_go(archive, theirs)
        await _forget(archive, theirs)
    found = await manifest.read(archive.store, held.broadcast_id)
    if found is None or found.ended_at is not None or not found.segments:
        if theirs != ours:
            await archive.put(theirs, said)
            await _forget(archive, ours)
        return None
    log_ = (
        archive.manifest(held.broadcast_id)
        if archive.folder is not None
        else await manifest.resume(archive.store, held.broadcast_id)
    )
    log.info("broadcast.taken", broadcast=held.broadcast_id, of=held.node, segments=len(found.segments))
    had, keys = await before(archive, found, rewind_s=rewind_s)
    inits = {name: (key, had.renditions[name].inits[-1]) for name, key in keys.items()}
    return Taken(started, Past(found, log_, found.runs + 1, now, inits), had)


async def _let_go(archive: Archive, marker: str) -> None:
    deadline = asyncio.get_running_loop().time() + YIELD_S_MAX
    while asyncio.get_running_loop().time() < deadline:
        try:
            await obstore.head_async(archive.store, marker)
        except (NotFoundError, FileNotFoundError):
            return
        await asyncio.sleep(LOOK_S)
    log.warning("takeover.unheard", marker=marker)


async def _forget(archive: Archive, marker: str) -> None:
    try:
        await archive.forget(marker)
    except (BaseError, FileNotFoundError):
        return  # it was quicker


# -- what the packager begins with -------------------------------------------------------------------------------------


async def before(archive: Archive, found: Manifest, *, rewind_s: float) -> tuple[Before, dict[str, str]]:
    """Of a manifest, and by rendition the key of its last initialisation segment. Times in which nothing was recorded are gaps: numbers
    have no holes."""
    common = [line for line in found.segments if not line.apart]
    source = next((line.apart for line in found.segments if line.apart), "")
    from_s = max((line.start_s + line.duration_s for line in found.segments), default=0.0) - rewind_s
    renditions: dict[str, Former] = {}
    last: dict[str, str] = {}
    for it in found.renditions:
        lines = [line for line in found.of(it.name) if line.start_s + line.duration_s > from_s]
        keys = list(dict.fromkeys(obj.init for line in lines for obj in line.objects if obj.rendition == it.name))
        if keys:
            last[it.name] = keys[-1]
        inits = [await _bytes(archive, key) for key in keys[-INITS_MAX:]]
        numbered = {key: index for index, key in enumerate(keys[-INITS_MAX:])}
        renditions[it.name] = Former(
            tuple(_entries(lines, it.name, numbered, found.recording.started_at)), tuple(inits), it.codecs
        )
    own = found.of(source) if source else ()
    had = Before(
        cuts=tuple(_cuts(common)),
        apart=tuple(_cuts(own)),
        longest_s=max((line.duration_s for line in common), default=0.0),
        renditions=renditions,
    )
    return had, last


async def _bytes(archive: Archive, key: str) -> bytes:
    return bytes(await (await obstore.get_async(archive.store, key)).bytes_async())


def _cuts(lines: Sequence[SegmentLine]) -> Iterator[Cut]:
    for number, start_s, _, line, is_break in _numbered(lines):
        yield Cut(number, start_s, discontinuity=is_break and line is not None)


def _entries(lines: Sequence[SegmentLine], rendition: str, inits: Mapping[str, int], zero: datetime) -> Iterator[Entry]:
    init = 0
    for number, start_s, duration_s, line, is_break in _numbered(lines):
        stored = next((it for it in line.objects if it.rendition == rendition), None) if line is not None else None
        if stored is not None:
            init = inits.get(stored.init, init)
        at = line.program_date_time if line is not None else zero + timedelta(seconds=start_s)
        yield Entry(number, start_s, at, init, is_break, gap=stored is None, duration_s=duration_s, data=b"")


def _numbered(lines: Sequence[SegmentLine]) -> Iterator[tuple[int, float, float, SegmentLine | None, bool]]:
    """Number, start and duration of each segment, and of what is missing between; whether it is not what goes on from the one before."""
    last: SegmentLine | None = None
    for line in lines:
        if last is not None and line.number > last.number + 1:
            end_s, missing = last.start_s + last.duration_s, line.number - last.number - 1
            each_s = max((line.start_s - end_s) / missing, 0.0) or SEGMENT_S
            for index in range(missing):
                yield last.number + 1 + index, end_s + index * each_s, each_s, None, False
        yield line.number, line.start_s, line.duration_s, line, last is not None and _is_break(last, line)
        last = line


def _is_break(last: SegmentLine, line: SegmentLine) -> bool:
    """Time, or what the tracks are, did not go on from the segment before: the same for every rendition."""
    inits = {it.rendition: it.init for it in last.objects}
    anew = any(inits.get(it.rendition, it.init) != it.init for it in line.objects)
    return anew or line.start_s - last.start_s - last.duration_s > HOLE_S_MIN
