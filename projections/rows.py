"""Changes to read-model rows, folded per row so that a batch of any length costs a few statements.

A projection's handlers yield `Change`s in the log's order; the runner folds a batch of them and writes it, together with the checkpoint,
in one transaction. What the fold writes is what applying the changes one by one would have written (a property test holds the two equal).
Nothing here reads a row: a change never depends on what stands in the table, so repeats must be kept out by the checkpoint.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A read-model table: key and other columns, each with its Postgres type, as `projections/schema/` creates it.

    A column that is bumped is NOT NULL with default 0. `shared` marks a table whose rows several shards write: its keys are then
    locked in one order.
    """

    name: str
    key: Mapping[str, str]
    columns: Mapping[str, str] = field(default_factory=dict)
    shared: bool = False


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


Change = Put | Patch | Bump | Delete


class _Net:
    """What a batch comes to for one row: perhaps a delete or a patch of what was there before, then perhaps an upsert."""

    __slots__ = ("adds", "deleted", "patch", "sets", "upsert")

    def __init__(self) -> None:
        self.deleted = False
        self.patch: dict[str, Any] = {}
        self.upsert = False
        self.sets: dict[str, Any] = {}
        self.adds: dict[str, int] = {}

    def put(self, values: Mapping[str, Any]) -> None:
        self.upsert = True
        self.sets.update(values)
        for column in values:
            self.adds.pop(column, None)

    def bump(self, values: Mapping[str, int]) -> None:
        self.upsert = True
        for column, delta in values.items():
            if column in self.sets:
                self.sets[column] += delta
            else:
                self.adds[column] = self.adds.get(column, 0) + delta

    def amend(self, values: Mapping[str, Any]) -> None:
        if self.upsert:
            self.put(values)  # the row is there by now
        elif not self.deleted:
            self.patch.update(values)

    def delete(self) -> None:
        self.__init__()  # type: ignore[misc]  # nothing before a delete matters
        self.deleted = True


Folded = Mapping[Table, Mapping[Key, _Net]]


class Statement(NamedTuple):
    """One SQL statement and its arguments, each a list with one entry a row."""

    sql: str
    args: Sequence[Sequence[Any]]


def fold(changes: Iterable[Change]) -> Folded:
    """The net effect of changes in order."""
    tables: dict[Table, dict[Key, _Net]] = defaultdict(lambda: defaultdict(_Net))
    for change in changes:
        net = tables[change.table][change.key]
        match change:
            case Put(values=values):
                net.put(values)
            case Bump(values=values):
                net.bump(values)
            case Patch(values=values):
                net.amend(values)
            case Delete():
                net.delete()
    return tables


def statements(schema: str, folded: Folded) -> Iterator[Statement]:
    """What writes a folded batch into the tables of `schema`, to be executed in this order."""
    for table, rows in folded.items():
        items = sorted(rows.items(), key=lambda item: item[0]) if table.shared else rows.items()
        deletes: list[Key] = []
        patches: dict[tuple[str, ...], list[Key]] = defaultdict(list)
        upserts: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Key]] = defaultdict(list)
        for key, net in items:
            if net.deleted:
                deletes.append(key)
            if net.patch:
                columns = tuple(column for column in table.columns if column in net.patch)
                patches[columns].append(key + tuple(net.patch[column] for column in columns))
            if net.upsert:
                sets = tuple(column for column in table.columns if column in net.sets)
                adds = tuple(column for column in table.columns if column in net.adds)
                row = key + tuple(net.sets[column] for column in sets) + tuple(net.adds[column] for column in adds)
                upserts[sets, adds].append(row)
        if deletes:
            yield Statement(_delete_sql(schema, table), _transposed(deletes))
        for columns, group in patches.items():
            yield Statement(_patch_sql(schema, table, columns), _transposed(group))
        for (sets, adds), group in upserts.items():
            yield Statement(_upsert_sql(schema, table, sets, adds), _transposed(group))


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
