"""A channel: its page, its stream key (only ever a hash), its moderators and the modes of its chat."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict

from domain.event import Category, Event
from domain.shared import Refusal

MODERATORS_MAX: Final = 500


class ChatMode(BaseModel):
    """The chat modes of a channel; zero and false mean off. `slow_s` 0 leaves the platform's one message a second."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    slow_s: int = 0
    followers_only_min: int | None = None
    subscribers_only: bool = False
    emote_only: bool = False
    unique: bool = False


class ChannelOpened(Event):
    TOPIC: ClassVar[str] = "channel.ChannelOpened"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    channel_id: str
    name: str
    owner_id: str
    title: str = ""
    category: str = ""


class ChannelDescribed(Event):
    TOPIC: ClassVar[str] = "channel.ChannelDescribed"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    channel_id: str
    title: str
    category: str
    tags: tuple[str, ...] = ()


class StreamKeyRotated(Event):
    """`key_hash` is hex SHA-256 of the 256-bit random key; the key itself is shown once and kept nowhere."""

    TOPIC: ClassVar[str] = "channel.StreamKeyRotated"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    channel_id: str
    key_hash: str


class ModeratorAppointed(Event):
    TOPIC: ClassVar[str] = "channel.ModeratorAppointed"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    channel_id: str
    account_id: str
    username: str


class ModeratorRemoved(Event):
    TOPIC: ClassVar[str] = "channel.ModeratorRemoved"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    channel_id: str
    account_id: str
    username: str


class ChatModeChanged(Event):
    TOPIC: ClassVar[str] = "channel.ChatModeChanged"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    channel_id: str
    mode: ChatMode


class PlaybackRuleChanged(Event):
    """Who may play what the channel shows: everybody, or whoever subscribes to it, moderates or owns it."""

    TOPIC: ClassVar[str] = "channel.PlaybackRuleChanged"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    channel_id: str
    subscribers_only: bool


def stream(channel_id: str) -> str:
    return f"channel-{channel_id}"


@dataclass(frozen=True, slots=True)
class Channel:
    name: str = ""
    owner_id: str = ""
    title: str = ""
    category: str = ""
    tags: tuple[str, ...] = ()
    key_hash: str | None = None
    moderators: frozenset[str] = frozenset()
    mode: ChatMode = field(default_factory=ChatMode)
    subscribers_only_playback: bool = False


def evolve(state: Channel, event: Event) -> Channel:
    match event:
        case ChannelOpened():
            return replace(state, name=event.name, owner_id=event.owner_id, title=event.title, category=event.category)
        case ChannelDescribed():
            return replace(state, title=event.title, category=event.category, tags=event.tags)
        case StreamKeyRotated(key_hash=key_hash):
            return replace(state, key_hash=key_hash)
        case ModeratorAppointed(account_id=account_id):
            return replace(state, moderators=state.moderators | {account_id})
        case ModeratorRemoved(account_id=account_id):
            return replace(state, moderators=state.moderators - {account_id})
        case ChatModeChanged(mode=mode):
            return replace(state, mode=mode)
        case PlaybackRuleChanged(subscribers_only=subscribers_only):
            return replace(state, subscribers_only_playback=subscribers_only)
        case _:
            return state


NOT_FOUND: Final = Refusal("channel_not_found", "There is no such channel.")


def rotate_key(state: Channel, channel_id: str, key_hash: str) -> Sequence[Event] | Refusal:
    if not state.name:
        return NOT_FOUND
    return [] if state.key_hash == key_hash else [StreamKeyRotated(channel_id=channel_id, key_hash=key_hash)]


def describe(
    state: Channel, channel_id: str, *, title: str | None, category: str | None, tags: tuple[str, ...] | None
) -> Sequence[Event] | Refusal:
    """What is None stays as it is."""
    if not state.name:
        return NOT_FOUND
    event = ChannelDescribed(
        channel_id=channel_id,
        title=state.title if title is None else title,
        category=state.category if category is None else category,
        tags=state.tags if tags is None else tags,
    )
    return [] if (event.title, event.category, event.tags) == (state.title, state.category, state.tags) else [event]


def appoint(state: Channel, channel_id: str, account_id: str, username: str) -> Sequence[Event] | Refusal:
    if not state.name:
        return NOT_FOUND
    if account_id == state.owner_id:
        return Refusal("already_owner", "The owner of a channel moderates it anyway.")
    if account_id in state.moderators:
        return []
    if len(state.moderators) >= MODERATORS_MAX:
        return Refusal("too_many_moderators", f"A channel has at most {MODERATORS_MAX} moderators.")
    return [ModeratorAppointed(channel_id=channel_id, account_id=account_id, username=username)]


def remove(state: Channel, channel_id: str, account_id: str, username: str) -> Sequence[Event] | Refusal:
    if not state.name:
        return NOT_FOUND
    if account_id not in state.moderators:
        return []
    return [ModeratorRemoved(channel_id=channel_id, account_id=account_id, username=username)]


def change_mode(state: Channel, channel_id: str, mode: ChatMode) -> Sequence[Event] | Refusal:
    if not state.name:
        return NOT_FOUND
    return [] if state.mode == mode else [ChatModeChanged(channel_id=channel_id, mode=mode)]


def change_playback_rule(state: Channel, channel_id: str, *, subscribers_only: bool) -> Sequence[Event] | Refusal:
    if not state.name:
        return NOT_FOUND
    if state.subscribers_only_playback == subscribers_only:
        return []
    return [PlaybackRuleChanged(channel_id=channel_id, subscribers_only=subscribers_only)]
