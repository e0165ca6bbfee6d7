"""What a channel's owner does with a broadcast of theirs: call it something else, delete its recording."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from commands.authorise import FORBIDDEN, may_own
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
