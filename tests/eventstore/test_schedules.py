"""Whatever is sent at once by whomever, over one store or several: no hole, nothing twice, nothing by halves. Over each store there is."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings

from eventstore.port import EventStore
from gateways.engines.postgres import Postgres
from tests.engines import fresh_database
from tests.eventstore import auditor
from tests.eventstore.schedules import Run, Schedule, schedules
from tests.stores import memory_store
from tests.stores_postgres import open_store, postgres_store

Stores = Sequence[EventStore]
"""Handles on one log, as several processes have them; the last one only reads."""


@pytest_asyncio.fixture(scope="module", params=["memory", "postgres"], loop_scope="session")
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    if request.param == "memory":
        store = memory_store()
        yield (store, store)
        return
    server: Postgres = request.getfixturevalue("postgres")
    with fresh_database(server) as dsn, fresh_database(server) as keys_dsn:
        async with (
            postgres_store(dsn, keys_dsn) as one,
            open_store(dsn, keys_dsn) as two,
            open_store(dsn, keys_dsn) as reader,
        ):
            yield (one, two, reader)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedule=schedules)
async def test_commands_sent_at_once_are_each_done_once_in_one_dense_order(stores: Stores, schedule: Schedule) -> None:
    *writers, reader = stores
    run = Run()
    before = dict(enumerate(await reader.heads()))
    reading = asyncio.create_task(_read_beside(reader, run, before))
    try:
        await run.play(schedule, writers)
    finally:
        reading.cancel()
        (read,) = await asyncio.gather(reading, return_exceptions=True)
    assert isinstance(read, asyncio.CancelledError), read
    log = await auditor.read(reader, run.shards, before)
    auditor.assert_dense(log, before)
    await auditor.assert_each_command_had_its_effects_once(run, log, reader)
    auditor.assert_rooms_kept_their_rules(log)


async def _read_beside(store: EventStore, run: Run, before: Mapping[int, int]) -> None:
    """For ever: what a reader sees while others write has no hole either."""
    while True:
        for shard in run.shards:
            positions = [event.position for event in await store.read_shard(shard, after=before[shard])]
            assert positions == list(range(before[shard] + 1, before[shard] + 1 + len(positions)))
        await asyncio.sleep(0)
