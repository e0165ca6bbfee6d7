"""The role `projector`: keeps the read models in step with the event store. Any number may run; Kafka deals the shards out among them.

Run by `gateways.roles`. It follows the store alone until the broker is there, and whenever it is away. It ends when Faust has crashed or
the watchdog finds it stalled: whoever supervises it starts a fresh one.
"""

import asyncio
from collections.abc import Set
from typing import Final

import asyncpg
import structlog
from aiokafka.errors import KafkaError

from domain.topics import EVENTS
from eventstore.following import FollowedLog
from eventstore.keys import PostgresKeys
from eventstore.mapper import EventMapper
from eventstore.migrate import EVENT_STORE, PERSONAL_KEYS, migrate
from gateways.engines.broker import ensure_topics
from gateways.engines.process import EngineFailed
from gateways.health import Readiness
from gateways.relay_role import topics
from gateways.settings import ProjectorSettings
from projections import audience, forgetting, rebuild
from projections.app import Projector
from projections.audience import Audience
from projections.checkpoints import Pool
from projections.watchdog import LOOK_S, Counts, LoopGuard, Stalled, Watchdog
from projections.worker import ALL_SHARDS, Worker

log = structlog.get_logger()

KEYS_POOL_MAX: Final = 2
POOL_MIN: Final = 4
"""A rebuild holds its lock, reads and writes at a time, and one is left for the others."""
STATEMENT_S_MAX: Final = 30.0
BROKER_RETRY_S: Final = 1.0
BROKER_ANSWER_S_MAX: Final = 1.0


async def run_projector(settings: ProjectorSettings, readiness: Readiness) -> None:
    dsn, keys_dsn = settings.dsn.get_secret_value(), settings.keys_dsn.get_secret_value()
    await migrate(dsn, EVENT_STORE)
    await audience.migrate(dsn)
    await migrate(keys_dsn, PERSONAL_KEYS)
    async with (
        asyncpg.create_pool(keys_dsn, min_size=0, max_size=KEYS_POOL_MAX) as keys_pool,
        asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=max(POOL_MIN, settings.pool_size),
            command_timeout=STATEMENT_S_MAX,
            server_settings={"jit": "off"},
        ) as pool,
    ):
        store = FollowedLog(pool, EventMapper(EVENTS, PostgresKeys(keys_pool, settings.master_key_bytes)))
        await rebuild.prepare(pool, store)
        await _Process(settings, pool, store).run(readiness)


class _Process:
    """Worker, Faust and watchdog of this process; the first of them that ends takes the others with it."""

    def __init__(self, settings: ProjectorSettings, pool: Pool, store: FollowedLog) -> None:
        self._settings = settings
        self._pool = pool
        self._worker = Worker(store, pool, owned=self._owned)
        self._projector: Projector | None = None

    async def run(self, readiness: Readiness) -> None:
        async def problem() -> str | None:
            return self._worker.problem

        readiness.check("projections", problem)
        await self._worker.catch_up()
        readiness.ready()
        parts = [self._worker.run(), self._read(), self._watch(), LoopGuard().run(), forgetting.run(self._pool)]
        tasks = [asyncio.ensure_future(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _owned(self) -> Set[int]:
        """Without an assignment, everything: who comes late to a shard writes nothing."""
        return (self._projector.owned() if self._projector else None) or ALL_SHARDS

    async def _read(self) -> None:
        """Kafka, once it is there. Until then the worker follows the store."""
        while True:
            try:
                await ensure_topics(
                    self._settings.bootstrap_servers,
                    topics(self._settings),
                    replication=self._settings.kafka_replication,
                )
                break
            except (KafkaError, EngineFailed, OSError, TimeoutError) as fault:
                log.warning("projector", problem="broker away", error=repr(fault))
                await asyncio.sleep(BROKER_RETRY_S)
        self._projector = Projector(
            self._settings.bootstrap_servers,
            self._settings.kafka_partitions,
            self._worker,
            Audience(self._pool),
            fetch_wait_ms=self._settings.kafka_fetch_wait_ms,
            folder=self._settings.data_dir / "projector",
        )
        await self._projector.run()

    async def _watch(self) -> None:
        watchdog, worker = Watchdog(), self._worker
        while True:
            await asyncio.sleep(LOOK_S)
            counts = Counts(worker.stored, worker.applied, worker.lag, worker.received, worker.swept, worker.problem)
            if reason := watchdog.look(counts, broker_there=await self._broker_there()):
                raise Stalled(reason)

    async def _broker_there(self) -> bool:
        """Whether any of the bootstrap servers takes a connection."""
        for server in self._settings.bootstrap_servers.split(","):
            host, _, port = server.strip().rpartition(":")
            try:
                async with asyncio.timeout(BROKER_ANSWER_S_MAX):
                    _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
                return True
            except (OSError, TimeoutError):
                continue
        return False
