"""The pages in front of a small world that a test writes: the API's answers and the chat's frames, at the HTTP boundary.

What the real API and chat answer is tested beside them, and with these pages in tests/e2e.
"""

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateways.chat import frames
from gateways.web import pages

Json = dict[str, Any]
HTTP_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
NOW = datetime.now(UTC)
MODE: Json = {
    "slow_s": 0,
    "followers_only_min": None,
    "subscribers_only": False,
    "emote_only": False,
    "unique": False,
}


@dataclass
class World:
    """`answers` by "METHOD /path": a value, or a status and a value. `asked` is what pages asked for."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    headers: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    sent_headers: dict[str, dict[str, str]] = field(default_factory=dict)
    media: Path | None = None
    tokens: list[str] = field(default_factory=list)
    """Of each request for media that had one; `ended` are those that are good no more."""
    ended: set[str] = field(default_factory=set)
    user: str | None = None
    badges: list[str] = field(default_factory=list)
    history: deque[Json] = field(default_factory=deque)
    received: asyncio.Queue[Json] = field(default_factory=asyncio.Queue)
    joined: asyncio.Queue[dict[str, str]] = field(default_factory=asyncio.Queue)
    viewers: list[str] = field(default_factory=list)
    members: list[WebSocket] = field(default_factory=list)
    url: str = ""

    def asked_for(self, method: str, path: str) -> list[Any]:
        """Bodies of the requests of a kind, in order."""
        return [body for one, where, body in self.asked if (one, where) == (method, path)]

    async def say(self, *sent: Json) -> None:
        """Chat frames to everybody who is connected."""
        for member in list(self.members):
            for frame in sent:
                await member.send_text(frames.encode(frame).decode())

    async def drop(self, code: int = 1012) -> None:
        for member in list(self.members):
            self.members.remove(member)
            await member.close(code)


def item(position: int, user: str, text: str, **more: Any) -> Json:
    at = (NOW + timedelta(seconds=position)).isoformat()
    return {"id": f"m{position}", "position": position, "user": user, "text": text, "badges": [], "at": at} | more


def problem(status: int, code: str, detail: str) -> tuple[int, Json]:
    return status, {"type": "about:blank", "title": "No", "status": status, "code": code, "detail": detail}


def application(world: World) -> Starlette:
    async def api(request: Request) -> Response:
        raw = await request.body()
        body = await request.json() if raw else None
        world.asked.append((request.method, request.url.path, body))
        world.headers.append((request.url.path, dict(request.headers)))
        answer = world.answers.get(f"{request.method} {request.url.path}")
        if callable(answer) and not isinstance(answer, Response):
            answer = answer(request)
        if answer is None:
            answer = problem(404, "not_found", "There is nothing here.")
        if isinstance(answer, Response):
            return answer
        status, value = answer if isinstance(answer, tuple) else (200, answer)
        extra = world.sent_headers.get(f"{request.method} {request.url.path}")
        if status == 204:
            return Response(status_code=204, headers=extra)
        return JSONResponse(value, status, extra)

    async def media(request: Request) -> Response:
        path = (world.media or Path("/none")) / request.path_params["path"]
        if not path.is_file():
            return Response(status_code=404)
        return FileResponse(path, headers={"Cache-Control": "no-cache"})

    async def with_token(request: Request) -> Response:
        token = request.path_params["token"]
        world.tokens.append(token)
        return Response(status_code=401) if token in world.ended else await media(request)

    async def chat(member: WebSocket) -> None:
        query = dict(member.query_params)
        await member.accept()
        position = world.history[-1]["position"] if world.history else 0
        channel = member.path_params["channel"]
        first = frames.welcome(room=channel, position=position, user=world.user, badges=world.badges, mode=MODE)
        await member.send_text(frames.encode(first).decode())
        missed = [one for one in world.history if one["position"] > int(query.get("after", "0"))]
        if missed:
            await member.send_text(frames.encode(frames.messages(missed)).decode())
        world.members.append(member)
        world.viewers.append(query.pop("viewer"))
        world.joined.put_nowait(query)
        try:
            while True:
                world.received.put_nowait(await member.receive_json())
        except (WebSocketDisconnect, RuntimeError):
            if member in world.members:
                world.members.remove(member)

    return Starlette(
        routes=[
            Route("/api/{path:path}", api, methods=HTTP_METHODS),
            Route("/live/{path:path}", media),
            Route("/vod/{path:path}", media),
            Route("/play/{token}/{folder}/{path:path}", with_token),
            WebSocketRoute("/ws/chat/{channel}", chat),
            *pages.routes,
        ]
    )


@asynccontextmanager
async def serving(world: World) -> AsyncIterator[World]:
    # Listening before the server starts: whoever comes early waits in the backlog.
    listening = socket.create_server(("127.0.0.1", 0))
    world.url = f"http://localhost:{listening.getsockname()[1]}"
    config = uvicorn.Config(application(world), log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield world
    finally:
        await world.drop()
        server.should_exit = True
        await task
