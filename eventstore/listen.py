"""Tells who waits that the log grew: Postgres NOTIFY with polling behind it, so that a lost notification costs a poll's wait.

The writer sends at most one notification per `SPACING_S`, on a connection of its own, after the commit: inside a transaction NOTIFY
takes a lock that serialises all commits of the database.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg

from eventstore.writer import FAULTS_OF_CONNECTION

CHANNEL: Final = "tallylight_events"
SPACING_S: Final = 0.002
POLL_S: Final = 1.0
RETRY_S: Final = 0.5


class Notifier:
    """`poke` after every commit. Losing one is harmless: readers poll."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def poke(self) -> None:
        self._wake.set()

    async def _run(self) -> None:
        while True:
            try:
                connection = await self._connect()
                try:
                    await connection.execute("SET synchronous_commit = off")
                    while True:
                        await self._wake.wait()
                        self._wake.clear()
                        await connection.execute(f"NOTIFY {CHANNEL}")
                        await asyncio.sleep(SPACING_S)
                finally:
                    connection.terminate()
            except (*FAULTS_OF_CONNECTION, asyncpg.PostgresError):
                await asyncio.sleep(RETRY_S)


class Listener:
    """Wakes all waiters on a notification, and once in `POLL_S` without one."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect
        self._told = asyncio.Condition()
        self._count = 0
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def count(self) -> int:
        """Rises with every notification; read it before looking at the log, and give it to `wait`."""
        return self._count

    async def wait(self, since: int, *, poll_s: float = POLL_S) -> None:
        """Return when something was told after `since`, or when it is time to poll."""
        try:
            async with asyncio.timeout(poll_s), self._told:
                await self._told.wait_for(lambda: self._count != since)
        except TimeoutError:
            return

    async def _run(self) -> None:
        wake = asyncio.Event()
        while True:
            try:
                connection = await self._connect()
                connection.add_termination_listener(lambda _: wake.set())
                try:
                    await connection.add_listener(CHANNEL, lambda *_: wake.set())
                    wake.set()
                    while not connection.is_closed():
                        await wake.wait()
                        wake.clear()
                        await self._tell()
                finally:
                    connection.terminate()
            except (*FAULTS_OF_CONNECTION, asyncpg.PostgresError):
                await asyncio.sleep(RETRY_S)

    async def _tell(self) -> None:
        async with self._told:
            self._count += 1
            self._told.notify_all()
