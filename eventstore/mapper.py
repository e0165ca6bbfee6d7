"""Between events and the bytes that are stored: the `eventsourcing` library's Mapper with explicit topics and validation kept.

An event's personal fields are sealed first, then its state is transcoded and compressed. On the way back: decompressed, transcoded, upcast
step by step to today's shape, unsealed, and only then validated, because an old state is no valid event of today. (The library's own
`to_domain_event` sets `__dict__` and validates nothing.) Called by the stores and by whoever decodes Kafka records.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from eventsourcing.persistence import Compressor, Mapper, StoredEvent, Transcoder
from eventsourcing.utils import get_topic
from pydantic import BaseModel, ValidationError

from eventstore.errors import StoreError
from eventstore.keys import PersonalKeys, is_sealed, seal, unseal
from eventstore.port import Recorded
from eventstore.validation import check_state
from eventstore.wire import WireEvent

ERASED: Final = "[erased]"
COMPRESSED_FROM_BYTES: Final = 512
"""Smaller states gain nothing from compression that its time would not cost again."""


class UnknownTopic(StoreError):
    """The log holds an event of a kind that this program does not know: it is older than the log."""


class Unreadable(StoreError):
    """A stored state that is no valid event even after upcasting."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the library's Mapper takes and gives: an event at its place in a stream."""

    originator_id: str
    originator_version: int
    event: BaseModel


class JsonTranscoder(Transcoder):
    def encode(self, obj: Any) -> bytes:
        return orjson.dumps(obj)

    def decode(self, data: bytes) -> Any:
        return orjson.loads(data)


class LargeCompressor(Compressor):
    """zlib for large states, told by its first byte (JSON begins with a brace, zlib with 0x78)."""

    def compress(self, data: bytes) -> bytes:
        return zlib.compress(data) if len(data) >= COMPRESSED_FROM_BYTES else data

    def decompress(self, data: bytes) -> bytes:
        return zlib.decompress(data) if data[:1] == b"\x78" else data


class EventMapper(Mapper[str]):
    """Maps the given event classes, each by its `TOPIC`; personal fields through `keys`. Raises the library's TopicError for twins."""

    def __init__(self, events: Iterable[type[BaseModel]], keys: PersonalKeys) -> None:
        self._compressor = LargeCompressor()
        super().__init__(JsonTranscoder(), self._compressor)
        self.keys = keys
        self._by_topic: dict[str, type[BaseModel]] = {}
        for event in events:
            self._by_topic[get_topic(event)] = event

    def category(self, event: BaseModel) -> str:
        return str(event.CATEGORY)  # type: ignore[attr-defined]

    async def keys_for(self, events: Iterable[BaseModel]) -> Mapping[str, AESGCM | None]:
        """The keys that sealing these events takes."""
        persons = {
            getattr(event, person)
            for event in events
            for field, person, _ in _personal(type(event))
            if getattr(event, field) is not None
        }
        return await self.keys.ensure(persons) if persons else {}

    def state_of(self, event: BaseModel, keys: Mapping[str, AESGCM | None]) -> tuple[str, bytes]:
        """Topic and stored bytes."""
        kind = type(event)
        topic = get_topic(kind)
        if self._by_topic.get(topic) is not kind:
            raise UnknownTopic(topic)
        state: dict[str, Any] = event.model_dump(mode="json")
        for field, person, context in _personal(kind):
            if (text := state[field]) is not None:
                key = keys[state[person]]
                state[field] = ERASED if key is None else seal(key, text, context)
        if (version := getattr(kind, "class_version", 1)) > 1:
            state["class_version"] = version
        encoded = self.transcoder.encode(state)
        check_state(topic, encoded)
        return topic, self._compressor.compress(encoded)

    def state_from(self, topic: str, stored: bytes) -> tuple[type[BaseModel], dict[str, Any]]:
        """The event's class and its upcast state, personal fields still sealed."""
        kind = self._by_topic.get(topic)
        if kind is None:
            raise UnknownTopic(topic)
        try:
            state: dict[str, Any] = self.transcoder.decode(self._compressor.decompress(stored))
        except (zlib.error, orjson.JSONDecodeError) as fault:
            raise Unreadable(f"{topic}: {fault}") from fault
        version, today = state.pop("class_version", 1), getattr(kind, "class_version", 1)
        if version != today:
            for step in range(version, today):
                getattr(kind, f"upcast_v{step}_v{step + 1}")(state)
        return kind, state

    def to_stored_event(self, domain_event: Any) -> StoredEvent:
        """The library's synchronous path, for events without personal fields."""
        envelope: Envelope = domain_event
        topic, state = self.state_of(envelope.event, {})
        return StoredEvent(envelope.originator_id, envelope.originator_version, topic, state)

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        kind, state = self.state_from(stored_event.topic, stored_event.state)
        return Envelope(
            str(stored_event.originator_id),
            stored_event.originator_version,
            _validated(kind, state, stored_event.topic),
        )

    async def decode(self, shard: int, category: str | None, events: Sequence[WireEvent]) -> list[Recorded]:
        """Stored events of one shard as recorded ones. Keys are fetched once for all of them."""
        opened: list[tuple[type[BaseModel], dict[str, Any]]] = []
        sealed: list[tuple[dict[str, Any], str, str, bytes]] = []
        persons: set[str] = set()
        for event in events:
            kind, state = self.state_from(event.topic, event.state)
            opened.append((kind, state))
            for field, person, context in _personal(kind):
                if is_sealed(state.get(field)):
                    sealed.append((state, field, whose := state[person], context))
                    persons.add(whose)
        if persons:
            keys = await self.keys.find(persons)
            for state, field, whose, context in sealed:
                text = unseal(keys[whose], state[field], context)
                state[field] = ERASED if text is None else text
        return [
            Recorded(
                event.stream, event.version, shard, event.position, event.topic,
                category or str(kind.CATEGORY),  # type: ignore[attr-defined]
                event.at, event.actor, event.command_id, event.correlation_id, event.causation_id,
                _validated(kind, state, event.topic),
            )
            for event, (kind, state) in zip(events, opened, strict=True)
        ]  # fmt: skip


@cache
def _personal(kind: type[BaseModel]) -> Sequence[tuple[str, str, bytes]]:
    """Each personal field, the field that names its person, and the context that binds what is sealed to its place."""
    personal: Mapping[str, str] = getattr(kind, "PERSONAL", {})
    return [(field, person, f"{get_topic(kind)}.{field}".encode()) for field, person in personal.items()]


def _validated(kind: type[BaseModel], state: dict[str, Any], topic: str) -> BaseModel:
    try:
        return kind.model_validate(state)
    except ValidationError as invalid:
        raise Unreadable(f"{topic}: {invalid}") from invalid
