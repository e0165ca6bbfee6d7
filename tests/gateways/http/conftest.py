"""The API over a real Postgres, with the projections running beside it and the sandbox provider behind it."""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest_asyncio
from fastapi import FastAPI
from pydantic import SecretStr

from commands.accounts import GrantRole
from commands.bus import handle
from commands.context import Call, Done
from gateways import bootstrap
from gateways.auth import Attempts, Passwords, Tokens
from gateways.engines.postgres import Postgres
from gateways.http.app import build
from gateways.http.base import POSITION_HEADER, Api
from gateways.payments.sandbox import Charges
from gateways.payments.sandbox import build as build_sandbox
from gateways.payments.sandbox_client import SandboxProvider
from gateways.people import People
from gateways.settings import Stored
from media.playback import Signer
from projections import rebuild
from projections.worker import Worker
from tests.engines import fresh_database
from tests.gateways.http.described import Described

PASSWORD = "correct horse battery"


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an answer that must be this problem."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    return body


@dataclass
class Stand:
    app: FastAPI
    api: Api
    services: bootstrap.Services
    client: httpx.AsyncClient
    charges: Charges
    settings: Stored
    described: Described
    streams: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the media nodes say of channels that are on air, by channel id."""
    fuzzer: "Person | None" = None

    async def register(self, name: str, *roles: str) -> "Person":
        """An account with a name of its own in this database, logged in."""
        username = f"{name}_{uuid4().hex[:6]}"
        made = await self.client.post("/api/v1/accounts", json={"username": username, "password": PASSWORD})
        assert made.status_code == 201, made.text
        for role in roles:
            grant = GrantRole(made.json()["account_id"], role, trusted=True)
            assert isinstance(await handle(self.api.context, Call(uuid4()), grant), Done)
        logged = await self.client.post("/api/v1/sessions", json={"username": username, "password": PASSWORD})
        assert logged.status_code == 200, logged.text
        return Person(self.client, username, logged.json()["access_token"], made.json()["account_id"])


@dataclass
class Person:
    client: httpx.AsyncClient
    name: str
    token: str
    account_id: str
    position: str | None = None

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """A request of this person's, who sends back the last position they were told."""
        told = {"Authorization": f"Bearer {self.token}"} | headers
        if self.position:
            told[POSITION_HEADER] = self.position
        answer = await self.client.request(method, f"/api/v1{path}", json=body, headers=told)
        self.position = answer.headers.get(POSITION_HEADER, self.position)
        return answer

    async def get(self, path: str) -> Any:
        answer = await self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def open_channel(self, **fields: str) -> str:
        answer = await self.ask("POST", "/channels", {"name": self.name, **fields})
        assert answer.status_code == 201, answer.text
        return self.name


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stand(postgres: Postgres, tmp_path_factory: Any) -> AsyncIterator[Stand]:
    folder: Path = tmp_path_factory.mktemp("api")
    with fresh_database(postgres) as dsn, fresh_database(postgres) as keys_dsn:
        settings = Stored(
            data_dir=folder,
            dsn=SecretStr(dsn),
            keys_dsn=SecretStr(keys_dsn),
            master_key=SecretStr(base64.urlsafe_b64encode(bytes(32)).decode()),
        )
        charges = Charges(folder / "charges.sqlite")
        sandbox = httpx.AsyncClient(
            transport=httpx.ASGITransport(build_sandbox(charges, "sandbox-secret")), base_url="http://sandbox"
        )
        async with bootstrap.services(settings) as services, sandbox:
            log: Any = services.store
            await rebuild.prepare(services.pool, log)
            worker = Worker(log, services.pool)

            async def follow() -> None:
                """What Kafka does for a projector."""
                while True:
                    await worker.catch_up()
                    await asyncio.sleep(0.02)

            running = asyncio.create_task(follow())
            streams: dict[str, dict[str, Any]] = {}

            async def stream_health(channel_id: str) -> dict[str, Any] | None:
                return streams.get(channel_id)

            api = Api(
                context=bootstrap.context(services, SandboxProvider(sandbox, "sandbox-secret")),
                read_models=services.read_models,
                people=People(services.pool),
                sessions=services.sessions,
                passwords=Passwords(),
                tokens=Tokens("token-secret-of-at-least-32-bytes!!"),
                pool=services.pool,
                public_url="http://test",
                rtmp_url="rtmp://test/live",
                srt_url="",
                logins=Attempts(most=5, window_s=60),
                logins_of_address=Attempts(most=500, window_s=60),
                registrations=Attempts(most=500, window_s=60),
                stream_health=stream_health,
                playback=Signer("playback-secret"),
                webhook_secrets={"sandbox": "sandbox-secret"},
            )

            async def fine() -> dict[str, Any]:
                return {"ok": True}

            app = build(api, alive=fine, ready=fine)
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            described = Described(app)
            hooks = {"response": [described.check]}
            async with httpx.AsyncClient(transport=transport, base_url="http://test", event_hooks=hooks) as client:
                client.cookies.jar.set_policy(_NoCookies())
                yield Stand(app, api, services, client, charges, settings, described, streams)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        charges.close()


class _NoCookies(DefaultCookiePolicy):
    """People of a test share a client; their cookies must not mix."""

    def set_ok(self, cookie: Any, request: Any) -> bool:
        return False
