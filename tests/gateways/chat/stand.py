"""A chat pod with its server over the in-memory store, a feed that follows the store, and doors and standings told by the test."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4, uuid5

import orjson
from websockets.asyncio.client import ClientConnection, connect

from eventstore.memory import MemoryStore
from eventstore.port import SHARDS
from gateways.chat.pod import Identity, Pod, Standing
from gateways.chat.server import ChatServer, Unauthenticated
from gateways.peers import Fronts
from tests.stores import memory_store

PATIENCE_S = 30
"""More than the time between two looks at the store of a room whose Kafka seems well."""
EXPIRES_AT = datetime(2100, 1, 1, tzinfo=UTC)
"""When everybody's token runs out."""
ROOM = "room"
ROOM_ID = "c-room"


def session_of(user: str) -> UUID:
    return uuid5(UUID(int=0), user)


class StoreFeed:
    """What Kafka does for a pod, done by the store: it may be stopped, as a broker may."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.pod: Pod | None = None
        self.healthy = True
        self.carries = asyncio.Event()
        self.carries.set()
        self._positions = dict.fromkeys(range(SHARDS), 0)

    async def watch(self, shard: int) -> None:
        return None

    def unwatch(self, shard: int) -> None:
        return None

    async def run(self) -> None:
        async for batch in self.store.subscribe(self._positions):
            await self.carries.wait()
            assert self.pod is not None
            await self.pod.deliver(batch)


@dataclass
class Door:
    """Everyone is who their bearer token says; `bad` is nobody."""

    rooms: dict[str, str] = field(default_factory=lambda: {ROOM: ROOM_ID})
    ended: set[UUID] = field(default_factory=set)

    async def identify(
        self, *, authorization: str | None, cookie: str | None, origin: str | None, host: str | None, ticket: str | None
    ) -> Identity | Unauthenticated | None:
        token = (authorization or "").removeprefix("Bearer ") or ticket
        if token == "bad":
            return Unauthenticated("token_invalid", "no good")
        return Identity(f"a-{token}", token, session_of(token), EXPIRES_AT) if token else None

    async def channel_id(self, name: str) -> str | None:
        return self.rooms.get(name)

    async def alive(self, sessions: Collection[UUID]) -> Collection[UUID]:
        return set(sessions) - self.ended


@dataclass
class Standings:
    of: dict[str, Standing] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    """Who was erased."""

    async def erased(self, usernames: Collection[str]) -> Collection[str]:
        return self.gone & set(usernames)

    async def standing(self, channel_id: str, account_id: str) -> Standing:
        return self.of.get(account_id, Standing())


@dataclass
class Stand:
    store: MemoryStore
    feed: StoreFeed
    standings: Standings
    pod: Pod
    port: int
    door: Door
    server: ChatServer
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    @asynccontextmanager
    async def join(
        self, user: str | None = None, *, after: int | None = None, room: str = ROOM, behind: str | None = None
    ) -> AsyncIterator["Viewer"]:
        """`behind`: the address that the front says it is for."""
        headers = {"Authorization": f"Bearer {user}"} if user else {}
        if behind:
            headers["X-Forwarded-For"] = behind
        query = "" if after is None else f"?after={after}"
        async with connect(f"ws://127.0.0.1:{self.port}/ws/chat/{room}{query}", additional_headers=headers) as socket:
            yield Viewer(socket)


@dataclass
class Viewer:
    socket: ClientConnection

    async def frame(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            frame: dict[str, Any] = orjson.loads(await self.socket.recv())
            return frame

    async def until(self, kind: str) -> dict[str, Any]:
        while (frame := await self.frame())["type"] != kind:
            pass
        return frame

    async def messages(self, count: int) -> list[dict[str, Any]]:
        """The next `count` messages, from however many frames."""
        items: list[dict[str, Any]] = []
        while len(items) < count:
            items += (await self.until("messages"))["items"]
        return items

    async def say(self, text: str, **fields: Any) -> None:
        await self.socket.send(orjson.dumps({"type": "message", "text": text, **fields}).decode())


@asynccontextmanager
async def chat_stand(store: MemoryStore | None = None, *, per_address_max: int = 0) -> AsyncIterator[Stand]:
    store = store or memory_store()
    feed, standings, door = StoreFeed(store), Standings(), Door()
    pod = Pod(store, feed, standings)
    feed.pod = pod
    server = ChatServer(
        pod, door, uuid4, fronts=Fronts("127.0.0.1"), per_address_max=per_address_max, clock=lambda: stand.now
    )
    port = await server.start("127.0.0.1", 0)
    stand = Stand(store, feed, standings, pod, port, door, server)
    tasks = [asyncio.create_task(part) for part in (feed.run(), pod.sweep(), server.watch_sessions())]
    try:
        yield stand
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.close()
