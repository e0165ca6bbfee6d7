"""The Kafka record: many events of one shard and one category as they are stored, personal fields still encrypted.

The relay encodes, projections and chat pods decode; nobody reads state bytes here. A record is

    "TL" · version (1 byte) · header length (4 bytes, big-endian) · header (JSON, one list a column) · the events' states, end to end

and its key is the shard. Topics are per category, positions per shard over all categories, so a record also says what it covers:

* `prev`: the position of the last event of this category before the record's first (0: none). A consumer of this category that stands
  below `prev` has missed events and reads them from the event store (`read_shard` with categories).
* `upto`: the record holds *every* event of its category in (`prev`, `upto`]: a consumer may take `upto` as its new position.
* `tails`: for each other category, the position of its last event at or before `upto`, or a little beyond. A consumer of several categories
  that stands below one of these must read up to `upto` from the store to keep the shard's order; what then comes over the other topic is a
  repeat. It may be too high, never too low: the price is a read that finds nothing, never a missed event.

A record whose `upto` a consumer has reached is a repeat and is skipped: the relay sends again after a crash or a failed acknowledgement.
"""

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, pairwise
from typing import Annotated, Final, NamedTuple
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from eventstore.port import SHARDS

TOPICS: Final = ("lifecycle", "chat", "media", "money")
"""One Kafka topic a category, of the same name."""
PRESENCE_TOPIC: Final = "presence"
RECORD_BYTES_MAX: Final = 900 * 1024
"""Below Kafka's default `message.max.bytes` of 1 MiB with room for its framing."""
EVENTS_PER_RECORD_MAX: Final = 4096
_HEADER_BYTES_PER_EVENT: Final = 320
"""What an event's columns take at most beside its names: numbers, time and three ids."""

_PREFIX: Final = struct.Struct(">2sBI")
_MAGIC: Final = b"TL"
_VERSION: Final = 1

Position = Annotated[int, Field(ge=1, le=2**62, strict=True)]
Cursor = Annotated[int, Field(ge=0, le=2**62, strict=True)]


class WireEvent(NamedTuple):
    """One stored event; the relay selects these columns in this order."""

    position: int
    stream: str
    version: int
    topic: str
    at: datetime
    actor: str | None
    command_id: UUID | None
    correlation_id: UUID | None
    causation_id: UUID | None
    state: bytes


@dataclass(frozen=True, slots=True)
class WireRecord:
    """What one Kafka record says. `events` rise by position, all in (`prev`, `upto`]."""

    shard: int
    category: str
    prev: int
    upto: int
    tails: Mapping[str, int]
    events: Sequence[WireEvent]

    def follows(self, position: int, categories: Collection[str]) -> bool:
        """Whether a consumer of `categories` that has everything up to `position` misses nothing before these events."""
        others = (self.tails.get(category, 0) for category in categories if category != self.category)
        return self.prev <= position and all(tail <= position for tail in others)


class WireError(Exception):
    """Bytes that are not one of our records. The consumer counts it and goes on: the store has the events."""


class UnknownVersion(WireError):
    """A record of a later format: this consumer must be upgraded."""


class Malformed(WireError):
    """Not a record, cut short, or contradicting itself."""


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    shard: Annotated[int, Field(ge=0, lt=SHARDS, strict=True)]
    category: str
    prev: Cursor
    upto: Cursor
    tails: dict[str, Cursor]
    position: list[Position]
    stream: list[str]
    version: list[Position]
    topic: list[str]
    at: list[datetime]
    actor: list[str | None]
    command_id: list[UUID | None]
    correlation_id: list[UUID | None]
    causation_id: list[UUID | None]
    size: list[Cursor]


_header: Final = TypeAdapter(_Header)


def key_of(shard: int) -> bytes:
    return str(shard).encode()


def partition_of(shard: int, partitions: int) -> int:
    """The partition of a shard in a topic of so many partitions."""
    return shard % partitions


def records(
    shard: int, category: str, events: Sequence[WireEvent], *, prev: int, upto: int, tails: Mapping[str, int]
) -> Iterator[bytes]:
    """`events` as one record, or as several that follow each other where one would be too large.

    An event too large for any record is left out, with its place before the next record's `prev`: a gap that consumers fill.
    """
    for first, last in _chunks(events):
        chunk = events[first:last]
        before = prev if first == 0 else events[first - 1].position
        yield _encode(shard, category, chunk, before, upto if last == len(events) else chunk[-1].position, tails)


def _chunks(events: Sequence[WireEvent]) -> Iterator[tuple[int, int]]:
    first, size = 0, 0
    for index, event in enumerate(events):
        # Names are counted as escaped JSON in the worst case would be: six bytes a character.
        own = (
            _HEADER_BYTES_PER_EVENT
            + len(event.state)
            + 6 * len(event.stream)
            + 6 * len(event.topic)
            + 6 * len(event.actor or "")
        )
        if own > RECORD_BYTES_MAX:
            if first < index:
                yield first, index
            first, size = index + 1, 0
            continue
        if size + own > RECORD_BYTES_MAX or index - first == EVENTS_PER_RECORD_MAX:
            yield first, index
            first, size = index, 0
        size += own
    if first < len(events):
        yield first, len(events)


def _encode(
    shard: int, category: str, events: Sequence[WireEvent], prev: int, upto: int, tails: Mapping[str, int]
) -> bytes:
    position, stream, version, topic, at, actor, command, correlation, causation, state = zip(*events, strict=True)
    header = orjson.dumps(
        {
            "shard": shard,
            "category": category,
            "prev": prev,
            "upto": upto,
            "tails": dict(tails),
            "position": position,
            "stream": stream,
            "version": version,
            "topic": topic,
            "at": at,
            "actor": actor,
            "command_id": command,
            "correlation_id": correlation,
            "causation_id": causation,
            "size": [len(one) for one in state],
        }
    )
    return b"".join((_PREFIX.pack(_MAGIC, _VERSION, len(header)), header, *state))


def decode(data: bytes) -> WireRecord:
    """The record in `data`. Raises UnknownVersion or Malformed, and nothing else, whatever the bytes are."""
    if len(data) < _PREFIX.size:
        raise Malformed(f"{len(data)} bytes are no record")
    magic, version, length = _PREFIX.unpack_from(data)
    if magic != _MAGIC:
        raise Malformed("not a record of ours")
    if version != _VERSION:
        raise UnknownVersion(f"record version {version}, this reads {_VERSION}")
    start = _PREFIX.size + length
    try:
        header = _header.validate_json(data[_PREFIX.size : start])
    except ValidationError as error:
        raise Malformed(
            f"header: {error.error_count()} faults, the first {error.errors(include_url=False)[0]['msg']}"
        ) from error
    bounds = list(accumulate(header.size, initial=start))
    if bounds[-1] != len(data):
        raise Malformed(f"states end at byte {bounds[-1]} of {len(data)}")
    try:
        columns = zip(
            header.position, header.stream, header.version, header.topic, header.at, header.actor, header.command_id,
            header.correlation_id, header.causation_id, [data[a:b] for a, b in pairwise(bounds)], strict=True,
        )  # fmt: skip
        events = [WireEvent(*row) for row in columns]
    except ValueError as error:
        raise Malformed("columns of different lengths") from error
    edges = (header.prev, *header.position, header.upto + 1)
    if not events or any(a >= b for a, b in pairwise(edges)):
        raise Malformed("positions do not rise from prev to upto")
    return WireRecord(header.shard, header.category, header.prev, header.upto, header.tails, events)
