"""The relay between a real Postgres and a real broker: everything arrives, whoever dies."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from eventstore.postgres import PostgresStore
from eventstore.relay import LOCK, BrokerAway, Relay
from eventstore.wire import TOPICS
from gateways.engines.broker import Broker, ensure_topics
from tests.engines import running_broker
from tests.eventstore.conveyor import (
    PARTITIONS,
    Received,
    consumer,
    read_until,
    role,
    role_environment,
    until,
    write,
)


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that this test may kill and whose topics are its own."""
    with running_broker(tmp_path / "broker") as running:
        yield running


def _relay(dsn: str, bootstrap: str) -> Relay:
    async def prepare() -> None:
        try:
            await ensure_topics(bootstrap, dict.fromkeys(TOPICS, PARTITIONS), mend=True)
        except KafkaError as fault:
            raise BrokerAway(repr(fault)) from fault

    return Relay(dsn, bootstrap, PARTITIONS, prepare=prepare)


@asynccontextmanager
async def _running(relay: Relay) -> AsyncIterator[Relay]:
    task = asyncio.ensure_future(relay.run())
    try:
        await relay.started.wait()
        yield relay
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _states(store: PostgresStore) -> dict[tuple[int, int], bytes]:
    heads = await store.heads()
    spans = {shard: (0, head) for shard, head in enumerate(heads) if head}
    topics = ["chat.MessagePosted", "follow.ChannelFollowed"]
    found = await store.events(spans, categories=TOPICS, topics=topics, limit=100_000)
    return {(shard, event.position): event.state for shard, events in found.items() for event in events}


async def test_every_event_arrives_once_in_order_and_byte_for_byte(
    durable: PostgresStore, database: str, own_broker: Broker
) -> None:
    received = Received()
    await write(durable, range(200))
    async with _running(_relay(database, own_broker.bootstrap)), consumer(own_broker.bootstrap) as reading:
        await read_until(reading, received, 200)
        for start in range(200, 500, 20):
            await write(durable, range(start, start + 20))
        await read_until(reading, received, 500)
    assert received.events == await _states(durable)
    assert (received.gaps, received.repeats) == ([], 0)


async def test_a_backlog_travels_in_few_records(durable: PostgresStore, database: str, own_broker: Broker) -> None:
    received = Received()
    await write(durable, range(2000), channels=3)
    async with _running(_relay(database, own_broker.bootstrap)), consumer(own_broker.bootstrap) as reading:
        await read_until(reading, received, 2000)
    assert len(received.records) <= 12


async def test_a_relay_goes_on_where_the_last_one_stopped(
    durable: PostgresStore, database: str, own_broker: Broker
) -> None:
    received = Received()
    async with consumer_after_first(own_broker, database) as reading:
        for start in (0, 100, 200):
            async with _running(_relay(database, own_broker.bootstrap)):
                await write(durable, range(start, start + 100))
                await read_until(reading, received, start + 100)
    assert received.events == await _states(durable)
    assert received.gaps == []


@asynccontextmanager
async def consumer_after_first(broker: Broker, dsn: str) -> AsyncIterator[object]:
    await ensure_topics(broker.bootstrap, dict.fromkeys(TOPICS, PARTITIONS))
    async with consumer(broker.bootstrap) as reading:
        yield reading


async def _leader_pid(connection: "asyncpg.Connection[asyncpg.Record]") -> int | None:
    """The Postgres session that holds the relay's lock."""
    pid: int | None = await connection.fetchval(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = $1::bigint >> 32"
        " AND objid = $1::bigint & x'ffffffff'::bigint AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        LOCK,
    )
    return pid


async def _changed(connection: "asyncpg.Connection[asyncpg.Record]", before: int | None) -> int:
    """Wait for a leader other than `before`."""

    async def another() -> int | None:
        pid = await _leader_pid(connection)
        return None if pid == before else pid

    return await until(another) or 0


async def test_a_stand_by_takes_over_when_the_leader_is_killed_and_nothing_is_lost(
    durable: PostgresStore, database: str, keys_database: str, own_broker: Broker, tmp_path: Path
) -> None:
    received = Received()
    environment = role_environment(tmp_path, database, keys_database, own_broker.bootstrap)
    connection = await asyncpg.connect(database)
    written = 0
    with role("relay", environment, tmp_path / "first.log") as first:
        leader = await _changed(connection, None)
        with role("relay", environment, tmp_path / "second.log"):
            async with consumer_after_first(own_broker, database) as reading:
                flowing = asyncio.ensure_future(read_until(reading, received, 1500))
                while written < 1500:
                    written += await write(durable, range(written, written + 50))
                    if written == 700:
                        first.kill()
                assert await _changed(connection, leader) != leader
                await flowing
    await connection.close()
    assert received.events == await _states(durable)
    assert received.gaps == []


async def test_a_broker_that_comes_back_with_nothing_gets_topics_and_events_again(
    durable: PostgresStore, database: str, own_broker: Broker
) -> None:
    before, after = Received(), Received()
    async with _running(_relay(database, own_broker.bootstrap)):
        await write(durable, range(100))
        async with consumer(own_broker.bootstrap) as reading:
            await read_until(reading, before, 100)
        own_broker.stop()
        await write(durable, range(100, 200))
        own_broker.start()
        await _topics_there(own_broker.bootstrap)
        async with consumer(own_broker.bootstrap) as reading:
            await read_until(reading, after, 100)
    assert before.events | after.events == await _states(durable)


async def test_topics_that_the_broker_made_for_somebody_who_came_first_are_given_all_their_partitions(
    durable: PostgresStore, database: str, own_broker: Broker
) -> None:
    received = Received()
    await _come_first(own_broker.bootstrap)
    await write(durable, range(200), channels=40)
    async with _running(_relay(database, own_broker.bootstrap)), consumer(own_broker.bootstrap) as reading:
        await read_until(reading, received, 200)
        own_broker.stop()
        own_broker.start()
        await _come_first(own_broker.bootstrap)
        await write(durable, range(200, 400), channels=40)
        async with consumer(own_broker.bootstrap) as anew:
            await read_until(anew, received, 400)
    assert received.events == await _states(durable)


async def _come_first(bootstrap: str) -> None:
    """Merely ask for the topics, as any client does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        described = await admin.describe_topics(list(TOPICS))
        assert all(len(topic["partitions"]) != PARTITIONS for topic in described)
    finally:
        await admin.close()


async def _topics_there(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:

        async def there() -> bool:
            return set(TOPICS) <= set(await admin.list_topics())

        await until(there)
    finally:
        await admin.close()


async def test_a_leader_whose_session_was_cut_leads_again_and_loses_nothing(
    durable: PostgresStore, database: str, own_broker: Broker
) -> None:
    received = Received()
    connection = await asyncpg.connect(database)
    async with _running(_relay(database, own_broker.bootstrap)), consumer(own_broker.bootstrap) as reading:
        await write(durable, range(100))
        leader = await _changed(connection, None)
        await connection.execute("SELECT pg_terminate_backend($1)", leader)
        await write(durable, range(100, 200))
        await _changed(connection, leader)
        await read_until(reading, received, 200)
    await connection.close()
    assert received.events == await _states(durable)
    assert received.gaps == []
