"""What a command is to the database: columns for the group-commit functions, and outcomes out of what they answer.

Called by `eventstore.postgres` and by the `append` benchmark. Knows bytes and ids, never events.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from eventstore.port import Appended, Duplicate, Outcome, Placed, Refused, WrongVersion

_APPEND: Final = (
    "SELECT command, status, stream, shard, version, position, at, refusal FROM append_commands"
    "($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
)
_POST: Final = (
    "SELECT command, status, version, position, at, refusal, wait_s FROM post_messages"
    "($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
)


@dataclass(frozen=True, slots=True)
class StoredWrite:
    """One stream's events as they will be stored: (category, topic, state) each."""

    stream: str
    shard: int
    expected: int | None
    events: Sequence[tuple[str, str, bytes]]


@dataclass(slots=True)
class Command:
    """An `Append` whose events are bytes. `index` is the JSON of its index rows."""

    command_id: UUID
    writes: Sequence[StoredWrite]
    actor: str | None = None
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    money: bool = False
    index: str | None = None
    alone: tuple[object, ...] = field(init=False)
    shared: tuple[object, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.alone = (
            self.command_id,
            *(write.stream for write in self.writes if write.expected is not None),
        )
        self.shared = tuple(write.stream for write in self.writes if write.expected is None)


@dataclass(slots=True)
class Message:
    """A `ChatPost` whose event is bytes."""

    command_id: UUID
    channel_id: str
    author_id: str
    shard: int
    topic: str
    state: bytes
    digest: bytes
    emote_only_text: bool
    following_since: datetime | None
    subscriber: bool
    alone: tuple[object, ...] = field(init=False)
    shared: tuple[object, ...] = ()

    def __post_init__(self) -> None:
        self.alone = (self.command_id, (self.channel_id, self.author_id))


async def append(connection: Any, commands: Sequence[Command]) -> list[Outcome]:
    """Write a batch in one transaction, an outcome each."""
    w_command: list[int] = []
    w_first: list[int] = []
    e_write: list[int] = []
    writes: list[StoredWrite] = []
    events: list[tuple[str, str, bytes]] = []
    for number, command in enumerate(commands, 1):
        for write in command.writes:
            writes.append(write)
            w_command.append(number)
            w_first.append(len(events) + 1)
            events.extend(write.events)
            e_write.extend([len(writes)] * len(write.events))
    rows = await connection.fetch(
        _APPEND,
        [command.command_id for command in commands],
        [command.actor for command in commands],
        [command.correlation_id for command in commands],
        [command.causation_id for command in commands],
        [command.money for command in commands],
        [command.index for command in commands],
        w_command,
        [write.stream for write in writes],
        [write.shard for write in writes],
        [write.expected for write in writes],
        w_first,
        [len(write.events) for write in writes],
        e_write,
        [event[0] for event in events],
        [event[1] for event in events],
        [event[2] for event in events],
    )
    return _outcomes(len(commands), rows)


def _outcomes(count: int, rows: Sequence[Any]) -> list[Outcome]:
    placed: list[list[Placed]] = [[] for _ in range(count)]
    outcomes: list[Outcome | None] = [None] * count
    at: dict[int, datetime] = {}
    repeated: set[int] = set()
    for command, status, stream, shard, version, position, when, refusal in rows:
        number = command - 1
        if status == b"w":
            outcomes[number] = WrongVersion(stream, version)
        elif status == b"r":
            outcomes[number] = Duplicate(Refused(refusal))
        else:
            placed[number].append(Placed(stream, version, shard, position))
            at[number] = when
            if status == b"d":
                repeated.add(number)
    for number, when in at.items():
        appended = Appended(tuple(placed[number]), when)
        outcomes[number] = Duplicate(appended) if number in repeated else appended
    return [_told(outcome) for outcome in outcomes]


async def post(connection: Any, messages: Sequence[Message]) -> list[Outcome]:
    """Admit or refuse a batch of chat messages in one transaction, an outcome each."""
    rows = await connection.fetch(
        _POST,
        [message.command_id for message in messages],
        [message.channel_id for message in messages],
        [message.author_id for message in messages],
        [message.shard for message in messages],
        [message.topic for message in messages],
        [message.state for message in messages],
        [message.digest for message in messages],
        [message.emote_only_text for message in messages],
        [message.following_since for message in messages],
        [message.subscriber for message in messages],
    )
    outcomes: list[Outcome | None] = [None] * len(messages)
    for command, status, version, position, at, refusal, wait_s in rows:
        message = messages[command - 1]
        outcomes[command - 1] = _answer(message, status, version, position, at, refusal, wait_s)
    return [_told(outcome) for outcome in outcomes]


def _answer(
    message: Message, status: bytes, version: int, position: int, at: datetime, refusal: str, wait_s: float | None
) -> Outcome:
    if status == b"r":
        return Refused(refusal, wait_s)
    if status == b"f":
        return Duplicate(Refused(refusal))
    appended = Appended((Placed(f"chat-{message.channel_id}", version, message.shard, position),), at)
    return Duplicate(appended) if status == b"d" else appended


def _told(outcome: Outcome | None) -> Outcome:
    assert outcome is not None, "the database answers for every command"
    return outcome
