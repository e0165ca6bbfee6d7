"""The stores under test: every conformance test runs over each of them."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from eventstore.port import EventStore
from eventstore.postgres import PostgresStore
from gateways.engines.postgres import Postgres
from tests.engines import fresh_database
from tests.stores import memory_store
from tests.stores_postgres import postgres_store


@pytest_asyncio.fixture(params=["memory", "postgres"], loop_scope="session")
async def store(request: pytest.FixtureRequest) -> AsyncIterator[EventStore]:
    if request.param == "memory":
        yield memory_store()
        return
    server: Postgres = request.getfixturevalue("postgres")
    with fresh_database(server) as dsn, fresh_database(server) as keys_dsn:
        async with postgres_store(dsn, keys_dsn) as opened:
            yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def durable(database: str, keys_database: str) -> AsyncIterator[PostgresStore]:
    async with postgres_store(database, keys_database) as opened:
        yield opened
