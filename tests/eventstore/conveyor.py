"""A consumer of everything the relay sends, a relay as a process of its own, and a writer of many events: for tests that kill things."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, TopicPartition

from domain import chat, follow
from domain.chat import MessagePosted
from domain.event import Event
from domain.follow import ChannelFollowed
from eventstore.errors import StoreUnavailable
from eventstore.port import Append, Appended, Duplicate, EventStore, StreamWrite
from eventstore.wire import TOPICS, WireRecord, decode
from gateways.engines.process import free_port

PARTITIONS = 8

T = TypeVar("T")


class Received:
    """What came over Kafka, held to the wire's promise: a consumer of one category that follows `prev` and `upto` misses nothing."""

    def __init__(self) -> None:
        self.records: list[WireRecord] = []
        self.position: dict[tuple[int, str], int] = {}
        self.events: dict[tuple[int, int], bytes] = {}
        self.gaps: list[WireRecord] = []
        self.repeats = 0

    def take(self, record: WireRecord) -> None:
        self.records.append(record)
        at = self.position.get((record.shard, record.category), 0)
        if record.upto <= at:
            self.repeats += 1
            return
        if record.prev > at:
            self.gaps.append(record)
        self.position[record.shard, record.category] = record.upto
        self.events |= {(record.shard, event.position): event.state for event in record.events}


async def until(condition: Callable[[], Awaitable[T]]) -> T:
    """Poll until the condition answers with something true; the test's own timeout is the end of patience."""
    while True:
        if found := await condition():
            return found
        await asyncio.sleep(0.05)


async def read_until(consumer: AIOKafkaConsumer, received: Received, count: int) -> None:
    """Read until so many different events came."""
    while len(received.events) < count:
        for messages in (await consumer.getmany(timeout_ms=200)).values():
            for message in messages:
                received.take(decode(message.value))


@asynccontextmanager
async def consumer(bootstrap: str) -> AsyncIterator[AIOKafkaConsumer]:
    """Reads every partition from its beginning."""
    reading = AIOKafkaConsumer(bootstrap_servers=bootstrap, fetch_max_wait_ms=20, auto_offset_reset="earliest")
    await reading.start()
    try:
        partitions = [TopicPartition(topic, number) for topic in TOPICS for number in range(PARTITIONS)]
        reading.assign(partitions)
        await reading.seek_to_beginning(*partitions)
        yield reading
    finally:
        await reading.stop()


def role_environment(folder: Path, dsn: str, keys_dsn: str, bootstrap: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "TALLYLIGHT_DATA_DIR": str(folder),
        "TALLYLIGHT_DSN": dsn,
        "TALLYLIGHT_KEYS_DSN": keys_dsn,
        "TALLYLIGHT_MASTER_KEY": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "TALLYLIGHT_BOOTSTRAP_SERVERS": bootstrap,
        "TALLYLIGHT_KAFKA_PARTITIONS": str(PARTITIONS),
        "TALLYLIGHT_KAFKA_FETCH_WAIT_MS": "20",
        "TALLYLIGHT_HEALTH_PORT": str(free_port()),
        "TALLYLIGHT_LOG_FORMAT": "json",
    }


@contextmanager
def role(name: str, environment: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A role as `tallylight role NAME` runs it; its log goes to a file, so that no pipe can fill up."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; from gateways.roles import run; sys.exit(run({name!r}))"],
            env={**environment, "TALLYLIGHT_HEALTH_PORT": str(free_port())},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def event(number: int, channel_id: str) -> tuple[str, Event]:
    if number % 3:
        return chat.stream(channel_id), MessagePosted(
            channel_id=channel_id, message_id=f"m{number}", author_id=f"a{number % 5}", username="u", text=f"t {number}"
        )
    person = f"p{number}"
    return follow.stream(channel_id, person), ChannelFollowed(channel_id=channel_id, account_id=person)


async def write(store: EventStore, numbers: Iterable[int], channels: int = 7) -> int:
    """One append an event, all at once, sent again while the store is away. How many there were."""

    async def one(number: int) -> None:
        channel_id = f"c{number % channels}"
        stream, fact = event(number, channel_id)
        command = Append(uuid4(), [StreamWrite(stream, channel_id, [fact])])
        while True:
            try:
                assert isinstance(await store.append(command), Appended | Duplicate)
                return
            except StoreUnavailable:
                await asyncio.sleep(0.1)

    written = list(numbers)
    await asyncio.gather(*(one(number) for number in written))
    return len(written)
