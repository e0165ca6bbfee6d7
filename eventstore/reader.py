"""Reads the log out of Postgres: streams, shards after a position, heads. A reader never sees n+1 before n: positions are dense and
appends to one shard commit one after another (`schema/0003.append.sql`).

Called by `eventstore.postgres`. Rows come back as stored; decoding is the mapper's.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from eventstore import index
from eventstore.port import SHARDS
from eventstore.wire import WireEvent

CATEGORIES: Final = ("lifecycle", "chat", "media", "money")
_COLUMNS: Final = "position, stream, version, topic, at, actor, command_id, correlation_id, causation_id, state"
_STREAM: Final = f"SELECT shard, {_COLUMNS} FROM events WHERE stream = $1 AND version > $2 ORDER BY version LIMIT $3"
_TAIL: Final = f"SELECT shard, {_COLUMNS} FROM events WHERE stream = $1 ORDER BY version DESC LIMIT $2"
_SHARD: Final = f"""SELECT {_COLUMNS} FROM events WHERE category = ANY($1::text[]) AND shard = $2 AND position > $3
    ORDER BY position LIMIT $4"""
_SPANS: Final = f"""SELECT s.shard, e.* FROM unnest($1::smallint[], $2::bigint[], $3::bigint[]) s(shard, after, upto)
    CROSS JOIN LATERAL (SELECT {_COLUMNS} FROM events e WHERE e.category = ANY($4::text[]) AND e.shard = s.shard
        AND e.position > s.after AND e.position <= s.upto AND e.topic = ANY($5::text[]) ORDER BY e.position LIMIT $6) e"""
_TAILS: Final = """SELECT s.shard, c.category, t.position FROM generate_series(0, $1::int - 1) s(shard)
    CROSS JOIN unnest($2::text[]) c(category) CROSS JOIN LATERAL (SELECT position FROM events e
        WHERE e.category = c.category AND e.shard = s.shard::smallint ORDER BY position DESC LIMIT 1) t"""

Pool = Any


class Reader:
    """Queries over a pool; raises what asyncpg raises, which `eventstore.postgres` turns into `StoreUnavailable`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def stream(self, stream: str, after: int, limit: int) -> tuple[int, list[WireEvent]]:
        return _of_one_shard(await self._pool.fetch(_STREAM, stream, after, limit))

    async def stream_tail(self, stream: str, limit: int) -> tuple[int, list[WireEvent]]:
        return _of_one_shard(list(reversed(await self._pool.fetch(_TAIL, stream, limit))))

    async def shard(self, shard: int, after: int, limit: int, categories: Iterable[str] | None) -> list[WireEvent]:
        wanted = CATEGORIES if categories is None else tuple(categories)
        return [WireEvent(*row) for row in await self._pool.fetch(_SHARD, wanted, shard, after, limit)]

    async def spans(
        self, spans: Mapping[int, tuple[int, int]], categories: Iterable[str], topics: Iterable[str], limit: int
    ) -> dict[int, list[WireEvent]]:
        afters, uptos = zip(*spans.values(), strict=True) if spans else ((), ())
        rows = await self._pool.fetch(_SPANS, list(spans), afters, uptos, list(categories), list(topics), limit)
        found: dict[int, list[WireEvent]] = {}
        for shard, *columns in rows:
            found.setdefault(shard, []).append(WireEvent(*columns))
        return found

    async def heads(self) -> list[int]:
        rows = await self._pool.fetch("SELECT position FROM shard_heads ORDER BY shard")
        return [row[0] for row in rows]

    async def tails(self) -> dict[int, dict[str, int]]:
        found: dict[int, dict[str, int]] = {}
        for shard, category, position in await self._pool.fetch(_TAILS, SHARDS, CATEGORIES):
            found.setdefault(shard, {})[category] = position
        return found

    async def index_row(self, table: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
        index.check(table, key, None)
        row = await self._pool.fetchrow(_index_query(table, key), *key.values())
        return None if row is None else dict(row)

    async def index_rows(self, table: str, where: Mapping[str, Any]) -> list[dict[str, Any]]:
        index.check_columns(table, where)
        key = ", ".join(f'"{column}"' for column in index.TABLES[table].key)
        rows = await self._pool.fetch(
            f"{_index_query(table, where)} ORDER BY {key} LIMIT {index.ROWS_MAX}", *where.values()
        )
        return [dict(row) for row in rows]

    async def index_table(self, table: str) -> list[dict[str, Any]]:
        known = index.of(table)
        columns = ", ".join(f'"{column}"' for column in (*known.key, *known.values))
        order = ", ".join(f'"{column}"' for column in known.key)
        return [dict(row) for row in await self._pool.fetch(f"SELECT {columns} FROM {table} ORDER BY {order}")]


def _index_query(table: str, where: Mapping[str, Any]) -> str:
    """Of names that were checked; the values of `where` are its arguments, in their order."""
    known = index.TABLES[table]
    columns = ", ".join(f'"{column}"' for column in (*known.key, *known.values))
    conditions = " AND ".join(f'"{column}" = ${number}' for number, column in enumerate(where, 1))
    return f"SELECT {columns} FROM {table} WHERE {conditions}"


def _of_one_shard(rows: Sequence[Any]) -> tuple[int, list[WireEvent]]:
    events = [WireEvent(*columns) for _, *columns in rows]
    return (rows[0][0] if rows else 0), events
