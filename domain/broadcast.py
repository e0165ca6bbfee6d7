"""A broadcast, from the encoder's first frame to its last, and what becomes of its recording."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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


class RecordingUnpublished(Event):
    """Kept, but shown to nobody until it is published again."""

    TOPIC: ClassVar[str] = "broadcast.RecordingUnpublished"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    broadcast_id: str
    channel_id: str


class RecordingDeleted(Event):
    TOPIC: ClassVar[str] = "broadcast.RecordingDeleted"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    broadcast_id: str
    channel_id: str


class ClipCreated(Event):
    """`start_s` and `end_s` in seconds of the recording, as one who plays it counts: the slate's time is none of it."""

    TOPIC: ClassVar[str] = "broadcast.ClipCreated"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    clip_id: str
    broadcast_id: str
    channel_id: str
    created_by: str
    title: str
    start_s: float
    end_s: float


class ClipDeleted(Event):
    TOPIC: ClassVar[str] = "broadcast.ClipDeleted"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    clip_id: str
    broadcast_id: str
    channel_id: str


CLIP_S_MIN: Final = 1.0
CLIP_S_MAX: Final = 60.0
AHEAD_S: Final = 5.0
"""A viewer's clock and the encoder's may differ by so much: a clip of now may seem to end a little later than now."""


def stream(broadcast_id: str) -> str:
    return f"broadcast-{broadcast_id}"


@dataclass(frozen=True, slots=True)
class Broadcast:
    channel_id: str = ""
    title: str = ""
    category: str = ""
    started_at: datetime | None = None
    ended: bool = False
    vod_url: str = ""
    duration_s: float = 0.0
    published: bool = False
    deleted: bool = False
    clips: Mapping[str, str] = field(default_factory=dict)
    """By whom, by id."""


def evolve(state: Broadcast, event: Event) -> Broadcast:
    match event:
        case BroadcastStarted():
            return replace(
                state,
                channel_id=event.channel_id,
                title=event.title,
                category=event.category,
                started_at=event.started_at,
            )
        case BroadcastDescribed():
            return replace(state, title=event.title, category=event.category)
        case BroadcastEnded():
            return replace(state, ended=True)
        case RecordingPublished():
            return replace(state, published=True, vod_url=event.vod_url, duration_s=event.duration_s)
        case RecordingUnpublished():
            return replace(state, published=False)
        case RecordingDeleted():
            return replace(state, deleted=True)
        case ClipCreated():
            return replace(state, clips={**state.clips, event.clip_id: event.created_by})
        case ClipDeleted():
            return replace(state, clips={it: by for it, by in state.clips.items() if it != event.clip_id})
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


def publish(state: Broadcast, broadcast_id: str, *, published: bool) -> Sequence[Event] | Refusal:
    """Show the recording to everybody, or to nobody."""
    if not state.channel_id or state.deleted:
        return NOT_FOUND
    if not state.vod_url:
        return Refusal("recording_not_ready", "There is no recording yet.", retryable=True)
    if published == state.published:
        return []
    if published:
        return [
            RecordingPublished(
                broadcast_id=broadcast_id,
                channel_id=state.channel_id,
                vod_url=state.vod_url,
                duration_s=state.duration_s,
            )
        ]
    return [RecordingUnpublished(broadcast_id=broadcast_id, channel_id=state.channel_id)]


def create_clip(
    state: Broadcast,
    broadcast_id: str,
    *,
    clip_id: str,
    created_by: str,
    title: str,
    start_s: float,
    end_s: float,
    now: datetime,
) -> Sequence[Event] | Refusal:
    if state.started_at is None or state.deleted or (state.vod_url and not state.published):
        return NOT_FOUND
    if clip_id in state.clips:
        return []
    if not CLIP_S_MIN <= end_s - start_s <= CLIP_S_MAX:
        return Refusal("clip_range_invalid", f"A clip lasts {CLIP_S_MIN:g} to {CLIP_S_MAX:g} s.")
    length_s = state.duration_s if state.vod_url else (now - state.started_at).total_seconds() + AHEAD_S
    if start_s < 0 or end_s > length_s + 0.5:
        return Refusal("clip_range_invalid", f"The recording lasts {length_s:.1f} s.")
    return [
        ClipCreated(
            clip_id=clip_id,
            broadcast_id=broadcast_id,
            channel_id=state.channel_id,
            created_by=created_by,
            title=title or state.title,
            start_s=start_s,
            end_s=end_s,
        )
    ]


def delete_clip(state: Broadcast, broadcast_id: str, clip_id: str) -> Sequence[Event] | Refusal:
    """Deleted once and for ever; whoever deletes what is gone already has what they want."""
    if not state.channel_id:
        return NOT_FOUND
    if clip_id not in state.clips:
        return []
    return [ClipDeleted(clip_id=clip_id, broadcast_id=broadcast_id, channel_id=state.channel_id)]
