"""What is done with a broadcast: its owner calls it something else, shows, hides or deletes its recording; viewers take clips of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from commands.authorise import FORBIDDEN, may_moderate, may_own
from commands.context import Call, Context, Done
from commands.transact import load, transact
from domain import broadcast
from domain.event import Event
from domain.shared import Refusal


@dataclass(frozen=True, slots=True)
class DescribeBroadcast:
    """What is None stays."""

    broadcast_id: str
    title: str | None = None
    category: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteRecording:
    broadcast_id: str


@dataclass(frozen=True, slots=True)
class PublishRecording:
    """To everybody, or to nobody."""

    broadcast_id: str
    published: bool


@dataclass(frozen=True, slots=True)
class CreateClip:
    """In seconds of the recording. The clip's id is the command's."""

    broadcast_id: str
    start_s: float
    end_s: float
    title: str = ""


@dataclass(frozen=True, slots=True)
class DeleteClip:
    broadcast_id: str
    clip_id: str


async def describe(context: Context, call: Call, command: DescribeBroadcast) -> Done | Refusal:
    return await _own(
        context,
        call,
        command.broadcast_id,
        lambda state: broadcast.describe(state, command.broadcast_id, title=command.title, category=command.category),
    )


async def delete_recording(context: Context, call: Call, command: DeleteRecording) -> Done | Refusal:
    """The fact; whoever keeps the media follows it."""
    return await _own(
        context, call, command.broadcast_id, lambda state: broadcast.delete_recording(state, command.broadcast_id)
    )


async def publish(context: Context, call: Call, command: PublishRecording) -> Done | Refusal:
    return await _own(
        context,
        call,
        command.broadcast_id,
        lambda state: broadcast.publish(state, command.broadcast_id, published=command.published),
    )


async def create_clip(context: Context, call: Call, command: CreateClip) -> Done | Refusal:
    """Anybody who is logged in and not banned from the channel's chat."""
    actor = call.actor
    if actor is None:
        return FORBIDDEN
    clip_id = call.command_id.hex
    stream = broadcast.stream(command.broadcast_id)
    state, _ = await load(context, stream, broadcast.Broadcast(), broadcast.evolve)
    if state.channel_id and await _banned(context, state.channel_id, actor.account_id):
        return Refusal("banned", "You are banned from this channel.")
    outcome = await transact(
        context,
        call,
        stream=stream,
        key=state.channel_id,
        initial=broadcast.Broadcast(),
        evolve=broadcast.evolve,
        decide=lambda state: broadcast.create_clip(
            state,
            command.broadcast_id,
            clip_id=clip_id,
            created_by=actor.account_id,
            title=command.title,
            start_s=command.start_s,
            end_s=command.end_s,
            now=context.clock(),
        ),
    )
    return outcome if isinstance(outcome, Refusal) else replace(outcome, value={"id": clip_id})


async def delete_clip(context: Context, call: Call, command: DeleteClip) -> Done | Refusal:
    """Whose it is, and whoever moderates the channel."""
    actor = call.actor
    stream = broadcast.stream(command.broadcast_id)
    state, _ = await load(context, stream, broadcast.Broadcast(), broadcast.evolve)
    if actor is None:
        return FORBIDDEN
    if state.clips.get(command.clip_id) not in (None, actor.account_id) and await may_moderate(
        context, state.channel_id, actor
    ):
        return FORBIDDEN
    return await transact(
        context,
        call,
        stream=stream,
        key=state.channel_id,
        initial=broadcast.Broadcast(),
        evolve=broadcast.evolve,
        decide=lambda state: broadcast.delete_clip(state, command.broadcast_id, command.clip_id),
    )


async def _banned(context: Context, channel_id: str, account_id: str) -> bool:
    row = await context.store.index_row("chat_bans", {"channel_id": channel_id, "account_id": account_id})
    return row is not None and (row["until"] is None or row["until"] > context.clock())


async def _own(
    context: Context,
    call: Call,
    broadcast_id: str,
    decide: Callable[[broadcast.Broadcast], Sequence[Event] | Refusal],
) -> Done | Refusal:
    """Decide on a broadcast of a channel that is the caller's."""
    stream = broadcast.stream(broadcast_id)
    state, _ = await load(context, stream, broadcast.Broadcast(), broadcast.evolve)
    if state.channel_id and (call.actor is None or await may_own(context, state.channel_id, call.actor)):
        return FORBIDDEN
    return await transact(
        context,
        call,
        stream=stream,
        key=state.channel_id,
        initial=broadcast.Broadcast(),
        evolve=broadcast.evolve,
        decide=decide,
    )
