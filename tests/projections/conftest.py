"""Fixtures of the projection tests: a database a module, and a connection to it."""

from collections.abc import AsyncIterator, Iterator
from typing import TypeAlias

import asyncpg
import pytest
import pytest_asyncio

from gateways.engines.postgres import Postgres
from tests.engines import fresh_database

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture(scope="module")
def module_database(postgres: Postgres) -> Iterator[str]:
    """The DSN of a fresh database that this module's tests share."""
    with fresh_database(postgres) as dsn:
        yield dsn


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def connection(module_database: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(module_database)
    yield connection
    await connection.close()
