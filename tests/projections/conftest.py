"""Fixtures of the projection tests: a database a module, and connections to it."""

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
import pytest_asyncio

from gateways.engines.postgres import Postgres
from projections.checkpoints import Pool
from tests.engines import fresh_database


@pytest.fixture(scope="module")
def module_database(postgres: Postgres) -> Iterator[str]:
    """The DSN of a fresh database that this module's tests share."""
    with fresh_database(postgres) as dsn:
        yield dsn


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def connection(module_database: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(module_database)
    yield connection
    await connection.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pool(module_database: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(module_database, min_size=1, max_size=6) as pool:
        yield pool
