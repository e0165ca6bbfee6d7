"""A name, claimed once for all: the stream `name-<normalised>` is the uniqueness of user and channel names."""

from typing import ClassVar, Literal

from domain.event import Category, Event


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
