"""The only wiring of the roles that reach the event store: store, keys, read models, provider, clock and ids.

Called by the bodies of the roles `api`, `chat` and `media`, and by the command line. Everything opened here is closed here.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import uuid_utils

from commands.context import Charged, Context, Declined, MessageRef, Provider, Unsettled
from domain.shared import Money
from domain.topics import EVENTS
from eventstore.keys import PostgresKeys
from eventstore.mapper import EventMapper
from eventstore.migrate import EVENT_STORE, PERSONAL_KEYS, migrate
from eventstore.postgres import PostgresStore
from gateways import auth
from gateways.auth import Sessions
from gateways.read_models import ReadModels
from gateways.settings import Stored
from projections import audience

KEYS_POOL_MAX = 2


@dataclass(frozen=True, slots=True)
class Services:
    store: PostgresStore
    pool: Any
    read_models: ReadModels
    sessions: Sessions


def new_id() -> UUID:
    """UUIDv7: rises with time, so that indexes grow at their end."""
    return UUID(bytes=uuid_utils.uuid7().bytes)


def clock() -> datetime:
    return datetime.now(UTC)


class NoProvider:
    """For roles that take no money."""

    name = "none"

    async def charge(self, payment_id: str, amount: Money, method: str) -> Charged | Declined | Unsettled:
        return Unsettled("this role takes no money")

    async def settle(self, payment_id: str, amount: Money) -> Charged | Declined | Unsettled:
        return Unsettled("this role takes no money")


@asynccontextmanager
async def services(settings: Stored) -> AsyncIterator[Services]:
    """Migrated and open. Raises `StoreUnavailable` or asyncpg's errors while Postgres is away."""
    dsn, keys_dsn = settings.dsn.get_secret_value(), settings.keys_dsn.get_secret_value()
    await migrate(dsn, EVENT_STORE)
    await migrate(dsn, auth.MIGRATIONS)
    await audience.migrate(dsn)
    await migrate(keys_dsn, PERSONAL_KEYS)
    async with (
        asyncpg.create_pool(keys_dsn, min_size=0, max_size=KEYS_POOL_MAX) as keys,
        asyncpg.create_pool(
            dsn, min_size=1, max_size=settings.pool_size, command_timeout=10, server_settings={"jit": "off"}
        ) as pool,
    ):
        mapper = EventMapper(EVENTS, PostgresKeys(keys, settings.master_key_bytes))
        store = await PostgresStore.open(dsn, mapper, pool_size=settings.pool_size)
        try:
            yield Services(store, pool, ReadModels(pool), Sessions(pool))
        finally:
            await store.close()


def context(opened: Services, provider: Provider) -> Context:
    async def find_message(channel_id: str, message_id: str) -> MessageRef | None:
        found = await opened.read_models.message_author(channel_id, message_id)
        return None if found is None else MessageRef(*found)

    return Context(opened.store, clock, provider, find_message)
