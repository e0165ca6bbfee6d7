"""A follow: one stream a pair of account and channel, kept with the channel's shard so that its follower count has one order."""

from collections.abc import Sequence
from typing import ClassVar

from domain.event import Category, Event


class ChannelFollowed(Event):
    TOPIC: ClassVar[str] = "follow.ChannelFollowed"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    channel_id: str
    account_id: str


class ChannelUnfollowed(Event):
    TOPIC: ClassVar[str] = "follow.ChannelUnfollowed"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    channel_id: str
    account_id: str


def stream(channel_id: str, account_id: str) -> str:
    return f"follow-{channel_id}-{account_id}"


def evolve(following: bool, event: Event) -> bool:
    match event:
        case ChannelFollowed():
            return True
        case ChannelUnfollowed():
            return False
        case _:
            return following


def follow(following: bool, channel_id: str, account_id: str) -> Sequence[Event]:
    return [] if following else [ChannelFollowed(channel_id=channel_id, account_id=account_id)]


def unfollow(following: bool, channel_id: str, account_id: str) -> Sequence[Event]:
    return [ChannelUnfollowed(channel_id=channel_id, account_id=account_id)] if following else []
