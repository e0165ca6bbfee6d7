"""The RTMP server with encoders that we did not write: FFmpeg publishes, is refused, is killed; raw sockets misbehave."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import imageio_ffmpeg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from media.port import Denied, Grant
from media.rtmp import amf0
from media.rtmp import server as rtmp
from media.rtmp.chunk import ChunkReader
from media.rtmp.server import FAILED_KEYS_MAX, FAILED_KEYS_WINDOW_S, FailedKeys, RtmpServer
from media.sample import AlreadyPublishing, NoRoom, Tag, TagSink, TagType
from tests.media.rtmp.wire import C2, CONNECT, HELLO, chunk, command, publish

GRANTS = {"good": Grant(channel_id="c1", channel="ann"), "taken": Grant(channel_id="c2", channel="bob")}


@dataclass
class Sink:
    tags: list[Tag] = field(default_factory=list)
    closed: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    some: asyncio.Event = field(default_factory=asyncio.Event)

    def tag(self, tag: Tag) -> None:
        self.tags.append(tag)
        if len(self.tags) > 30:
            self.some.set()

    async def drain(self) -> None:
        return None

    async def close(self, reason: Literal["unpublished", "disconnected"]) -> None:
        self.closed.set_result(reason)


@dataclass
class Broadcasts:
    sinks: list[Sink] = field(default_factory=list)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(self, grant: Grant, *, encoder: str, peer: str) -> TagSink:
        if grant.channel == "bob":
            raise AlreadyPublishing
        if grant.channel == "full":
            raise NoRoom
        sink = Sink()
        self.sinks.append(sink)
        self.opened.set()
        return sink


async def authorise(key: str, peer: str) -> Grant | Denied:
    return GRANTS.get(key) or Denied(reason="unavailable" if key == "away" else "unknown")


@asynccontextmanager
async def serving(**limits: int) -> AsyncIterator[tuple[int, Broadcasts]]:
    broadcasts = Broadcasts()
    server = RtmpServer(authorise, broadcasts, **limits)
    port = await server.start("127.0.0.1", 0)
    try:
        yield port, broadcasts
    finally:
        await server.close()


async def ffmpeg(
    port: int, key: str, *, seconds: float, scheme: str = "rtmp", trusts: Path | None = None
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-re",
        "-f", "lavfi", "-i", f"testsrc2=size=320x180:rate=30:duration={seconds}",
        "-f", "lavfi", "-i", f"sine=duration={seconds}",
        "-c:v", "libx264", "-preset", "ultrafast", "-g", "30", "-c:a", "aac", "-f", "flv",
        f"rtmp://127.0.0.1:{port}/live/{key}",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def test_ffmpeg_publishes_and_says_goodbye() -> None:
    async with serving() as (port, broadcasts), asyncio.timeout(30):
        process = await ffmpeg(port, "good", seconds=2)
        _, said = await process.communicate()
        assert process.returncode == 0, said
        (sink,) = broadcasts.sinks
        assert await sink.closed == "unpublished"
        kinds = [tag.type for tag in sink.tags]
        assert kinds[0] == TagType.SCRIPT
        assert kinds.count(TagType.VIDEO) >= 60
        video = [tag.timestamp_ms for tag in sink.tags if tag.type == TagType.VIDEO]
        assert video == sorted(video)
        assert 1900 <= video[-1] <= 2100


async def test_an_encoder_killed_is_a_disconnection() -> None:
    async with serving() as (port, broadcasts), asyncio.timeout(30):
        process = await ffmpeg(port, "good", seconds=60)
        await broadcasts.opened.wait()
        await broadcasts.sinks[0].some.wait()
        process.kill()
        await process.communicate()
        assert await broadcasts.sinks[0].closed == "disconnected"


async def test_a_wrong_or_used_key_is_refused_before_any_media() -> None:
    async with serving() as (port, broadcasts), asyncio.timeout(30):
        for key in ("wrong", "taken", "away"):
            process = await ffmpeg(port, key, seconds=5)
            _, said = await process.communicate()
            assert process.returncode != 0, key
            assert said
        assert broadcasts.sinks == []


async def statuses(port: int, *pieces: bytes) -> list[str]:
    """The codes a raw client is told until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
    async with asyncio.timeout(10):
        received = await reader.read()
    writer.close()

    codes = []
    for message in ChunkReader().receive(received[1 + 2 * 1536 :]):
        if message.type == 20:
            codes += [value["code"] for value in amf0.read(message.data) if isinstance(value, dict) and "code" in value]
    return codes


async def test_each_refusal_has_its_status() -> None:
    async with serving() as (port, _):
        opening = HELLO + C2 + CONNECT
        assert (await statuses(port, opening + publish("wrong")))[-1] == "NetStream.Publish.BadName"
        assert (await statuses(port, opening + publish("taken")))[-1] == "NetStream.Publish.BadName"
        assert (await statuses(port, opening + publish("away")))[-1] == "NetStream.Publish.Denied"
        elsewhere = command("connect", 1, {"app": "other"})
        assert await statuses(port, HELLO + C2 + elsewhere) == ["NetConnection.Connect.Rejected"]
        assert (await statuses(port, opening + command("play", 2, None, "x")))[-1] == "NetStream.Play.StreamNotFound"


async def test_wrong_keys_from_one_address_shut_the_door_for_a_while() -> None:
    async with serving() as (port, _):
        for _ in range(FAILED_KEYS_MAX):
            await statuses(port, HELLO + C2 + CONNECT + publish("wrong"))
        assert await statuses(port, HELLO + C2 + CONNECT + publish("good")) == ["NetConnection.Connect.Rejected"]


async def test_a_door_that_was_held_open_is_shut_as_well_after_wrong_keys() -> None:
    async with serving() as (port, broadcasts):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HELLO + C2 + CONNECT)
        received = await reader.readuntil(b"NetConnection.Connect.Success")
        for _ in range(FAILED_KEYS_MAX):
            await statuses(port, HELLO + C2 + CONNECT + publish("wrong"))
        writer.write(publish("good"))
        async with asyncio.timeout(10):
            received += await reader.read()
        assert b"NetStream.Publish.Denied" in received
        assert broadcasts.sinks == []
        writer.close()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[asyncio.StreamReader]:
    """One that has connected and publishes nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HELLO + C2 + CONNECT)
    await reader.readuntil(b"NetConnection.Connect.Success")
    try:
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()


async def test_an_address_has_so_many_connections_and_the_next_is_told_so() -> None:
    async with serving(per_address_max=2) as (port, _), asyncio.timeout(20), connected(port):
        async with connected(port):
            assert await statuses(port, HELLO + C2 + CONNECT) == ["NetConnection.Connect.Rejected"]
        # One has gone, and as soon as the server has seen that there is room again.
        while (await statuses(port, HELLO + C2 + CONNECT + publish("wrong")))[-1] != "NetStream.Publish.BadName":
            pass


async def test_a_full_server_says_so_and_beyond_its_patience_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtmp, "CONNECTIONS_MAX", 1)
    async with serving() as (port, _), asyncio.timeout(20), connected(port):
        assert await statuses(port, HELLO + C2 + CONNECT) == ["NetConnection.Connect.Rejected"]
        monkeypatch.setattr(rtmp, "REFUSING_MAX", 0)
        with suppress(ConnectionError):
            assert await statuses(port, HELLO + C2 + CONNECT) == []


def test_the_door_opens_again_and_a_v6_network_counts_as_one() -> None:
    failed = FailedKeys()
    for number in range(FAILED_KEYS_MAX):
        assert not failed.blocked("2001:db8::1", 0)
        failed.note(f"2001:db8::{number + 1:x}", 0)
    assert failed.blocked("2001:db8::ffff", 1)
    assert not failed.blocked("2001:db8:0:1::1", 1)
    assert not failed.blocked("2001:db8::1", FAILED_KEYS_WINDOW_S + 1)


async def test_media_without_leave_and_garbage_end_the_connection_and_hurt_nobody() -> None:
    async with serving() as (port, broadcasts), asyncio.timeout(30):
        media = HELLO + C2 + CONNECT + chunk(9, b"video" * 50, stream=1) * 10 + b"\xff" * 1_000_000
        assert (await statuses(port, media))[-1] == "NetStream.Publish.Failed"
        assert await statuses(port, b"GET / HTTP/1.1\r\n\r\n") == [], "no RTMP, no status"
        assert await statuses(port, HELLO + C2 + b"\x00" * 100_000) == ["NetConnection.Connect.Rejected"]
        process = await ffmpeg(port, "good", seconds=1)
        await process.communicate()
        assert process.returncode == 0
        assert await broadcasts.sinks[-1].closed == "unpublished"


async def test_a_client_that_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtmp, "PUBLISH_S_MAX", 0.2)
    async with serving() as (port, _):
        assert await statuses(port, HELLO) == []
        assert (await statuses(port, HELLO + C2 + CONNECT))[-1] == "NetStream.Publish.Failed"


def certificate(folder: Path) -> tuple[Path, Path]:
    """One of this test's own, for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1)
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


@asynccontextmanager
async def wrapped(port: int, trusts: Path) -> AsyncIterator[int]:
    """A port that leads to the other one through TLS, its certificate verified."""
    context = ssl.create_default_context(cafile=str(trusts))
    context.check_hostname = False

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        await asyncio.gather(copy(reader, back), copy(there, writer))

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def test_ffmpeg_publishes_through_tls(tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate(tmp_path))
    broadcasts = Broadcasts()
    server = RtmpServer(authorise, broadcasts)
    plain, secure = await server.start("127.0.0.1", 0), await server.start("127.0.0.1", 0, tls=context)
    try:
        async with asyncio.timeout(30):
            # FFmpeg trusts only the authorities it was built with: it speaks through a wrapper that trusts this one.
            async with wrapped(secure, tmp_path / "certificate.pem") as port:
                process = await ffmpeg(port, "good", seconds=1)
                _, said = await process.communicate()
            assert process.returncode == 0, said
            assert await broadcasts.sinks[0].closed == "unpublished"
            assert plain != secure
            reader, writer = await asyncio.open_connection("127.0.0.1", secure)
            writer.write(HELLO)
            assert await reader.read() == b"", "who speaks no TLS gets no answer"
            writer.close()
    finally:
        await server.close()


async def test_a_server_that_is_drained_asks_those_who_know_and_takes_nobody_new() -> None:
    broadcasts = Broadcasts()
    server = RtmpServer(authorise, broadcasts)
    port = await server.start("127.0.0.1", 0)
    connect = command("connect", 1, {"app": "live", "capsEx": 1})
    try:
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HELLO + C2 + connect + publish("good"))
            await broadcasts.opened.wait()
            await reader.readuntil(b"NetStream.Publish.Start")
            assert await server.drain("rtmp://other/live") == 1
            await reader.readuntil(b"NetConnection.Connect.ReconnectRequest")
            writer.close()
            assert (await statuses(port, HELLO + C2 + connect + publish("good")))[-1] == "NetStream.Publish.Denied"
    finally:
        await server.close()
