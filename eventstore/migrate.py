"""Brings a database to the schema of this program: yoyo-migrations, run at start under an advisory lock.

Called by whoever opens a database, as often as it likes: only one process at a time migrates, the others wait and find nothing to do.
(The library's own lock is a row that a killed process would leave behind; a session's advisory lock goes with its session.)
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg.sql import SQL, Identifier
from yoyo import get_backend, read_migrations

EVENT_STORE: Final = Path(__file__).parent / "schema"
PERSONAL_KEYS: Final = Path(__file__).parent / "schema_keys"
_LOCK: Final = 7308613707


async def migrate(dsn: str, folder: Path) -> None:
    """Apply what of the folder's migrations the database lacks, in the order of their names."""
    await asyncio.to_thread(_migrate, dsn, folder)


def _migrate(dsn: str, folder: Path) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        if {path.stem for path in folder.glob("*.sql")} <= _applied(connection, folder):
            return  # the library would try, fail and log that its own tables are there already
        backend = get_backend(_uri(dsn), migration_table="_migrations_" + folder.name)
        # Its bookkeeping is a folder's own too: several folders may share a database.
        backend.log_table += "_" + folder.name
        backend.version_table += "_" + folder.name
        try:
            backend.apply_migrations(backend.to_apply(read_migrations(str(folder))))
        finally:
            backend.connection.close()


def _applied(connection: "psycopg.Connection[tuple[str]]", folder: Path) -> set[str]:
    table = "_migrations_" + folder.name
    found = connection.execute("SELECT to_regclass(%s)", (table,)).fetchone()
    if found is None or found[0] is None:
        return set()
    return {row[0] for row in connection.execute(SQL("SELECT migration_id FROM {}").format(Identifier(table)))}


def _uri(dsn: str) -> str:
    """The library's address for psycopg 3. Parameters stay where they are: a socket folder is one."""
    split = urlsplit(dsn)
    query = urlencode(cast("Mapping[str, str]", dict(parse_qsl(split.query))), quote_via=quote)
    return urlunsplit(("postgresql+psycopg", split.netloc, split.path, query, ""))
