"""What was archived of a broadcast: one event a segment number, across its renditions, appended without loading."""

from datetime import datetime
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from domain.event import Category, Event


class SegmentObject(BaseModel):
    """One rendition's bytes of a segment: object key below the recording's folder, size, and hex SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rendition: str
    key: str
    size: int
    sha256: str


class SegmentsRecorded(Event):
    """Segment `number` (media sequence number): duration and offset from the recording's start in seconds. `apart`: the rendition that
    alone counts so, because its key frames let it cut only where no other does."""

    TOPIC: ClassVar[str] = "recording.SegmentsRecorded"
    CATEGORY: ClassVar[Category] = Category.MEDIA
    broadcast_id: str
    channel_id: str
    number: int
    apart: str = ""
    program_date_time: datetime
    offset_s: float
    duration_s: float
    objects: tuple[SegmentObject, ...]


def stream(broadcast_id: str) -> str:
    return f"recording-{broadcast_id}"
