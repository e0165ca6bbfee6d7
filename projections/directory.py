"""The live directory: who is live, what, and since when. Viewer counts stand in `audience` (see `presence`)."""

from collections.abc import Iterable
from typing import Final

from domain.broadcast import BroadcastEnded, BroadcastInterrupted, BroadcastResumed, BroadcastStarted
from domain.channel import ChannelDescribed, ChannelOpened
from eventstore.port import Recorded
from projections.projection import Projection
from projections.rows import Change, Delete, Patch, Put, Table

CHANNELS: Final = Table("channels", {"channel_id": "text"}, {"name": "text", "title": "text", "category": "text"})
LIVE: Final = Table(
    "live",
    {"broadcast_id": "text"},
    {"channel_id": "text", "started_at": "timestamptz", "interrupted": "boolean"},
)
"""Keyed by broadcast: when a node is lost, the next broadcast of a channel may start before the last is known to have ended."""


def _opened(recorded: Recorded) -> Iterable[Change]:
    event: ChannelOpened = recorded.event
    yield Put(CHANNELS, (event.channel_id,), {"name": event.name, "title": event.title, "category": event.category})


def _described(recorded: Recorded) -> Iterable[Change]:
    event: ChannelDescribed = recorded.event
    yield Patch(CHANNELS, (event.channel_id,), {"title": event.title, "category": event.category})


def _started(recorded: Recorded) -> Iterable[Change]:
    event: BroadcastStarted = recorded.event
    values = {"channel_id": event.channel_id, "started_at": event.started_at, "interrupted": False}
    yield Put(LIVE, (event.broadcast_id,), values)


def _interrupted(recorded: Recorded) -> Iterable[Change]:
    yield Patch(LIVE, (recorded.event.broadcast_id,), {"interrupted": True})


def _resumed(recorded: Recorded) -> Iterable[Change]:
    yield Patch(LIVE, (recorded.event.broadcast_id,), {"interrupted": False})


def _ended(recorded: Recorded) -> Iterable[Change]:
    yield Delete(LIVE, (recorded.event.broadcast_id,))


PROJECTION: Final = Projection(
    "directory",
    version=1,
    tables=(CHANNELS, LIVE),
    handlers={
        ChannelOpened: _opened,
        ChannelDescribed: _described,
        BroadcastStarted: _started,
        BroadcastInterrupted: _interrupted,
        BroadcastResumed: _resumed,
        BroadcastEnded: _ended,
    },
)
