"""Who may not write in a channel's chat, by whom, why and until when, for its moderators. Admission itself reads an index of its own.

A timeout that has run out stays until the next act: whoever reads leaves it out, by the time it is then.
"""

from collections.abc import Iterable
from typing import Final

from domain.chat import UserBanned, UserTimedOut, UserUnbanned
from eventstore.port import Recorded
from projections.projection import Projection
from projections.rows import Change, Delete, Put, Table

BANS: Final = Table(
    "bans",
    {"channel_id": "text", "account_id": "text"},
    {
        "position": "bigint",
        "username": "text",
        "moderator": "text",
        "reason": "text",
        "at": "timestamptz",
        "until": "timestamptz",
    },
)
"""`position` is the event's in its shard, which a channel's events share: the order in which bans were spoken."""


def _banned(recorded: Recorded) -> Iterable[Change]:
    event: UserBanned | UserTimedOut = recorded.event
    values = {
        "position": recorded.position,
        "username": event.username,
        "moderator": event.moderator,
        "reason": event.reason,
        "at": recorded.at,
        "until": event.until if isinstance(event, UserTimedOut) else None,
    }
    return (Put(BANS, (event.channel_id, event.account_id), values),)


def _unbanned(recorded: Recorded) -> Iterable[Change]:
    event: UserUnbanned = recorded.event
    return (Delete(BANS, (event.channel_id, event.account_id)),)


PROJECTION: Final = Projection(
    "bans",
    version=1,
    tables=(BANS,),
    handlers={UserBanned: _banned, UserTimedOut: _banned, UserUnbanned: _unbanned},
)
