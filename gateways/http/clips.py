"""Clips of recordings and of what is on, and the chapters of a recording."""

import asyncio
import math
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Response
from pydantic import AwareDatetime, Field, model_validator

from commands.broadcasts import CreateClip, DeleteClip
from commands.context import Call
from gateways.errors import Problem
from gateways.http.answers import Chapter, Clip, ClipMade, Page
from gateways.http.base import (
    TIME_MAX,
    TIME_MIN,
    Api,
    ApiState,
    Body,
    CommandId,
    Cursor,
    Limit,
    Somebody,
    after,
    channel_id_of,
    moment,
    page,
    perform,
    reading,
    text,
)
from gateways.http.channels import Title
from media.webvtt import stamp

routes = APIRouter(prefix="/api/v1", tags=["clips"])

Seconds = Annotated[float, Field(ge=0, le=10_000_000, allow_inf_nan=False)]
Moment = Annotated[AwareDatetime, Field(ge=TIME_MIN, le=TIME_MAX)]
CLIP_ID_CHARS: Final = 32

_clips = Depends(reading("broadcasts"))
_timeline = Depends(reading("broadcasts", "recordings"))


class NewClip(Body):
    """From where to where: in seconds of the recording, or, of what is on, as the moments its playlists name."""

    start_s: Seconds | None = None
    end_s: Seconds | None = None
    start_at: Moment | None = None
    end_at: Moment | None = None
    title: Title = ""

    @model_validator(mode="after")
    def one_of_both(self) -> "NewClip":
        given = [it is not None for it in (self.start_s, self.end_s, self.start_at, self.end_at)]
        if given not in ([True, True, False, False], [False, False, True, True]):
            raise ValueError("start_s and end_s, or start_at and end_at")
        return self


@routes.post("/broadcasts/{broadcast_id}/clips", status_code=201, dependencies=[_timeline], response_model=ClipMade)
async def create_clip(
    broadcast_id: str, body: NewClip, response: Response, state: ApiState, actor: Somebody, command_id: CommandId
) -> dict[str, Any]:
    """Up to 60 s, playable at once; `download_url` is one MP4."""
    broadcast_id = broadcast_id.replace("\x00", "?")[:64]
    start_s, end_s = await _range(state, broadcast_id, body)
    command = CreateClip(broadcast_id, start_s, end_s, body.title)
    done = await perform(state, response, Call(command_id, actor), command)
    return {**done.value, **_addresses(str(done.value["id"])), "start_s": start_s, "end_s": end_s}


async def _range(state: Api, broadcast_id: str, body: NewClip) -> tuple[float, float]:
    if body.start_s is not None and body.end_s is not None:
        return body.start_s, body.end_s
    assert body.start_at is not None
    assert body.end_at is not None
    start_s, end_s = await asyncio.gather(
        *(state.read_models.offset_of(broadcast_id, at) for at in (body.start_at, body.end_at))
    )
    if start_s is None or end_s is None:
        raise Problem("broadcast_not_found", "There is no such broadcast.")
    return round(start_s, 3), round(end_s, 3)


@routes.get("/clips/{clip_id}", dependencies=[_clips], response_model=Clip)
async def clip(clip_id: str, state: ApiState) -> dict[str, Any]:
    return _shown(await _found(state, clip_id))


@routes.delete("/clips/{clip_id}", status_code=204, dependencies=[_clips])
async def delete_clip(
    clip_id: str, response: Response, state: ApiState, actor: Somebody, command_id: CommandId
) -> None:
    """Whoever took it, and whoever moderates the channel."""
    found = await _found(state, clip_id)
    await perform(state, response, Call(command_id, actor), DeleteClip(found["broadcast_id"], found["id"]))


@routes.get("/channels/{name}/clips", dependencies=[_clips], response_model=Page[Clip])
async def clips_of_channel(name: str, state: ApiState, limit: Limit, cursor: Cursor = None) -> dict[str, Any]:
    return await _list(state, limit, cursor, channel_id=await channel_id_of(state, name), broadcast_id=None)


@routes.get("/broadcasts/{broadcast_id}/clips", dependencies=[_clips], response_model=Page[Clip])
async def clips_of_broadcast(broadcast_id: str, state: ApiState, limit: Limit, cursor: Cursor = None) -> dict[str, Any]:
    return await _list(state, limit, cursor, channel_id=None, broadcast_id=broadcast_id.replace("\x00", "?"))


@routes.get("/broadcasts/{broadcast_id}/chapters", dependencies=[_timeline], response_model=Page[Chapter])
async def chapters(broadcast_id: str, state: ApiState) -> dict[str, Any]:
    """Where title or category changed, in seconds of the recording."""
    return {"items": await _chapters(state, broadcast_id), "next": None}


@routes.get(
    "/broadcasts/{broadcast_id}/chapters.vtt",
    dependencies=[_timeline],
    response_class=Response,
    responses={200: {"content": {"text/vtt": {"schema": {"type": "string"}}}}},
)
async def chapters_vtt(broadcast_id: str, state: ApiState) -> Response:
    """The same as WebVTT, for a player's `<track kind="chapters">`."""
    found = await _chapters(state, broadcast_id)
    ends = [it["start_s"] for it in found[1:]] + [math.inf]
    cues = [
        f"{stamp(it['start_s'])} --> {stamp(min(end, 359_999.0))}\n{_cue(it['title'] or 'Untitled', it['category'])}\n"
        for it, end in zip(found, ends, strict=True)
    ]
    return Response("\n".join(["WEBVTT\n", *cues]), media_type="text/vtt")


async def _chapters(state: Api, broadcast_id: str) -> list[dict[str, Any]]:
    broadcast_id = broadcast_id.replace("\x00", "?")
    if await state.read_models.broadcast(broadcast_id) is None:
        raise Problem("broadcast_not_found", "There is no such broadcast.")
    return await state.read_models.chapters(broadcast_id)


async def _found(state: Api, clip_id: str) -> dict[str, Any]:
    found = await state.read_models.clip(clip_id.replace("\x00", "?")[:CLIP_ID_CHARS])
    if found is None:
        raise Problem("clip_not_found", "There is no such clip.")
    return found


async def _list(state: Api, limit: int, cursor: str | None, **of: str | None) -> dict[str, Any]:
    before = after(cursor, moment, text)
    rows = await state.read_models.clips(**of, before=(before[0], before[1]) if before else None, limit=limit + 1)
    return page([_shown(row) for row in rows], limit, lambda row: [row["created_at"].isoformat(), row["id"]])


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return row | _addresses(row["id"]) | {"duration_s": round(row["end_s"] - row["start_s"], 3)}


def _addresses(clip_id: str) -> dict[str, str]:
    return {"playback_url": f"/clips/{clip_id}/index.m3u8", "download_url": f"/clips/{clip_id}/clip.mp4"}


def _cue(title: str, category: str) -> str:
    # WebVTT 4.2: a cue's text knows entities, and an arrow would begin another cue.
    told = f"{title} · {category}" if category else title
    return told.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
