"""Given events, when something is decided, then events or a refusal: the words of the domain's tests. Pure, as what they test is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Generic, TypeVar

from hypothesis import strategies as st

from domain.event import Event
from domain.shared import Refusal

State = TypeVar("State")
Decided = Sequence[Event] | Refusal


@dataclass(frozen=True, slots=True)
class Decide:
    """A decision of a domain module with all that it asks for but the state."""

    function: Callable[..., Decided]
    args: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, state: Any) -> Decided:
        return self.function(state, *self.args, **self.named)


def deciding(
    function: Callable[..., Decided], *args: st.SearchStrategy[Any], **named: st.SearchStrategy[Any]
) -> st.SearchStrategy[Decide]:
    """Decisions by this function, over whatever is drawn for it."""
    return st.builds(Decide, st.just(function), st.tuples(*args), st.fixed_dictionaries(named))


@dataclass(frozen=True, slots=True)
class Stream(Generic[State]):
    """A stream's state before its first event, and how each event changes it."""

    initial: State
    evolve: Callable[[State, Event], State]

    def given(self, *events: Event) -> State:
        return reduce(self.evolve, events, self.initial)

    def then(self, state: State, decided: Decided) -> State:
        """What a decision leaves: a refusal changes nothing."""
        return state if isinstance(decided, Refusal) else reduce(self.evolve, decided, state)

    def assert_deciding_again_says_nothing_new(self, steps: Iterable[Event | Decide]) -> None:
        """Each decision is made on what the steps before it left, and then once more on what it left itself."""
        state = self.initial
        for step in steps:
            if isinstance(step, Event):
                state = self.evolve(state, step)
                continue
            state = self.then(state, step(state))
            again = step(state)
            assert isinstance(again, Refusal) or not again, f"{step} said {again} anew"


def code(decided: Any) -> str:
    """The stable code of a refusal."""
    assert isinstance(decided, Refusal), decided
    return decided.code
