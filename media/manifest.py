"""The manifest of a recording: an append-only list of what was archived, from which alone the VOD is made.

JSON lines, each a whole fact: the recording, its renditions, every segment number, the end. Written by `media.archive`, read by `media.vod`
and at a node's start. A torn last line, left by a crash, is ignored: what is whole is the recording.
"""

import asyncio
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Protocol

import obstore
from obstore.exceptions import NotFoundError
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

ROOT: Final = "recordings"


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class StoredObject(_Line):
    """One rendition's bytes: object key, size, hex SHA-256; times in seconds from the recording's zero."""

    rendition: str
    key: str
    size: int
    sha256: str
    start_s: float = 0.0
    duration_s: float = 0.0


class RecordingLine(_Line):
    kind: Literal["recording"] = "recording"
    broadcast_id: str
    channel_id: str
    started_at: datetime


class RenditionLine(_Line):
    """Sizes in pixels, 0 without video; `init` is the initialisation segment."""

    kind: Literal["rendition"] = "rendition"
    name: str
    bandwidth: int
    codecs: str
    width: int
    height: int
    frame_rate: float
    init: StoredObject


class SegmentLine(_Line):
    kind: Literal["segment"] = "segment"
    number: int
    start_s: float
    duration_s: float
    program_date_time: datetime
    objects: tuple[StoredObject, ...]


class EndLine(_Line):
    kind: Literal["end"] = "end"
    at: datetime


Line = Annotated[RecordingLine | RenditionLine | SegmentLine | EndLine, Field(discriminator="kind")]
_line: Final[TypeAdapter[Any]] = TypeAdapter(Line)


class Manifest(BaseModel):
    """What the lines say together."""

    model_config = ConfigDict(frozen=True)

    recording: RecordingLine
    renditions: tuple[RenditionLine, ...]
    segments: tuple[SegmentLine, ...]
    ended_at: datetime | None

    @property
    def duration_s(self) -> float:
        return max((segment.start_s + segment.duration_s for segment in self.segments), default=0.0)


def parse(data: bytes) -> Manifest | None:
    """None where not even the first line is whole."""
    recording: RecordingLine | None = None
    renditions: dict[str, RenditionLine] = {}
    segments: dict[int, SegmentLine] = {}
    ended_at: datetime | None = None
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
                renditions[name] = line
            case SegmentLine(number=number):
                segments[number] = line
            case EndLine(at=at):
                ended_at = at
    if recording is None:
        return None
    ordered = tuple(segments[number] for number in sorted(segments))
    return Manifest(recording=recording, renditions=tuple(renditions.values()), segments=ordered, ended_at=ended_at)


class ManifestLog(Protocol):
    async def append(self, lines: Sequence[Line]) -> None:
        """Durable when it returns."""
        ...

    async def close(self) -> None: ...


class FileManifest:
    """Appended with fsync; for an archive that is a folder."""

    def __init__(self, folder: Path, broadcast_id: str) -> None:
        self._path = folder / ROOT / broadcast_id / "manifest.jsonl"

    async def append(self, lines: Sequence[Line]) -> None:
        await asyncio.to_thread(self._append, _encode(lines))

    def _append(self, data: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            # A torn line of a former life must not swallow this one.
            if file.tell() and not self._path.read_bytes().endswith(b"\n"):
                file.write(b"\n")
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    async def close(self) -> None:
        return


class ObjectManifest:
    """Numbered pieces, since objects cannot be appended to; made one object when the recording is closed."""

    def __init__(self, store: Any, broadcast_id: str) -> None:
        self._store = store
        self._folder = f"{ROOT}/{broadcast_id}"
        self._number = 0
        self._whole = bytearray()

    async def append(self, lines: Sequence[Line]) -> None:
        data = _encode(lines)
        await obstore.put_async(self._store, f"{self._folder}/manifest/{self._number:08}.jsonl", data)
        self._number += 1
        self._whole += data

    async def close(self) -> None:
        await obstore.put_async(self._store, f"{self._folder}/manifest.jsonl", bytes(self._whole))


async def read(store: Any, broadcast_id: str) -> Manifest | None:
    """A recording's manifest, whichever way it was written; None where there is none."""
    folder = f"{ROOT}/{broadcast_id}"
    try:
        whole = await obstore.get_async(store, f"{folder}/manifest.jsonl")
        return parse(bytes(await whole.bytes_async()))
    except (NotFoundError, FileNotFoundError):
        pieces = [entry["path"] async for page in store.list(f"{folder}/manifest") for entry in page]
    data = b""
    for path in sorted(pieces):
        data += bytes(await (await obstore.get_async(store, path)).bytes_async())
    return parse(data)


def _encode(lines: Sequence[Line]) -> bytes:
    return b"".join(line.model_dump_json().encode() + b"\n" for line in lines)
