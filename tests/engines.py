"""The real engines under the tests: one Postgres and one broker a session, a database of its own for every test that asks."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from gateways.engines.broker import Broker
from gateways.engines.postgres import THROWAWAY, Postgres

_numbers: Final = count(1)


@contextmanager
def running_postgres(folder: Path) -> Iterator[Postgres]:
    """A server that forgets durability, not correctness."""
    server = Postgres(folder, settings=THROWAWAY)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def running_broker(folder: Path) -> Iterator[Broker]:
    broker = Broker(folder)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@contextmanager
def fresh_database(server: Postgres, *, template: str = "template0") -> Iterator[str]:
    """The DSN of an empty database (or a copy of `template`), dropped afterwards."""
    name = f"test_{next(_numbers)}"
    dsn = server.ensure_database(name, template=template)
    try:
        yield dsn
    finally:
        server.drop_database(name)
