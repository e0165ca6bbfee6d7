"""Folding a batch of changes writes what applying them one by one would have written, on a real Postgres."""

from itertools import pairwise

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections.rows import Bump, Change, Delete, Insert, Key, Patch, Put, Table, write
from tests.projections.model import Rows, apply

_TABLE = Table("things", {"a": "text", "b": "int"}, {"title": "text", "n": "bigint", "tags": "jsonb"}, shared=True)
_DDL = """CREATE TABLE things (a text, b int, title text NOT NULL DEFAULT 'new', n bigint NOT NULL DEFAULT 0,
          tags jsonb NOT NULL DEFAULT '[]', PRIMARY KEY (a, b))"""
_FRESH = {"title": "new", "n": 0, "tags": "[]"}

_keys = st.tuples(st.sampled_from("xy"), st.integers(0, 1))
_values = st.fixed_dictionaries(
    {}, optional={"title": st.sampled_from("pqr"), "n": st.integers(0, 9), "tags": st.sampled_from(['["t"]', "[]"])}
)
_touches = (
    st.builds(Put, st.just(_TABLE), _keys, _values)
    | st.builds(Patch, st.just(_TABLE), _keys, _values)
    | st.builds(Bump, st.just(_TABLE), _keys, st.fixed_dictionaries({"n": st.integers(-3, 3)}))
    | st.builds(Delete, st.just(_TABLE), _keys)
)
_rows = st.tuples(st.sampled_from("pqr"), st.integers(0, 9), st.just("[]"))


@st.composite
def _changes(draw: st.DrawFn) -> list[Change]:
    """Changes of a few rows, and rows inserted once, some of which are then touched too."""
    changes: list[Change] = []
    inserted: list[Key] = []
    for step in draw(st.lists(st.sampled_from(("touch", "touch", "insert", "touch inserted")), max_size=25)):
        if step == "insert":
            inserted.append(("new", len(inserted)))
            changes.append(Insert(_TABLE, inserted[-1] + draw(_rows)))
        elif step == "touch" or not inserted:
            changes.append(draw(_touches))
        else:
            changes.append(draw(_touches)._replace(key=draw(st.sampled_from(inserted))))
    return changes


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=_changes(), cuts=st.lists(st.integers(0, 25), max_size=3))
async def test_any_cut_into_batches_writes_the_same_rows_as_one_by_one(
    connection: "asyncpg.Connection[asyncpg.Record]", changes: list[Change], cuts: list[int]
) -> None:
    await connection.execute("DROP SCHEMA IF EXISTS folded CASCADE; CREATE SCHEMA folded")
    await connection.execute(_DDL.replace("things", "folded.things", 1))
    bounds = [0, *sorted(min(cut, len(changes)) for cut in cuts), len(changes)]
    for start, end in pairwise(bounds):
        async with connection.transaction():
            await write(connection, "folded", changes[start:end])
    one_by_one: Rows = {}
    for change in changes:
        apply(one_by_one, change, _FRESH)
    found = await connection.fetch("SELECT * FROM folded.things")
    assert {(row["a"], row["b"]): {name: row[name] for name in _FRESH} for row in found} == one_by_one
