"""What a real broker carries reaches a pod for the shards it watches, and for those alone."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer

from eventstore import wire
from eventstore.errors import StoreUnavailable
from eventstore.port import Recorded
from eventstore.wire import WireEvent, WireRecord, partition_of
from gateways.chat.feed import TOPICS, KafkaFeed
from gateways.engines.broker import Broker, ensure_topics
from tests.engines import running_broker
from tests.eventstore.conveyor import until

PARTITIONS = 8
SENTINEL = 1
"""A shard that is always watched: what comes of it shows how far the feed has read."""


class Carried:
    """A feed, a relay's producer, and what came through."""

    def __init__(self, producer: AIOKafkaProducer, bootstrap: str) -> None:
        self._producer = producer
        self._sent = 0
        self.unwanted: set[str] = set()
        self.away = False
        self.asked: list[str] = []
        self.delivered: list[str] = []
        self.feed = KafkaFeed(
            bootstrap,
            PARTITIONS,
            decode_events=self._decode,
            deliver=self._deliver,
            wanted=self._wanted,
            fetch_wait_ms=20,
        )

    async def _decode(self, record: WireRecord) -> Sequence[Recorded]:
        if self.away:
            raise StoreUnavailable("keys away")
        return [
            Recorded(e.stream, e.version, record.shard, e.position, e.topic, record.category, e.at, *e[5:9], e.state)
            for e in record.events
        ]

    async def _deliver(self, events: Sequence[Recorded]) -> None:
        self.delivered += [recorded.stream for recorded in events]

    def _wanted(self, stream: str) -> bool:
        self.asked.append(stream)
        return stream not in self.unwanted

    async def send(self, shard: int, stream: str, *, topic: str = "chat") -> None:
        self._sent += 1
        event = WireEvent(self._sent, stream, 1, "t", datetime.now(UTC), None, None, None, None, b"{}")
        for value in wire.records(shard, topic, [event], prev=self._sent - 1, upto=self._sent, tails={}):
            await self.send_bytes(shard, value, topic=topic)

    async def send_bytes(self, shard: int, value: bytes, *, topic: str = "chat") -> None:
        await self._producer.send_and_wait(topic, value, partition=partition_of(shard, PARTITIONS))

    async def read_on(self) -> None:
        """Until everything sent so far has been read, and what is to be read has been settled anew."""
        for _ in range(2):
            stream = f"sentinel-{self._sent}"
            await self.send(SENTINEL, stream)
            await until(lambda stream=stream: _now(stream in self.delivered))  # type: ignore[misc]

    def told(self) -> list[str]:
        return [stream for stream in self.delivered if not stream.startswith("sentinel-")]


async def _now(answer: bool) -> bool:
    return answer


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running_broker(tmp_path_factory.mktemp("feed_broker")) as running:
        yield running


@pytest_asyncio.fixture
async def carried(own_broker: Broker) -> AsyncIterator[Carried]:
    await ensure_topics(own_broker.bootstrap, dict.fromkeys(TOPICS, PARTITIONS))
    producer = AIOKafkaProducer(bootstrap_servers=own_broker.bootstrap)
    await producer.start()
    one = Carried(producer, own_broker.bootstrap)
    running = asyncio.create_task(one.feed.run())
    await one.feed.watch(SENTINEL)
    await until(lambda: _now(one.feed.healthy))
    yield one
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await producer.stop()


async def test_a_watched_shard_is_read_from_then_on_and_others_are_not(carried: Carried) -> None:
    await carried.send(2, "before")
    await carried.feed.watch(2)
    await carried.send(3, "elsewhere")
    await carried.send(2, "chat", topic="chat")
    await carried.send(2, "channel", topic="lifecycle")
    await until(lambda: _now(len(carried.told()) == 2))
    await carried.read_on()
    assert sorted(carried.told()) == ["channel", "chat"]
    assert {"before", "elsewhere"}.isdisjoint(carried.asked)


async def test_a_shard_that_was_watched_twice_is_let_go_at_once(carried: Carried) -> None:
    for _ in range(2):
        await carried.feed.watch(2)
    carried.feed.unwatch(2)
    await carried.read_on()
    await carried.send(2, "after")
    await carried.read_on()
    assert "after" not in carried.asked
    await carried.feed.watch(2)
    await carried.send(2, "again")
    await until(lambda: _now("again" in carried.delivered))
    assert "after" not in carried.asked, "it goes on at the end, not where it was"


async def test_a_partition_is_read_for_as_long_as_any_of_its_shards_is_watched(carried: Carried) -> None:
    shard, same = 2, 2 + PARTITIONS
    for one in (shard, same):
        await carried.feed.watch(one)
    carried.feed.unwatch(same)
    await carried.read_on()
    await carried.send(shard, "still read")
    await until(lambda: _now("still read" in carried.delivered))


async def test_a_feed_that_watches_nothing_waits_and_comes_back(carried: Carried) -> None:
    carried.feed.unwatch(SENTINEL)
    await until(lambda: _now(not carried.feed._offsets))
    await carried.send(SENTINEL, "unheard")
    await carried.feed.watch(SENTINEL)
    await carried.read_on()
    assert carried.feed.healthy


async def test_what_is_unwanted_is_not_decoded_and_what_cannot_be_read_is_passed_over(carried: Carried) -> None:
    carried.unwanted.add("of no room here")
    await carried.send(SENTINEL, "of no room here")
    await carried.send_bytes(SENTINEL, b"no record of ours")
    await carried.read_on()
    carried.away = True
    await carried.send(SENTINEL, "undecrypted")
    await until(lambda: _now("undecrypted" in carried.asked))
    carried.away = False
    await carried.read_on()
    assert carried.told() == []


async def test_a_broker_that_is_away_delays_nobody_and_is_said_to_be(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "absent")

    async def nothing(_: Any) -> Any:
        raise AssertionError("nothing is carried")

    feed = KafkaFeed(broker.bootstrap, PARTITIONS, decode_events=nothing, deliver=nothing, wanted=lambda _: True)
    running = asyncio.create_task(feed.run())
    async with asyncio.timeout(10):
        await feed.watch(SENTINEL)
    assert not feed.healthy
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
