"""What a command is to the database: columns for the group-commit functions, and outcomes out of what they answer.

Called by `eventstore.postgres` and by the `append` benchmark. Knows bytes and ids, never events.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from eventstore.port import Appended, Duplicate, Outcome, Placed, Refused, WrongVersion

_APPEND: Final = (
    "SELECT at, versions, positions, again, wrong FROM append_events"
    "($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)"
)
_OUTCOMES: Final = "SELECT command, at, stream, version, shard, position, refusal FROM outcomes_of($1)"
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
    """Write a batch in one transaction, an outcome each. Who lost or came twice is answered, and the others are sent again without them."""
    outcomes: list[Outcome | None] = [None] * len(commands)
    left = list(range(len(commands)))
    while left:
        batch = Batch([commands[number] for number in left])
        at, versions, positions, again, wrong = await connection.fetchrow(_APPEND, *batch.columns())
        if not again and not wrong:
            for number, appended in zip(left, batch.outcomes(at, versions, positions), strict=True):
                outcomes[number] = appended
            break
        answered = await _repeated(connection, again) if again else {}
        lost = {batch.streams[place - 1]: versions[place - 1] for place in wrong}
        still = []
        for number in left:
            command = commands[number]
            outcomes[number] = answered.get(command.command_id) or _lost(command, lost)
            if outcomes[number] is None:
                still.append(number)
        left = still
    return [_told(outcome) for outcome in outcomes]


class Batch:
    """Commands as the columns of `append_events`."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self.commands = commands
        self.shards = sorted({write.shard for command in commands for write in command.writes})
        self.streams: list[str] = []
        self._places: list[tuple[int, int, int, int]] = []

    def columns(self) -> tuple[Any, ...]:
        shard_places = {shard: place for place, shard in enumerate(self.shards, 1)}
        shard_counts = [0] * (len(self.shards) + 1)
        stream_places: dict[str, int] = {}
        stream_counts: list[int] = []
        expected: list[int | None] = []
        kinds: dict[tuple[str, str], int] = {}
        events: list[tuple[int, int, int, int, int, int, bytes]] = []
        outcomes: list[tuple[int, int, int]] = []
        for number, command in enumerate(self.commands, 1):
            for which, write in enumerate(command.writes):
                stream, shard = write.stream, shard_places[write.shard]
                place = stream_places.get(stream)
                if place is None:
                    place = stream_places[stream] = len(stream_counts) + 1
                    stream_counts.append(0)
                    expected.append(write.expected)
                version, position = stream_counts[place - 1], shard_counts[shard]
                for category, topic, state in write.events:
                    version += 1
                    position += 1
                    kind = kinds.get((category, topic))
                    if kind is None:
                        kind = kinds[category, topic] = len(kinds) + 1
                    events.append((place, version, shard, position, kind, number, state))
                stream_counts[place - 1], shard_counts[shard] = version, position
                outcomes.append((number, which, len(events)))
                self._places.append((place, version, shard, position))
        self.streams = list(stream_places)
        return (
            self.shards, shard_counts[1:], self.streams, expected, stream_counts,
            [category for category, _ in kinds], [topic for _, topic in kinds],
            *self._of_commands(), *zip(*events, strict=True), *zip(*outcomes, strict=True),
            [command.index for command in self.commands if command.index],
        )  # fmt: skip

    def _of_commands(self) -> Iterator[list[Any]]:
        commands = self.commands
        yield [command.command_id for command in commands]
        yield [command.money for command in commands]
        yield _or_none([command.actor for command in commands])
        yield _or_none([command.correlation_id for command in commands])
        yield _or_none([command.causation_id for command in commands])

    def outcomes(self, at: datetime, versions: Sequence[int], positions: Sequence[int]) -> Iterator[Appended]:
        """Where each command's writes came to stand, given the heads before the batch."""
        places = iter(self._places)
        for command in self.commands:
            placed = []
            for write in command.writes:
                stream, version, shard, position = next(places)
                placed.append(
                    Placed(write.stream, versions[stream - 1] + version, write.shard, positions[shard - 1] + position)
                )
            yield Appended(tuple(placed), at)


def _or_none(column: list[Any]) -> list[Any]:
    """A column that nobody filled is not sent."""
    return column if any(value is not None for value in column) else []


def _lost(command: Command, lost: Mapping[str, int]) -> WrongVersion | None:
    for write in command.writes:
        if write.expected is not None and write.stream in lost:
            return WrongVersion(write.stream, lost[write.stream])
    return None


async def _repeated(connection: Any, commands: Sequence[UUID]) -> dict[UUID, Duplicate]:
    """The first outcomes of commands that were handled before."""
    placed: dict[UUID, list[Placed]] = {}
    answered: dict[UUID, Duplicate] = {}
    for command, at, stream, version, shard, position, refusal in await connection.fetch(_OUTCOMES, commands):
        if refusal is not None:
            answered[command] = Duplicate(Refused(refusal))
            continue
        placed.setdefault(command, []).append(Placed(stream, version, shard, position))
        answered[command] = Duplicate(Appended(tuple(placed[command]), at))
    return answered


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
