"""Changes to read-model rows, folded per row so that a batch of any length costs a few statements.

A projection's handlers yield `Change`s in the log's order; the runner folds a batch of them and writes it, together with the checkpoint,
in one transaction. What the fold writes is what applying the changes one by one would have written (a property test holds the two equal).
Nothing here reads a row: a change never depends on what stands in the table, so repeats must be kept out by the checkpoint.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

import asyncpg
import asyncpg.pool

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A read-model table: key and other columns, each with its Postgres type, as `projections/schema/` creates it.

    A column that is bumped is NOT NULL with default 0. `shared` marks a table whose rows several shards write: its keys are then
    locked in one order. `personal` maps a column with a person's own text to the one with their account id (`projections.forgetting`).
    """

    name: str
    key: Mapping[str, str]
    columns: Mapping[str, str] = field(default_factory=dict)
    shared: bool = False
    personal: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.key, *self.columns)


class Insert(NamedTuple):
    """A whole row whose key comes once in the log: copied in, which costs half of a `Put`.

    `row` has the table's key and columns in their order. What else a batch says of such a row comes after it in the log.
    """

    table: Table
    row: tuple[Any, ...]


class Put(NamedTuple):
    """Insert the row, or overwrite these columns of the one that is there."""

    table: Table
    key: Key
    values: Mapping[str, Any]


class Patch(NamedTuple):
    """Overwrite these columns if the row is there."""

    table: Table
    key: Key
    values: Mapping[str, Any]


class Bump(NamedTuple):
    """Add to these columns; a missing row starts from its defaults."""

    table: Table
    key: Key
    values: Mapping[str, int]


class Delete(NamedTuple):
    table: Table
    key: Key


Change = Insert | Put | Patch | Bump | Delete


class _Net:
    """What a batch comes to for one row: perhaps a delete or a patch of what was there before, then perhaps an upsert."""

    __slots__ = ("adds", "deleted", "patch", "sets", "upsert")

    def __init__(self) -> None:
        self.deleted = False
        self.patch: Mapping[str, Any] = _NOTHING
        self.upsert = False
        self.sets: Mapping[str, Any] = _NOTHING
        self.adds: Mapping[str, int] = _NOTHING

    def put(self, values: Mapping[str, Any]) -> None:
        self.upsert = True
        # Most rows are put once: nothing is copied for those.
        self.sets = {**self.sets, **values} if self.sets else values
        if self.adds:
            self.adds = {column: delta for column, delta in self.adds.items() if column not in values}

    def bump(self, values: Mapping[str, int]) -> None:
        self.upsert = True
        for column, delta in values.items():
            if column in self.sets:
                self.sets = {**self.sets, column: self.sets[column] + delta}
            else:
                self.adds = {**self.adds, column: self.adds.get(column, 0) + delta}

    def amend(self, values: Mapping[str, Any]) -> None:
        if self.upsert:
            self.put(values)  # the row is there by now
        elif not self.deleted:
            self.patch = {**self.patch, **values}

    def delete(self) -> None:
        self.__init__()  # type: ignore[misc]  # nothing before a delete matters
        self.deleted = True


_NOTHING: Final[Mapping[str, Any]] = {}


class Folded(NamedTuple):
    """A batch's net effect: rows to copy in first, then what it comes to for each other row."""

    inserts: Mapping[Table, Sequence[tuple[Any, ...]]]
    nets: Mapping[Table, Mapping[Key, _Net]]


class Statement(NamedTuple):
    """One SQL statement and its arguments, each a list with one entry a row."""

    sql: str
    args: Sequence[Sequence[Any]]


def fold(changes: Iterable[Change]) -> Folded:
    """The net effect of changes in order."""
    inserts: dict[Table, list[tuple[Any, ...]]] = {}
    tables: dict[Table, dict[Key, _Net]] = {}
    for change in changes:
        if isinstance(change, Insert):
            inserts.setdefault(change.table, []).append(change.row)
            continue
        rows = tables.get(change.table)
        if rows is None:
            rows = tables[change.table] = {}
        net = rows.get(change.key)
        if net is None:
            net = rows[change.key] = _Net()
        match change:
            case Put():
                net.put(change.values)
            case Bump():
                net.bump(change.values)
            case Patch():
                net.amend(change.values)
            case Delete():
                net.delete()
    return Folded(inserts, tables)


async def write(
    connection: Connection, schema: str, changes: Iterable[Change], *, statement_s_max: float | None = None
) -> None:
    """A batch of changes into the tables of `schema`, in the caller's transaction."""
    folded = fold(changes)
    for table, rows in folded.inserts.items():
        await connection.copy_records_to_table(
            table.name, schema_name=schema, columns=table.names, records=rows, timeout=statement_s_max
        )
    for sql, args in statements(schema, folded.nets):
        await connection.execute(sql, *args, timeout=statement_s_max)


def statements(schema: str, nets: Mapping[Table, Mapping[Key, _Net]]) -> Iterator[Statement]:
    """What writes the net effects into the tables of `schema`, to be executed in this order."""
    for table, rows in nets.items():
        items = sorted(rows.items(), key=lambda item: item[0]) if table.shared else rows.items()
        deletes: list[Key] = []
        patches: dict[tuple[str, ...], list[Key]] = defaultdict(list)
        shapes: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[tuple[str, ...], tuple[str, ...]]] = {}
        upserts: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Key]] = defaultdict(list)
        for key, net in items:
            if net.deleted:
                deletes.append(key)
            if net.patch:
                patched = _ordered(table, net.patch)
                patches[patched].append(key + tuple(net.patch[column] for column in patched))
            if net.upsert:
                shape = (tuple(net.sets), tuple(net.adds))
                columns = shapes.get(shape)
                if columns is None:
                    columns = shapes[shape] = (_ordered(table, net.sets), _ordered(table, net.adds))
                sets, adds = net.sets, net.adds
                row = (*key, *[sets[column] for column in columns[0]], *[adds[column] for column in columns[1]])
                upserts[columns].append(row)
        if deletes:
            yield Statement(_delete_sql(schema, table), _transposed(deletes))
        for patched, group in patches.items():
            yield Statement(_patch_sql(schema, table, patched), _transposed(group))
        for (put, added), group in upserts.items():
            yield Statement(_upsert_sql(schema, table, put, added), _transposed(group))


def _ordered(table: Table, named: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(column for column in table.columns if column in named)


def _transposed(rows: Sequence[Key]) -> Sequence[Sequence[Any]]:
    return list(zip(*rows, strict=True))


def _unnest(table: Table, columns: Sequence[str]) -> str:
    types = {**table.key, **table.columns}
    return ", ".join(f"${number}::{types[column]}[]" for number, column in enumerate(columns, 1))


def _delete_sql(schema: str, table: Table) -> str:
    keys = tuple(table.key)
    where = " AND ".join(f"t.{key} = u.{key}" for key in keys)
    return (
        f"DELETE FROM {schema}.{table.name} t USING unnest({_unnest(table, keys)}) u({', '.join(keys)}) WHERE {where}"
    )


def _patch_sql(schema: str, table: Table, columns: tuple[str, ...]) -> str:
    names = (*table.key, *columns)
    sets = ", ".join(f"{column} = u.{column}" for column in columns)
    where = " AND ".join(f"t.{key} = u.{key}" for key in table.key)
    return f"UPDATE {schema}.{table.name} t SET {sets} FROM unnest({_unnest(table, names)}) u({', '.join(names)}) WHERE {where}"


def _upsert_sql(schema: str, table: Table, sets: tuple[str, ...], adds: tuple[str, ...]) -> str:
    names = (*table.key, *sets, *adds)
    updates = [f"{column} = EXCLUDED.{column}" for column in sets]
    updates += [f"{column} = t.{column} + EXCLUDED.{column}" for column in adds]
    action = f"UPDATE SET {', '.join(updates)}" if updates else "NOTHING"
    return (
        f"INSERT INTO {schema}.{table.name} AS t ({', '.join(names)}) SELECT * FROM unnest({_unnest(table, names)})"
        f" ON CONFLICT ({', '.join(table.key)}) DO {action}"
    )
