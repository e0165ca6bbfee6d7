"""Who follows whom since when, and each channel's follower count. Chat admission reads `following_since` here; it may lag a second."""

from collections.abc import Iterable
from typing import Final

from domain.follow import ChannelFollowed, ChannelUnfollowed
from eventstore.port import Recorded
from projections.projection import Projection
from projections.rows import Bump, Change, Delete, Put, Table

FOLLOWS: Final = Table("follows", {"channel_id": "text", "account_id": "text"}, {"since": "timestamptz"})
COUNTS: Final = Table("counts", {"channel_id": "text"}, {"followers": "bigint"})


def _followed(recorded: Recorded) -> Iterable[Change]:
    event: ChannelFollowed = recorded.event
    return (
        Put(FOLLOWS, (event.channel_id, event.account_id), {"since": recorded.at}),
        Bump(COUNTS, (event.channel_id,), {"followers": 1}),
    )


def _unfollowed(recorded: Recorded) -> Iterable[Change]:
    event: ChannelUnfollowed = recorded.event
    return (Delete(FOLLOWS, (event.channel_id, event.account_id)), Bump(COUNTS, (event.channel_id,), {"followers": -1}))


PROJECTION: Final = Projection(
    "follows",
    version=1,
    tables=(FOLLOWS, COUNTS),
    handlers={ChannelFollowed: _followed, ChannelUnfollowed: _unfollowed},
)
