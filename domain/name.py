"""A name, claimed once for all: the stream `name-<normalised>` is the uniqueness of user and channel names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from domain.event import Category, Event
from domain.shared import Refusal


class NameClaimed(Event):
    """`use` tells what bears the name, `subject_id` which (an account or a channel). One account may claim both uses of a name."""

    TOPIC: ClassVar[str] = "name.NameClaimed"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    name: str
    use: Literal["account", "channel"]
    account_id: str
    subject_id: str


class NameReleased(Event):
    TOPIC: ClassVar[str] = "name.NameReleased"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    name: str
    use: Literal["account", "channel"]


def stream(name: str) -> str:
    return f"name-{name}"


@dataclass(frozen=True, slots=True)
class Claims:
    """Who holds a name, by use: account id and what bears it."""

    held: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def evolve(state: Claims, event: Event) -> Claims:
    match event:
        case NameClaimed():
            return Claims({**state.held, event.use: (event.account_id, event.subject_id)})
        case NameReleased():
            return Claims({use: by for use, by in state.held.items() if use != event.use})
        case _:
            return state


def claim(
    state: Claims, name: str, use: Literal["account", "channel"], *, account_id: str, subject_id: str
) -> Sequence[Event] | Refusal:
    """A use of a free name, or of one whose other use is the same account's."""
    if state.held.get(use) == (account_id, subject_id):
        return []
    if use in state.held or any(holder != account_id for holder, _ in state.held.values()):
        return Refusal("name_taken", "This name is taken.")
    return [NameClaimed(name=name, use=use, account_id=account_id, subject_id=subject_id)]
