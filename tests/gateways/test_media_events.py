"""What the media plane asks and tells, against a real event store."""

from datetime import UTC, datetime
from hashlib import sha256
from uuid import uuid4

import pytest

from domain.broadcast import BroadcastEnded, BroadcastStarted
from domain.channel import ChannelDescribed, ChannelOpened, StreamKeyRotated
from domain.recording import SegmentsRecorded
from eventstore.errors import StoreUnavailable
from eventstore.memory import MemoryStore
from eventstore.port import Append, IndexWrite, StreamWrite
from gateways.media_events import KEY_CHARS_MAX, StoreEventPlane, event_of
from media.port import Denied, Ended, Fact, Grant, Interrupted, RecordingReady, RenditionAdded, Resumed, Started
from tests.media.facts import archived
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
    return StoreEventPlane(store, lambda channel_id, viewer: None)


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
    plane = StoreEventPlane(store, lambda channel_id, viewer: None)
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
