"""The moderation log of each channel: who did what to whom, and why."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from domain.channel import ChatModeChanged, ModeratorAppointed, ModeratorRemoved
from domain.chat import ChatCleared, MessageDeleted, UserBanned, UserTimedOut, UserUnbanned
from eventstore.port import Recorded
from projections.projection import Handler, Projection
from projections.rows import Change, Put, Table

ENTRIES: Final = Table(
    "entries",
    {"channel_id": "text", "position": "bigint"},
    {
        "at": "timestamptz",
        "action": "text",
        "moderator_id": "text",
        "moderator": "text",
        "target_id": "text",
        "target": "text",
        "message_id": "text",
        "reason": "text",
        "duration_s": "bigint",
        "until": "timestamptz",
        "mode": "jsonb",
    },
    personal={"reason": "target_id"},
)
"""`position` is the event's in its shard: a channel and its chat share one, and both kinds of act fall into one order."""


def _entry(action: str, details: Callable[[Any], dict[str, Any]]) -> Handler:
    """A handler that logs `action`. Events of the channel stream name no moderator: there it is who acted."""

    def handler(recorded: Recorded) -> Iterable[Change]:
        event = recorded.event
        values = {
            "at": recorded.at,
            "action": action,
            "moderator_id": getattr(event, "moderator_id", recorded.actor),
            "moderator": getattr(event, "moderator", None),
            **details(event),
        }
        return (Put(ENTRIES, (event.channel_id, recorded.position), values),)

    return handler


def _target(event: Any) -> dict[str, Any]:
    return {"target_id": event.account_id, "target": event.username}


PROJECTION: Final = Projection(
    "moderation",
    version=2,
    tables=(ENTRIES,),
    handlers={
        MessageDeleted: _entry(
            "delete",
            lambda event: {"target_id": event.author_id, "target": event.username, "message_id": event.message_id},
        ),
        UserTimedOut: _entry(
            "timeout",
            lambda event: (
                _target(event) | {"reason": event.reason, "duration_s": event.duration_s, "until": event.until}
            ),
        ),
        UserBanned: _entry("ban", lambda event: _target(event) | {"reason": event.reason}),
        UserUnbanned: _entry("unban", _target),
        ChatCleared: _entry("clear", lambda event: {}),
        ChatModeChanged: _entry("mode", lambda event: {"mode": event.mode.model_dump_json()}),
        ModeratorAppointed: _entry("mod", _target),
        ModeratorRemoved: _entry("unmod", _target),
    },
)
