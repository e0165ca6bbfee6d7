"""A broadcast, from the encoder's first frame to its last, and what becomes of its recording."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar, Final, Literal

from domain.event import Category, Event
from domain.shared import Refusal


class BroadcastStarted(Event):
    TOPIC: ClassVar[str] = "broadcast.BroadcastStarted"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    broadcast_id: str
    channel_id: str
    title: str
    category: str
    started_at: datetime
    node: str
    encoder: str = ""


class RenditionAdded(Event):
    """A rendition that viewers can choose; `bandwidth` in bit/s, `frame_rate` in frames/s, sizes in pixels (0 for audio)."""

    TOPIC: ClassVar[str] = "broadcast.RenditionAdded"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    broadcast_id: str
    channel_id: str
    name: str
    codecs: str
    width: int
    height: int
    frame_rate: float
    bandwidth: int


class BroadcastInterrupted(Event):
    TOPIC: ClassVar[str] = "broadcast.BroadcastInterrupted"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    broadcast_id: str
    channel_id: str
    interrupted_at: datetime


class BroadcastResumed(Event):
    TOPIC: ClassVar[str] = "broadcast.BroadcastResumed"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    broadcast_id: str
    channel_id: str
    resumed_at: datetime


class BroadcastDescribed(Event):
    """What its history calls it; the channel's own title is another."""

    TOPIC: ClassVar[str] = "broadcast.BroadcastDescribed"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    broadcast_id: str
    channel_id: str
    title: str
    category: str


class BroadcastEnded(Event):
    TOPIC: ClassVar[str] = "broadcast.BroadcastEnded"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    broadcast_id: str
    channel_id: str
    ended_at: datetime
    reason: Literal["unpublished", "disconnected", "node_lost"]


class RecordingPublished(Event):
    TOPIC: ClassVar[str] = "broadcast.RecordingPublished"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    broadcast_id: str
    channel_id: str
    vod_url: str
    duration_s: float


class RecordingDeleted(Event):
    TOPIC: ClassVar[str] = "broadcast.RecordingDeleted"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    broadcast_id: str
    channel_id: str


class ClipCreated(Event):
    TOPIC: ClassVar[str] = "broadcast.ClipCreated"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    clip_id: str
    broadcast_id: str
    channel_id: str
    created_by: str
    title: str
    start_s: float
    end_s: float


def stream(broadcast_id: str) -> str:
    return f"broadcast-{broadcast_id}"


@dataclass(frozen=True, slots=True)
class Broadcast:
    channel_id: str = ""
    title: str = ""
    category: str = ""
    ended: bool = False
    published: bool = False
    deleted: bool = False


def evolve(state: Broadcast, event: Event) -> Broadcast:
    match event:
        case BroadcastStarted():
            return replace(state, channel_id=event.channel_id, title=event.title, category=event.category)
        case BroadcastDescribed():
            return replace(state, title=event.title, category=event.category)
        case BroadcastEnded():
            return replace(state, ended=True)
        case RecordingPublished():
            return replace(state, published=True)
        case RecordingDeleted():
            return replace(state, deleted=True)
        case _:
            return state


NOT_FOUND: Final = Refusal("broadcast_not_found", "There is no such broadcast.")


def describe(
    state: Broadcast, broadcast_id: str, *, title: str | None, category: str | None
) -> Sequence[Event] | Refusal:
    """What is None stays as it is."""
    if not state.channel_id:
        return NOT_FOUND
    event = BroadcastDescribed(
        broadcast_id=broadcast_id,
        channel_id=state.channel_id,
        title=state.title if title is None else title,
        category=state.category if category is None else category,
    )
    return [] if (event.title, event.category) == (state.title, state.category) else [event]


def delete_recording(state: Broadcast, broadcast_id: str) -> Sequence[Event] | Refusal:
    if not state.channel_id:
        return NOT_FOUND
    if not state.ended:
        return Refusal("broadcast_live", "A broadcast can be deleted once it has ended.", retryable=True)
    return [] if state.deleted else [RecordingDeleted(broadcast_id=broadcast_id, channel_id=state.channel_id)]
