"""The channel page: name, owner, title, category, tags, moderators. Counts of followers and subscribers are projections of their own."""

from collections.abc import Iterable
from typing import Final

import orjson

from domain.channel import (
    ChannelDescribed,
    ChannelOpened,
    ChatModeChanged,
    ModeratorAppointed,
    ModeratorRemoved,
    PlaybackRuleChanged,
)
from eventstore.port import Recorded
from projections.projection import Projection
from projections.rows import Change, Delete, Patch, Put, Table

CHANNELS: Final = Table(
    "channels",
    {"channel_id": "text"},
    {
        "name": "text",
        "owner_id": "text",
        "title": "text",
        "category": "text",
        "tags": "jsonb",
        "chat_mode": "jsonb",
        "subscribers_only_playback": "boolean",
        "opened_at": "timestamptz",
    },
)
MODERATORS: Final = Table(
    "moderators", {"channel_id": "text", "account_id": "text"}, {"username": "text", "since": "timestamptz"}
)


def _opened(recorded: Recorded) -> Iterable[Change]:
    event: ChannelOpened = recorded.event
    values = {
        "name": event.name,
        "owner_id": event.owner_id,
        "title": event.title,
        "category": event.category,
        "opened_at": recorded.at,
    }
    yield Put(CHANNELS, (event.channel_id,), values)


def _described(recorded: Recorded) -> Iterable[Change]:
    event: ChannelDescribed = recorded.event
    values = {"title": event.title, "category": event.category, "tags": orjson.dumps(event.tags).decode()}
    yield Patch(CHANNELS, (event.channel_id,), values)


def _mode_changed(recorded: Recorded) -> Iterable[Change]:
    event: ChatModeChanged = recorded.event
    yield Patch(CHANNELS, (event.channel_id,), {"chat_mode": event.mode.model_dump_json()})


def _playback_rule_changed(recorded: Recorded) -> Iterable[Change]:
    event: PlaybackRuleChanged = recorded.event
    yield Patch(CHANNELS, (event.channel_id,), {"subscribers_only_playback": event.subscribers_only})


def _appointed(recorded: Recorded) -> Iterable[Change]:
    event: ModeratorAppointed = recorded.event
    yield Put(MODERATORS, (event.channel_id, event.account_id), {"username": event.username, "since": recorded.at})


def _removed(recorded: Recorded) -> Iterable[Change]:
    event: ModeratorRemoved = recorded.event
    yield Delete(MODERATORS, (event.channel_id, event.account_id))


PROJECTION: Final = Projection(
    "channels",
    version=2,
    tables=(CHANNELS, MODERATORS),
    handlers={
        ChannelOpened: _opened,
        ChannelDescribed: _described,
        ChatModeChanged: _mode_changed,
        PlaybackRuleChanged: _playback_rule_changed,
        ModeratorAppointed: _appointed,
        ModeratorRemoved: _removed,
    },
)
