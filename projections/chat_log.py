"""The chat log: every message with its place in its room, and what must no longer be shown of it.

Deletions, bans and clears are rows of their own, joined when read: a message that comes after what hides it in a batch, or before it, reads
the same, and no handler has to find the messages of a person. What an erased person wrote is hidden by `accounts`, and `forgetting` takes
the texts out of the rows. Replay by offset joins `recordings`.
"""

from collections.abc import Iterable
from typing import Final

import orjson

from domain.chat import ChatCleared, MessageDeleted, MessagePosted, UserBanned, UserTimedOut
from eventstore.port import Recorded
from projections.projection import Projection
from projections.rows import Change, Insert, Put, Table

MESSAGES: Final = Table(
    "messages",
    {"channel_id": "text", "position": "bigint"},
    {
        "message_id": "text",
        "author_id": "text",
        "username": "text",
        "text": "text",
        "badges": "jsonb",
        "reply_to": "text",
        "at": "timestamptz",
    },
    personal={"text": "author_id"},
)
"""`position` is the version of the room's stream: dense, and what clients resume from."""
DELETED: Final = Table("deleted", {"channel_id": "text", "message_id": "text"})
SILENCED: Final = Table("silenced", {"channel_id": "text", "account_id": "text"}, {"position": "bigint"})
"""A ban or timeout hides what its user had written before it; lifting it brings nothing back."""
CLEARED: Final = Table("cleared", {"channel_id": "text"}, {"position": "bigint"})

_NO_BADGES: Final = "[]"


def _posted(recorded: Recorded) -> Iterable[Change]:
    event: MessagePosted = recorded.event
    badges = orjson.dumps(event.badges).decode() if event.badges else _NO_BADGES
    row = (
        event.channel_id, recorded.version, event.message_id, event.author_id, event.username, event.text, badges,
        event.reply_to, recorded.at,
    )  # fmt: skip
    return (Insert(MESSAGES, row),)


def _deleted(recorded: Recorded) -> Iterable[Change]:
    event: MessageDeleted = recorded.event
    yield Put(DELETED, (event.channel_id, event.message_id), {})


def _silenced(recorded: Recorded) -> Iterable[Change]:
    event: UserBanned | UserTimedOut = recorded.event
    yield Put(SILENCED, (event.channel_id, event.account_id), {"position": recorded.version})


def _cleared(recorded: Recorded) -> Iterable[Change]:
    event: ChatCleared = recorded.event
    yield Put(CLEARED, (event.channel_id,), {"position": recorded.version})


PROJECTION: Final = Projection(
    "chat_log",
    version=1,
    tables=(MESSAGES, DELETED, SILENCED, CLEARED),
    handlers={
        MessagePosted: _posted,
        MessageDeleted: _deleted,
        UserBanned: _silenced,
        UserTimedOut: _silenced,
        ChatCleared: _cleared,
    },
)
