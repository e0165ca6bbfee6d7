"""The broadcast history: every broadcast of a channel with what is left of it, and its clips. Peaks and views stand in `audience`."""

from collections.abc import Iterable
from typing import Final

from domain.broadcast import (
    BroadcastDescribed,
    BroadcastEnded,
    BroadcastStarted,
    ClipCreated,
    RecordingDeleted,
    RecordingPublished,
    RenditionAdded,
)
from eventstore.port import Recorded
from projections.projection import Projection
from projections.rows import Change, Patch, Put, Table

BROADCASTS: Final = Table(
    "broadcasts",
    {"broadcast_id": "text"},
    {
        "channel_id": "text",
        "title": "text",
        "category": "text",
        "started_at": "timestamptz",
        "ended_at": "timestamptz",
        "end_reason": "text",
        "vod_url": "text",
        "duration_s": "double precision",
        "deleted": "boolean",
    },
)
RENDITIONS: Final = Table(
    "renditions",
    {"broadcast_id": "text", "name": "text"},
    {"codecs": "text", "width": "int", "height": "int", "frame_rate": "double precision", "bandwidth": "bigint"},
)
CLIPS: Final = Table(
    "clips",
    {"clip_id": "text"},
    {
        "broadcast_id": "text",
        "channel_id": "text",
        "created_by": "text",
        "title": "text",
        "start_s": "double precision",
        "end_s": "double precision",
        "created_at": "timestamptz",
    },
)


def _started(recorded: Recorded) -> Iterable[Change]:
    event: BroadcastStarted = recorded.event
    values = {
        "channel_id": event.channel_id,
        "title": event.title,
        "category": event.category,
        "started_at": event.started_at,
        "deleted": False,
    }
    yield Put(BROADCASTS, (event.broadcast_id,), values)


def _rendition(recorded: Recorded) -> Iterable[Change]:
    event: RenditionAdded = recorded.event
    values = event.model_dump(include=set(RENDITIONS.columns))
    yield Put(RENDITIONS, (event.broadcast_id, event.name), values)


def _described(recorded: Recorded) -> Iterable[Change]:
    event: BroadcastDescribed = recorded.event
    yield Patch(BROADCASTS, (event.broadcast_id,), {"title": event.title, "category": event.category})


def _ended(recorded: Recorded) -> Iterable[Change]:
    event: BroadcastEnded = recorded.event
    yield Patch(BROADCASTS, (event.broadcast_id,), {"ended_at": event.ended_at, "end_reason": event.reason})


def _published(recorded: Recorded) -> Iterable[Change]:
    event: RecordingPublished = recorded.event
    yield Patch(BROADCASTS, (event.broadcast_id,), {"vod_url": event.vod_url, "duration_s": event.duration_s})


def _deleted(recorded: Recorded) -> Iterable[Change]:
    event: RecordingDeleted = recorded.event
    yield Patch(BROADCASTS, (event.broadcast_id,), {"deleted": True})


def _clipped(recorded: Recorded) -> Iterable[Change]:
    event: ClipCreated = recorded.event
    values = event.model_dump(include=set(CLIPS.columns)) | {"created_at": recorded.at}
    yield Put(CLIPS, (event.clip_id,), values)


PROJECTION: Final = Projection(
    "broadcasts",
    version=1,
    tables=(BROADCASTS, RENDITIONS, CLIPS),
    handlers={
        BroadcastStarted: _started,
        RenditionAdded: _rendition,
        BroadcastDescribed: _described,
        BroadcastEnded: _ended,
        RecordingPublished: _published,
        RecordingDeleted: _deleted,
        ClipCreated: _clipped,
    },
)
