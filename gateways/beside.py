"""How a command finds the stack it works beside: from the environment if that says, else from what `up` wrote into the data folder.

Called by `gateways.cli`'s commands on events, projections and the ledger. It opens the store; it starts and stops nothing.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import asyncpg

from domain.topics import EVENTS
from eventstore.keys import PostgresKeys
from eventstore.mapper import EventMapper
from eventstore.migrate import EVENT_STORE, PERSONAL_KEYS, migrate
from eventstore.postgres import PostgresStore
from gateways.folder import DataFolder
from gateways.settings import PREFIX, Settings, Stored

POOL_MAX: Final = 4


class NothingRuns(Exception):
    """There is no stack to work beside; the message says where it was looked for."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What the commands work with."""

    store: PostgresStore
    pool: "asyncpg.Pool[asyncpg.Record]"
    settings: Stored


def settings() -> Stored:
    """The environment's, completed by the running stack's."""
    where = Settings.load().data_dir
    folder = DataFolder(where)
    try:
        running, secrets = folder.running(), folder.secrets_if_any()
    except PermissionError:
        raise NothingRuns(f"{where} belongs to somebody else. Run as its owner, or set {PREFIX}DATA_DIR.") from None
    found: dict[str, str] = {}
    if running is not None:
        found |= {"dsn": running.dsn, "keys_dsn": running.keys_dsn}
    if secrets is not None:
        found |= {"master_key": secrets.master_key}
    found = {name: value for name, value in found.items() if not _in_environment(name)}
    missing = [name for name in ("dsn", "keys_dsn", "master_key") if not _in_environment(name) and name not in found]
    if missing:
        raise NothingRuns(
            f"Nothing runs on {where}. Start `tallylight up`, or name its folder with {PREFIX}DATA_DIR,"
            f" or a database with {', '.join(PREFIX + name.upper() for name in missing)}."
        )
    return Stored.load(**found)


@asynccontextmanager
async def beside() -> AsyncIterator[Beside]:
    """The store and a pool of the database it lies in, migrated."""
    told = settings()
    dsn, keys_dsn = told.dsn.get_secret_value(), told.keys_dsn.get_secret_value()
    try:
        await migrate(dsn, EVENT_STORE)
        await migrate(keys_dsn, PERSONAL_KEYS)
    except OSError as away:
        raise NothingRuns(f"The database does not answer: {away}") from None
    async with (
        asyncpg.create_pool(keys_dsn, min_size=1, max_size=POOL_MAX) as keys_pool,
        asyncpg.create_pool(dsn, min_size=1, max_size=POOL_MAX) as pool,
    ):
        mapper = EventMapper(EVENTS, PostgresKeys(keys_pool, told.master_key_bytes))
        store = await PostgresStore.open(dsn, mapper, pool_size=POOL_MAX)
        try:
            yield Beside(store, pool, told)
        finally:
            await store.close()


def _in_environment(name: str) -> bool:
    return bool(os.environ.get(PREFIX + name.upper()))
