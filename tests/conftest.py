"""Fixtures every test may ask for. The engines are real, start once a session, and only when something asks for them."""

import signal
from collections.abc import Iterator

import pytest

from gateways.engines.broker import Broker
from gateways.engines.postgres import Postgres
from tests.engines import fresh_database, running_broker, running_postgres

# A shell that starts a job in the background has it ignore Ctrl-C, and so would every process that we start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The session's Postgres server."""
    with running_postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The DSN of a fresh, empty database of this test's own."""
    with fresh_database(postgres) as dsn:
        yield dsn


@pytest.fixture
def keys_database(postgres: Postgres) -> Iterator[str]:
    """The DSN of a second fresh database, for the keys that live apart."""
    with fresh_database(postgres) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def session_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The session's broker process."""
    with running_broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture
def broker(session_broker: Broker) -> str:
    """Bootstrap servers of the session's broker. Topics outlive a test: name yours uniquely, or start a `running_broker` of your own."""
    return session_broker.bootstrap
