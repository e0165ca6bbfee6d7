"""Where a projection stands: its schema in Postgres, with its tables and one checkpoint a shard, created, claimed and dropped here.

The checkpoints live in the projection's own schema, beside the rows they speak of: whatever swaps or drops the one swaps or drops the
other. Called by `runner`, `rebuild` and `status`; knows nothing of events.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import asyncpg
import asyncpg.pool

from eventstore.port import SHARDS
from projections.projection import Projection
from projections.rows import Connection

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


_CREATING: Final = 7_308_613_709


@dataclass(frozen=True, slots=True)
class Missing:
    """The schema is not there."""


@dataclass(frozen=True, slots=True)
class Outdated:
    """The schema was made for another version of the projection."""

    fingerprint: str


@dataclass(frozen=True, slots=True)
class Current:
    pass


SchemaState = Missing | Outdated | Current


class MadeForAnother(Exception):
    """The schema is not this program's: another version of the projection writes it, or it is not there."""


class Overtaken(Exception):
    """Another worker moved a checkpoint that this one held to be its own: nothing was written."""


async def state(connection: Connection, projection: Projection, *, schema: str | None = None) -> SchemaState:
    schema = schema or projection.schema
    if await connection.fetchval("SELECT to_regclass($1)", f"{schema}.made_for") is None:
        return Missing()
    made_for = await connection.fetchval(f"SELECT fingerprint FROM {schema}.made_for")
    return Current() if made_for == projection.fingerprint else Outdated(str(made_for))


async def ensure(pool: Pool, projections: Iterable[Projection]) -> None:
    """Create what schemas are missing, empty. Any process that reads or writes rows may call it at its start, several at once."""
    async with pool.acquire() as connection:
        states = [await state(connection, one) for one in projections]
        if not any(isinstance(found, Missing) for found in states):
            return
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _CREATING)
            for one in projections:
                if isinstance(await state(connection, one), Missing):
                    await create(connection, one)


async def create(
    connection: Connection, projection: Projection, *, schema: str | None = None, indexes: bool = True
) -> None:
    """An empty schema with every shard at 0. Call it in a transaction."""
    schema = schema or projection.schema
    await connection.execute(f"CREATE SCHEMA {schema}")
    await connection.execute(f"SET LOCAL search_path = {schema}")
    await connection.execute(
        """CREATE TABLE checkpoints (shard int PRIMARY KEY, position bigint NOT NULL, at timestamptz NOT NULL DEFAULT now())
           WITH (fillfactor = 50);
           CREATE TABLE parked (shard int PRIMARY KEY, position bigint NOT NULL, error text NOT NULL,
                                at timestamptz NOT NULL DEFAULT now());
           CREATE TABLE made_for (fingerprint text NOT NULL)"""
    )
    await connection.execute("INSERT INTO checkpoints SELECT shard, 0 FROM generate_series(0, $1 - 1) shard", SHARDS)
    await connection.execute("INSERT INTO made_for VALUES ($1)", projection.fingerprint)
    await connection.execute(projection.ddl if indexes else projection.table_ddl)
    await connection.execute("SET LOCAL search_path = DEFAULT")


async def load(connection: Connection, schema: str) -> dict[int, int]:
    """Every shard's checkpoint."""
    rows = await connection.fetch(f"SELECT shard, position FROM {schema}.checkpoints")
    return {row["shard"]: row["position"] for row in rows}


async def move(connection: Connection, schema: str, before: Mapping[int, int], after: Mapping[int, int]) -> None:
    """Compare-and-set shards from `before` to `after`, or raise Overtaken. First thing in the transaction that writes the rows.

    It holds the checkpoints until that transaction ends: no other worker, and no swap of the schema, comes between them and the rows.
    """
    shards = sorted(after)
    held = await connection.fetch(
        f"SELECT shard, position FROM {schema}.checkpoints WHERE shard = ANY($1) ORDER BY shard FOR UPDATE", shards
    )
    if [(row["shard"], row["position"]) for row in held] != [(shard, before[shard]) for shard in shards]:
        raise Overtaken(f"{schema}: {', '.join(str(shard) for shard in shards)}")
    await connection.execute(
        f"""UPDATE {schema}.checkpoints c SET position = u.position, at = now()
            FROM unnest($1::int[], $2::bigint[]) u(shard, position) WHERE c.shard = u.shard""",
        shards,
        [after[shard] for shard in shards],
    )
