"""The categories channels have ever named, and the one each channel is in now."""

from collections.abc import Iterable
from typing import Final

from domain.channel import ChannelDescribed, ChannelOpened
from eventstore.port import Recorded
from projections.projection import Projection
from projections.rows import Change, Put, Table

CATEGORIES: Final = Table("categories", {"name": "text"}, shared=True)
MEMBERS: Final = Table("members", {"channel_id": "text"}, {"category": "text"})


def _named(recorded: Recorded) -> Iterable[Change]:
    event: ChannelOpened | ChannelDescribed = recorded.event
    yield Put(MEMBERS, (event.channel_id,), {"category": event.category})
    if event.category:
        yield Put(CATEGORIES, (event.category,), {})


PROJECTION: Final = Projection(
    "categories",
    version=1,
    tables=(CATEGORIES, MEMBERS),
    handlers={ChannelOpened: _named, ChannelDescribed: _named},
)
