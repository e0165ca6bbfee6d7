"""A channel: its page, its stream key (only ever a hash), its moderators and the modes of its chat."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from domain.event import Category, Event


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


def stream(channel_id: str) -> str:
    return f"channel-{channel_id}"
