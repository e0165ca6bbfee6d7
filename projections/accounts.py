"""Accounts as others may see them, and which were erased. Texts of an erased person are shown by no query, whatever a row still says: those
of `gateways.read_models` look here, and `forgetting` takes them out of the rows."""

from collections.abc import Iterable
from typing import Final

from domain.account import AccountErased, AccountRegistered, DisplayNameChanged
from domain.event import ERASED
from eventstore.port import Recorded
from projections.projection import Projection
from projections.rows import Change, Patch, Put, Table

ACCOUNTS: Final = Table(
    "accounts",
    {"account_id": "text"},
    {"username": "text", "display_name": "text", "registered_at": "timestamptz", "erased_at": "timestamptz"},
)


def _registered(recorded: Recorded) -> Iterable[Change]:
    event: AccountRegistered = recorded.event
    values = {"username": event.username, "display_name": event.display_name, "registered_at": recorded.at}
    yield Put(ACCOUNTS, (event.account_id,), values)


def _renamed(recorded: Recorded) -> Iterable[Change]:
    event: DisplayNameChanged = recorded.event
    yield Patch(ACCOUNTS, (event.account_id,), {"display_name": event.display_name})


def _erased(recorded: Recorded) -> Iterable[Change]:
    event: AccountErased = recorded.event
    yield Patch(ACCOUNTS, (event.account_id,), {"display_name": ERASED, "erased_at": recorded.at})


PROJECTION: Final = Projection(
    "accounts",
    version=1,
    tables=(ACCOUNTS,),
    handlers={AccountRegistered: _registered, DisplayNameChanged: _renamed, AccountErased: _erased},
)
