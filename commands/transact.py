"""Load, decide, append: the one conflict loop. A decision that met another's is made again on what that one left.

Called by every handler that decides on a stream's state. Answers with values; only a store that is away raises.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from commands.context import Call, Context, Done
from domain.event import Event
from domain.shared import Refusal
from eventstore.port import Append, Appended, Duplicate, IndexWrite, Refused, StreamWrite, WrongVersion

ATTEMPTS_MAX: Final = 16
PAGE: Final = 1000
CONFLICT: Final = Refusal("conflict", "Others changed this at the same time; please try again.", retryable=True)

State = TypeVar("State")


async def load(
    context: Context, stream: str, initial: State, evolve: Callable[[State, Event], State]
) -> tuple[State, int]:
    """A stream's state and version."""
    state, version = initial, 0
    while events := await context.store.read_stream(stream, after=version, limit=PAGE):
        for recorded in events:
            state = evolve(state, recorded.event)
        version = events[-1].version
        if len(events) < PAGE:
            break
    return state, version


async def transact(
    context: Context,
    call: Call,
    *,
    stream: str,
    key: str,
    initial: State,
    evolve: Callable[[State, Event], State],
    decide: Callable[[State], Sequence[Event] | Refusal],
    index: Callable[[State], Sequence[IndexWrite]] = lambda _: (),
) -> Done | Refusal:
    """Decide on one stream. Nothing to say is `Done` without a place; `index` sees the state that the decision saw."""
    for _ in range(ATTEMPTS_MAX):
        state, version = await load(context, stream, initial, evolve)
        decided = decide(state)
        if isinstance(decided, Refusal):
            return decided
        if not decided:
            return Done()
        outcome = await append(context, call, [StreamWrite(stream, key, decided, version)], index(state))
        if not isinstance(outcome, WrongVersion):
            return outcome
    return CONFLICT


async def append(
    context: Context, call: Call, writes: Sequence[StreamWrite], index: Sequence[IndexWrite] = ()
) -> Done | WrongVersion:
    """One attempt. A command that had been sent before is done as it was then."""
    outcome = await context.store.append(
        Append(
            command_id=call.command_id,
            writes=writes,
            index=index,
            actor=call.actor.account_id if call.actor else None,
            correlation_id=call.correlation_id,
        )
    )
    match outcome:
        case Appended(placed=placed) | Duplicate(of=Appended(placed=placed)):
            return Done(placed=placed)
        case WrongVersion():
            return outcome
        case Refused() | Duplicate():
            raise AssertionError(f"{call.command_id} was a chat message before it was a command")
