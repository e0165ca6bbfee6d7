"""Serving from inside a role: what is held is let go before the server drains, so that a stop takes no longer than it must."""

import asyncio
import socket

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateways.health import Readiness
from gateways.serving import bound, serve


async def test_a_request_that_is_held_is_answered_when_the_role_stops() -> None:
    came, stopping = asyncio.Event(), asyncio.Event()

    async def held(_request: Request) -> Response:
        came.set()
        await stopping.wait()
        return Response("stopping", 503)

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    readiness = Readiness("web")
    app = Starlette(routes=[Route("/", held)])
    serving = asyncio.create_task(serve(app, "127.0.0.1", port, readiness, stopping=stopping.set))
    async with httpx.AsyncClient() as client, asyncio.timeout(20):
        await readiness.wait()
        asking = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/"))
        await came.wait()
        serving.cancel()
        assert (await asking).text == "stopping"
        await asyncio.gather(serving, return_exceptions=True)
    assert serving.cancelled()
    assert "stopping" in (await readiness.state()).values()


def test_connections_send_at_once_and_do_not_wait_to_fill_a_packet() -> None:
    with bound("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
