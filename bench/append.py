"""Durable events a second with 64 concurrent callers, against the `eventsourcing` library's own Postgres recorder.

Both sides write the same stored bytes, one event a call, fsync on, versions checked; ours also keeps command ids, dense positions and the
outcome of each command. The peer is called as its documentation shows, from as many threads as make it fastest. Rounds alternate, so that
a noisy neighbour meets both.
"""

import argparse
import asyncio
import itertools
import statistics
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore

from bench.common import durable_postgres, machine, percentile, report, say, spread
from domain.chat import MessagePosted
from domain.topics import EVENTS
from eventstore import rows
from eventstore.keys import MemoryKeys, PostgresKeys
from eventstore.mapper import EventMapper
from eventstore.migrate import EVENT_STORE, PERSONAL_KEYS, migrate
from eventstore.port import SHARDS, Append, Appended, StreamWrite, shard_of
from eventstore.postgres import PostgresStore
from eventstore.rows import Command, StoredWrite
from eventstore.writer import Writer
from gateways import garbage
from gateways.bootstrap import new_id

CALLERS: Final = 64
STREAMS_A_CALLER: Final = 4


def sample_state() -> tuple[str, str, bytes]:
    """Category, topic and state of a chat message, as it is stored."""
    event = MessagePosted(
        channel_id=str(uuid4()), message_id=str(uuid4()), author_id=str(uuid4()), username="some_viewer", text="x" * 60
    )
    mapper = EventMapper(EVENTS, MemoryKeys())
    topic, state = mapper.state_of(event, asyncio.run(mapper.keys_for([event])))
    return "chat", topic, state


class Caller:
    """One who appends to streams of its own, each append on the version the last one left."""

    def __init__(self) -> None:
        names = [f"chat-{new_id()}" for _ in range(STREAMS_A_CALLER)]
        self.streams: list[list[Any]] = [[name, shard_of(name), 0] for name in names]
        self.turn = 0

    def next(self, stored: tuple[str, str, bytes]) -> tuple[Command, int, list[Any]]:
        self.turn += 1
        stream = self.streams[self.turn % STREAMS_A_CALLER]
        name, shard, version = stream
        return Command(new_id(), [StoredWrite(name, shard, version, [stored])], actor="a"), shard, stream


async def ours(writer: Writer[Command], stored: tuple[str, str, bytes], seconds: float) -> float:
    """Events a second, closed loop."""
    done = 0
    end = time.perf_counter() + seconds

    async def call() -> None:
        nonlocal done
        caller = Caller()
        while time.perf_counter() < end:
            command, shard, stream = caller.next(stored)
            outcome = await writer.submit(command, shard)
            assert isinstance(outcome, Appended), outcome
            stream[2] += 1
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(CALLERS)))
    return done / (time.perf_counter() - started)


async def settled(dsn: str) -> None:
    """What warming up left behind is on disk."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("CHECKPOINT")
    await connection.close()


async def latency_ms(
    writer: Writer[Command], stored: tuple[str, str, bytes], rate: int, seconds: float
) -> dict[str, Any]:
    """Open loop at a fixed rate: each latency counts from when the event was due, not from when we got to it."""
    callers = [Caller() for _ in range(1024)]
    waits: list[float] = []
    pending: set[asyncio.Task[None]] = set()

    async def one(due: float, caller: Caller) -> None:
        command, shard, stream = caller.next(stored)
        stream[2] += 1
        outcome = await writer.submit(command, shard)
        assert isinstance(outcome, Appended), outcome
        waits.append(1000 * (time.perf_counter() - due))

    started = time.perf_counter()
    for number in itertools.count():
        due = started + number / rate
        if due - started > seconds:
            break
        ahead = due - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(ahead)
        task = asyncio.create_task(one(due, callers[number % len(callers)]))
        pending.add(task)
        task.add_done_callback(pending.discard)
    await asyncio.gather(*pending)
    took = time.perf_counter() - started
    return {
        "asked_per_s": rate,
        "done_per_s": round(len(waits) / took),
        "p50_ms": round(percentile(waits, 0.5), 2),
        "p99_ms": round(percentile(waits, 0.99), 2),
        "max_ms": round(max(waits), 2),
    }


async def through_mapper(store: PostgresStore, seconds: float) -> float:
    """The whole port: sealing, mapping, group commit."""
    done = 0
    end = time.perf_counter() + seconds

    async def call() -> None:
        nonlocal done
        channel, author = str(uuid4()), str(uuid4())
        version = 0
        while time.perf_counter() < end:
            event = MessagePosted(
                channel_id=channel, message_id=str(uuid4()), author_id=author, username="some_viewer", text="x" * 60
            )
            write = StreamWrite(f"chat-{channel}", channel, [event], version)
            outcome = await store.append(Append(new_id(), [write], actor=author))
            assert isinstance(outcome, Appended), outcome
            version += 1
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(CALLERS)))
    return done / (time.perf_counter() - started)


def peer(dsn: str, threads: int, stored: tuple[str, str, bytes], seconds: float, *, functions: bool) -> float:
    """The library's recorder: one event a call, the version by its primary key."""
    url = urlsplit(dsn)
    datastore = PostgresDatastore(
        url.path[1:], url.hostname or "", url.port or 5432, url.username or "", url.password or "",
        pool_size=threads, enable_db_functions=functions,
    )  # fmt: skip
    recorder = PostgresApplicationRecorder(datastore, events_table_name="peer_events")
    recorder.create_table()
    counts = [0] * threads
    end = time.perf_counter() + seconds

    def call(number: int) -> None:
        streams: list[tuple[UUID, list[int]]] = [(uuid4(), [0]) for _ in range(STREAMS_A_CALLER)]
        while time.perf_counter() < end:
            stream, version = streams[counts[number] % STREAMS_A_CALLER]
            version[0] += 1
            recorder.insert_events([StoredEvent(stream, version[0], stored[1], stored[2])])
            counts[number] += 1

    workers = [threading.Thread(target=call, args=(number,)) for number in range(threads)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    took = time.perf_counter() - started
    datastore.close()
    return sum(counts) / took


@asynccontextmanager
async def follower(dsn: str) -> AsyncIterator[Callable[[], Any]]:
    """A reader beside the writers: every shard, each position once and in order, or it raises."""
    connection = await asyncpg.connect(dsn)
    positions = [0] * SHARDS
    stop = asyncio.Event()

    async def follow() -> None:
        while True:
            last_round = stop.is_set()
            heads = [row[0] for row in await connection.fetch("SELECT position FROM shard_heads ORDER BY shard")]
            for shard, head in enumerate(heads):
                while positions[shard] < head:
                    found = await connection.fetch(
                        "SELECT position FROM events WHERE category = 'chat' AND shard = $1 AND position > $2"
                        " ORDER BY position LIMIT 5000",
                        shard,
                        positions[shard],
                    )
                    for (position,) in found:
                        if position != positions[shard] + 1:
                            raise AssertionError(f"shard {shard}: {position} after {positions[shard]}")
                        positions[shard] = position
            if last_round:
                return
            await asyncio.sleep(0.05)

    task = asyncio.create_task(follow())

    async def finish() -> dict[str, Any]:
        stop.set()
        await task
        heads = [row[0] for row in await connection.fetch("SELECT position FROM shard_heads ORDER BY shard")]
        return {"seen": sum(positions), "stored": sum(heads), "in_order": True, "shards": sum(map(bool, heads))}

    try:
        yield finish
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await connection.close()


async def run(rounds: int, seconds: float) -> None:
    on = machine()
    garbage.look_seldom()
    stored = await asyncio.to_thread(sample_state)
    with durable_postgres() as server:
        dsn, keys_dsn, peer_dsn = (server.ensure_database(name) for name in ("ours", "keys", "peer"))
        await migrate(dsn, EVENT_STORE)
        await migrate(keys_dsn, PERSONAL_KEYS)
        pool = await asyncpg.create_pool(keys_dsn, min_size=1, max_size=2)
        store = await PostgresStore.open(dsn, EventMapper(EVENTS, PostgresKeys(pool, bytes(32))))
        writer: Writer[Command] = Writer(store._connect_writer, rows.append, lanes=2)
        await writer.open()
        await ours(writer, stored, 2)
        garbage.spare_what_is_here()  # as every role does once it serves
        # Before anything saturates the disk: what a full load leaves to be written back would be measured instead.
        await settled(dsn)
        paced = [await latency_ms(writer, stored, rate, 2 * seconds) for rate in (2_000, 17_000)]
        say(f"at fixed rates: {paced}")
        say("the peer: how many threads make it fastest")
        tried = {}
        for functions, threads in itertools.product((False, True), (1, 2, 4, 8, 16, 32)):
            figure = await asyncio.to_thread(peer, peer_dsn, threads, stored, min(seconds, 3), functions=functions)
            tried[threads, functions] = figure
            say(f"  {threads} threads{', database functions' if functions else ''}: {figure:.0f} events/s")
        # As its documentation shows it; what its database functions make of it stands in the detail.
        threads = max((key for key in tried if not key[1]), key=lambda key: tried[key])[0]
        with_functions = max(figure for key, figure in tried.items() if key[1])
        mine, theirs = [], []
        for number in range(rounds):
            mine.append(await ours(writer, stored, seconds))
            theirs.append(await asyncio.to_thread(peer, peer_dsn, threads, stored, seconds, functions=False))
            say(
                f"round {number + 1}: ours {mine[-1]:.0f}, peer {theirs[-1]:.0f} events/s, {mine[-1] / theirs[-1]:.1f}x"
            )
        mapped = [await through_mapper(store, seconds) for _ in range(rounds)]
        say(f"through mapper and encryption: {statistics.median(mapped):.0f} events/s")
        async with follower(dsn) as finish:
            watched = await ours(writer, stored, seconds)
            followed = await finish()
        await writer.close()
        await store.close()
        await pool.close()
    assert followed["seen"] == followed["stored"]
    figure, peer_figure = statistics.median(mine), statistics.median(theirs)
    report(
        "append",
        figure=figure,
        unit="events/s",
        peer=f"eventsourcing PostgresApplicationRecorder, {threads} threads",
        peer_figure=peer_figure,
        ratio=statistics.median(a / b for a, b in zip(mine, theirs, strict=True)),
        detail={
            "callers": CALLERS,
            "state_bytes": len(stored[2]),
            "ours": spread(mine),
            "peer": spread(theirs),
            "peer_with_its_database_functions": round(with_functions),
            "fixed_rate": paced,
            "through_mapper_and_encryption": spread(mapped),
            "with_a_reader_beside": {"events_per_s": round(watched), **followed},
            "limits": "two cores shared by Python and Postgres; one fsync a group commit and lane",
        },
        on=on,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    asyncio.run(run(**vars(parser.parse_args())))
