"""The broadcast history: every broadcast of a channel with what is left of it, its chapters and its clips.

A chapter begins where the channel was described anew while it was on air; `descriptions` has them all, by when. Peaks and views stand in
`audience`.
"""

from collections.abc import Iterable
from typing import Final

from domain.broadcast import (
    BroadcastDescribed,
    BroadcastEnded,
    BroadcastStarted,
    ClipCreated,
    ClipDeleted,
    RecordingDeleted,
    RecordingPublished,
    RecordingUnpublished,
    RenditionAdded,
)
from domain.channel import ChannelDescribed
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
        "unpublished": "boolean",
        "deleted": "boolean",
    },
)
DESCRIPTIONS: Final = Table(
    "descriptions",
    {"channel_id": "text", "position": "bigint"},
    {"at": "timestamptz", "title": "text", "category": "text"},
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
        "deleted": "boolean",
    },
)


def _started(recorded: Recorded) -> Iterable[Change]:
    event: BroadcastStarted = recorded.event
    values = {
        "channel_id": event.channel_id,
        "title": event.title,
        "category": event.category,
        "started_at": event.started_at,
        "unpublished": False,
        "deleted": False,
    }
    yield Put(BROADCASTS, (event.broadcast_id,), values)
    said = {"at": event.started_at, "title": event.title, "category": event.category}
    yield Put(DESCRIPTIONS, (event.channel_id, recorded.position), said)


def _channel_described(recorded: Recorded) -> Iterable[Change]:
    event: ChannelDescribed = recorded.event
    said = {"at": recorded.at, "title": event.title, "category": event.category}
    yield Put(DESCRIPTIONS, (event.channel_id, recorded.position), said)


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
    yield Patch(
        BROADCASTS,
        (event.broadcast_id,),
        {"vod_url": event.vod_url, "duration_s": event.duration_s, "unpublished": False},
    )


def _unpublished(recorded: Recorded) -> Iterable[Change]:
    event: RecordingUnpublished = recorded.event
    yield Patch(BROADCASTS, (event.broadcast_id,), {"unpublished": True})


def _deleted(recorded: Recorded) -> Iterable[Change]:
    event: RecordingDeleted = recorded.event
    yield Patch(BROADCASTS, (event.broadcast_id,), {"deleted": True})


def _clipped(recorded: Recorded) -> Iterable[Change]:
    event: ClipCreated = recorded.event
    values = event.model_dump(include=set(CLIPS.columns)) | {"created_at": recorded.at, "deleted": False}
    yield Put(CLIPS, (event.clip_id,), values)


def _clip_deleted(recorded: Recorded) -> Iterable[Change]:
    event: ClipDeleted = recorded.event
    yield Patch(CLIPS, (event.clip_id,), {"deleted": True})


PROJECTION: Final = Projection(
    "broadcasts",
    version=2,
    tables=(BROADCASTS, DESCRIPTIONS, RENDITIONS, CLIPS),
    handlers={
        BroadcastStarted: _started,
        RenditionAdded: _rendition,
        BroadcastDescribed: _described,
        BroadcastEnded: _ended,
        ChannelDescribed: _channel_described,
        RecordingPublished: _published,
        RecordingUnpublished: _unpublished,
        RecordingDeleted: _deleted,
        ClipCreated: _clipped,
        ClipDeleted: _clip_deleted,
    },
)
