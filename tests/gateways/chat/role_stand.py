"""The role `chat` as it runs: real Postgres and broker, the real relay, read models that follow the log, and people with tokens."""

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
from pydantic import SecretStr
from websockets.asyncio.client import connect

from commands.accounts import RegisterAccount
from commands.bus import handle
from commands.channels import OpenChannel
from commands.context import Actor, Call, Context, Done
from commands.money import Subscribe
from gateways import bootstrap
from gateways.auth import ACCESS_COOKIE, Tokens
from gateways.chat.role import run_chat
from gateways.engines.broker import Broker
from gateways.engines.postgres import Postgres
from gateways.engines.process import free_port
from gateways.health import Readiness
from gateways.payments.sandbox import Charges
from gateways.payments.sandbox import build as build_sandbox
from gateways.payments.sandbox_client import SandboxProvider
from gateways.relay_role import run_relay
from gateways.settings import ChatSettings, RelaySettings
from projections import rebuild
from projections.worker import Worker
from tests.engines import fresh_database
from tests.eventstore.conveyor import until
from tests.gateways.chat.stand import Viewer

PARTITIONS = 8
SECRET = "token-secret-of-at-least-32-bytes!!"


@dataclass(frozen=True)
class Person:
    actor: Actor
    token: str

    @property
    def name(self) -> str:
        return self.actor.username

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def cookie(self) -> dict[str, str]:
        return {"Cookie": f"{ACCESS_COOKIE}={self.token}"}


@dataclass(frozen=True)
class Room:
    name: str
    channel_id: str
    owner: Person


@dataclass(frozen=True)
class ChatRole:
    """One process's worth of the role."""

    port: int
    readiness: Readiness
    task: "asyncio.Task[None]"

    def url(self, room: Room, query: str = "") -> str:
        return f"ws://127.0.0.1:{self.port}/ws/chat/{room.name}{query}"

    @asynccontextmanager
    async def join(
        self, room: Room, headers: dict[str, str] | None = None, *, query: str = "", origin: str | None = None
    ) -> AsyncIterator[Viewer]:
        opening: Any = {"additional_headers": headers or {}, "origin": origin}
        async with connect(self.url(room, query), **opening) as socket:
            yield Viewer(socket)

    async def reasons(self) -> dict[str, str]:
        return await self.readiness.state()

    async def all_well(self) -> None:
        """Until nothing keeps it from being ready."""

        async def done() -> bool:
            return not await self.readiness.state()

        await until(done)

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


@dataclass
class Platform:
    """Everything but the role: databases, the relay towards `broker` (running or not), read models in step."""

    broker: Broker
    services: bootstrap.Services
    context: Context
    relay: Readiness
    _settings: dict[str, Any]
    _stack: AsyncExitStack

    async def person(self, name: str, *roles: str) -> Person:
        done = await self.do(None, RegisterAccount(f"{name}_{uuid4().hex[:6]}", "no-password"))
        actor = Actor(done.value["account_id"], done.value["username"], frozenset(roles))
        session = await self.services.sessions.begin(actor.account_id, actor.username)
        return Person(actor, Tokens(SECRET).issue(actor, session.family))

    async def room(self) -> Room:
        owner = await self.person("owner")
        done = await self.do(owner, OpenChannel(owner.name))
        return Room(done.value["name"], done.value["channel_id"], owner)

    async def do(self, who: Person | None, command: Any, command_id: UUID | None = None) -> Done:
        done = await handle(self.context, Call(command_id or uuid4(), who.actor if who else None), command)
        assert isinstance(done, Done), done
        return done

    async def subscribe(self, who: Person, room: Room) -> None:
        """Paid for through the sandbox provider."""
        charges = Charges(self._settings["data_dir"] / f"charges-{uuid4()}.sqlite")
        transport = httpx.ASGITransport(build_sandbox(charges, SECRET))
        async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as sandbox:
            context = bootstrap.context(self.services, SandboxProvider(sandbox, SECRET))
            done = await handle(context, Call(uuid4(), who.actor), Subscribe(room.channel_id, tier=1))
        charges.close()
        assert isinstance(done, Done), done

    async def chat(self) -> ChatRole:
        """Another process of the role, serving; the broker need not be there."""
        settings = ChatSettings(**self._settings, chat_port=free_port(), token_secret=SecretStr(SECRET))
        readiness = Readiness("chat")
        role = ChatRole(settings.chat_port, readiness, asyncio.ensure_future(run_chat(settings, readiness)))
        self._stack.push_async_callback(role.stop)
        waiting = asyncio.ensure_future(readiness.wait())
        await asyncio.wait({waiting, role.task}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if role.task.done():
            role.task.result()
        return role


@asynccontextmanager
async def platform(postgres: Postgres, folder: Path, *, broker_runs: bool = True) -> AsyncIterator[Platform]:
    broker = Broker(folder / "broker")
    if broker_runs:
        await asyncio.to_thread(broker.start)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, broker.stop)
        dsn = stack.enter_context(fresh_database(postgres))
        keys_dsn = stack.enter_context(fresh_database(postgres))
        settings: dict[str, Any] = {
            "data_dir": folder,
            "dsn": SecretStr(dsn),
            "keys_dsn": SecretStr(keys_dsn),
            "master_key": SecretStr(base64.urlsafe_b64encode(bytes(32)).decode()),
            "bootstrap_servers": broker.bootstrap,
            "kafka_partitions": PARTITIONS,
            "kafka_fetch_wait_ms": 20,
            "pool_size": 2,
        }
        services = await stack.enter_async_context(bootstrap.services(RelaySettings(**settings)))
        log: Any = services.store
        await rebuild.prepare(services.pool, log)
        relay = Readiness("relay")
        beside = [
            asyncio.ensure_future(_follow(Worker(log, services.pool))),
            asyncio.ensure_future(run_relay(RelaySettings(**settings), relay)),
        ]
        stack.push_async_callback(_end, beside)
        if broker_runs:
            await relay.wait()
        context = bootstrap.context(services, bootstrap.NoProvider())
        yield Platform(broker, services, context, relay, settings, stack)


async def _follow(worker: Worker) -> None:
    """What Kafka does for a projector."""
    while True:
        await worker.catch_up()
        await asyncio.sleep(0.02)


async def _end(tasks: Sequence["asyncio.Future[None]"]) -> None:
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    for fault in ended:
        if isinstance(fault, Exception):
            raise fault
