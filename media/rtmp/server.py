"""The asyncio shell of RTMP: the life of a publisher's connection, from top to bottom. All protocol is in `media.rtmp.session`.

Asks the event plane whether a key may publish before a byte of media is accepted, and hands what follows to the ingest.
"""

import asyncio
import ipaddress
import ssl
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Literal

import structlog
from prometheus_client import Counter, Gauge

from media.port import Denied, Grant
from media.rtmp.session import Connected, Failed, Media, PublishRequested, ServerSession, Unpublished
from media.sample import AlreadyPublishing, BadMedia, Ingest, NoRoom, TagSink

log = structlog.get_logger()

APPS: Final = frozenset({"live"})
CONNECTIONS_MAX: Final = 2_000
READ_BYTES: Final = 128 * 1024
HANDSHAKE_S_MAX: Final = 10.0
PUBLISH_S_MAX: Final = 15.0
"""From the connection to an accepted publish."""
SILENCE_S_MAX: Final = 20.0
"""A publisher that sends nothing for so long is gone."""
SEND_S_MAX: Final = 5.0
FAILED_KEYS_MAX: Final = 10
FAILED_KEYS_WINDOW_S: Final = 60.0
ADDRESSES_MAX: Final = 10_000

BAD_NAME: Final = "NetStream.Publish.BadName"
DENIED: Final = "NetStream.Publish.Denied"
FAILED: Final = "NetStream.Publish.Failed"

_connections = Gauge("tallylight_rtmp_connections", "Open RTMP connections")
_refusals = Counter("tallylight_rtmp_refused_total", "Publishers refused", ["reason"])
_breaches = Counter("tallylight_rtmp_protocol_errors_total", "Connections ended for breaking the protocol")
_bytes = Counter("tallylight_rtmp_received_bytes_total", "Bytes received from publishers")

Authorise = Callable[[str, str], Awaitable[Grant | Denied]]


class RtmpServer:
    def __init__(self, authorise: Authorise, ingest: Ingest) -> None:
        """`authorise(stream_key, peer)` as `media.port.EventPlane.authorise`."""
        self._authorise = authorise
        self._ingest = ingest
        self._failed = FailedKeys()
        self._open: set[asyncio.Task[None]] = set()
        self._connections: set[_Connection] = set()
        self._listening: list[asyncio.Server] = []
        self._draining = False

    async def start(self, host: str | None, port: int, *, tls: ssl.SSLContext | None = None) -> int:
        """Listen, for RTMPS with `tls`; the bound port is returned. May be called for each."""
        patience = {"ssl_handshake_timeout": HANDSHAKE_S_MAX} if tls is not None else {}
        server = await asyncio.start_server(self._accept, host, port, limit=READ_BYTES, ssl=tls, **patience)
        self._listening.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def drain(self, tc_url: str = "") -> int:
        """Take no new publishers, and ask those that are on to connect again, to `tc_url` or where they were: how many know how to.
        The others go on until they leave."""
        self._draining = True
        asked = [connection for connection in self._connections if connection.ask_to_reconnect(tc_url)]
        await asyncio.gather(*(connection.send() for connection in asked))
        return len(asked)

    async def close(self) -> None:
        """Take no more; publishers that are on are disconnected, their broadcasts end."""
        for server in self._listening:
            server.close()
        for task in tuple(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        _connections.inc()
        try:
            if len(self._open) <= CONNECTIONS_MAX:
                connection = _Connection(self, reader, writer)
                self._connections.add(connection)
                try:
                    await connection.live()
                finally:
                    self._connections.discard(connection)
        except (ConnectionError, OSError):
            pass
        except asyncio.CancelledError:
            # Only `close` cancels; asyncio would report a cancelled connection as a fault.
            log.info("rtmp.closed", why="the server stops")
        finally:
            self._open.discard(task)
            _connections.dec()
            writer.close()
            with suppress(Exception):
                await asyncio.wait_for(writer.wait_closed(), SEND_S_MAX)


class _Connection:
    def __init__(self, server: RtmpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._session = ServerSession()
        self._peer = _host(writer)
        self._sink: TagSink | None = None

    def ask_to_reconnect(self, tc_url: str) -> bool:
        return self._session.request_reconnect("This server is being taken out of service.", tc_url)

    async def live(self) -> None:
        """Handshake, connect, ask, publish, end: whatever ends it, the sink is told why."""
        reason: Literal["unpublished", "disconnected"] = "disconnected"
        try:
            deadline = asyncio.get_running_loop().time() + PUBLISH_S_MAX
            while not self._session.close_expected:
                data = await self._read(deadline)
                if not data:
                    return
                self._session.receive_data(data)
                for event in self._session.events():
                    match event:
                        case Media(tag):
                            if self._sink is not None:
                                self._sink.tag(tag)
                        case Connected():
                            self._on_connected(event)
                        case PublishRequested():
                            await self._on_publish(event)
                        case Unpublished():
                            reason = "unpublished"
                            await self._end(reason)
                            deadline = asyncio.get_running_loop().time() + PUBLISH_S_MAX
                        case Failed(reason=why):
                            _breaches.inc()
                            log.warning("rtmp.breach", peer=self._peer, why=why)
                await self.send()
                if self._sink is not None:
                    await self._sink.drain()
        except BadMedia as bad:
            self._refuse("media", FAILED, str(bad))
            await self.send()
        except TimeoutError:
            log.info("rtmp.silent", peer=self._peer, state=self._session.state)
        finally:
            await asyncio.shield(self._end(reason))

    async def _read(self, deadline: float) -> bytes:
        if self._sink is not None:
            async with asyncio.timeout(SILENCE_S_MAX):
                data = await self._reader.read(READ_BYTES)
        else:
            async with asyncio.timeout_at(deadline):
                data = await self._reader.read(READ_BYTES)
        _bytes.inc(len(data))
        return data

    async def send(self) -> None:
        """What a publisher does not take in time, or cannot take any more, never stops the reading of what it still sends."""
        out = self._session.data_to_send()
        if not out:
            return
        with suppress(ConnectionError, OSError, TimeoutError):
            self._writer.write(out)
            async with asyncio.timeout(SEND_S_MAX):
                await self._writer.drain()

    def _on_connected(self, event: Connected) -> None:
        if event.app not in APPS:
            _refusals.labels("app").inc()
            self._session.refuse_connect("Publish to rtmp://…/live with the stream key as the stream name.")
        elif self._server._failed.blocked(self._peer, time.monotonic()):
            _refusals.labels("rate").inc()
            self._session.refuse_connect("Too many wrong stream keys from this address; try again in a minute.")

    async def _on_publish(self, event: PublishRequested) -> None:
        if self._session.state != "asked":
            return
        if self._server._draining:
            self._refuse("draining", DENIED, "This server is being taken out of service; please connect again.")
            return
        granted = await self._server._authorise(event.stream_key, self._peer)
        if isinstance(granted, Denied):
            self._deny(granted)
            return
        try:
            self._sink = await self._server._ingest.open(granted, encoder=event.encoder, peer=self._peer)
        except AlreadyPublishing:
            self._refuse("publishing", BAD_NAME, "This stream key is already publishing.")
        except NoRoom:
            self._refuse("no_room", DENIED, "This server is full; please try another.")
        else:
            self._session.accept_publish()
            log.info("rtmp.publishing", peer=self._peer, channel=granted.channel, encoder=event.encoder)

    def _deny(self, denied: Denied) -> None:
        match denied.reason:
            case "unknown":
                self._server._failed.note(self._peer, time.monotonic())
                self._refuse("unknown", BAD_NAME, "No channel has this stream key.")
            case "banned":
                self._refuse("banned", DENIED, "This channel may not broadcast.")
            case "unavailable":
                self._refuse("unavailable", DENIED, "Stream keys cannot be checked now; please try again in a moment.")

    def _refuse(self, reason: str, code: str, description: str) -> None:
        _refusals.labels(reason).inc()
        log.info("rtmp.refused", peer=self._peer, reason=reason)
        self._session.refuse_publish(code, description)

    async def _end(self, reason: Literal["unpublished", "disconnected"]) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            await sink.close(reason)


class FailedKeys:
    """Wrong keys by address: so many in a window, then the door stays shut for its rest. Bounded: the oldest address is forgotten."""

    def __init__(self) -> None:
        self._failed: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def blocked(self, peer: str, now: float) -> bool:
        since, count = self._failed.get(_network(peer), (0.0, 0))
        return count >= FAILED_KEYS_MAX and now - since < FAILED_KEYS_WINDOW_S

    def note(self, peer: str, now: float) -> None:
        key = _network(peer)
        since, count = self._failed.get(key, (now, 0))
        if now - since >= FAILED_KEYS_WINDOW_S:
            since, count = now, 0
        self._failed[key] = (since, count + 1)
        self._failed.move_to_end(key)
        while len(self._failed) > ADDRESSES_MAX:
            self._failed.popitem(last=False)


def _network(peer: str) -> str:
    """An IPv6 customer has a whole /64 to try from."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return peer
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else peer


def _host(writer: asyncio.StreamWriter) -> str:
    peer = writer.get_extra_info("peername")
    return str(peer[0]) if peer else "unknown"
