"""Events a second through relay, broker and a Faust projection into Postgres, against the same with one Faust record an event.

Both sides run the same code over the same engines and the same chat messages: the relay as a process of its own, the projector as another,
which joins the group before the clock starts and never reads the store. Only how many events a record carries differs; a second peer, in
the detail, also commits each event by itself, as agents that write to a database commonly do. The clock stops when every checkpoint in
Postgres stands at the log's end. Then read models are rebuilt from the store (`detail.rebuild`).
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg

from bench.common import durable_postgres, machine, report, say, spread
from domain import chat, follow
from domain.chat import MessagePosted
from domain.follow import ChannelFollowed
from domain.topics import EVENTS
from eventstore import wire
from eventstore.following import FollowedLog
from eventstore.keys import PostgresKeys
from eventstore.mapper import EventMapper
from eventstore.migrate import EVENT_STORE, PERSONAL_KEYS, migrate
from eventstore.port import EVENTS_PER_APPEND_MAX, SHARDS, Append, StreamWrite
from eventstore.postgres import PostgresStore
from eventstore.relay import Relay
from gateways import garbage
from gateways.engines.broker import PARTITIONS, Broker, ensure_topics
from gateways.engines.postgres import Postgres
from projections import audience, chat_log, checkpoints, follows
from projections.app import Projector
from projections.audience import Audience
from projections.rebuild import Rebuilt, rebuild
from projections.worker import Worker

CHANNELS: Final = 200
AUTHORS: Final = 2_000
MASTER_KEY: Final = bytes(32)
PROJECTION: Final = chat_log.PROJECTION
FETCH_WAIT_MS: Final = 20
TOPICS: Final = dict.fromkeys(wire.TOPICS, PARTITIONS) | {wire.PRESENCE_TOPIC: 1}


@asynccontextmanager
async def followed(dsn: str, keys_dsn: str) -> AsyncIterator[tuple[Any, FollowedLog]]:
    async with (
        asyncpg.create_pool(keys_dsn, min_size=1, max_size=2) as keys,
        asyncpg.create_pool(dsn, min_size=4, max_size=8, server_settings={"jit": "off"}) as pool,
    ):
        yield pool, FollowedLog(pool, EventMapper(EVENTS, PostgresKeys(keys, MASTER_KEY)))


async def fill(dsn: str, keys_dsn: str, messages: int, followers: int) -> None:
    """Chat messages and follows, through the store as the product writes them."""
    await migrate(dsn, EVENT_STORE)
    await audience.migrate(dsn)
    await migrate(keys_dsn, PERSONAL_KEYS)
    channels = [str(uuid4()) for _ in range(CHANNELS)]
    authors = [str(uuid4()) for _ in range(AUTHORS)]
    async with asyncpg.create_pool(keys_dsn, min_size=1, max_size=2) as keys:
        store = await PostgresStore.open(dsn, EventMapper(EVENTS, PostgresKeys(keys, MASTER_KEY)))

        async def write(channel: str, first: int, count: int) -> None:
            events = [
                MessagePosted(
                    channel_id=channel, message_id=str(uuid4()), author_id=authors[number % AUTHORS],
                    username="some_viewer", text="x" * 60,
                )
                for number in range(first, first + count)
            ]  # fmt: skip
            await store.append(Append(uuid4(), [StreamWrite(chat.stream(channel), channel, events)]))

        async def follow_all(channel: str, count: int) -> None:
            people = [str(uuid4()) for _ in range(count)]
            writes = [
                StreamWrite(follow.stream(channel, who), channel, [ChannelFollowed(channel_id=channel, account_id=who)])
                for who in people
            ]
            await store.append(Append(uuid4(), writes))

        size = EVENTS_PER_APPEND_MAX
        work = [write(channels[n // size % CHANNELS], n, min(size, messages - n)) for n in range(0, messages, size)]
        work += [
            follow_all(channels[n // size % CHANNELS], min(size, followers - n)) for n in range(0, followers, size)
        ]
        for first in range(0, len(work), 64):
            await asyncio.gather(*work[first : first + 64])
        await store.close()


# -- the two children --------------------------------------------------------------------------------------------


async def relay_child(dsn: str, bootstrap: str, events_per_record: int) -> None:
    if events_per_record:
        wire.EVENTS_PER_RECORD_MAX = events_per_record  # type: ignore[misc]

    async def prepare() -> None:
        await ensure_topics(bootstrap, TOPICS)

    relay = Relay(dsn, bootstrap, PARTITIONS, prepare=prepare)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await relay.run()


class Unbatched(Worker):
    """A transaction a record, as a Faust agent that writes to Postgres is commonly written."""

    async def offer(self, record: wire.WireRecord, done: Callable[[], None]) -> None:
        for lane in self.lanes:
            await lane.runner.take([record])
        done()


async def projector_child(dsn: str, keys_dsn: str, bootstrap: str, kind: type[Worker]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with followed(dsn, keys_dsn) as (pool, log):
            worker = kind(log, pool, projections=[PROJECTION])
            for lane in worker.lanes:
                await lane.catch_up({})
            projector = Projector(
                bootstrap, PARTITIONS, worker, Audience(pool), fetch_wait_ms=FETCH_WAIT_MS, folder=Path(folder)
            )
            running = [
                asyncio.ensure_future(projector.run()),
                *(asyncio.ensure_future(one.run()) for one in worker.lanes),
            ]
            await until(lambda: _all_owned(projector))
            print("ready", flush=True)
            await asyncio.gather(*running)


async def _all_owned(projector: Projector) -> bool:
    return len(projector.owned()) == SHARDS


async def _reached(connection: Any, sql: str, target: int) -> bool:
    return bool(await connection.fetchval(sql) >= target)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await condition():
            return
        await asyncio.sleep(0.02)


@contextmanager
def child(kind: str, *args: object) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.project", "--child", kind, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready", f"the {kind} did not start"
        yield process
    finally:
        process.kill()
        process.wait()


# -- the measurements --------------------------------------------------------------------------------------------


async def drain(dsn: str, keys_dsn: str, folder: Path, events_per_record: int, projector: str = "projector") -> float:
    """Seconds from the relay's first look at the log until all rows are committed."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("UPDATE relay_positions SET position = 0")
    await connection.execute(f"DROP SCHEMA IF EXISTS {PROJECTION.schema} CASCADE")
    async with connection.transaction():
        await checkpoints.create(connection, PROJECTION)
    await connection.execute("CHECKPOINT")
    target = await connection.fetchval(
        "SELECT sum(t) FROM (SELECT max(position) t FROM events WHERE category = 'chat' GROUP BY shard) s"
    )
    broker = Broker(folder)
    broker.start()
    try:
        await ensure_topics(broker.bootstrap, TOPICS)
        with (
            child(projector, dsn, keys_dsn, broker.bootstrap),
            child("relay", dsn, broker.bootstrap, events_per_record) as relay,
        ):
            assert relay.stdin is not None
            started = time.perf_counter()
            relay.stdin.write("go\n")
            relay.stdin.flush()
            sql = f"SELECT sum(position) FROM {PROJECTION.schema}.checkpoints"
            await until(lambda: _reached(connection, sql, target))
            return time.perf_counter() - started
    finally:
        broker.stop()
        await connection.close()


async def rebuilds(dsn: str, keys_dsn: str, rounds: int) -> dict[str, Any]:
    """Each read model from the store, `rounds` times: events a second."""
    found: dict[str, Any] = {}
    async with followed(dsn, keys_dsn) as (pool, log):
        await checkpoints.ensure(pool, [chat_log.PROJECTION, follows.PROJECTION])
        for name in ("chat_log", "follows"):
            rates, events = [], 0
            for _ in range(rounds):
                outcome = await rebuild(name, pool=pool, log=log)
                assert isinstance(outcome, Rebuilt)
                events = outcome.events
                rates.append(outcome.events / outcome.seconds)
                say(f"rebuild {name}: {rates[-1]:.0f} events/s")
            found[name] = {"events": events, "events_per_s": spread(rates)}
    return found


def databases(server: Postgres, name: str) -> tuple[str, str]:
    return server.ensure_database(name), server.ensure_database(f"{name}_keys")


async def run(*, rounds: int, messages: int, peer_messages: int) -> None:
    on = machine()
    mine, theirs = [], []
    with durable_postgres() as server, tempfile.TemporaryDirectory() as folder:
        ours, peers = databases(server, "ours"), databases(server, "peers")
        say(f"filling the store: {messages} messages and {messages // 2} follows; for the peer {peer_messages}")
        await fill(*ours, messages, messages // 2)
        await fill(*peers, peer_messages, 0)
        for number in range(rounds):
            mine.append(messages / await drain(*ours, Path(folder) / f"ours-{number}", 0))
            theirs.append(peer_messages / await drain(*peers, Path(folder) / f"peer-{number}", 1))
            say(
                f"round {number + 1}: ours {mine[-1]:.0f}, peer {theirs[-1]:.0f} events/s, {mine[-1] / theirs[-1]:.1f}x"
            )
        unbatched = peer_messages / await drain(*peers, Path(folder) / "unbatched", 1, "unbatched")
        say(f"a transaction an event as well: {unbatched:.0f} events/s")
        rebuilt = await rebuilds(*ours, rounds)
    report(
        "project",
        figure=statistics.median(mine),
        unit="events/s",
        peer="the same relay, Faust app and projection with one Kafka record an event",
        peer_figure=statistics.median(theirs),
        ratio=statistics.median(a / b for a, b in zip(mine, theirs, strict=True)),
        detail={
            "messages": messages,
            "peer_messages": peer_messages,
            "ours": spread(mine),
            "peer": spread(theirs),
            "peer_with_a_transaction_an_event": round(unbatched),
            "rebuild": rebuilt,
            "limits": "two cores shared by relay, broker, projector and Postgres; texts are decrypted, four indexes kept",
        },
        on=on,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--peer-messages", type=int, default=15_000)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    told = vars(parser.parse_args())
    garbage.look_seldom()  # as every role does
    match told.pop("child"):
        case ["relay", dsn, bootstrap, count]:
            asyncio.run(relay_child(dsn, bootstrap, int(count)))
        case ["projector", dsn, keys_dsn, bootstrap]:
            asyncio.run(projector_child(dsn, keys_dsn, bootstrap, Worker))
        case ["unbatched", dsn, keys_dsn, bootstrap]:
            asyncio.run(projector_child(dsn, keys_dsn, bootstrap, Unbatched))
        case _:
            asyncio.run(run(**told))
