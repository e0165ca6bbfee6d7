"""A channel's chat: messages, their deletion and the moderation of who may write. Positions are the dense versions of this stream."""

from datetime import datetime
from typing import ClassVar

from domain.event import Category, Event


class MessagePosted(Event):
    TOPIC: ClassVar[str] = "chat.MessagePosted"
    CATEGORY: ClassVar[Category] = Category.CHAT
    PERSONAL: ClassVar = {"text": "author_id"}
    channel_id: str
    message_id: str
    author_id: str
    username: str
    text: str
    badges: tuple[str, ...] = ()
    reply_to: str | None = None
    broadcast_id: str | None = None


class MessageDeleted(Event):
    TOPIC: ClassVar[str] = "chat.MessageDeleted"
    CATEGORY: ClassVar[Category] = Category.CHAT
    channel_id: str
    message_id: str
    author_id: str
    username: str
    moderator_id: str
    moderator: str


class UserTimedOut(Event):
    TOPIC: ClassVar[str] = "chat.UserTimedOut"
    CATEGORY: ClassVar[Category] = Category.CHAT
    PERSONAL: ClassVar = {"reason": "account_id"}
    channel_id: str
    account_id: str
    username: str
    until: datetime
    duration_s: int
    reason: str | None = None
    moderator_id: str
    moderator: str


class UserBanned(Event):
    TOPIC: ClassVar[str] = "chat.UserBanned"
    CATEGORY: ClassVar[Category] = Category.CHAT
    PERSONAL: ClassVar = {"reason": "account_id"}
    channel_id: str
    account_id: str
    username: str
    reason: str | None = None
    moderator_id: str
    moderator: str


class UserUnbanned(Event):
    """Lifts a ban or a timeout."""

    TOPIC: ClassVar[str] = "chat.UserUnbanned"
    CATEGORY: ClassVar[Category] = Category.CHAT
    channel_id: str
    account_id: str
    username: str
    moderator_id: str
    moderator: str


class ChatCleared(Event):
    TOPIC: ClassVar[str] = "chat.ChatCleared"
    CATEGORY: ClassVar[Category] = Category.CHAT
    channel_id: str
    moderator_id: str
    moderator: str


def stream(channel_id: str) -> str:
    return f"chat-{channel_id}"
