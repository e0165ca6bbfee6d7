"""One question to a private port, whatever is behind it."""

import asyncio

import pytest

from gateways import probe as module
from gateways.engines.process import free_port
from gateways.health import HealthServer, Readiness
from gateways.probe import probe


async def test_it_tells_the_status_that_a_role_answers() -> None:
    readiness = Readiness("patient")
    server = HealthServer(readiness)
    port = await server.start("127.0.0.1", 0)
    try:
        assert await probe("127.0.0.1", port, "/readyz") == 503
        readiness.ready()
        assert await probe("127.0.0.1", port, "/readyz") == 200
    finally:
        await server.close()


async def test_nobody_there_is_no_answer() -> None:
    assert await probe("127.0.0.1", free_port(), "/readyz") is None


@pytest.mark.parametrize("answer", [b"", b"nonsense", b"HTTP/1.1\r\n", b"HTTP/1.1 two\r\n", b"x" * 100_000])
async def test_whatever_else_is_said_is_no_answer(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        assert await probe("127.0.0.1", server.sockets[0].getsockname()[1], "/") is None


async def test_silence_ends_with_the_time_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S_MAX", 0.05)
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        left.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        assert await probe("127.0.0.1", server.sockets[0].getsockname()[1], "/") is None
        async with asyncio.timeout(5):
            await left.wait()
