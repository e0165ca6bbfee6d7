"""The WebSocket shell of chat: `WS /ws/chat/{channel}?after=<position>` (design §9), the life of a connection from top to bottom.

Refusals before the upgrade are problem+json with a status; after it they are frames and close codes. 4xxx codes: 4000–4099 come
back later, 4100–4199 do not come back unchanged (the split that Centrifugo's clients rely on).
"""

import asyncio
import re
from collections import Counter as Counts
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final, Protocol
from urllib.parse import parse_qs, urlsplit
from uuid import UUID
from weakref import WeakKeyDictionary

import orjson
import structlog
from prometheus_client import Counter
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response

from eventstore.errors import StoreUnavailable
from gateways.chat import frames
from gateways.chat.frames import BadFrame, Ping, PostMessage
from gateways.chat.pod import Identity, Pod
from gateways.peers import Fronts, counted_as

log = structlog.get_logger()

CONNECTIONS_MAX: Final = 16_000
UNREAD_BYTES_MAX: Final = 256 * 1024
REQUESTS_PER_S: Final = 5.0
REQUESTS_BURST: Final = 20.0
BAD_FRAMES_MAX: Final = 10

_VIEWER: Final = re.compile(r"[A-Za-z0-9_-]{8,40}")

SESSIONS_LOOK_S: Final = 5.0
"""How long somebody who logged out, or whose token ran out, may still write from an open socket."""

CLOSE_SESSION: Final = 4001
CLOSE_ABUSE: Final = 4100

_refused = Counter("tallylight_chat_connections_refused_total", "Connections refused before the upgrade", ["code"])
_slow = Counter("tallylight_chat_slow_readers_total", "Members cut off because they read too slowly")


@dataclass(frozen=True, slots=True)
class Unauthenticated:
    """Credentials were presented and are no good; without any, a person may still read."""

    code: str
    detail: str


class Doorkeeper(Protocol):
    """Who is at the door, and which room they ask for."""

    async def identify(
        self, *, authorization: str | None, cookie: str | None, origin: str | None, host: str | None, ticket: str | None
    ) -> Identity | Unauthenticated | None: ...

    async def channel_id(self, name: str) -> str | None: ...

    async def alive(self, sessions: Collection[UUID]) -> Collection[UUID]:
        """Those of them that nobody has ended."""
        ...


@dataclass(frozen=True, slots=True)
class _Admitted:
    """What the handshake found out, kept until the connection is served (or gone: hence by weak reference)."""

    channel_id: str
    name: str
    after: int | None
    identity: Identity | None
    viewer: str


@dataclass(slots=True, eq=False)
class _Member:
    """A connection in a room. Frames are written straight to the transport, encoded once for all (design §6)."""

    connection: ServerConnection
    identity: Identity | None
    viewer: str

    def encode(self, payload: bytes) -> bytes:
        return Frame(Opcode.TEXT, payload).serialize(mask=False)

    def write(self, data: bytes) -> bool:
        transport = self.connection.transport
        if transport.is_closing():
            return False
        if transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            # A close frame would only join the queue that nobody reads.
            _slow.inc()
            transport.abort()
            return False
        transport.write(data)
        return True

    def send(self, frame: frames.Json) -> bool:
        return self.write(self.encode(frames.encode(frame)))


class _Connection(ServerConnection):
    """Says why before it closes over a frame larger than any may be, which the library answers with a close alone."""

    _told = False

    def send_data(self) -> None:
        if isinstance(self.protocol.parser_exc, PayloadTooBig) and not self._told:
            self._told = True
            error = frames.error("frame_too_large", f"A frame has at most {frames.FRAME_BYTES_MAX} bytes.")
            self.transport.write(Frame(Opcode.TEXT, frames.encode(error)).serialize(mask=False))
        super().send_data()


class ChatServer:
    def __init__(
        self,
        pod: Pod,
        door: Doorkeeper,
        new_id: Callable[[], UUID],
        *,
        fronts: Fronts,
        per_address_max: int = 0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`per_address_max`: connections from one address; 0: any number."""
        self._pod = pod
        self._door = door
        self._new_id = new_id
        self._fronts = fronts
        self._per_address_max = per_address_max
        self._clock = clock
        self._addresses: Counts[str] = Counts()
        self._members: set[_Member] = set()
        self._server: Server | None = None
        self._admitted: WeakKeyDictionary[ServerConnection, _Admitted] = WeakKeyDictionary()

    async def start(self, host: str, port: int) -> int:
        """Listen; the bound port is returned."""
        self._server = await serve(
            self._serve,
            host,
            port,
            process_request=self._admit,
            create_connection=_Connection,
            compression=None,
            max_size=frames.FRAME_BYTES_MAX,
            open_timeout=10,
            ping_interval=20,
            ping_timeout=20,
            close_timeout=2,
            server_header=None,
        )
        return int(next(iter(self._server.sockets)).getsockname()[1])

    async def close(self) -> None:
        """Tell every member to come back (1012, service restart), and stop."""
        if self._server is not None:
            self._server.close(code=1012, reason="restarting")
            await self._server.wait_closed()

    # -- the life of a connection -------------------------------------------------------------------------------

    async def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        target = urlsplit(request.path)
        query = parse_qs(target.query)
        prefix, _, name = target.path.rpartition("/")
        if prefix != "/ws/chat" or not name:
            return _problem(404, "not_found", "Chat rooms are at /ws/chat/{channel}.")
        if (_header(request, "Upgrade") or "").lower() != "websocket":
            return _problem(426, "upgrade_required", "This address speaks WebSocket.", {"Upgrade": "websocket"})
        if self._server is not None and len(self._server.connections) >= CONNECTIONS_MAX:
            return _problem(503, "pod_full", "This chat pod is full.", {"Retry-After": "2"})
        if not self._counted(connection, request):
            detail = f"There are {self._per_address_max} connections from this address already."
            return _problem(429, "too_many_connections", detail, {"Retry-After": "10"})
        after = _after(query.get("after"))
        if isinstance(after, str):
            return _problem(400, "after_invalid", after)
        try:
            identity = await self._door.identify(
                authorization=_header(request, "Authorization"),
                cookie=_header(request, "Cookie"),
                origin=_header(request, "Origin"),
                host=_header(request, "Host"),
                ticket=query.get("ticket", [None])[0],
            )
            if isinstance(identity, Unauthenticated):
                return _problem(401, identity.code, identity.detail, {"WWW-Authenticate": "Bearer"})
            channel_id = await self._door.channel_id(name.lower())
        except StoreUnavailable:
            return _problem(503, "unavailable", "Chat is away for a moment.", {"Retry-After": "1"})
        if channel_id is None:
            return _problem(404, "channel_not_found", "There is no such channel.")
        self._admitted[connection] = _Admitted(
            channel_id, name.lower(), after, identity, _viewer(connection, query.get("viewer", [""])[0], identity)
        )
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        admitted = self._admitted.pop(connection)
        member = _Member(connection, admitted.identity, admitted.viewer)
        self._members.add(member)
        try:
            await self._pod.join(admitted.channel_id, admitted.name, member, after=admitted.after)
            await self._read(connection, member, admitted.channel_id)
        except StoreUnavailable:
            await connection.close(1013, "event store away")
        except ConnectionClosed:
            pass
        finally:
            self._members.discard(member)
            self._pod.leave(admitted.channel_id, member)

    def _counted(self, connection: ServerConnection, request: Request) -> bool:
        """Count a connection for its address until it is gone. False: there are as many as there may be."""
        peer = connection.remote_address
        host = self._fronts.client(peer[0], request.headers.get_all("X-Forwarded-For")) if peer else None
        if not self._per_address_max or host is None:
            return True
        address = counted_as(host)
        if self._addresses[address] >= self._per_address_max:
            return False
        self._addresses[address] += 1

        def gone(_: object) -> None:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

        connection.connection_lost_waiter.add_done_callback(gone)
        return True

    async def watch_sessions(self) -> None:
        """Close the sockets of those who logged out and of tokens that ran out. Runs for ever."""
        while True:
            await asyncio.sleep(SESSIONS_LOOK_S)
            try:
                await self._end_sessions()
            except StoreUnavailable:
                log.warning("chat.sessions", problem="event store away")

    async def _end_sessions(self) -> None:
        named = [(member, member.identity) for member in self._members if member.identity is not None]
        sessions = {who.session for _, who in named if who.session is not None}
        alive = await self._door.alive(sessions) if sessions else ()
        now = self._clock()
        closing = []
        for member, who in named:
            if who.session is not None and who.session not in alive:
                closing.append(self._dismiss(member, "session_ended", "This session has ended; log in again."))
            elif who.expires_at is not None and who.expires_at <= now:
                closing.append(
                    self._dismiss(member, "token_expired", "This access token ran out; come back with another.")
                )
        await asyncio.gather(*closing)

    @staticmethod
    async def _dismiss(member: _Member, code: str, detail: str) -> None:
        member.send(frames.error(code, detail))
        await member.connection.close(CLOSE_SESSION, code)

    async def _read(self, connection: ServerConnection, member: _Member, channel_id: str) -> None:
        allowance, bad = _Allowance(), 0
        async for raw in connection:
            if not allowance.take(asyncio.get_running_loop().time()):
                await connection.close(CLOSE_ABUSE, "too many frames")
                return
            match frames.parse(raw):
                case BadFrame(code=code, detail=detail, nonce=nonce):
                    bad += 1
                    if code == "text_invalid":
                        member.send(frames.refused(nonce=nonce, reason=code))
                    else:
                        member.send(frames.error(code, detail))
                    if bad >= BAD_FRAMES_MAX:
                        await connection.close(CLOSE_ABUSE, "too many bad frames")
                        return
                case Ping():
                    member.send({"type": "pong"})
                case PostMessage(nonce=nonce) if member.identity is None:
                    member.send(frames.refused(nonce=nonce, reason="login_required"))
                case PostMessage() as request:
                    assert member.identity is not None
                    answer = await self._pod.post(channel_id, member.identity, request, fallback_id=self._new_id())
                    member.send(answer)


@dataclass(slots=True)
class _Allowance:
    """A token bucket over a connection's frames; admission has its own, stricter, rule for messages."""

    tokens: float = REQUESTS_BURST
    at: float = 0.0

    def take(self, now: float) -> bool:
        if self.at:
            self.tokens = min(REQUESTS_BURST, self.tokens + (now - self.at) * REQUESTS_PER_S)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def _header(request: Request, name: str) -> str | None:
    """The last one of that name: a client may send many, the front adds its own behind."""
    values = request.headers.get_all(name)
    return values[-1] if values else None


def _viewer(connection: ServerConnection, name: str, identity: Identity | None) -> str:
    """What our page calls itself, to the origin too, so that one who watches and chats counts once; else whoever this is."""
    if _VIEWER.fullmatch(name):
        return name
    return identity.account_id if identity is not None else str(connection.id)


def _after(values: list[str] | None) -> int | str | None:
    if values is None:
        return None
    if not values[0].isascii() or not values[0].isdigit() or len(values[0]) > 15:
        return "`after` is a position: a whole number."
    return int(values[0])


def _problem(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    """RFC 9457 problem+json in place of the upgrade."""
    _refused.labels(code).inc()
    body = orjson.dumps(
        {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "code": code, "detail": detail}
    )
    fields = {"Content-Type": "application/problem+json", "Content-Length": str(len(body)), "Connection": "close"}
    return Response(status, HTTPStatus(status).phrase, Headers(fields | (headers or {})), body)
