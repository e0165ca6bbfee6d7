"""The index tables: rows that must be visible the instant their event is, because a decision reads them (bans, key hashes, roles).

Written only in the transaction that appends the event which changes them, never by a projection. One is read by its whole primary key,
or some by some of their columns.
The SQL side is `schema/`; a test holds the two together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class IndexTable:
    """Names of the primary key's columns and of the others."""

    key: tuple[str, ...]
    values: tuple[str, ...]


TABLES: Final[Mapping[str, IndexTable]] = {
    "stream_keys": IndexTable(("key_hash",), ("channel_id", "channel", "owner_id")),
    "credentials": IndexTable(("username",), ("account_id", "password_hash")),
    "account_roles": IndexTable(("account_id", "role"), ()),
    "channel_roles": IndexTable(("channel_id", "account_id"), ("role", "username")),
    "chat_bans": IndexTable(("channel_id", "account_id"), ("until",)),
    "chat_modes": IndexTable(
        ("channel_id",), ("slow_s", "followers_only_min", "subscribers_only", "emote_only", "unique")
    ),
    "channels_closed": IndexTable(("channel_id",), ()),
    "names": IndexTable(("name", "use"), ("account_id", "subject_id")),
    "payments_open": IndexTable(("payment_id",), ("channel_id", "account_id", "requested_at")),
}


ROWS_MAX: Final = 1000
"""More than that are read from a projection."""


class UnknownIndex(Exception):
    """A table or column that is none of `TABLES`: a fault of the caller."""


def of(table: str) -> IndexTable:
    """Raise UnknownIndex unless there is such a table."""
    known = TABLES.get(table)
    if known is None:
        raise UnknownIndex(table)
    return known


def check(table: str, key: Mapping[str, Any], values: Mapping[str, Any] | None) -> None:
    """Raise UnknownIndex unless the key is whole and the values are all there or None."""
    known = TABLES.get(table)
    if known is None or set(key) != set(known.key) or (values is not None and set(values) != set(known.values)):
        raise UnknownIndex(f"{table} {sorted(key)} {sorted(values or ())}")


def check_columns(table: str, where: Mapping[str, Any]) -> None:
    """Raise UnknownIndex unless these are some of the table's columns."""
    known = TABLES.get(table)
    if known is None or not where or not set(where) <= {*known.key, *known.values}:
        raise UnknownIndex(f"{table} {sorted(where)}")
