"""Facts on their way to the event plane: an fsynced, bounded queue on disk, told in order, in batches, for as long as it takes.

The media plane calls `put`, which never waits for the event plane. A fact whose `put` answered True survives kill -9 and is told at
least once; its receiver drops repeats by `fact_id`. When it is full, facts of segments are refused, since the archive's manifest can
restore them; facts of a broadcast's life never are. Holds no fact in memory longer than one batch.
"""

import asyncio
import fcntl
import os
import random
import zlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

import structlog
from prometheus_client import Counter, Gauge
from pydantic import TypeAdapter, ValidationError

from media.port import Fact, SegmentsArchived

log = structlog.get_logger()

BYTES_MAX: Final = 64 << 20
FILE_BYTES_MAX: Final = 4 << 20
BATCH_FACTS_MAX: Final = 256
WAITING_FACTS_MAX: Final = 4096
RECORD_S_MAX: Final = 30.0
RETRY_S_FIRST: Final = 0.1
RETRY_S_MAX: Final = 10.0

Record = Callable[[Sequence[Fact]], Awaitable[None]]

_fact: TypeAdapter[Fact] = TypeAdapter(Fact)
_bytes = Gauge("tallylight_spool_bytes", "Bytes of facts that the event plane has not taken yet")
_refused = Counter("tallylight_spool_refused_total", "Facts of segments refused because the spool was full")
_lost = Counter("tallylight_spool_lost_total", "Facts that the disk would not take", ["kind"])
_retried = Counter("tallylight_spool_retries_total", "Batches that the event plane did not take at once")


class SpoolInUse(Exception):
    """Another process holds this folder."""


@dataclass(slots=True)
class _Log:
    """The files: `<number>.facts` in order, each line a checksum and a fact, and `told` with how far the event plane has taken them.

    Blocking. `append` and `take`/`trim` run in different threads but touch different ends; `ends` is copied before it is walked.
    """

    folder: Path
    file_bytes_max: int
    lock: BinaryIO | None = None
    out: BinaryIO | None = None
    number: int = 0  # of the file being written
    end: int = 0  # how much of it is whole and synced
    told_number: int = 0
    told_at: int = 0
    ends: dict[int, int] = field(default_factory=dict)  # the same of the files before it

    def open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = (self.folder / "lock").open("wb")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SpoolInUse(str(self.folder)) from error
        numbers = sorted(int(path.stem) for path in self.folder.glob("*.facts") if path.stem.isdigit())
        self.ends = {number: _whole_bytes(self._path(number)) for number in numbers}
        self.told_number, self.told_at = self._read_told(numbers)
        # A torn tail stays where it is: what is new goes to a new file.
        self.number = max(numbers, default=0)
        self._next_file()
        if not numbers:
            self.told_number = self.number
        self.trim(self.told_number, self.told_at)

    def close(self) -> None:
        for file in (self.out, self.lock):
            if file is not None:
                file.close()

    @property
    def untold_bytes(self) -> int:
        return sum(end for number, end in list(self.ends.items()) if number >= self.told_number) - self.told_at

    def append(self, lines: bytes) -> None:
        """Write and sync. After an error nothing of it counts, and the next goes to a new file."""
        if self.end >= self.file_bytes_max or self.out is None:
            self._next_file()
        assert self.out is not None
        try:
            self.out.write(lines)
            self.out.flush()
            os.fsync(self.out.fileno())
        except OSError:
            with suppress(OSError):
                self.out.close()
            self.out = None
            raise
        self.end += len(lines)
        self.ends[self.number] = self.end

    def take(self, facts_max: int) -> tuple[list[Fact], int, int]:
        """The next facts, and where they end."""
        number, at, facts = self.told_number, self.told_at, list[Fact]()
        while len(facts) < facts_max:
            end = self.ends.get(number, 0)
            if at >= end:
                later = [other for other in list(self.ends) if other > number]
                if not later:
                    break
                number, at = min(later), 0
                continue
            with self._path(number).open("rb") as file:
                file.seek(at)
                while at < end and len(facts) < facts_max:
                    line = file.readline()
                    at += len(line)
                    fact = _read(line)
                    if fact is None:
                        log.error("spool_line_unreadable", file=str(self._path(number)), at=at)
                    else:
                        facts.append(fact)
        return facts, number, at

    def trim(self, number: int, at: int) -> None:
        """What lies before was taken. Not synced: at worst a fact is told again."""
        self.told_number, self.told_at = number, at
        fresh = self.folder / "told.new"
        fresh.write_text(f"{number} {at}\n")
        fresh.replace(self.folder / "told")
        for old in [other for other in list(self.ends) if other < number]:
            self._path(old).unlink(missing_ok=True)
            del self.ends[old]

    def _next_file(self) -> None:
        if self.out is not None:
            self.out.close()
        self.number += 1
        self.end = 0
        self.out = self._path(self.number).open("xb")
        self.ends[self.number] = 0
        _sync_folder(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:010}.facts"

    def _read_told(self, numbers: list[int]) -> tuple[int, int]:
        first = min(numbers, default=1), 0
        try:
            number, at = map(int, (self.folder / "told").read_text().split())
        except (OSError, ValueError):
            return first
        return (number, at) if number in numbers and 0 <= at <= self.ends[number] else first


class Spool:
    def __init__(
        self, folder: Path, record: Record, *, bytes_max: int = BYTES_MAX, file_bytes_max: int = FILE_BYTES_MAX
    ) -> None:
        self._log = _Log(folder, file_bytes_max)
        self._record = record
        self._bytes_max = bytes_max
        self._waiting: list[tuple[Fact, asyncio.Future[bool]]] = []
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

    async def put(self, fact: Fact) -> bool:
        """Whether the fact is safe on disk. Facts are told in the order in which they were put."""
        if isinstance(fact, SegmentsArchived) and self._log.untold_bytes >= self._bytes_max:
            _refused.inc()
            return False
        async with self._room:
            done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._waiting.append((fact, done))
            self._wanted.set()
            return await done

    async def drained(self) -> None:
        """Until everything put so far was told. For an orderly stop; give it a timeout."""
        async with self._told:
            await self._told.wait_for(lambda: not self._waiting and self._log.untold_bytes == 0)

    async def close(self) -> None:
        """Stop telling; what is untold stays on disk for the next start."""
        while self._waiting:
            await asyncio.gather(*(done for _, done in self._waiting), return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._log.close)

    async def _write(self) -> None:
        """Group commit: whatever came while the last batch was synced is the next batch."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            batch = self._waiting[:]
            lines = b"".join(_line(fact) for fact, _ in batch)
            safe = False
            try:
                await asyncio.to_thread(self._log.append, lines)
                safe = True
                self._written.set()
            except OSError as error:
                log.error("spool_write_failed", error=str(error), facts=len(batch))
                for fact, _ in batch:
                    _lost.labels(fact.kind).inc()
            del self._waiting[: len(batch)]
            for _, done in batch:
                if not done.done():
                    done.set_result(safe)
            if self._waiting:
                self._wanted.set()
            _bytes.set(self._log.untold_bytes)

    async def _tell(self) -> None:
        retry_s = RETRY_S_FIRST
        while True:
            await self._written.wait()
            self._written.clear()
            while True:
                facts, number, at = await asyncio.to_thread(self._log.take, BATCH_FACTS_MAX)
                if facts and not await self._told_once(facts):
                    await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))
                    retry_s = min(retry_s * 2, RETRY_S_MAX)
                    continue
                retry_s = RETRY_S_FIRST
                if (number, at) != (self._log.told_number, self._log.told_at):
                    await asyncio.to_thread(self._log.trim, number, at)
                    _bytes.set(self._log.untold_bytes)
                if not facts:
                    break
            async with self._told:
                self._told.notify_all()

    async def _told_once(self, facts: Sequence[Fact]) -> bool:
        try:
            async with asyncio.timeout(RECORD_S_MAX):
                await self._record(facts)
        except Exception as error:
            # Whatever keeps the event plane from taking them, they are not ours to drop.
            _retried.inc()
            log.warning("event_plane_away", error=f"{type(error).__name__}: {error}", facts=len(facts))
            return False
        return True


def _line(fact: Fact) -> bytes:
    body = fact.model_dump_json().encode()
    return b"%08x " % zlib.crc32(body) + body + b"\n"


def _read(line: bytes) -> Fact | None:
    checksum, _, body = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
        return None
    try:
        return _fact.validate_json(body)
    except ValidationError:
        return None


def _whole_bytes(path: Path) -> int:
    """Where the first line that was not written whole begins: what follows was never answered for."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            checksum, _, body = line.removesuffix(b"\n").partition(b" ")
            if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
                break
            end += len(line)
    return end


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
