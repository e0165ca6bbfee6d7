"""A role's private port: `/healthz` (the loop turns), `/readyz` (it can do its work), `/metrics` (Prometheus text).

Started by `gateways.roles` for every role, which may show more (`Readiness.show`). It answers nobody from outside: the front never
routes to it. Framing is h11's, so that a light role needs no web framework.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import h11
import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

REQUEST_S_MAX: Final = 5.0
CHECK_S_MAX: Final = 2.0
READ_BYTES: Final = 8192
CONNECTIONS_MAX: Final = 64

Check = Callable[[], Awaitable[str | None]]


class Readiness:
    """Whether a role can do its work, and if not, why. Starts out not ready."""

    def __init__(self, role: str) -> None:
        self.role = role
        self._reason: str | None = "starting"
        self._checks: dict[str, Check] = {}
        self._shown: dict[str, Callable[[], Any]] = {}
        self._changed = asyncio.Event()

    def ready(self) -> None:
        """Everything is set up; from now on only the checks can say otherwise."""
        self._reason = None
        self._changed.set()

    def not_ready(self, reason: str) -> None:
        self._reason = reason

    def check(self, name: str, check: Check) -> None:
        """Ask this at every `/readyz`: it answers None, or why not."""
        self._checks[name] = check

    def show(self, path: str, what: Callable[[], Any]) -> None:
        """Answer `GET path` with this, as JSON."""
        self._shown[path] = what

    def shown(self, path: str) -> Callable[[], Any] | None:
        return self._shown.get(path)

    async def wait(self) -> None:
        """Until `ready()` was said once."""
        await self._changed.wait()

    async def state(self) -> dict[str, str]:
        """What keeps it from being ready, by name; empty when nothing does."""
        found = {} if self._reason is None else {self.role: self._reason}
        for name, check in self._checks.items():
            try:
                async with asyncio.timeout(CHECK_S_MAX):
                    reason = await check()
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
            if reason is not None:
                found[name] = reason
        return found


class HealthServer:
    """Three read-only answers over HTTP/1.1, one request a connection."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._server: asyncio.Server | None = None
        self._connections = 0

    async def start(self, host: str, port: int) -> int:
        """Listen; the bound port is returned."""
        self._server = await asyncio.start_server(self._serve, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= CONNECTIONS_MAX:
                async with asyncio.timeout(REQUEST_S_MAX):
                    await self._answer(reader, writer)
        except (TimeoutError, ConnectionError):
            pass
        finally:
            self._connections -= 1
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            while (event := connection.next_event()) is h11.NEED_DATA:
                connection.receive_data(await reader.read(READ_BYTES))
        except h11.RemoteProtocolError as error:
            status, kind, body = error.error_status_hint, "text/plain", b"bad request\n"
        else:
            if not isinstance(event, h11.Request):
                return
            status, kind, body = await self._route(event.method.decode(), event.target.decode("ascii", "replace"))
        if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = [("content-type", kind), ("content-length", str(len(body))), ("connection", "close")]
        for part in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            writer.write(connection.send(part) or b"")
        await writer.drain()

    async def _route(self, method: str, target: str) -> tuple[int, str, bytes]:
        match method, target.partition("?")[0]:
            case "GET", "/healthz":
                return 200, "application/json", orjson.dumps({"role": self._readiness.role, "status": "alive"})
            case "GET", "/readyz":
                reasons = await self._readiness.state()
                state = {
                    "role": self._readiness.role,
                    "status": "not ready" if reasons else "ready",
                    "reasons": reasons,
                }
                return (503 if reasons else 200), "application/json", orjson.dumps(state)
            case "GET", "/metrics":
                return 200, CONTENT_TYPE_LATEST, generate_latest()
            case "GET", path if (shown := self._readiness.shown(path)) is not None:
                return 200, "application/json", orjson.dumps(shown())
            case "GET", _:
                return 404, "text/plain", b"not found\n"
            case _:
                return 405, "text/plain", b"method not allowed\n"
