"""The roles, each a process: its settings, its body, and the frame they share (log, private port, signals, orderly end).

`tallylight role NAME` runs one; `tallylight up` runs them all. Bodies are imported only when they run. A body is
`async (settings, readiness)`: it says `readiness.ready()` once it serves, works until cancelled, and cleans up in `finally`.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog

from gateways import garbage
from gateways.health import HealthServer, Readiness
from gateways.settings import (
    ApiSettings,
    ChatSettings,
    EdgeSettings,
    MediaSettings,
    ProjectorSettings,
    RelaySettings,
    SandboxSettings,
    Settings,
)

STOP_S_MAX: Final = 10.0

log = structlog.get_logger()


async def _sandbox(settings: SandboxSettings, readiness: Readiness) -> None:
    import httpx

    from gateways.payments.sandbox import Charges, build
    from gateways.payments.sandbox_webhooks import deliver
    from gateways.serving import serve

    folder = settings.data_dir / "sandbox"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    charges = Charges(folder / "charges.sqlite")
    secret = settings.sandbox_secret.get_secret_value()
    try:
        async with httpx.AsyncClient() as client, asyncio.TaskGroup() as beside:
            telling = None
            if settings.sandbox_webhook_url:
                telling = beside.create_task(deliver(charges, client, settings.sandbox_webhook_url, secret))
            try:
                await serve(build(charges, secret), settings.host, settings.sandbox_port, readiness)
            finally:
                if telling is not None:
                    telling.cancel()
    finally:
        charges.close()


async def _relay(settings: RelaySettings, readiness: Readiness) -> None:
    from gateways.relay_role import run_relay

    await run_relay(settings, readiness)


async def _projector(settings: ProjectorSettings, readiness: Readiness) -> None:
    from gateways.projector_role import run_projector

    await run_projector(settings, readiness)


async def _api(settings: ApiSettings, readiness: Readiness) -> None:
    from gateways.api_role import run_api

    await run_api(settings, readiness)


async def _chat(settings: ChatSettings, readiness: Readiness) -> None:
    from gateways.chat.role import run_chat

    await run_chat(settings, readiness)


async def _media(settings: MediaSettings, readiness: Readiness) -> None:
    from gateways.media_role import run_media

    await run_media(settings, readiness)


async def _edge(settings: EdgeSettings, readiness: Readiness) -> None:
    from gateways.edge.role import run_edge

    await run_edge(settings, readiness)


@dataclass(frozen=True, slots=True)
class Role:
    settings: type[Settings]
    body: Callable[[Any, Readiness], Awaitable[None]]


ROLES: Final[Mapping[str, Role]] = {
    "api": Role(ApiSettings, _api),
    "chat": Role(ChatSettings, _chat),
    "edge": Role(EdgeSettings, _edge),
    "media": Role(MediaSettings, _media),
    "projector": Role(ProjectorSettings, _projector),
    "relay": Role(RelaySettings, _relay),
    "sandbox": Role(SandboxSettings, _sandbox),
}

LAPTOP: Final = tuple(name for name in ROLES if name != "edge")
"""What `tallylight up` starts: one machine's origin needs no cache before it."""


def run(name: str) -> int:
    """Run a role in this process until a signal ends it. The exit code: 0 when asked to stop, 1 when the body failed."""
    # Imported here: the supervisor reads the table above and needs none of this.
    from gateways.log import set_up

    role = ROLES[name]
    settings = role.settings.load()
    set_up(name, settings)
    _end_with_parent()
    garbage.look_seldom()
    return asyncio.run(_framed(name, role, settings))


async def _framed(name: str, role: Role, settings: Settings) -> int:
    readiness = Readiness(name)
    health = HealthServer(readiness)
    port = await health.start(settings.health_host, settings.health_port)
    log.info("starting", health_port=port)
    body = asyncio.ensure_future(role.body(settings, readiness))
    announcing = asyncio.create_task(_announce(readiness))
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    asked = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({body, asked}, return_when=asyncio.FIRST_COMPLETED)
        if body.done():
            log.error("ended by itself", exc_info=body.exception())
            return 1
        readiness.not_ready("stopping")
        body.cancel()
        _, late = await asyncio.wait({body}, timeout=STOP_S_MAX)
        if late:
            log.error("did not stop in time", seconds=STOP_S_MAX)
            return 1
        with suppress(asyncio.CancelledError):
            body.result()
        log.info("stopped")
        return 0
    finally:
        announcing.cancel()
        asked.cancel()
        await health.close()


async def _announce(readiness: Readiness) -> None:
    await readiness.wait()
    garbage.spare_what_is_here()
    log.info("ready")


def _end_with_parent() -> None:
    """The kernel's guard is armed by the command that started us; this closes the instant before it was."""
    expected = os.environ.get("TALLYLIGHT_SUPERVISOR_PID")
    if expected is not None and os.getppid() != int(expected):
        raise SystemExit("The supervisor that started this role is gone.")
