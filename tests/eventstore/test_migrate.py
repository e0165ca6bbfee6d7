"""Migrations: several folders share a database, everybody may migrate at once, and a database that lacks nothing is left alone."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from eventstore.migrate import migrate


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    made = []
    for name in ("schema_one", "schema_two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"0001.{name}.sql").write_text(f"CREATE TABLE {name} (at timestamptz DEFAULT now());")
        made.append(folder)
    return made


async def _tables(dsn: str) -> set[str]:
    connection = await asyncpg.connect(dsn)
    try:
        return {row[0] for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    finally:
        await connection.close()


async def test_folders_of_one_database_do_not_meet(database: str, folders: list[Path]) -> None:
    for folder in folders:
        await migrate(database, folder)
    assert {"schema_one", "schema_two"} <= await _tables(database)


async def test_many_may_migrate_at_once_and_again(database: str, folders: list[Path]) -> None:
    await asyncio.gather(*(migrate(database, folder) for folder in folders * 3))
    before = await _tables(database)
    await asyncio.gather(*(migrate(database, folder) for folder in folders))
    assert await _tables(database) == before


async def test_what_is_added_later_is_applied(database: str, folders: list[Path]) -> None:
    await migrate(database, folders[0])
    (folders[0] / "0002.more.sql").write_text("CREATE TABLE more ();")
    await migrate(database, folders[0])
    assert "more" in await _tables(database)
