"""What the media plane asks and tells, against a real event store."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest

from domain.broadcast import (
    BroadcastDescribed,
    BroadcastEnded,
    BroadcastInterrupted,
    BroadcastStarted,
    RecordingPublished,
)
from domain.channel import ChannelDescribed, ChannelOpened, StreamKeyRotated
from domain.recording import SegmentsRecorded
from eventstore.errors import StoreUnavailable
from eventstore.memory import MemoryStore
from eventstore.port import Append, IndexWrite, StreamWrite
from gateways.media_events import KEY_CHARS_MAX, PAGE, StoreEventPlane, event_of
from media.archive import Archive
from media.facts import ended as end_of
from media.port import Denied, Ended, Fact, Grant, Interrupted, RecordingReady, RenditionAdded, Resumed, Started
from media.recovery import recover
from tests.media.facts import archived
from tests.media.recorded import BROADCAST, NUMBERS, SECONDS, START, Report, begun, record
from tests.stores import memory_store

AT = datetime(2026, 1, 2, tzinfo=UTC)
KEY = "live_secret"


@pytest.fixture
async def store() -> MemoryStore:
    return memory_store()


def whose(name: str = "b1") -> dict[str, object]:
    return {"fact_id": uuid4(), "broadcast_id": name, "channel_id": "c1", "at": AT}


async def opened(store: MemoryStore) -> StoreEventPlane:

    key_hash = sha256(KEY.encode()).hexdigest()
    events = [
        ChannelOpened(channel_id="c1", name="ann", owner_id="a1", title="First", category=""),
        ChannelDescribed(channel_id="c1", title="Now", category="Music", tags=()),
        StreamKeyRotated(channel_id="c1", key_hash=key_hash),
    ]
    row = IndexWrite("stream_keys", {"key_hash": key_hash}, {"channel_id": "c1", "channel": "ann", "owner_id": "a1"})
    await store.append(Append(uuid4(), [StreamWrite("channel-c1", "c1", events, 0)], [row]))
    return plane_of(store)


def plane_of(store: MemoryStore, *, now: datetime = AT) -> StoreEventPlane:
    return StoreEventPlane(store, lambda channel_id, viewer: None, clock=lambda: now)


async def test_a_key_opens_its_channel_as_its_page_says_now(store: MemoryStore) -> None:
    plane = await opened(store)
    granted = await plane.authorise(KEY, peer="192.0.2.1")
    assert granted == Grant(channel_id="c1", channel="ann", title="Now", category="Music")


@pytest.mark.parametrize("key", ["", "live_other", "x" * (KEY_CHARS_MAX + 1), "\x00", "live_secret "])
async def test_any_other_key_is_unknown(store: MemoryStore, key: str) -> None:
    assert await (await opened(store)).authorise(key, peer="") == Denied(reason="unknown")


async def test_an_encoder_that_was_on_comes_back_while_the_store_is_away_and_no_other_does(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = await opened(store)
    granted = await plane.authorise(KEY, peer="")

    async def away(*_: object) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(store, "index_row", away)
        assert await plane.authorise(KEY, peer="") == Denied(reason="unavailable"), "nothing of it is on here"
        plane.is_on = lambda channel_id: channel_id == "c1"
        assert await plane.authorise(KEY, peer="") == granted
        assert await plane.authorise("live_other", peer="") == Denied(reason="unavailable")
    # A key that the store refused once is remembered no more.
    with monkeypatch.context() as patched:

        async def gone(*_: object) -> None:
            return None

        patched.setattr(store, "index_row", gone)
        assert await plane.authorise(KEY, peer="") == Denied(reason="unknown")
        patched.setattr(store, "index_row", away)
        assert await plane.authorise(KEY, peer="") == Denied(reason="unavailable")


async def test_facts_told_twice_are_recorded_once_and_in_order(store: MemoryStore) -> None:
    plane = plane_of(store)
    facts: list[Fact] = [
        Started(**whose(), title="t", category="c", node="n"),  # type: ignore[arg-type]
        archived(0, broadcast="b1"),
        archived(1, broadcast="b1"),
        Ended(**whose(), reason="unpublished"),  # type: ignore[arg-type]
        Ended(**whose("b2"), reason="node_lost"),  # type: ignore[arg-type]
    ]
    await plane.record(facts[:3])
    await plane.record(facts)
    lives = [recorded.event for recorded in await store.read_stream("broadcast-b1")]
    assert [type(event) for event in lives] == [BroadcastStarted, BroadcastEnded]
    segments = [recorded.event for recorded in await store.read_stream("recording-b1")]
    assert [event.number for event in segments if isinstance(event, SegmentsRecorded)] == [0, 1]
    assert len(await store.read_stream("broadcast-b2")) == 1


def forget_outcomes(store: MemoryStore) -> None:
    """What the store over Postgres does with those that are a day old."""
    store._outcomes.clear()


async def test_facts_told_again_after_the_store_forgot_their_ids_are_recorded_once(store: MemoryStore) -> None:
    started = Started(**whose(), title="t", category="c", node="n")  # type: ignore[arg-type]
    ended = Ended(**whose(), reason="node_lost")  # type: ignore[arg-type]
    facts: list[Fact] = [started, *(archived(n, broadcast="b1") for n in range(PAGE + 2))]
    await plane_of(store).record(facts)
    forget_outcomes(store)
    later = plane_of(store, now=AT + timedelta(days=2))
    await later.record([*facts, archived(PAGE + 2, broadcast="b1"), ended])
    forget_outcomes(store)
    # Others write to the streams meanwhile.
    await plane_of(store, now=AT + timedelta(days=2)).record([archived(PAGE + 3, broadcast="b1")])
    forget_outcomes(store)
    described = BroadcastDescribed(broadcast_id="b1", channel_id="c1", title="New", category="c")
    await store.append(Append(uuid4(), [StreamWrite("broadcast-b1", "c1", [described])]))
    await later.record([ended, archived(PAGE + 3, broadcast="b1"), Interrupted(**whose()), ended])  # type: ignore[arg-type]
    lives = [type(recorded.event) for recorded in await store.read_stream("broadcast-b1")]
    assert lives == [BroadcastStarted, BroadcastEnded, BroadcastDescribed, BroadcastInterrupted]
    segments = [recorded.event for recorded in await store.read_stream("recording-b1", limit=10 * PAGE)]
    assert [event.number for event in segments] == list(range(PAGE + 4))


async def test_a_broadcast_that_was_closed_ends_once_though_a_recovery_tells_it_all_again_days_later(
    store: MemoryStore, tmp_path: Path
) -> None:
    archive, told = Archive.open(str(tmp_path)), Report()
    await record(archive, told)
    end = end_of(BROADCAST, "channel-1", START + timedelta(seconds=SECONDS), "unpublished")
    await plane_of(store, now=START).record([begun(), end, *told.facts])
    forget_outcomes(store)
    # Its node died when it had told everything, and before the marker was gone.
    await archive.put(archive.marker(BROADCAST), begun().model_dump_json().encode())
    later = plane_of(store, now=START + timedelta(days=3))

    async def put(fact: Fact) -> None:
        await later.record([fact])

    closed = await recover(archive, put, begun=[begun()], is_live=lambda _: False, now=START + timedelta(days=3))
    assert closed == [BROADCAST]
    lives = [recorded.event for recorded in await store.read_stream(f"broadcast-{BROADCAST}")]
    assert [type(event) for event in lives] == [BroadcastStarted, BroadcastEnded, RecordingPublished]
    assert lives[1].reason == "unpublished"
    assert len(await store.read_stream(f"recording-{BROADCAST}")) == NUMBERS


def test_every_kind_of_fact_is_an_event_of_its_channel() -> None:
    facts: list[Fact] = [
        RenditionAdded(**whose(), name="240p", codecs="avc1", width=1, height=2, frame_rate=30.0, bandwidth=9),  # type: ignore[arg-type]
        Interrupted(**whose()),  # type: ignore[arg-type]
        Resumed(**whose()),  # type: ignore[arg-type]
        RecordingReady(**whose(), vod_url="/vod/b1/index.m3u8", duration_s=2.0),  # type: ignore[arg-type]
    ]
    for fact in facts:
        stream, event = event_of(fact)
        assert stream == "broadcast-b1"
        assert event.model_dump()["channel_id"] == "c1"
