"""The role `api`: the HTTP API and the pages. Any number may run; none keeps anything that another lacks.

Run by `gateways.roles`. Answers the front's /healthz and /readyz for the whole platform.
"""

import asyncio
from typing import Any, Final

import asyncpg
import httpx
import structlog

from eventstore.writer import FAULTS_OF_CONNECTION
from gateways import bootstrap
from gateways.auth import Attempts, Passwords, Sessions, Tokens
from gateways.health import Readiness
from gateways.http.app import build
from gateways.http.base import Api
from gateways.payments.reconcile import Reconciler
from gateways.payments.sandbox_client import SandboxProvider
from gateways.people import People
from gateways.retention import Retention
from gateways.serving import serve
from gateways.settings import ApiSettings
from gateways.stream_health import StreamHealths
from media.playback import Signer

log = structlog.get_logger()

ASK_S_MAX: Final = 2.0
FORGET_EVERY_S: Final = 600.0
VITAL: Final = frozenset({"media"})
"""Beside ourselves: what must answer for the platform to be alive."""
LOGINS_MAX, LOGINS_OF_ADDRESS_MAX, LOGINS_S = 20, 100, 300.0
REGISTRATIONS_MAX, REGISTRATIONS_S = 200, 3600.0


async def run_api(settings: ApiSettings, readiness: Readiness) -> None:
    secret = settings.token_secret.get_secret_value()
    async with (
        bootstrap.services(settings) as opened,
        httpx.AsyncClient(base_url=settings.sandbox_url) as sandbox,
        httpx.AsyncClient(timeout=ASK_S_MAX) as asking,
    ):
        provider = SandboxProvider(sandbox, settings.sandbox_secret.get_secret_value())
        context = bootstrap.context(opened, provider)
        nodes = [url for name, url in settings.health_of().items() if name.startswith("media")]
        api = Api(
            context=context,
            read_models=opened.read_models,
            people=People(opened.pool),
            sessions=opened.sessions,
            passwords=Passwords(),
            tokens=Tokens(secret),
            pool=opened.pool,
            public_url=settings.public_url,
            rtmp_url=settings.rtmp_public_url,
            srt_url=settings.srt_public_url,
            logins=Attempts(most=LOGINS_MAX, window_s=LOGINS_S),
            logins_of_address=Attempts(most=LOGINS_OF_ADDRESS_MAX, window_s=LOGINS_S),
            registrations=Attempts(most=REGISTRATIONS_MAX, window_s=REGISTRATIONS_S),
            stream_health=StreamHealths(asking, nodes).of,
            playback=Signer(settings.playback_secret.get_secret_value()),
            webhook_secrets={provider.name: settings.sandbox_secret.get_secret_value()},
        )

        async def store_answers() -> str | None:
            try:
                await opened.store.heads()
            except Exception as fault:
                return str(fault)[:200]
            return None

        async def of_all(path: str) -> dict[str, Any]:
            others = settings.health_of()
            answers = await asyncio.gather(*(_ask(asking, f"{url}{path}") for url in others.values()))
            roles = dict(zip(others, answers, strict=True))
            roles["api"] = "ok" if path == "/healthz" else await store_answers() or "ok"
            vital = [said for name, said in roles.items() if name == "api" or name in VITAL]
            return {"ok": all(said == "ok" for said in vital), "roles": roles}

        readiness.check("store", store_answers)
        app = build(api, alive=lambda: of_all("/healthz"), ready=lambda: of_all("/readyz"))
        async with asyncio.TaskGroup() as beside:
            tasks = [
                beside.create_task(Reconciler(opened.pool, context).run()),
                beside.create_task(_forget(opened.sessions)),
            ]
            if settings.retention_days:
                retention = Retention(context, opened.read_models.ended_before, days=settings.retention_days)
                tasks.append(beside.create_task(retention.run()))
            try:
                await serve(app, settings.host, settings.api_port, readiness, trusted=settings.trusted_fronts)
            finally:
                for task in tasks:
                    task.cancel()


async def _forget(sessions: Sessions) -> None:
    """Sessions and tickets that ran out: nobody asks for them again."""
    while True:
        try:
            await sessions.forget_expired()
        except (asyncpg.PostgresError, *FAULTS_OF_CONNECTION) as away:
            log.warning("sessions.forget", problem=repr(away)[:200])
        await asyncio.sleep(FORGET_EVERY_S)


async def _ask(client: httpx.AsyncClient, url: str) -> str:
    try:
        answer = await client.get(url)
    except httpx.HTTPError as fault:
        return f"no answer ({type(fault).__name__})"
    return "ok" if answer.status_code == 200 else answer.text[:200]
