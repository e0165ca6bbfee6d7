"""Every projection on one screen. `runner`, `rebuild`, `watchdog` and the command line know them only through this table."""

from typing import Final

from projections import (
    accounts,
    bans,
    broadcasts,
    categories,
    channels,
    chat_log,
    directory,
    follows,
    ledger,
    moderation,
    recordings,
    subscriptions,
)
from projections.projection import Projection


class UnknownProjection(Exception):
    """No projection of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no projection {name!r}; there are {', '.join(PROJECTIONS)}")


def projection(name: str) -> Projection:
    found = PROJECTIONS.get(name)
    if found is None:
        raise UnknownProjection(name)
    return found


PROJECTIONS: Final = {
    one.name: one
    for one in (
        accounts.PROJECTION,
        bans.PROJECTION,
        broadcasts.PROJECTION,
        categories.PROJECTION,
        channels.PROJECTION,
        chat_log.PROJECTION,
        directory.PROJECTION,
        follows.PROJECTION,
        ledger.PROJECTION,
        moderation.PROJECTION,
        recordings.PROJECTION,
        subscriptions.PROJECTION,
    )
}
