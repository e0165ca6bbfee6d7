"""The event store's port: what commands, projections and gateways may ask of it. Implemented over Postgres and in memory.

A *shard* is one of `SHARDS` totally ordered logs; a stream lives whole in the shard its partition key hashes to.
Positions are dense within a shard (1, 2, 3, …), versions are dense within a stream (1, 2, 3, …).
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

from pydantic import BaseModel

SHARDS: Final = 64
EVENTS_PER_APPEND_MAX: Final = 64


def shard_of(key: str) -> int:
    """The shard, 0 to 63, of a partition key: the first byte of its BLAKE2b, so that every language can compute it."""
    return blake2b(key.encode(), digest_size=8).digest()[0] % SHARDS


@dataclass(frozen=True, slots=True)
class IndexWrite:
    """A row that must be visible the instant its event is (bans, modes, roles, key hashes, credentials).

    Written in the transaction that appends. `table` is one of `eventstore.index.TABLES`; `key` names the primary key columns;
    `values` the others, or None to delete the row.
    """

    table: str
    key: Mapping[str, Any]
    values: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class StreamWrite:
    """Events for one stream. `expected` is the stream's version before (0: it must not exist; None: any, append without loading)."""

    stream: str
    key: str
    events: Sequence[BaseModel]
    expected: int | None = None


@dataclass(frozen=True, slots=True)
class Append:
    """One command's writes, all or none. Sent twice with the same `command_id`, the second answers with the first outcome."""

    command_id: UUID
    writes: Sequence[StreamWrite]
    index: Sequence[IndexWrite] = ()
    actor: str | None = None
    correlation_id: UUID | None = None
    causation_id: UUID | None = None


class Placed(NamedTuple):
    """Where a stream's last appended event stands. A tuple, like `Appended`: one is made for every event, as cheaply as can be."""

    stream: str
    version: int
    shard: int
    position: int


class Appended(NamedTuple):
    """Durable. `at` is the recorded time; `placed` one entry a written stream, in the order of the writes."""

    placed: tuple[Placed, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class WrongVersion:
    """Nothing was written: `stream` stands at `actual`."""

    stream: str
    actual: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A final, remembered refusal by the store (chat admission) with a stable code; `wait_s` where waiting helps."""

    reason: str
    wait_s: float | None = None


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The command had been handled before; `of` is what it came to then."""

    of: "Appended | Refused"


Outcome = Appended | WrongVersion | Refused | Duplicate


class Recorded(NamedTuple):
    """An event as it stands in the log: a tuple, for a rebuild makes millions.

    `event` is upcast, validated and decrypted (erased fields read `domain.event.ERASED`).
    """

    stream: str
    version: int
    shard: int
    position: int
    topic: str
    category: str
    at: datetime
    actor: str | None
    command_id: UUID | None
    correlation_id: UUID | None
    causation_id: UUID | None
    event: Any


@dataclass(frozen=True, slots=True)
class ChatPost:
    """A message asking for admission to a room. `following_since` and `subscriber` come from read models and may lag a second."""

    command_id: UUID
    channel_id: str
    author_id: str
    event: BaseModel
    text_digest: bytes
    emote_only_text: bool = False
    following_since: datetime | None = None
    subscriber: bool = False


class EventStore(Protocol):
    """Every method may raise `eventstore.errors.StoreUnavailable`; nothing acknowledged is ever lost."""

    async def append(self, append: Append) -> Outcome:
        """Append one command's events; concurrent callers are grouped into one commit, each with an outcome of its own."""
        ...

    async def post_message(self, post: ChatPost) -> Outcome:
        """Admit a chat message atomically against bans, modes, roles and the author's last message, or refuse it (design §3)."""
        ...

    async def read_stream(self, stream: str, *, after: int = 0, limit: int = 1000) -> list[Recorded]:
        """Events of one stream with version > `after`, in order."""
        ...

    async def read_stream_tail(self, stream: str, *, limit: int) -> list[Recorded]:
        """The last events of one stream, in order."""
        ...

    async def read_shard(
        self, shard: int, *, after: int, limit: int = 1000, categories: Iterable[str] | None = None
    ) -> list[Recorded]:
        """Events of one shard with position > `after`, in order. With `categories`, only those (then positions have holes)."""
        ...

    async def heads(self) -> list[int]:
        """The last position of each shard, 0 for an empty one."""
        ...

    def subscribe(self, after: Mapping[int, int]) -> AsyncIterator[list[Recorded]]:
        """Batches of the given shards' events (shard → position after which), first what is stored, then as it happens, for ever."""
        ...

    async def index_row(self, table: str, key: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """One row of an index table by its whole primary key."""
        ...

    async def index_rows(self, table: str, where: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Rows of an index table that have these values, by their primary key, at most `index.ROWS_MAX`."""

    async def index_table(self, table: str) -> Sequence[Mapping[str, Any]]:
        """Every row of an index table that stays small, in the order of its primary key."""
        ...

    async def erase_person(self, account_id: str) -> None:
        """Destroy a person's key: personal fields of all their events read as erased from now on."""
        ...
