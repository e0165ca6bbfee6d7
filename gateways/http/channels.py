"""Channels, follows, stream keys, the live directory, categories, search and broadcasts."""

import secrets
from hashlib import sha256
from typing import Annotated, Any, Final
from uuid import uuid5

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field, StringConstraints

from commands.authorise import may_moderate
from commands.broadcasts import DeleteRecording, DescribeBroadcast, PublishRecording
from commands.channels import (
    ChangePlaybackRule,
    DescribeChannel,
    FollowChannel,
    OpenChannel,
    RotateStreamKey,
    UnfollowChannel,
)
from commands.context import Actor, Call
from gateways.errors import Problem
from gateways.http import answers
from gateways.http.answers import Broadcast, Channel, ChannelOpened, FoundChannel, Ingest, LiveChannel, Page, StreamKey
from gateways.http.base import (
    Api,
    ApiState,
    Body,
    CommandId,
    Cursor,
    Limit,
    Somebody,
    Whoever,
    after,
    channel_id_of,
    moment,
    page,
    perform,
    reading,
    small,
    text,
    whole,
)
from media.playback import PREFIX, TOKEN_S

routes = APIRouter(prefix="/api/v1", tags=["channels"])

STREAM_KEY_BYTES: Final = 32
_TEXT = r"^[^\x00-\x1f\x7f]*$"
Title = Annotated[str, StringConstraints(max_length=140, pattern=_TEXT)]
Category = Annotated[str, StringConstraints(max_length=60, pattern=_TEXT)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=25, pattern=_TEXT)]


class NewChannel(Body):
    name: Annotated[str, StringConstraints(max_length=64)]
    title: Title = ""
    category: Category = ""


class ChannelPatch(Body):
    title: Title | None = None
    category: Category | None = None
    tags: Annotated[tuple[Tag, ...], Field(max_length=10)] | None = None
    subscribers_only_playback: bool | None = None
    """Whether only subscribers may play what the channel shows."""


class BroadcastPatch(Body):
    title: Title | None = None
    category: Category | None = None
    published: bool | None = None
    """Whether its recording is shown."""


@routes.post("/channels", status_code=201, response_model=ChannelOpened)
async def open_channel(
    body: NewChannel, response: Response, state: ApiState, actor: Somebody, command_id: CommandId
) -> dict[str, Any]:
    done = await perform(state, response, Call(command_id, actor), OpenChannel(body.name, body.title, body.category))
    return dict(done.value)


_directory = Depends(reading("directory"))
_page = Depends(reading("channels", "follows", "subscriptions", "directory"))


@routes.get("/channels/live", dependencies=[_directory], response_model=Page[LiveChannel])
async def live(
    state: ApiState, limit: Limit, category: Category | None = None, cursor: Cursor = None
) -> dict[str, Any]:
    before = after(cursor, whole, text)
    rows = await state.read_models.live(category or None, (before[0], before[1]) if before else None, limit + 1)
    items = [
        {
            "channel": row["name"],
            "title": row["title"],
            "category": row["category"],
            "started_at": row["started_at"],
            "viewers": row["viewers"],
            "playback_url": f"/live/{row['name']}/index.m3u8",
            "broadcast_id": row["broadcast_id"],
        }
        for row in rows
    ]
    return page(items, limit, lambda item: [item["viewers"], item["broadcast_id"]])


@routes.get("/channels/{name}", dependencies=[_page], response_model=Channel, response_model_exclude_unset=True)
async def channel(name: str, state: ApiState, actor: Whoever) -> dict[str, Any]:
    channel_id = await channel_id_of(state, name)
    found = await state.read_models.channel(channel_id)
    if found is None:
        raise Problem("channel_not_found", "There is no such channel (yet).")
    shown = {key: value for key, value in found.items() if key != "owner_id"}
    if actor is not None:
        shown["following"] = await state.read_models.following(channel_id, actor.account_id) is not None
        shown["subscription"] = await state.read_models.subscription(channel_id, actor.account_id)
    return shown


@routes.patch("/channels/{name}", status_code=204)
async def describe(
    name: str, body: ChannelPatch, response: Response, state: ApiState, actor: Somebody, command_id: CommandId
) -> None:
    channel_id = await channel_id_of(state, name)
    if body.subscribers_only_playback is None or (body.title, body.category, body.tags) != (None, None, None):
        command = DescribeChannel(channel_id, body.title, body.category, body.tags)
        await perform(state, response, Call(command_id, actor), command)
    if body.subscribers_only_playback is not None:
        call = Call(uuid5(command_id, "playback"), actor)
        await perform(state, response, call, ChangePlaybackRule(channel_id, body.subscribers_only_playback))


@routes.post(
    "/channels/{name}/playback-token",
    dependencies=[Depends(reading("channels", "subscriptions"))],
    response_model=answers.PlaybackToken,
)
async def playback_token(name: str, response: Response, state: ApiState, actor: Whoever) -> dict[str, Any]:
    """What plays a channel that is for its subscribers alone, to those, and to who moderates or owns it: `prefix` stands before any media
    path of the channel. To everybody where the channel is for everybody."""
    channel_id = await channel_id_of(state, name)
    closed = await state.context.store.index_row("channels_closed", {"channel_id": channel_id}) is not None
    if closed and actor is None:
        raise Problem("unauthenticated", "Only subscribers of this channel may play it: log in.")
    if closed and actor is not None and not await _subscribes(state, channel_id, actor):
        raise Problem("subscription_required", "Only subscribers of this channel may play it.")
    token = state.playback.issue(
        channel_id, actor.account_id if actor else None, until_s=state.context.clock().timestamp() + TOKEN_S
    )
    response.headers["Cache-Control"] = "no-store"
    return {"token": token, "prefix": f"{PREFIX}/{token}", "expires_in": TOKEN_S}


async def _subscribes(state: Api, channel_id: str, actor: Actor) -> bool:
    if await may_moderate(state.context, channel_id, actor) is None:
        return True
    return await state.read_models.subscription(channel_id, actor.account_id) is not None


@routes.put("/channels/{name}/follow", status_code=204)
async def follow(name: str, response: Response, state: ApiState, actor: Somebody, command_id: CommandId) -> None:
    await perform(state, response, Call(command_id, actor), FollowChannel(await channel_id_of(state, name)))


@routes.delete("/channels/{name}/follow", status_code=204)
async def unfollow(name: str, response: Response, state: ApiState, actor: Somebody, command_id: CommandId) -> None:
    await perform(state, response, Call(command_id, actor), UnfollowChannel(await channel_id_of(state, name)))


@routes.post("/channels/{name}/stream-key", response_model=StreamKey)
async def stream_key(
    name: str, response: Response, state: ApiState, actor: Somebody, command_id: CommandId
) -> dict[str, Any]:
    """A new key; the old one stops working. It is told once and kept nowhere, so the same request sent again is a conflict."""
    key = f"tl_{secrets.token_urlsafe(STREAM_KEY_BYTES)}"
    command = RotateStreamKey(await channel_id_of(state, name), sha256(key.encode()).hexdigest())
    await perform(state, response, Call(command_id, actor), command)
    response.headers["Cache-Control"] = "no-store"
    srt = f"{state.srt_url}?streamid=publish:{key}" if state.srt_url else None
    return {"stream_key": key, "rtmp_url": state.rtmp_url, "srt_url": srt}


@routes.get("/ingests", response_model=Page[Ingest])
async def ingests(state: ApiState) -> dict[str, Any]:
    """Where to publish to, nearest first."""
    return {"items": [{"name": "default", "rtmp_url": state.rtmp_url, "srt_url": state.srt_url or None}], "next": None}


@routes.get("/categories", dependencies=[Depends(reading("categories"))], response_model=Page[answers.Category])
async def categories(state: ApiState, limit: Limit, cursor: Cursor = None) -> dict[str, Any]:
    start = after(cursor, text)
    names = await state.read_models.categories(start[0] if start else None, limit + 1)
    return page([{"name": name} for name in names], limit, lambda item: [item["name"]])


@routes.get("/search", dependencies=[Depends(reading("channels"))], response_model=Page[FoundChannel])
async def search(
    state: ApiState, limit: Limit, q: Annotated[str, Query(min_length=1, max_length=100)], cursor: Cursor = None
) -> dict[str, Any]:
    start = after(cursor, small, whole, text)
    rows = await state.read_models.search(
        q.replace("\x00", ""), (start[0], start[1], start[2]) if start else None, limit + 1
    )
    fields = ("name", "title", "category", "is_live", "current_viewers", "follower_count", "playback_url")
    items = [{"channel": row["name"]} | {field: row[field] for field in fields} for row in rows]
    return page(items, limit, lambda item: [int(not item["is_live"]), item["follower_count"], item["name"]])


@routes.get(
    "/channels/{name}/broadcasts", dependencies=[Depends(reading("broadcasts"))], response_model=Page[Broadcast]
)
async def broadcasts(name: str, state: ApiState, limit: Limit, cursor: Cursor = None) -> dict[str, Any]:
    before = after(cursor, moment, text)
    channel_id = await channel_id_of(state, name)
    rows = await state.read_models.broadcasts(channel_id, (before[0], before[1]) if before else None, limit + 1)
    return page(rows, limit, lambda row: [row["started_at"].isoformat(), row["id"]])


@routes.get("/broadcasts/{broadcast_id}", dependencies=[Depends(reading("broadcasts"))], response_model=Broadcast)
async def broadcast(broadcast_id: str, state: ApiState) -> dict[str, Any]:
    found = await state.read_models.broadcast(broadcast_id.replace("\x00", "?"))
    if found is None:
        raise Problem("broadcast_not_found", "There is no such broadcast.")
    return found


@routes.patch("/broadcasts/{broadcast_id}", status_code=204)
async def describe_broadcast(
    broadcast_id: str,
    body: BroadcastPatch,
    response: Response,
    state: ApiState,
    actor: Somebody,
    command_id: CommandId,
) -> None:
    """What the history calls it, live or ended; and whether its recording is shown."""
    broadcast_id = broadcast_id.replace("\x00", "?")[:64]
    if body.title is not None or body.category is not None or body.published is None:
        await perform(
            state, response, Call(command_id, actor), DescribeBroadcast(broadcast_id, body.title, body.category)
        )
    if body.published is not None:
        call = Call(uuid5(command_id, "published"), actor)
        await perform(state, response, call, PublishRecording(broadcast_id, body.published))


@routes.delete("/broadcasts/{broadcast_id}", status_code=204)
async def delete_broadcast(
    broadcast_id: str, response: Response, state: ApiState, actor: Somebody, command_id: CommandId
) -> None:
    """The recording is destroyed; the broadcast stays in the history, and its clips stay."""
    await perform(state, response, Call(command_id, actor), DeleteRecording(broadcast_id.replace("\x00", "?")[:64]))
