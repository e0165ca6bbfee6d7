"""Bans, timeouts, deletions and clears: each a fact of the room with the row that admission reads, in one commit.

The room's stream is appended to without loading it. What makes sending again harmless is the row (a ban that stands is not said twice) or
the command's id (a deletion's is made of its message).
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

from commands.authorise import FORBIDDEN, may_moderate, role_in
from commands.context import Actor, Call, Context, Done, MessageRef
from commands.transact import CONFLICT, append
from domain import chat
from domain.event import Event
from domain.shared import Refusal
from eventstore.port import IndexWrite, StreamWrite, WrongVersion

TIMEOUT_S_MAX = 14 * 86_400
TAIL = 500
_DELETIONS = UUID("0f0f6b0e-7a5b-5a0c-8a51-1c8fd3d1a7c4")


@dataclass(frozen=True, slots=True)
class Ban:
    """`duration_s` None: for ever; else a timeout."""

    channel_id: str
    account_id: str
    username: str
    duration_s: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Unban:
    channel_id: str
    account_id: str
    username: str


@dataclass(frozen=True, slots=True)
class DeleteMessage:
    channel_id: str
    message_id: str


@dataclass(frozen=True, slots=True)
class ClearChat:
    channel_id: str


async def ban(context: Context, call: Call, command: Ban) -> Done | Refusal:
    actor = call.actor
    if actor is None or await may_moderate(context, command.channel_id, actor):
        return FORBIDDEN
    if command.account_id == actor.account_id:
        return Refusal("cannot_ban_self", "One does not ban oneself.")
    if refusal := await _protected(context, command, actor):
        return refusal
    if command.duration_s is not None and not 1 <= command.duration_s <= TIMEOUT_S_MAX:
        return Refusal("duration_invalid", f"A timeout lasts 1 to {TIMEOUT_S_MAX} seconds.")
    key = {"channel_id": command.channel_id, "account_id": command.account_id}
    row = await context.store.index_row("chat_bans", key)
    if row is not None and row["until"] is None and command.duration_s is None:
        return Done({"until": None})
    who: dict[str, Any] = {
        "channel_id": command.channel_id,
        "account_id": command.account_id,
        "username": command.username,
        "reason": command.reason,
        "moderator_id": actor.account_id,
        "moderator": actor.username,
    }
    if command.duration_s is None:
        until = None
        event: Event = chat.UserBanned(**who)
    else:
        until = context.clock() + timedelta(seconds=command.duration_s)
        event = chat.UserTimedOut(**who, until=until, duration_s=command.duration_s)
    done = await _say(context, call, command.channel_id, event, [IndexWrite("chat_bans", key, {"until": until})])
    return done if isinstance(done, Refusal) else Done({"until": until}, done.placed)


async def unban(context: Context, call: Call, command: Unban) -> Done | Refusal:
    actor = call.actor
    if actor is None or await may_moderate(context, command.channel_id, actor):
        return FORBIDDEN
    key = {"channel_id": command.channel_id, "account_id": command.account_id}
    if await context.store.index_row("chat_bans", key) is None:
        return Done()
    event = chat.UserUnbanned(
        channel_id=command.channel_id,
        account_id=command.account_id,
        username=command.username,
        moderator_id=actor.account_id,
        moderator=actor.username,
    )
    return await _say(context, call, command.channel_id, event, [IndexWrite("chat_bans", key, None)])


async def delete_message(context: Context, call: Call, command: DeleteMessage) -> Done | Refusal:
    actor = call.actor
    if actor is None or await may_moderate(context, command.channel_id, actor):
        return FORBIDDEN
    found = await _find(context, command)
    if found is None:
        return Refusal("message_not_found", "There is no such message in this room.", retryable=True)
    event = chat.MessageDeleted(
        channel_id=command.channel_id,
        message_id=command.message_id,
        author_id=found.author_id,
        username=found.username,
        moderator_id=actor.account_id,
        moderator=actor.username,
    )
    once = Call(uuid5(_DELETIONS, f"{command.channel_id}:{command.message_id}"), actor, call.correlation_id)
    return await _say(context, once, command.channel_id, event)


async def clear_chat(context: Context, call: Call, command: ClearChat) -> Done | Refusal:
    actor = call.actor
    if actor is None or await may_moderate(context, command.channel_id, actor):
        return FORBIDDEN
    event = chat.ChatCleared(channel_id=command.channel_id, moderator_id=actor.account_id, moderator=actor.username)
    return await _say(context, call, command.channel_id, event)


async def _protected(context: Context, command: Ban, actor: Actor) -> Refusal | None:
    target = await role_in(context, command.channel_id, command.account_id)
    if target == "owner":
        return Refusal("cannot_ban_owner", "The owner of a channel cannot be banned from it.")
    if target == "moderator" and "admin" not in actor.roles:
        own = await role_in(context, command.channel_id, actor.account_id)
        if own != "owner":
            return Refusal("cannot_ban_moderator", "Only the owner of a channel may ban its moderators.")
    return None


async def _find(context: Context, command: DeleteMessage) -> MessageRef | None:
    """A message just seen stands in the room's tail; an older one in the chat log."""
    for recorded in reversed(await context.store.read_stream_tail(chat.stream(command.channel_id), limit=TAIL)):
        event = recorded.event
        if isinstance(event, chat.MessagePosted) and event.message_id == command.message_id:
            return MessageRef(event.author_id, event.username)
    return await context.find_message(command.channel_id, command.message_id)


async def _say(
    context: Context, call: Call, channel_id: str, event: Event, index: list[IndexWrite] | None = None
) -> Done | Refusal:
    outcome = await append(context, call, [StreamWrite(chat.stream(channel_id), channel_id, [event])], index or [])
    return CONFLICT if isinstance(outcome, WrongVersion) else outcome
