"""What a handler is given and what it answers. Filled by `gateways.bootstrap`; tests fill it with a store in memory."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from domain.shared import Money
from eventstore.port import EventStore, Placed


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: a verified account and its platform-wide roles (`admin`, `finance`)."""

    account_id: str
    username: str
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Charged:
    provider_ref: str
    fee: Money


@dataclass(frozen=True, slots=True)
class Declined:
    code: str


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Nobody knows yet whether the money moved: ask again under the same payment id."""

    detail: str


class Provider(Protocol):
    """Takes money once for ever under a payment id; asked again, it answers what became of the first."""

    @property
    def name(self) -> str: ...

    async def charge(self, payment_id: str, amount: Money, method: str) -> Charged | Declined | Unsettled: ...

    async def settle(self, payment_id: str, amount: Money) -> Charged | Declined | Unsettled:
        """What became of a payment. One that was never charged is declined now and for ever: a charge that comes later finds that."""
        ...


@dataclass(frozen=True, slots=True)
class MessageRef:
    """A chat message's author."""

    author_id: str
    username: str


async def _no_message(channel_id: str, message_id: str) -> MessageRef | None:
    return None


@dataclass(frozen=True, slots=True)
class Context:
    """`find_message` looks into the chat log's read model for messages older than the tail of the room."""

    store: EventStore
    clock: Callable[[], datetime]
    provider: Provider
    find_message: Callable[[str, str], Awaitable[MessageRef | None]] = _no_message


@dataclass(frozen=True, slots=True)
class Call:
    """One command as it was sent: its id makes it safe to send again."""

    command_id: UUID
    actor: Actor | None = None
    correlation_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """It stands in the log. `value` is the handler's own answer, `placed` where to (none where nothing new was to be said)."""

    value: Mapping[str, Any] = field(default_factory=dict)
    placed: tuple[Placed, ...] = ()
