"""Events to bytes and back: old shapes are upcast and then validated, personal fields are sealed, topics are what was written down."""

from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import uuid4

import orjson
import pytest
from eventsourcing.utils import TopicError
from hypothesis import given
from hypothesis import strategies as st

from domain.event import ERASED, Category, Event
from domain.topics import BY_TOPIC, EVENTS
from eventstore.keys import MemoryKeys
from eventstore.mapper import Envelope, EventMapper, LargeCompressor, UnknownTopic, Unreadable
from eventstore.port import Recorded
from eventstore.wire import WireEvent

AT = datetime(2026, 1, 1, tzinfo=UTC)


class PriceQuoted(Event):
    """Third shape: cents with a currency. The first had a float of dollars, the second integer cents; `buyer` was `customer` before."""

    TOPIC: ClassVar[str] = "test.PriceQuoted"
    CATEGORY: ClassVar[Category] = Category.MONEY
    PERSONAL: ClassVar = {"note": "buyer"}
    class_version: ClassVar[int] = 3
    buyer: str
    cents: int
    currency: str
    note: str | None = None

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        state["cents"] = round(state.pop("dollars") * 100)

    @staticmethod
    def upcast_v2_v3(state: dict[str, Any]) -> None:
        state["currency"] = "USD"
        state["buyer"] = state.pop("customer")


def mapper(*more: type[Event], keys: MemoryKeys | None = None) -> EventMapper:
    return EventMapper((*EVENTS, *more), keys or MemoryKeys())


def stored(topic: str, state: bytes) -> WireEvent:
    return WireEvent(1, "s-1", 1, topic, AT, None, uuid4(), None, None, state)


async def decoded(one: EventMapper, topic: str, state: bytes) -> Recorded:
    (event,) = await one.decode(0, None, [stored(topic, state)])
    return event


async def test_an_old_event_is_upcast_step_by_step_and_then_validated() -> None:
    one = mapper(PriceQuoted)
    oldest = orjson.dumps({"customer": "ann", "dollars": 4.99, "note": None})
    older = orjson.dumps({"customer": "ann", "cents": 499, "note": None, "class_version": 2})
    today = PriceQuoted(buyer="ann", cents=499, currency="USD")
    assert (await decoded(one, PriceQuoted.TOPIC, oldest)).event == today
    assert (await decoded(one, PriceQuoted.TOPIC, older)).event == today
    broken = orjson.dumps({"customer": "ann", "cents": "many", "note": None, "class_version": 2})
    with pytest.raises(Unreadable):
        await decoded(one, PriceQuoted.TOPIC, broken)


async def test_todays_shape_says_its_version_and_comes_back_as_it_went() -> None:
    one = mapper(PriceQuoted)
    event = PriceQuoted(buyer="ann", cents=1, currency="EUR", note="for the cat")
    topic, state = one.state_of(event, await one.keys_for([event]))
    assert orjson.loads(state)["class_version"] == 3
    assert (await decoded(one, topic, state)).event == event


async def test_a_personal_field_never_stands_in_the_log_and_is_bound_to_its_field() -> None:
    keys = MemoryKeys()
    one = mapper(PriceQuoted, keys=keys)
    event = PriceQuoted(buyer="ann", cents=1, currency="EUR", note="my secret")
    topic, state = one.state_of(event, await one.keys_for([event]))
    assert b"secret" not in state
    other_field = state.replace(b'"note"', b'"memo"')
    assert other_field != state
    other_person = state.replace(b'"ann"', b'"bob"')
    await keys.ensure({"bob"})
    assert (await decoded(one, topic, other_person)).event.note == ERASED
    await keys.erase("ann")
    assert (await decoded(one, topic, state)).event.note == ERASED


async def test_bytes_that_are_no_state_are_unreadable_and_unknown_topics_are_told_apart() -> None:
    for bad in (b"", b"{", b"\x78nozlib", b"{}"):
        with pytest.raises(Unreadable):
            await decoded(mapper(), "chat.MessagePosted", bad)
    with pytest.raises(UnknownTopic):
        await decoded(mapper(), "nobody.Knows", b"{}")


def test_two_events_of_one_topic_are_refused_at_start() -> None:
    class Same(Event):
        TOPIC: ClassVar[str] = "test.Same"
        CATEGORY: ClassVar[Category] = Category.CHAT

    twin = type("Twin", (Same,), {})
    with pytest.raises(TopicError):
        mapper(Same, twin)


def test_every_topic_is_written_out_and_says_its_stream() -> None:
    assert len(BY_TOPIC) == len(EVENTS)
    for event in EVENTS:
        assert "TOPIC" in vars(event)
        assert f"{event.__module__.removeprefix('domain.')}.{event.__name__}" == event.TOPIC
        assert set(event.PERSONAL) | set(event.PERSONAL.values()) <= set(event.model_fields)


async def test_the_librarys_own_interface_maps_too() -> None:
    one = mapper(PriceQuoted)
    envelope = Envelope("price-1", 7, PriceQuoted(buyer="ann", cents=1, currency="EUR"))
    there = one.to_stored_event(envelope)
    assert (there.originator_id, there.originator_version, there.topic) == ("price-1", 7, "test.PriceQuoted")
    assert one.to_domain_event(there) == envelope


@given(st.binary(max_size=2000))
def test_compression_gives_back_every_json(data: bytes) -> None:
    state = b"{" + data
    assert LargeCompressor().decompress(LargeCompressor().compress(state)) == state
