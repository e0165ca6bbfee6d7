"""Stream health for the broadcaster: asked for once, or sent every second as server-sent events (HTML Standard, 9.2)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Depends
from starlette.responses import StreamingResponse

from gateways.errors import Problem
from gateways.http.answers import StreamHealthNow
from gateways.http.base import Api, ApiState, Somebody, channel_id_of, reading

routes = APIRouter(prefix="/api/v1", tags=["channels"])

EVERY_S: Final = 1.0
FEED_S_MAX: Final = 600.0
"""Then it ends, and a browser asks again by itself: with a token that is good still."""
FEEDS_MAX: Final = 500

_feeds = 0


async def own_channel(name: str, state: ApiState, actor: Somebody) -> str:
    """Whose stream it is may see how it is doing, and an admin."""
    channel_id = await channel_id_of(state, name)
    channel = await state.read_models.channel(channel_id)
    if channel is None:
        raise Problem("channel_not_found", "There is no such channel (yet).")
    if channel["owner_id"] != actor.account_id and "admin" not in actor.roles:
        raise Problem("forbidden", "Only the broadcaster sees this.")
    return channel_id


OwnChannel = Annotated[str, Depends(own_channel)]


# Described and not judged: while releases change over, a media node of another one says what it does.
@routes.get(
    "/channels/{name}/stream-health",
    dependencies=[Depends(reading("channels"))],
    response_model=None,
    responses={200: {"model": StreamHealthNow}},
)
async def stream_health(channel_id: OwnChannel, state: ApiState) -> dict[str, Any]:
    """Bitrate, frames, key frames, the renditions and advice; null while nothing is on air."""
    return {"broadcast": await state.stream_health(channel_id)}


@routes.get(
    "/channels/{name}/stream-health/feed",
    dependencies=[Depends(reading("channels"))],
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def feed(channel_id: OwnChannel, state: ApiState) -> StreamingResponse:
    """The same each second, as events of the type `health`."""
    if _feeds >= FEEDS_MAX:
        raise Problem("unavailable", "Too many are looking at their streams' health; please try again.")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(state, channel_id), media_type="text/event-stream", headers=headers)


async def _events(state: Api, channel_id: str) -> AsyncIterator[bytes]:
    global _feeds
    _feeds += 1
    try:
        async with asyncio.timeout(FEED_S_MAX):
            while True:
                yield b"event: health\ndata: " + orjson.dumps(await state.stream_health(channel_id)) + b"\n\n"
                await asyncio.sleep(EVERY_S)
    except TimeoutError:
        return
    finally:
        _feeds -= 1
