"""The manifest of a recording: an append-only list of what was archived, from which alone the VOD is made.

JSON lines, each a whole fact: the recording, its renditions, every segment number, the end. Written by `media.archive`, read by `media.vod`
and at a node's start. A torn last line, left by a crash, is ignored: what is whole is the recording. A rendition or a number that stands
in it again adds to what stood there before: a rendition that began anew has another initialisation segment, a late rung its objects.
"""

import asyncio
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Protocol

import obstore
from obstore.exceptions import NotFoundError
from obstore.store import ObjectStore
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from media.codecs import union

ROOT: Final = "recordings"
PIECE_BYTES_MAX: Final = 64 << 10
APART: Final = 10_000
"""So many numbers lie between the pieces of one writer and those of the next."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class StoredObject(_Line):
    """One rendition's bytes: key in the store, size, hex SHA-256; times in seconds from the recording's zero. `init` is the key of the
    initialisation segment that a player needs first."""

    rendition: str
    key: str
    size: int
    sha256: str
    init: str = ""
    start_s: float = 0.0
    duration_s: float = 0.0


class RecordingLine(_Line):
    kind: Literal["recording"] = "recording"
    broadcast_id: str
    channel_id: str
    started_at: datetime


class RenditionLine(_Line):
    """Sizes in pixels, 0 without video; `init` is the initialisation segment. `place` in the master playlist: the source is first."""

    kind: Literal["rendition"] = "rendition"
    name: str
    bandwidth: int
    codecs: str
    width: int
    height: int
    frame_rate: float
    init: StoredObject
    place: int = 0


class SegmentLine(_Line):
    kind: Literal["segment"] = "segment"
    number: int
    apart: str = ""
    """The rendition that is numbered for itself alone, because it cuts where no other does."""
    start_s: float
    duration_s: float
    program_date_time: datetime
    objects: tuple[StoredObject, ...]
    discontinuity: bool = False
    """Time does not go on from the segment before: so it is said in every rendition."""


class RunLine(_Line):
    """Another process goes on with the recording: the `run`th, after the first."""

    kind: Literal["run"] = "run"
    run: int
    node: str
    at: datetime


class ClipLine(_Line):
    """What makes a recording a clip: in each rendition it begins `in_s` after the first segment does, and lasts `duration_s`."""

    kind: Literal["clip"] = "clip"
    in_s: dict[str, float]
    duration_s: float


class EndLine(_Line):
    kind: Literal["end"] = "end"
    at: datetime


Line = Annotated[
    RecordingLine | RenditionLine | SegmentLine | RunLine | ClipLine | EndLine, Field(discriminator="kind")
]
_line: Final[TypeAdapter[Any]] = TypeAdapter(Line)


class Manifest(BaseModel):
    """What the lines say together."""

    model_config = ConfigDict(frozen=True)

    recording: RecordingLine
    renditions: tuple[RenditionLine, ...]
    segments: tuple[SegmentLine, ...]
    ended_at: datetime | None
    clip: ClipLine | None = None
    runs: int = 0
    """How often another process went on with it."""

    @property
    def end_at(self) -> datetime:
        """When the last segment ended."""
        if not self.segments:
            return self.recording.started_at
        return max(line.program_date_time + timedelta(seconds=line.duration_s) for line in self.segments)

    def of(self, rendition: str) -> tuple[SegmentLine, ...]:
        """The numbers on a rendition's own timeline, in order: the common ones, and from where it parted its own."""
        own = [line for line in self.segments if line.apart == rendition]
        parted = own[0].number if own else None
        common = [line for line in self.segments if not line.apart and (parted is None or line.number < parted)]
        return (*common, *own)

    def reaches_s(self, rendition: str) -> float:
        """Up to which playing time a rendition's bytes are here."""
        at_s = reached_s = 0.0
        for line in self.of(rendition):
            at_s += line.duration_s
            if any(it.rendition == rendition for it in line.objects):
                reached_s = at_s
        return reached_s

    @property
    def duration_s(self) -> float:
        """So long it plays: the time the encoder was away is none of it."""
        return sum(segment.duration_s for segment in self.segments if not segment.apart)


def parse(data: bytes) -> Manifest | None:
    """None where not even the first line is whole."""
    recording: RecordingLine | None = None
    renditions: dict[str, RenditionLine] = {}
    segments: dict[tuple[str, int], SegmentLine] = {}
    ended_at: datetime | None = None
    clip: ClipLine | None = None
    runs = 0
    for raw in data.split(b"\n"):
        if not raw:
            continue
        try:
            line = _line.validate_json(raw)
        except ValidationError:
            continue  # torn by a crash
        match line:
            case RecordingLine():
                recording = line
            case RenditionLine(name=name):
                before = renditions.get(name)
                # 4.4.6.2: every format that is in it, though it became another in the middle.
                codecs = union(line.codecs, before.codecs) if before is not None else line.codecs
                renditions[name] = line.model_copy(update={"codecs": codecs})
            case SegmentLine(apart=apart, number=number):
                segments[apart, number] = _merged(segments.get((apart, number)), line)
            case EndLine(at=at):
                ended_at = at
            case RunLine(run=run):
                runs = max(runs, run)
            case ClipLine():
                clip = line
    if recording is None:
        return None
    ordered = tuple(line for _, line in sorted(segments.items()))
    placed = tuple(sorted(renditions.values(), key=lambda rendition: rendition.place))
    return Manifest(recording=recording, renditions=placed, segments=ordered, ended_at=ended_at, clip=clip, runs=runs)


def _merged(before: SegmentLine | None, line: SegmentLine) -> SegmentLine:
    if before is None:
        return line
    known = {it.rendition for it in before.objects}
    return before.model_copy(
        update={"objects": before.objects + tuple(o for o in line.objects if o.rendition not in known)}
    )


class ManifestLog(Protocol):
    async def append(self, lines: Sequence[Line]) -> None:
        """Durable when it returns."""
        ...

    async def close(self) -> None: ...


class FileManifest:
    """Appended with fsync; for an archive that is a folder."""

    def __init__(self, folder: Path, broadcast_id: str, root: str = ROOT) -> None:
        self._path = folder / root / broadcast_id / "manifest.jsonl"
        self._folder_synced = False

    async def append(self, lines: Sequence[Line]) -> None:
        await asyncio.to_thread(self._append, _encode(lines))

    def _append(self, data: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            # A torn line, of a former life or of a full disk, must not swallow this one.
            file.write(b"\n" + data if file.tell() else data)
            file.flush()
            os.fsync(file.fileno())
            if not self._folder_synced:
                sync_folder(self._path.parent)
                self._folder_synced = True

    async def close(self) -> None:
        return


def sync_folder(folder: Path) -> None:
    """Make the names in it durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class ObjectManifest:
    """Numbered pieces, the last of them written anew at each append, since objects cannot be appended to; one object once it is closed."""

    def __init__(self, store: ObjectStore, broadcast_id: str, root: str = ROOT) -> None:
        self._store = store
        self._folder = f"{root}/{broadcast_id}"
        self._number = 0
        self._piece = b""
        self._closed_pieces: list[bytes] = []

    async def append(self, lines: Sequence[Line]) -> None:
        piece = self._piece + _encode(lines)
        await obstore.put_async(self._store, f"{self._folder}/manifest/{self._number:08}.jsonl", piece)
        self._piece = piece
        if len(piece) >= PIECE_BYTES_MAX:
            self._closed_pieces.append(piece)
            self._number += 1
            self._piece = b""

    async def close(self) -> None:
        whole = b"".join((*self._closed_pieces, self._piece))
        await obstore.put_async(self._store, f"{self._folder}/manifest.jsonl", whole)


async def resume(store: ObjectStore, broadcast_id: str) -> ObjectManifest:
    """The manifest of a writer that is no more, to be gone on with, or closed, by another."""
    log = ObjectManifest(store, broadcast_id)
    paths = await _paths(store, log._folder)
    log._closed_pieces = [await _pieces(store, log._folder)]
    last = max((int(path.rpartition("/")[2].removesuffix(".jsonl")) for path in paths), default=0)
    log._number = last + APART  # whatever the other may still write stands before
    return log


async def read(store: ObjectStore, broadcast_id: str, root: str = ROOT) -> Manifest | None:
    """A recording's manifest, whichever way it was written; None where there is none."""
    folder = f"{root}/{broadcast_id}"
    try:
        whole = await obstore.get_async(store, f"{folder}/manifest.jsonl")
        return parse(bytes(await whole.bytes_async()))
    except (NotFoundError, FileNotFoundError):
        return parse(await _pieces(store, folder))


async def _paths(store: ObjectStore, folder: str) -> list[str]:
    return sorted([entry["path"] async for page in obstore.list(store, f"{folder}/manifest") for entry in page])


async def _pieces(store: ObjectStore, folder: str) -> bytes:
    found = [await obstore.get_async(store, path) for path in await _paths(store, folder)]
    return b"".join([bytes(await piece.bytes_async()) for piece in found])


def _encode(lines: Sequence[Line]) -> bytes:
    return b"".join(line.model_dump_json().encode() + b"\n" for line in lines)
