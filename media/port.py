"""The one small port between the media plane and the event plane. `gateways/media_events.py` fills it; tests fill it with a list.

The media plane asks one question (may this key publish?) and reports facts. Facts are spooled to disk first, in order, so that
the loss of the event plane costs nothing on air and no fact is lost or told twice: each carries an id its receiver deduplicates by.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Grant(_Frozen):
    """The key is good: whose channel it opens, and what its page says now."""

    channel_id: str
    channel: str
    title: str = ""
    category: str = ""


class Denied(_Frozen):
    """`unknown`: no such key, or revoked. `unavailable`: the event plane cannot say now; `banned`: the owner may not broadcast."""

    reason: Literal["unknown", "unavailable", "banned"]


class _Fact(_Frozen):
    fact_id: UUID
    broadcast_id: str
    channel_id: str
    at: datetime


class Started(_Fact):
    kind: Literal["started"] = "started"
    title: str
    category: str
    node: str
    encoder: str = ""


class RenditionAdded(_Fact):
    """Units as in RFC 8216: bandwidth in bit/s, frame_rate in frames/s, sizes in pixels."""

    kind: Literal["rendition"] = "rendition"
    name: str
    codecs: str
    width: int
    height: int
    frame_rate: float
    bandwidth: int


class ArchivedObject(_Frozen):
    """One rendition's bytes of a segment: object key below the recording's folder, size in bytes, hex SHA-256."""

    rendition: str
    key: str
    size: int
    sha256: str


class SegmentsArchived(_Fact):
    """Segment `number` is durable in the archive, in every rendition that has it; or in `apart`, which alone counts so."""

    kind: Literal["segments"] = "segments"
    number: int
    apart: str = ""
    program_date_time: datetime
    offset_s: float
    duration_s: float
    objects: tuple[ArchivedObject, ...]


class Interrupted(_Fact):
    kind: Literal["interrupted"] = "interrupted"


class Resumed(_Fact):
    kind: Literal["resumed"] = "resumed"


class Ended(_Fact):
    kind: Literal["ended"] = "ended"
    reason: Literal["unpublished", "disconnected", "node_lost"]


class RecordingReady(_Fact):
    """The manifest is closed: the VOD plays at `vod_url` (a path of the front) for `duration_s` seconds."""

    kind: Literal["recording"] = "recording"
    vod_url: str
    duration_s: float


Fact = Annotated[
    Started | RenditionAdded | SegmentsArchived | Interrupted | Resumed | Ended | RecordingReady,
    Field(discriminator="kind"),
]


class EventPlane(Protocol):
    async def authorise(self, stream_key: str, *, peer: str) -> Grant | Denied:
        """May this key publish? `peer` is the encoder's address. Answers within 2 s or with `unavailable`; never raises."""
        ...

    async def record(self, facts: Sequence[Fact]) -> None:
        """Record facts in order, each at most once by `fact_id`. Raises when the event plane is away: the spool tries again."""
        ...

    def watching(self, channel_id: str, viewer: str) -> None:
        """`viewer` (whatever tells two of them apart) asked for the channel's playlist just now. Loss is harmless."""
        ...
