"""What a projection is: its tables and, per event, a pure function from a recorded event to changes of rows.

Each module beside this one defines one; `registry` lists them; `runner` and `rebuild` apply them. A handler does no I/O and reads no row.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Final

from domain.event import Event
from eventstore.port import Recorded
from projections.rows import Change, Table

Handler = Callable[[Recorded], Iterable[Change]]

SCHEMA_FOLDER: Final = Path(__file__).parent / "schema"


class Projection:
    """One read model, in a Postgres schema of its own (`p_<name>`) that a rebuild swaps as a whole.

    `version` rises when a handler's meaning changes: like a change of the SQL file it makes every node rebuild before it goes on.
    """

    def __init__(
        self, name: str, *, version: int, tables: Iterable[Table], handlers: Mapping[type[Event], Handler]
    ) -> None:
        self.name = name
        self.version = version
        self.tables = tuple(tables)
        self.schema = f"p_{name}"
        self.topics = frozenset(event.TOPIC for event in handlers)
        self.categories = frozenset(event.CATEGORY.value for event in handlers)
        self._handlers = {event.TOPIC: handler for event, handler in handlers.items()}

    def rows_for(self, recorded: Recorded) -> Iterable[Change]:
        """The changes an event means; none for an event this projection does not know."""
        handler = self._handlers.get(recorded.topic)
        return () if handler is None else handler(recorded)

    @cached_property
    def ddl(self) -> str:
        """The tables' SQL with unqualified names, for whichever schema the search path leads with."""
        return (SCHEMA_FOLDER / f"{self.name}.sql").read_text()

    @cached_property
    def indexes(self) -> Sequence[str]:
        """The statements of `ddl` that rows can be written without: a rebuild runs them last."""
        return [statement for statement in self._statements if statement.startswith("CREATE INDEX")]

    @cached_property
    def table_ddl(self) -> str:
        """The rest of `ddl`."""
        return ";\n".join(statement for statement in self._statements if not statement.startswith("CREATE INDEX"))

    @property
    def _statements(self) -> list[str]:
        lines = (line for line in self.ddl.splitlines() if not line.lstrip().startswith("--"))
        return [statement.strip() for statement in "\n".join(lines).split(";") if statement.strip()]

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the tables or the version: rows made under another one must be rebuilt."""
        return f"{self.version}-{sha256(self.ddl.encode()).hexdigest()[:16]}"
