"""The Kafka record: what goes in comes out, it is bounded, and no bytes raise anything but its own errors."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore import wire
from eventstore.wire import WireEvent

_ids = st.none() | st.uuids()
_text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40)


@st.composite
def _events(draw: st.DrawFn) -> list[WireEvent]:
    steps = draw(st.lists(st.integers(1, 5), min_size=1, max_size=30))
    events, position = [], 10
    for step in steps:
        position += step
        at = draw(st.datetimes(min_value=datetime(1970, 1, 2), timezones=st.just(UTC)))  # noqa: DTZ001
        events.append(
            WireEvent(
                position, draw(_text), draw(st.integers(1, 2**60)), draw(_text), at, draw(st.none() | _text),
                draw(_ids), draw(_ids), draw(_ids), draw(st.binary(max_size=50)),
            )
        )  # fmt: skip
    return events


def _event(position: int, size: int = 10) -> WireEvent:
    return WireEvent(
        position, "s", 1, "t", datetime(2026, 1, 1, tzinfo=UTC), None, UUID(int=7), None, None, b"x" * size
    )


@given(events=_events(), shard=st.integers(0, 63), beyond=st.integers(0, 5))
def test_what_is_encoded_is_decoded(events: list[WireEvent], shard: int, beyond: int) -> None:
    upto = events[-1].position + beyond
    [data] = wire.records(shard, "chat", events, prev=10, upto=upto, tails={"money": 9})
    record = wire.decode(data)
    assert (record.shard, record.category, record.prev, record.upto) == (shard, "chat", 10, upto)
    assert record.tails == {"money": 9}
    assert list(record.events) == events


@given(data=st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: b"TL\x01\x00\x00\x00\x10" + rest))
def test_arbitrary_bytes_raise_nothing_but_a_wire_error(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(data)


@given(cut=st.integers(0, 400), flip=st.integers(0, 400), to=st.integers(0, 255))
def test_a_damaged_record_is_refused_or_still_well_formed(cut: int, flip: int, to: int) -> None:
    [data] = wire.records(3, "chat", [_event(11), _event(14)], prev=10, upto=20, tails={})
    with pytest.raises(wire.Malformed):
        wire.decode(data[: min(cut, len(data) - 1)])
    damaged = bytearray(data)
    damaged[flip % len(data)] = to
    try:
        record = wire.decode(bytes(damaged))
    except wire.WireError:
        return
    positions = [event.position for event in record.events]
    assert positions == sorted(set(positions))


def test_a_later_version_is_named_as_such() -> None:
    [data] = wire.records(3, "chat", [_event(11)], prev=10, upto=11, tails={})
    with pytest.raises(wire.UnknownVersion):
        wire.decode(data[:2] + b"\x02" + data[3:])


def test_a_large_batch_becomes_records_that_follow_each_other() -> None:
    events = [_event(position, size=200_000) for position in range(1, 21, 2)]
    encoded = list(wire.records(5, "media", events, prev=0, upto=25, tails={}))
    assert len(encoded) > 1
    assert all(len(data) <= wire.RECORD_BYTES_MAX + 1024 for data in encoded)
    prev = 0
    for data in encoded:
        record = wire.decode(data)
        assert record.prev == prev
        prev = record.events[-1].position
    assert wire.decode(encoded[-1]).upto == 25
    assert [event for data in encoded for event in wire.decode(data).events] == events


def test_many_small_events_are_split_by_count() -> None:
    events = [_event(position, size=0) for position in range(1, wire.EVENTS_PER_RECORD_MAX + 3)]
    encoded = [wire.decode(data) for data in wire.records(5, "media", events, prev=0, upto=len(events), tails={})]
    assert sum(len(record.events) for record in encoded) == len(events)
    assert len(encoded) >= 2


def test_an_event_too_large_for_any_record_leaves_a_gap_that_the_next_record_shows() -> None:
    events = [_event(1), _event(2, size=wire.RECORD_BYTES_MAX), _event(3)]
    first, second = (wire.decode(data) for data in wire.records(5, "media", events, prev=0, upto=3, tails={}))
    assert (first.upto, second.prev) == (1, 2)
    assert [event.position for event in second.events] == [3]


def test_a_shards_partition_is_the_shard_modulo_the_partitions() -> None:
    assert [wire.partition_of(shard, 8) for shard in (0, 7, 8, 63)] == [0, 7, 0, 7]
