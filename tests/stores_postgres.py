"""A migrated Postgres store for tests: the durable one, on a database of the test's own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from domain.topics import EVENTS
from eventstore.keys import PostgresKeys
from eventstore.mapper import EventMapper
from eventstore.migrate import EVENT_STORE, PERSONAL_KEYS, migrate
from eventstore.postgres import PostgresStore

MASTER_KEY = bytes(range(32))


@asynccontextmanager
async def open_store(dsn: str, keys_dsn: str, *, master_key: bytes = MASTER_KEY) -> AsyncIterator[PostgresStore]:
    """Another process's store, as far as the database can tell: connections, keys and caches of its own."""
    async with asyncpg.create_pool(keys_dsn, min_size=1, max_size=2) as keys:
        store = await PostgresStore.open(dsn, EventMapper(EVENTS, PostgresKeys(keys, master_key)))
        try:
            yield store
        finally:
            await store.close()


@asynccontextmanager
async def postgres_store(dsn: str, keys_dsn: str) -> AsyncIterator[PostgresStore]:
    await migrate(dsn, EVENT_STORE)
    await migrate(keys_dsn, PERSONAL_KEYS)
    async with open_store(dsn, keys_dsn) as store:
        yield store
