"""The front, as the real Caddy with origins of the test's own behind it."""

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from gateways import front
from gateways.engines.process import free_port, listening
from gateways.settings import FrontSettings


def _origin(name: str) -> Starlette:
    """Says who it is and what it was sent."""

    async def echo(request: Request) -> Response:
        body = await request.body()
        headers = dict(request.headers)
        return JSONResponse({"origin": name, "path": request.url.path, "headers": headers, "bytes": len(body)})

    async def held(_: Request) -> Response:
        first_read = asyncio.Event()
        _gates[name] = first_read

        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            await first_read.wait()
            yield b"second"

        return StreamingResponse(parts(), media_type="video/mp4")

    async def socket(connection: WebSocket) -> None:
        await connection.accept(subprotocol=(connection.scope["subprotocols"] or [None])[0])
        await connection.send_text(name)
        await connection.close()

    sockets = [WebSocketRoute(path, socket) for path in ("/ws/chat/room", "/irc", "/")]
    return Starlette(
        routes=[*sockets, Route("/live/held.mp4", held), Route("/{path:path}", echo, methods=["GET", "POST"])]
    )


_gates: dict[str, asyncio.Event] = {}


@asynccontextmanager
async def _served(app: Starlette, port: int) -> AsyncIterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", ws="websockets-sansio"))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - the library offers no event
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FrontSettings]:
    folder = tmp_path_factory.mktemp("front")
    ports = {name: free_port() for name in ("api", "chat", "media")}
    settings = FrontSettings(
        data_dir=folder,
        http_port=free_port(),
        https_port=free_port(),
        **front.upstreams(ports),  # type: ignore[arg-type]
    )
    config = front.prepare(settings, folder)
    caddy = await asyncio.create_subprocess_exec(*front.command(config), env=front.environment(folder))
    async with (
        _served(_origin("api"), ports["api"]),
        _served(_origin("chat"), ports["chat"]),
        _served(_origin("media"), ports["media"]),
    ):
        while not listening("127.0.0.1", settings.https_port):
            assert caddy.returncode is None
            await asyncio.sleep(0.02)
        try:
            yield settings
        finally:
            caddy.send_signal(signal.SIGTERM)
            await caddy.wait()


@pytest.fixture
async def client(running: FrontSettings) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://localhost:{running.http_port}") as open_client:
        yield open_client


@pytest.mark.parametrize(
    ("path", "origin"),
    [
        ("/", "api"),
        ("/somebody", "api"),
        ("/api/v1/channels/live", "api"),
        ("/clips/abc", "api"),
        ("/videos/abc", "api"),
        ("/live/somebody/index.m3u8", "media"),
        ("/vod/abc/index.m3u8", "media"),
        ("/clips/abc/index.m3u8", "media"),
        ("/clips/abc/e1/7.m4s", "media"),
        ("/ws/chat/somebody", "chat"),
    ],
)
async def test_every_path_leads_to_its_role(client: httpx.AsyncClient, path: str, origin: str) -> None:
    answer = await client.get(path)
    assert answer.json()["origin"] == origin
    assert answer.json()["path"] == path


@pytest.mark.parametrize("path", ["/ws/chat/room", "/irc", "/"])
async def test_a_websocket_reaches_the_chat_even_at_the_root(running: FrontSettings, path: str) -> None:
    address = f"ws://localhost:{running.http_port}{path}"
    async with websockets.connect(address, subprotocols=[websockets.Subprotocol("irc")]) as socket:
        assert await socket.recv() == "chat"
        assert socket.subprotocol == "irc"


async def test_a_client_cannot_name_its_own_address(client: httpx.AsyncClient) -> None:
    spoofed = {
        "X-Forwarded-For": "8.8.8.8",
        "X-Real-IP": "8.8.8.8",
        "Forwarded": "for=8.8.8.8",
        "True-Client-IP": "8.8.8.8",
    }
    headers = (await client.get("/api/x", headers=spoofed)).json()["headers"]
    assert "8.8.8.8" not in orjson.dumps(headers).decode()
    assert headers["x-forwarded-for"] in ("127.0.0.1", "::1")


async def test_a_stream_is_passed_on_as_it_comes(client: httpx.AsyncClient) -> None:
    async with client.stream("GET", "/live/held.mp4") as answer:
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"first"
        _gates["media"].set()
        assert await anext(pieces) == b"second"


async def test_a_body_beyond_the_limit_is_a_problem_and_not_passed_on(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/x", content=bytes(front.BODY_BYTES_MAX + 1))
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "body_too_large"


async def test_a_role_that_is_away_is_a_problem_with_a_time_to_come_back(tmp_path: Path) -> None:
    settings = FrontSettings(
        data_dir=tmp_path, http_port=free_port(), https_port=0, api_upstream=f"127.0.0.1:{free_port()}"
    )
    caddy = await asyncio.create_subprocess_exec(
        *front.command(front.prepare(settings, tmp_path)), env=front.environment(tmp_path)
    )
    try:
        while not listening("127.0.0.1", settings.http_port):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
        async with httpx.AsyncClient(timeout=20) as client:
            answer = await client.get(f"http://localhost:{settings.http_port}/api/x")
        assert answer.status_code == 502
        assert answer.json()["code"] == "unavailable"
        assert answer.headers["retry-after"] == "1"
    finally:
        caddy.terminate()
        await caddy.wait()


async def test_tls_comes_from_an_authority_in_its_own_folder_and_speaks_http_2(running: FrontSettings) -> None:
    authority = running.data_dir / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    trusting = ssl.create_default_context(cafile=authority)
    trusting.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("localhost", running.https_port, ssl=trusting)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    writer.close()


def test_it_writes_only_below_its_folder(tmp_path: Path) -> None:
    environment = front.environment(tmp_path)
    assert {environment[name] for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")} == {str(tmp_path)}
    configured = front.configuration(FrontSettings(data_dir=tmp_path), tmp_path)
    assert configured["admin"]["disabled"]
    assert configured["storage"]["root"].startswith(str(tmp_path))
    assert configured["apps"]["pki"]["certificate_authorities"]["local"]["install_trust"] is False


@pytest.mark.parametrize(
    ("told", "listened"),
    [({"front_host": "0.0.0.0"}, ["0.0.0.0:8000"]), ({"front_host": "::1"}, ["[::1]:8000"])],
)
def test_it_listens_where_it_is_told(tmp_path: Path, told: dict[str, Any], listened: list[str]) -> None:
    configured = front.configuration(FrontSettings(data_dir=tmp_path, **told), tmp_path)
    assert configured["apps"]["http"]["servers"]["http"]["listen"] == listened


def test_proxies_before_us_are_believed_only_when_named(tmp_path: Path) -> None:
    servers: Callable[..., Any] = lambda **told: front.configuration(FrontSettings(data_dir=tmp_path, **told), tmp_path)  # noqa: E731
    assert "trusted_proxies" not in servers()["apps"]["http"]["servers"]["http"]
    named = servers(trusted_proxies="10.0.0.0/8, 192.0.2.1/32")["apps"]["http"]["servers"]["http"]
    assert named["trusted_proxies"]["ranges"] == ["10.0.0.0/8", "192.0.2.1/32"]


def test_a_certificate_of_ones_own_is_used(tmp_path: Path) -> None:
    settings = FrontSettings(data_dir=tmp_path, tls_certificate=tmp_path / "c.pem", tls_key=tmp_path / "k.pem")
    tls = front.configuration(settings, tmp_path)["apps"]["tls"]
    assert tls["certificates"]["load_files"] == [
        {"certificate": str(tmp_path / "c.pem"), "key": str(tmp_path / "k.pem")}
    ]
    assert os.fspath(tmp_path) in str(tls)
