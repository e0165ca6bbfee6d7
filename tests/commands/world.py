"""A world for command tests: a store in memory, a clock that the test turns, a provider that keeps count, and people in it."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from commands.accounts import GrantRole, RegisterAccount
from commands.bus import handle
from commands.channels import OpenChannel
from commands.context import Actor, Call, Charged, Context, Declined, Done, Unsettled
from domain.shared import Money, Refusal
from eventstore.memory import MemoryStore
from eventstore.port import EventStore
from tests.stores import memory_store


@dataclass
class CountingProvider:
    """Charges once per payment id, as a real one does; `answers` says what becomes of the next ones."""

    name: str = "sandbox"
    charged: dict[str, Charged] = field(default_factory=dict)
    answers: list[Declined | Unsettled] = field(default_factory=list)

    async def charge(self, payment_id: str, amount: Money, method: str) -> Charged | Declined | Unsettled:
        await asyncio.sleep(0)
        if self.answers:
            return self.answers.pop(0)
        fee = Money(amount_minor=45, currency=amount.currency)
        return self.charged.setdefault(payment_id, Charged(f"ch_{len(self.charged)}", fee))

    async def settle(self, payment_id: str, amount: Money) -> Charged | Declined | Unsettled:
        return self.charged.get(payment_id) or Declined("never_charged")


class World:
    def __init__(self, store: EventStore | None = None) -> None:
        self.now = datetime(2026, 5, 1, tzinfo=UTC)
        self.provider = CountingProvider()
        self.store = store or memory_store(clock=lambda: self.now)
        self.context = Context(self.store, lambda: self.now, self.provider)

    def later(self, **span: float) -> None:
        self.now += timedelta(**span)

    async def do(self, command: Any, actor: Actor | None = None, *, call: Call | None = None) -> Done | Refusal:
        return await handle(self.context, call or Call(uuid4(), actor), command)

    async def done(self, command: Any, actor: Actor | None = None) -> Done:
        outcome = await self.do(command, actor)
        assert isinstance(outcome, Done), outcome
        return outcome

    async def refused(self, command: Any, actor: Actor | None = None) -> str:
        outcome = await self.do(command, actor)
        assert isinstance(outcome, Refusal), outcome
        return outcome.code

    async def account(self, username: str, *roles: str) -> Actor:
        done = await self.done(RegisterAccount(username, "hash"))
        account_id = done.value["account_id"]
        for role in roles:
            await self.done(GrantRole(account_id, role, trusted=True))
        return Actor(account_id, username, frozenset(roles))

    async def channel(self, name: str) -> tuple[str, Actor]:
        owner = await self.account(name)
        done = await self.done(OpenChannel(name, title="first", category="Art"), owner)
        return done.value["channel_id"], owner

    def open_payments(self) -> list[str]:
        """Payments without an outcome, as the index of the store in memory has them."""
        assert isinstance(self.store, MemoryStore)
        return [payment_id for (payment_id,) in self.store._index["payments_open"]]

    async def events(self, stream: str) -> list[Any]:
        return [recorded.event for recorded in await self.store.read_stream(stream)]
