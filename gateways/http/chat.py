"""Chat over HTTP: history, replay by offset, and moderation."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field, StringConstraints

from commands.authorise import may_moderate
from commands.channels import AppointModerator, ChangeChatMode, RemoveModerator
from commands.context import Actor, Call
from commands.moderation import TIMEOUT_S_MAX, Ban, ClearChat, DeleteMessage, Unban
from domain.channel import ChatMode
from gateways.errors import Problem
from gateways.http import answers
from gateways.http.answers import BanMade, Message, ModerationEntry, Moderator, Page, ReplayedMessage
from gateways.http.base import (
    Api,
    ApiState,
    Body,
    CommandId,
    Cursor,
    Limit,
    Somebody,
    account_of,
    after,
    channel_id_of,
    moment,
    page,
    perform,
    reading,
    text,
    whole,
)

routes = APIRouter(prefix="/api/v1", tags=["chat"])

SLOW_S_MAX = 120
FOLLOWERS_ONLY_MIN_MAX = 3 * 30 * 24 * 60
HOURS_S_MAX = 30 * 86_400.0
_history = Depends(reading("chat_log", "accounts"))


class NewBan(Body):
    username: Annotated[str, StringConstraints(max_length=64)]
    duration_s: Annotated[int, Field(ge=1, le=TIMEOUT_S_MAX)] | None = None
    reason: Annotated[str, StringConstraints(max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$")] | None = None


class ChatModePatch(Body):
    """What is left out stays; `followers_only_min` null turns it off."""

    slow_s: Annotated[int, Field(ge=0, le=SLOW_S_MAX)] = 0
    followers_only_min: Annotated[int, Field(ge=0, le=FOLLOWERS_ONLY_MIN_MAX)] | None = None
    subscribers_only: bool = False
    emote_only: bool = False
    unique: bool = False


@routes.get("/channels/{name}/chat", dependencies=[_history], response_model=Page[Message])
async def history(
    name: str, state: ApiState, limit: Limit, after: Annotated[int, Query(ge=0, lt=2**62)] = 0, cursor: Cursor = None
) -> dict[str, Any]:
    """Messages after a position, oldest first, without what was removed or erased."""
    start = _position(cursor) if cursor is not None else after
    rows = await state.read_models.chat(await channel_id_of(state, name), start, limit + 1)
    return page(rows, limit, lambda row: [row["position"]])


@routes.get(
    "/broadcasts/{broadcast_id}/chat",
    dependencies=[_history, Depends(reading("recordings"))],
    response_model=Page[ReplayedMessage],
)
async def replay(
    broadcast_id: str,
    state: ApiState,
    limit: Limit,
    from_offset: Annotated[float, Query(ge=0, le=HOURS_S_MAX)] = 0.0,
    to_offset: Annotated[float, Query(ge=0, le=HOURS_S_MAX)] = HOURS_S_MAX,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """A recording's chat between two offsets in seconds, each message with the offset at which it was said."""
    wanted = broadcast_id.replace("\x00", "?")
    if await state.read_models.broadcast(wanted) is None:
        raise Problem("broadcast_not_found", "There is no such broadcast.")
    start = _position(cursor) if cursor is not None else 0
    rows = await state.read_models.replay(wanted, from_offset, to_offset, start, limit + 1)
    return page(rows, limit, lambda row: [row["position"]])


@routes.get("/channels/{name}/bans", dependencies=[Depends(reading("bans"))], response_model=Page[answers.Ban])
async def bans(name: str, state: ApiState, actor: Somebody, limit: Limit, cursor: Cursor = None) -> dict[str, Any]:
    """Bans and timeouts that hold now, newest first; for the channel's owner and moderators."""
    channel_id = await _moderated(name, state, actor)
    rows = await state.people.bans(channel_id, _position(cursor) if cursor is not None else None, limit + 1)
    return page(rows, limit, lambda row: [row["position"]])


@routes.get("/channels/{name}/moderators", dependencies=[Depends(reading("channels"))], response_model=Page[Moderator])
async def moderators(
    name: str, state: ApiState, actor: Somebody, limit: Limit, cursor: Cursor = None
) -> dict[str, Any]:
    """In the order they were appointed; for the channel's owner and moderators."""
    channel_id = await _moderated(name, state, actor)
    start = after(cursor, moment, text)
    rows = await state.people.moderators(channel_id, (start[0], start[1]) if start else None, limit + 1)
    return page(rows, limit, lambda row: [row["since"].isoformat(), row["username"]])


@routes.post("/channels/{name}/bans", status_code=201, response_model=BanMade)
async def ban(
    name: str, body: NewBan, response: Response, state: ApiState, actor: Somebody, command_id: CommandId
) -> dict[str, Any]:
    """For ever, or for `duration_s` seconds. Enforced on every pod from this commit on."""
    channel_id = await channel_id_of(state, name)
    account_id, username = await account_of(state, body.username)
    command = Ban(channel_id, account_id, username, body.duration_s, body.reason)
    done = await perform(state, response, Call(command_id, actor), command)
    return {"username": username, "until": done.value.get("until"), "reason": body.reason}


@routes.delete("/channels/{name}/bans/{username}", status_code=204)
async def unban(
    name: str, username: str, response: Response, state: ApiState, actor: Somebody, command_id: CommandId
) -> None:
    channel_id = await channel_id_of(state, name)
    account_id, plain = await account_of(state, username)
    await perform(state, response, Call(command_id, actor), Unban(channel_id, account_id, plain))


@routes.delete("/channels/{name}/chat", status_code=204)
async def clear_chat(name: str, response: Response, state: ApiState, actor: Somebody, command_id: CommandId) -> None:
    """Everything said so far vanishes, from screens and from the history."""
    await perform(state, response, Call(command_id, actor), ClearChat(await channel_id_of(state, name)))


@routes.delete("/channels/{name}/chat/{message_id}", status_code=204)
async def delete_message(
    name: str, message_id: str, response: Response, state: ApiState, actor: Somebody, command_id: CommandId
) -> None:
    command = DeleteMessage(await channel_id_of(state, name), message_id.replace("\x00", "?")[:64])
    await perform(state, response, Call(command_id, actor), command)


@routes.patch("/channels/{name}/chat-mode", response_model=ChatMode)
async def chat_mode(
    name: str, body: ChatModePatch, response: Response, state: ApiState, actor: Somebody, command_id: CommandId
) -> dict[str, Any]:
    channel_id = await channel_id_of(state, name)
    row = await state.context.store.index_row("chat_modes", {"channel_id": channel_id})
    current = {field: row[field] for field in ChatMode.model_fields} if row else {}
    mode = ChatMode(**(current | body.model_dump(exclude_unset=True)))
    await perform(state, response, Call(command_id, actor), ChangeChatMode(channel_id, mode))
    return mode.model_dump()


@routes.put("/channels/{name}/moderators/{username}", status_code=204)
async def appoint(
    name: str, username: str, response: Response, state: ApiState, actor: Somebody, command_id: CommandId
) -> None:
    command = AppointModerator(await channel_id_of(state, name), *await account_of(state, username))
    await perform(state, response, Call(command_id, actor), command)


@routes.delete("/channels/{name}/moderators/{username}", status_code=204)
async def remove(
    name: str, username: str, response: Response, state: ApiState, actor: Somebody, command_id: CommandId
) -> None:
    command = RemoveModerator(await channel_id_of(state, name), *await account_of(state, username))
    await perform(state, response, Call(command_id, actor), command)


@routes.get(
    "/channels/{name}/moderation-log",
    dependencies=[Depends(reading("moderation", "accounts"))],
    response_model=Page[ModerationEntry],
)
async def moderation_log(
    name: str, state: ApiState, actor: Somebody, limit: Limit, cursor: Cursor = None
) -> dict[str, Any]:
    """Who did what to whom, newest first; for the channel's owner and moderators."""
    channel_id = await _moderated(name, state, actor)
    before = _position(cursor) if cursor is not None else None
    rows = await state.read_models.moderation_log(channel_id, before, limit + 1)
    return page(rows, limit, lambda row: [row["position"]])


async def _moderated(name: str, state: Api, actor: Actor) -> str:
    """The id of a channel that this person moderates."""
    channel_id = await channel_id_of(state, name)
    if refusal := await may_moderate(state.context, channel_id, actor):
        raise Problem.of(refusal)
    return channel_id


def _position(cursor: str) -> int:
    values = after(cursor, whole)
    assert values is not None
    return int(values[0])
