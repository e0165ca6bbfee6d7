"""Facts on their way to the event plane: an fsynced, bounded queue on disk, told in order, in batches, for as long as it takes.

The media plane calls `put`, which never waits for the event plane. A fact whose `put` answered True survives kill -9 and is told at
least once; its receiver drops repeats by `fact_id`. When it is full, a recording's segments become a range, one line however many they
are, which is told from the recording's manifest; facts of a broadcast's life are kept one by one. A disk that takes nothing is tried
until it does. Holds no fact in memory longer than one batch.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import Counter, Gauge

from media.port import Fact, Interrupted, Resumed, SegmentsArchived, Started
from media.spool_log import Entry, Range, SpoolLog, line_of

log = structlog.get_logger()

BYTES_MAX: Final = 64 << 20
LIFE_SHARE_MAX: Final = 2
"""At so many times its bytes not even interruptions are taken any more: what is left to come is bounded by the broadcasts that are on."""
FILE_BYTES_MAX: Final = 4 << 20
BATCH_FACTS_MAX: Final = 256
WAITING_FACTS_MAX: Final = 4096
RECORD_S_MAX: Final = 30.0
RETRY_S_FIRST: Final = 0.1
RETRY_S_MAX: Final = 10.0
READ_RETRY_S: Final = 1.0
CLOSE_S_MAX: Final = 10.0

Record = Callable[[Sequence[Fact]], Awaitable[None]]
Restore = Callable[[Range], Awaitable[Sequence[SegmentsArchived]]]
"""What the manifest has of a range, in order; nothing where there is no such recording. Raises while the archive is away."""

_bytes = Gauge("tallylight_spool_bytes", "Bytes of facts that the event plane has not taken yet")
_collapsed = Counter(
    "tallylight_spool_collapsed_total", "Facts of segments that had no room and are told from the manifest"
)
_refused = Counter("tallylight_spool_refused_total", "Facts refused because there was no room at all", ["kind"])
_failed = Counter("tallylight_spool_write_failures_total", "Batches that the disk did not take at once")
_lost = Counter("tallylight_spool_lost_total", "Facts that the disk would not take before the process stopped")
_retried = Counter("tallylight_spool_retries_total", "Batches that the event plane did not take at once")


@dataclass(slots=True)
class _Waiting:
    entry: Entry
    line: bytes
    done: asyncio.Future[bool]


@dataclass(slots=True)
class _Open:
    """A range that still grows. `last`: the highest number put since it began."""

    range: Range
    last: int
    kept: asyncio.Task[bool]


class Spool:
    def __init__(
        self,
        folder: Path,
        record: Record,
        restore: Restore,
        *,
        bytes_max: int = BYTES_MAX,
        file_bytes_max: int = FILE_BYTES_MAX,
    ) -> None:
        self._log = SpoolLog(folder, file_bytes_max)
        self._record = record
        self._restore = restore
        self._bytes_max = bytes_max
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._ranges: dict[tuple[str, str], _Open] = {}
        self._written = asyncio.Event()
        self._wanted = asyncio.Event()
        self._room = asyncio.Semaphore(WAITING_FACTS_MAX)
        self._told = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take up what an earlier process left. Raises `SpoolInUse`."""
        await asyncio.to_thread(self._log.open)
        _bytes.set(self._log.untold_bytes)
        self._written.set()
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._tell())]

    @property
    def begun(self) -> list[Started]:
        """The broadcasts that began here, in this process or an earlier one, and have not ended."""
        return list(self._log.begun.values())

    async def put(self, fact: Fact) -> bool:
        """Whether the fact is safe: on disk, or in its manifest and a range on disk. Facts are told in the order in which they were put."""
        used = self._log.untold_bytes + self._waiting_bytes
        match fact:
            case SegmentsArchived():
                open_ = self._ranges.get((fact.broadcast_id, fact.apart))
                if open_ is not None and open_.range.first <= fact.number:
                    open_.last = max(open_.last, fact.number)
                    _collapsed.inc()
                    return await asyncio.shield(open_.kept)
                if used >= self._bytes_max:
                    return await self._collapse(fact)
            case Interrupted() | Resumed() if used >= LIFE_SHARE_MAX * self._bytes_max:
                _refused.labels(fact.kind).inc()
                return False
            case _:
                pass
        return await self._keep(fact)

    async def _collapse(self, fact: SegmentsArchived) -> bool:
        _collapsed.inc()
        log.warning("spool_full", broadcast=fact.broadcast_id, number=fact.number)
        missing = Range(broadcast_id=fact.broadcast_id, apart=fact.apart, first=fact.number)
        open_ = _Open(missing, fact.number, asyncio.create_task(self._keep(missing)))
        self._ranges[fact.broadcast_id, fact.apart] = open_
        return await asyncio.shield(open_.kept)

    async def _keep(self, entry: Entry) -> bool:
        async with self._room:
            waiting = _Waiting(entry, line_of(entry), asyncio.get_running_loop().create_future())
            self._waiting.append(waiting)
            self._waiting_bytes += len(waiting.line)
            self._wanted.set()
            return await waiting.done

    async def drained(self) -> None:
        """Until everything put so far was told. For an orderly stop; give it a timeout."""
        async with self._told:
            await self._told.wait_for(lambda: not self._waiting and self._log.untold_bytes == 0)

    async def close(self) -> None:
        """Stop telling; what is untold stays on disk for the next start."""
        try:
            async with asyncio.timeout(CLOSE_S_MAX):
                while self._waiting:
                    await asyncio.wait([waiting.done for waiting in self._waiting])
        except TimeoutError:
            _lost.inc(len(self._waiting))
            log.error("spool_lost", facts=len(self._waiting))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for waiting in self._waiting:
            waiting.done.cancel()
        await asyncio.to_thread(self._log.close)

    async def _write(self) -> None:
        """Group commit: whatever came while the last batch was synced is the next batch."""
        retry_s = RETRY_S_FIRST
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            batch = self._waiting[:]
            lines = b"".join(waiting.line for waiting in batch)
            try:
                await asyncio.to_thread(self._log.append, lines, [waiting.entry for waiting in batch])
            except OSError as error:
                # A disk that is full now need not stay so; what waits behind this waits in order.
                _failed.inc()
                log.error("spool_write_failed", error=str(error), facts=len(batch))
                await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))
                retry_s = min(retry_s * 2, RETRY_S_MAX)
                self._wanted.set()
                continue
            retry_s = RETRY_S_FIRST
            self._written.set()
            del self._waiting[: len(batch)]
            self._waiting_bytes -= len(lines)
            for waiting in batch:
                if not waiting.done.done():
                    waiting.done.set_result(True)
            if self._waiting:
                self._wanted.set()
            _bytes.set(self._log.untold_bytes)

    async def _tell(self) -> None:
        while True:
            await self._written.wait()
            self._written.clear()
            while True:
                try:
                    found, number, at = await asyncio.to_thread(self._log.take, BATCH_FACTS_MAX)
                except OSError as error:
                    log.error("spool_read_failed", error=str(error))
                    await asyncio.sleep(READ_RETRY_S)
                    continue
                if isinstance(found, Range):
                    await self._tell_range(found)
                elif found:
                    await self._tell_facts(found)
                if (number, at) != (self._log.told_number, self._log.told_at):
                    await asyncio.to_thread(self._log.trim, number, at)
                    _bytes.set(self._log.untold_bytes)
                if not found:
                    break
            async with self._told:
                self._told.notify_all()

    async def _tell_range(self, missing: Range) -> None:
        """What the manifest has of it, until nothing was added meanwhile: from then on its segments are facts of their own again."""
        key, told = (missing.broadcast_id, missing.apart), missing.first - 1
        while True:
            open_ = self._ranges.get(key)
            # The manifest has a number before it is put here, so what is read after this has all up to it.
            last = open_.last if open_ is not None else told
            facts = [fact for fact in await self._restored(missing) if fact.number > told]
            for at in range(0, len(facts), BATCH_FACTS_MAX):
                await self._tell_facts(facts[at : at + BATCH_FACTS_MAX])
            told = max([told, *(fact.number for fact in facts)])
            open_ = self._ranges.get(key)
            if open_ is None or open_.range != missing:
                return
            if open_.last <= last:
                del self._ranges[key]
                return

    async def _restored(self, missing: Range) -> Sequence[SegmentsArchived]:
        retry_s = RETRY_S_FIRST
        while True:
            try:
                async with asyncio.timeout(RECORD_S_MAX):
                    return await self._restore(missing)
            except Exception as error:
                log.warning("manifest_away", broadcast=missing.broadcast_id, error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))
            retry_s = min(retry_s * 2, RETRY_S_MAX)

    async def _tell_facts(self, facts: Sequence[Fact]) -> None:
        """Until they are taken."""
        retry_s = RETRY_S_FIRST
        while True:
            try:
                async with asyncio.timeout(RECORD_S_MAX):
                    return await self._record(facts)
            except Exception as error:
                # Whatever keeps the event plane from taking them, they are not ours to drop.
                _retried.inc()
                log.warning("event_plane_away", error=f"{type(error).__name__}: {error}", facts=len(facts))
            await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))
            retry_s = min(retry_s * 2, RETRY_S_MAX)
