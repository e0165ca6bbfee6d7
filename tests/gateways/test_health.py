"""A role's private port, asked over a real socket."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from gateways.health import HealthServer, Readiness


@pytest.fixture
def readiness() -> Readiness:
    return Readiness("chat")


@pytest.fixture
async def port(readiness: Readiness) -> AsyncIterator[int]:
    server = HealthServer(readiness)
    yield await server.start("127.0.0.1", 0)
    await server.close()


@pytest.fixture
async def client(port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client


async def test_alive_from_the_start_ready_when_it_says_so(client: httpx.AsyncClient, readiness: Readiness) -> None:
    assert (await client.get("/healthz")).status_code == 200
    before = await client.get("/readyz")
    assert (before.status_code, before.json()["reasons"]) == (503, {"chat": "starting"})
    readiness.ready()
    assert (await client.get("/readyz")).json() == {"role": "chat", "status": "ready", "reasons": {}}


async def test_a_check_that_answers_or_raises_makes_it_not_ready(
    client: httpx.AsyncClient, readiness: Readiness
) -> None:
    async def away() -> str | None:
        return "no broker"

    async def broken() -> str | None:
        raise OSError("unreachable")

    readiness.ready()
    readiness.check("broker", away)
    readiness.check("store", broken)
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == {"broker": "no broker", "store": "OSError: unreachable"}


async def test_metrics_are_prometheus_text(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "python_info" in answer.text


async def test_other_paths_and_methods_are_refused(client: httpx.AsyncClient) -> None:
    assert (await client.get("/etc/passwd")).status_code == 404
    assert (await client.post("/readyz", content=b"x" * 100_000)).status_code == 405


@pytest.mark.parametrize("noise", [b"\x00\xff" * 50, b"GET / HTTP/1.1\r\n\r\n", b"GET /" + b"a" * 20_000])
async def test_noise_is_answered_as_a_bad_request(port: int, noise: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(noise)
    writer.write_eof()
    assert (await reader.read()).startswith((b"HTTP/1.1 400", b"HTTP/1.1 414", b"HTTP/1.1 431"))
    writer.close()


async def test_a_client_that_leaves_at_once_harms_nobody(port: int, client: httpx.AsyncClient) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    assert (await client.get("/healthz")).status_code == 200
