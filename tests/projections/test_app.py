"""Relay, broker and projectors as real processes over a real Postgres: whoever dies while events flow, the rows are the log's."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from eventstore.port import SHARDS
from eventstore.postgres import PostgresStore
from eventstore.wire import PRESENCE_TOPIC
from gateways.engines.broker import Broker
from gateways.engines.postgres import Postgres
from projections import accounts, chat_log, follows, moderation, queries
from projections.audience import migrate
from projections.checkpoints import Pool
from projections.presence import WINDOW_S, Presence
from tests.engines import fresh_database, running_broker, running_postgres
from tests.eventstore.conveyor import role, role_environment, until, write
from tests.projections.model import expected_of, found
from tests.stores_postgres import postgres_store

HELD = (follows.PROJECTION, chat_log.PROJECTION, moderation.PROJECTION, accounts.PROJECTION)


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    with running_broker(tmp_path / "broker") as running:
        yield running


class Stand:
    """A store, a pool to look with, and roles that are started anew when they end, as a supervisor does."""

    def __init__(self, store: PostgresStore, pool: Pool, environment: dict[str, str], folder: Path) -> None:
        self.store = store
        self.pool = pool
        self.environment = environment
        self.folder = folder
        self.running: dict[str, Any] = {}
        self._stack = ExitStack()
        self.starts = 0

    def start(self, name: str, kind: str) -> None:
        self.starts += 1
        self.running[name] = self._stack.enter_context(role(kind, self.environment, self.folder / f"{name}.log"))

    def kill(self, name: str) -> None:
        self.running[name].kill()
        self.running[name].wait()

    async def keep(self) -> None:
        while True:
            for name, process in list(self.running.items()):
                if process.poll() is not None:
                    self.start(name, name.partition("-")[0])
            await asyncio.sleep(0.2)

    def close(self) -> None:
        self._stack.close()

    async def settled(self) -> None:
        """Until every projection has everything; the test's own timeout is the end of patience."""

        async def done() -> bool:
            try:
                heads = {shard: head for shard, head in enumerate(await self.store.heads()) if head}
                return await queries.wait_for(self.pool, self.store, heads, [one.name for one in HELD], timeout_s=5)
            except (asyncpg.PostgresError, OSError):
                return False

        await until(done)

    async def rows_are_the_logs(self) -> None:
        events = [one for shard in range(SHARDS) for one in await self.store.read_shard(shard, after=0, limit=100_000)]
        for projection in HELD:
            assert await found(self.pool, projection) == expected_of(projection, events)


@asynccontextmanager
async def stand(postgres: Postgres, broker: Broker, folder: Path) -> AsyncIterator[Stand]:
    with fresh_database(postgres) as dsn, fresh_database(postgres) as keys_dsn:
        async with (
            postgres_store(dsn, keys_dsn) as store,
            asyncpg.create_pool(dsn, min_size=1, max_size=3) as pool,
        ):
            built = Stand(store, pool, role_environment(folder, dsn, keys_dsn, broker.bootstrap), folder)
            keeping = asyncio.ensure_future(built.keep())
            try:
                yield built
            finally:
                keeping.cancel()
                await asyncio.wait({keeping})
                built.close()


async def test_killing_projectors_and_relay_while_events_flow_loses_and_doubles_nothing(
    postgres: Postgres, own_broker: Broker, tmp_path: Path
) -> None:
    async with stand(postgres, own_broker, tmp_path) as here:
        here.start("relay", "relay")
        here.start("projector-1", "projector")
        here.start("projector-2", "projector")
        written = await write(here.store, range(100))
        await here.settled()
        victims = {400: "projector-1", 800: "relay", 1200: "projector-2", 1600: "projector-1"}
        while written < 2000:
            written += await write(here.store, range(written, written + 40))
            if victim := victims.pop(written // 400 * 400, None):
                here.kill(victim)
            await asyncio.sleep(0.05)
        await here.settled()
        await here.rows_are_the_logs()
        assert here.starts >= 7


async def test_a_broker_that_comes_back_with_nothing_costs_time_only(
    postgres: Postgres, own_broker: Broker, tmp_path: Path
) -> None:
    async with stand(postgres, own_broker, tmp_path) as here:
        here.start("relay", "relay")
        here.start("projector", "projector")
        written = await write(here.store, range(200))
        await here.settled()
        own_broker.stop()
        written += await write(here.store, range(written, written + 200))
        await here.settled()  # by the store alone
        own_broker.start()
        for _ in range(10):
            written += await write(here.store, range(written, written + 40))
            await asyncio.sleep(0.1)
        await here.settled()
        await here.rows_are_the_logs()


async def test_a_postgres_that_was_away_is_found_again_by_itself(own_broker: Broker, tmp_path: Path) -> None:
    with running_postgres(tmp_path / "postgres") as postgres:
        async with stand(postgres, own_broker, tmp_path) as here:
            here.start("relay", "relay")
            here.start("projector", "projector")
            written = await write(here.store, range(100))
            await here.settled()
            postgres.stop()
            await asyncio.sleep(1)
            postgres.start()
            written += await write(here.store, range(written, written + 100))
            await here.settled()
            await here.rows_are_the_logs()
            assert here.starts == 2


async def test_presence_becomes_the_current_viewers_of_a_channel(
    postgres: Postgres, own_broker: Broker, tmp_path: Path
) -> None:
    async with stand(postgres, own_broker, tmp_path) as here:
        await migrate(here.environment["TALLYLIGHT_DSN"])
        here.start("relay", "relay")
        here.start("projector", "projector")
        await write(here.store, range(3))
        await here.settled()
        now = time.time() - WINDOW_S
        async with AIOKafkaProducer(bootstrap_servers=own_broker.bootstrap) as producer:
            for pod, people in (("pod-1", ["ann", "bob"]), ("pod-2", ["bob", "carl"])):
                presence = Presence(pod)
                presence.seen("c1", people, now)
                for key, value in presence.due(now + WINDOW_S):
                    await producer.send_and_wait(PRESENCE_TOPIC, value, key=key)

        async def three() -> bool:
            sql = "SELECT viewers FROM audience.current_viewers WHERE channel_id = 'c1'"
            return bool(await here.pool.fetchval(sql) == 3)

        await until(three)
