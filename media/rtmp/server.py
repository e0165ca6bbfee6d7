"""The asyncio shell of RTMP: the life of a publisher's connection, from top to bottom. All protocol is in `media.rtmp.session`.

Asks the event plane whether a key may publish before a byte of media is accepted, and hands what follows to the ingest.
"""

import asyncio
import ipaddress
import ssl
import time
from collections import Counter as Count
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
CONNECTIONS_PER_ADDRESS_MAX: Final = 100
"""A studio behind one address fits; a stranger's connections do not fill the server."""
REFUSING_MAX: Final = 100
"""Beyond these maxima a client is still told so; beyond this one too, it is not."""
REFUSING_S_MAX: Final = 5.0
READ_BYTES: Final = 128 * 1024
HANDSHAKE_S_MAX: Final = 10.0
PUBLISH_S_MAX: Final = 15.0
"""From the connection to an accepted publish."""
SILENCE_S_MAX: Final = 20.0
"""A publisher that sends nothing for so long is gone."""
SEND_S_MAX: Final = 5.0
UNSENT_BYTES_MAX: Final = 64 * 1024
"""A publisher that reads nothing is told nothing more."""
LINGER_S_MAX: Final = 1.0
"""So long what still comes is thrown away after the last word: a socket closed over unread bytes takes back what was said."""
FAILED_KEYS_MAX: Final = 10
FAILED_KEYS_WINDOW_S: Final = 60.0
ADDRESSES_MAX: Final = 10_000

BAD_NAME: Final = "NetStream.Publish.BadName"
DENIED: Final = "NetStream.Publish.Denied"
FAILED: Final = "NetStream.Publish.Failed"
TOO_MANY_KEYS: Final = "Too many wrong stream keys from this address; try again in a minute."

_connections = Gauge("tallylight_rtmp_connections", "Open RTMP connections")
_refusals = Counter("tallylight_rtmp_refused_total", "Publishers refused", ["reason"])
_breaches = Counter("tallylight_rtmp_protocol_errors_total", "Connections ended for breaking the protocol")
_bytes = Counter("tallylight_rtmp_received_bytes_total", "Bytes received from publishers")

Authorise = Callable[[str, str], Awaitable[Grant | Denied]]


class RtmpServer:
    def __init__(
        self, authorise: Authorise, ingest: Ingest, *, per_address_max: int = CONNECTIONS_PER_ADDRESS_MAX
    ) -> None:
        """`authorise(stream_key, peer)` as `media.port.EventPlane.authorise`."""
        self._authorise = authorise
        self._ingest = ingest
        self._per_address_max = per_address_max
        self._failed = FailedKeys()
        self._open: set[asyncio.Task[None]] = set()
        self._connections: set[_Connection] = set()  # without those that are only told why they may not be
        self._by_address: Count[str] = Count()
        self._refusing = 0
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
            if (full := self._full(_network(_host(writer)))) is None:
                await self._serve(_Connection(self, reader, writer))
            elif self._refusing < REFUSING_MAX:
                await self._turn_away(_Connection(self, reader, writer, full=full))
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

    def _full(self, address: str) -> str | None:
        if len(self._connections) >= CONNECTIONS_MAX:
            return "This server is full; please try another."
        if self._by_address[address] >= self._per_address_max:
            return "Too many connections from this address."
        return None

    async def _serve(self, connection: "_Connection") -> None:
        address = _network(connection.peer)
        self._connections.add(connection)
        self._by_address[address] += 1
        try:
            await connection.live(PUBLISH_S_MAX)
        finally:
            self._connections.discard(connection)
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    async def _turn_away(self, connection: "_Connection") -> None:
        self._refusing += 1
        try:
            await connection.live(REFUSING_S_MAX)
        finally:
            self._refusing -= 1


class _Connection:
    def __init__(
        self,
        server: RtmpServer,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        full: str | None = None,
    ) -> None:
        """`full`: why it may not connect, which is all that it will hear."""
        self._server = server
        self._reader = reader
        self._writer = writer
        self._full = full
        self._session = ServerSession(self._judge)
        self._sink: TagSink | None = None
        self.peer = _host(writer)

    def ask_to_reconnect(self, tc_url: str) -> bool:
        return self._session.request_reconnect("This server is being taken out of service.", tc_url)

    async def live(self, publish_s_max: float) -> None:
        """Handshake, connect, ask, publish, end: whatever ends it, the sink is told why, and so is the publisher."""
        reason: Literal["unpublished", "disconnected"] = "disconnected"
        try:
            deadline = asyncio.get_running_loop().time() + publish_s_max
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
                        case PublishRequested():
                            await self._on_publish(event)
                        case Unpublished():
                            reason = "unpublished"
                            await self._end(reason)
                            deadline = asyncio.get_running_loop().time() + PUBLISH_S_MAX
                        case Failed(reason=why):
                            _breaches.inc()
                            log.warning("rtmp.breach", peer=self.peer, why=why)
                        case Connected():
                            pass  # `_judge` let it
                await self.send()
                if self._sink is not None:
                    await self._sink.drain()
        except BadMedia as bad:
            self._refuse("media", FAILED, str(bad))
            await self.send()
        except TimeoutError:
            log.info("rtmp.silent", peer=self.peer, state=self._session.state)
            self._session.fail("Nothing came for too long.")
            await self.send()
        finally:
            await asyncio.shield(self._end(reason))
        await self._linger()

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
        if not out or self._writer.transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            return
        with suppress(ConnectionError, OSError, TimeoutError):
            self._writer.write(out)
            async with asyncio.timeout(SEND_S_MAX):
                await self._writer.drain()

    async def _linger(self) -> None:
        """Until the peer has gone too, or for a moment."""
        with suppress(ConnectionError, OSError, TimeoutError):
            if self._writer.can_write_eof():
                self._writer.write_eof()
            async with asyncio.timeout(LINGER_S_MAX):
                while await self._reader.read(READ_BYTES):
                    pass

    def _judge(self, asked: Connected) -> str | None:
        if self._full is not None:
            return self._counted("full", self._full)
        if asked.app not in APPS:
            return self._counted("app", "Publish to rtmp://…/live with the stream key as the stream name.")
        if self._has_guessed():
            return self._counted("rate", TOO_MANY_KEYS)
        return None

    def _has_guessed(self) -> bool:
        return self._server._failed.blocked(self.peer, time.monotonic())

    async def _on_publish(self, event: PublishRequested) -> None:
        if self._session.state != "asked":
            return
        if self._server._draining:
            self._refuse("draining", DENIED, "This server is being taken out of service; please connect again.")
            return
        if self._has_guessed():
            # Connected before its address had failed so often: a door held open is no way around.
            self._refuse("rate", DENIED, TOO_MANY_KEYS)
            return
        granted = await self._server._authorise(event.stream_key, self.peer)
        if isinstance(granted, Denied):
            self._deny(granted)
            return
        try:
            self._sink = await self._server._ingest.open(granted, encoder=event.encoder, peer=self.peer)
        except AlreadyPublishing:
            self._refuse("publishing", BAD_NAME, "This stream key is already publishing.")
        except NoRoom:
            self._refuse("no_room", DENIED, "This server is full; please try another.")
        else:
            self._session.accept_publish()
            log.info("rtmp.publishing", peer=self.peer, channel=granted.channel, encoder=event.encoder)

    def _deny(self, denied: Denied) -> None:
        match denied.reason:
            case "unknown":
                self._server._failed.note(self.peer, time.monotonic())
                self._refuse("unknown", BAD_NAME, "No channel has this stream key.")
            case "banned":
                self._refuse("banned", DENIED, "This channel may not broadcast.")
            case "unavailable":
                self._refuse("unavailable", DENIED, "Stream keys cannot be checked now; please try again in a moment.")

    def _refuse(self, reason: str, code: str, description: str) -> None:
        self._session.refuse_publish(code, self._counted(reason, description))

    def _counted(self, reason: str, description: str) -> str:
        _refusals.labels(reason).inc()
        log.info("rtmp.refused", peer=self.peer, reason=reason)
        return description

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
