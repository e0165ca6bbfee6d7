"""The spool's files: entries appended with fsync, read back in order after any crash. `media.spool` is their only reader and writer.

An entry is a fact, or a range that stands for facts which had no room. Beside them stands which broadcasts began here and have not ended.
"""

import fcntl
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from media.port import Ended, Fact, Started

log = structlog.get_logger()


class Range(BaseModel):
    """A recording's segments from number `first` on, up to whatever there is when it is told: its manifest has them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["range"] = "range"
    broadcast_id: str
    apart: str = ""
    first: int


Entry = Fact | Range
_entry: TypeAdapter[Entry] = TypeAdapter(Annotated[Fact | Range, Field(discriminator="kind")])


class SpoolInUse(Exception):
    """Another process holds this folder."""


@dataclass(slots=True)
class SpoolLog:
    """The files: `<number>.facts` in order, each line a checksum and an entry, and `told` with how far the event plane has taken them.

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
    begun: dict[str, Started] = field(default_factory=dict)  # by broadcast, of those that have not ended

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
        self.begun = self._read_begun()
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

    def append(self, lines: bytes, facts: Sequence[Entry]) -> None:
        """Write and sync `facts`, whose `lines` these are. After an error nothing of it counts, and the next goes to a new file."""
        if started := {fact.broadcast_id: fact for fact in facts if isinstance(fact, Started)}:
            self._write_begun(self.begun | started)
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
        if ended := {fact.broadcast_id for fact in facts if isinstance(fact, Ended)} & set(self.begun):
            # What is in the log counts; that it could not be crossed off here only has it ended once more, under the same id.
            with suppress(OSError):
                self._write_begun({name: fact for name, fact in self.begun.items() if name not in ended})

    def take(self, facts_max: int) -> tuple[list[Fact] | Range, int, int]:
        """The next facts, or the next range, and where they end."""
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
                    entry = _read(line)
                    if isinstance(entry, Range):
                        return (facts, number, at) if facts else (entry, number, at + len(line))
                    at += len(line)
                    if entry is None:
                        log.error("spool_line_unreadable", file=str(self._path(number)), at=at)
                    else:
                        facts.append(entry)
        return facts, number, at

    def trim(self, number: int, at: int) -> None:
        """What lies before was taken. Not synced, nor insisted upon where the disk is full: at worst a fact is told again."""
        self.told_number, self.told_at = number, at
        fresh = self.folder / "told.new"
        try:
            fresh.write_text(f"{number} {at}\n")
            fresh.replace(self.folder / "told")
        except OSError as error:
            log.error("spool_mark_failed", error=str(error))
        with suppress(OSError):  # a later one tries again
            for old in [other for other in list(self.ends) if other < number]:
                self._path(old).unlink(missing_ok=True)
                del self.ends[old]

    def _next_file(self) -> None:
        if self.out is not None:
            self.out.close()
            self.out = None
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

    def _read_begun(self) -> dict[str, Started]:
        try:
            lines = (self.folder / "begun").read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return {}
        return {fact.broadcast_id: fact for fact in map(_read, lines) if isinstance(fact, Started)}

    def _write_begun(self, begun: dict[str, Started]) -> None:
        fresh = self.folder / "begun.new"
        with fresh.open("wb") as file:
            file.writelines(line_of(fact) for fact in begun.values())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.folder / "begun")
        _sync_folder(self.folder)
        self.begun = begun


def line_of(entry: Entry) -> bytes:
    body = entry.model_dump_json().encode()
    return b"%08x " % zlib.crc32(body) + body + b"\n"


def _read(line: bytes) -> Fact | Range | None:
    checksum, _, body = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
        return None
    try:
        return _entry.validate_json(body)
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
