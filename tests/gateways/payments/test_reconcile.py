"""Payments whose process died or whose answer was lost, against the real sandbox and a real Postgres: nothing twice, nothing lost."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from commands.accounts import RegisterAccount
from commands.bus import handle
from commands.channels import OpenChannel
from commands.context import Actor, Call, Charged, Context, Declined, Done, Unsettled
from commands.money import Subscribe
from domain import payment, subscription
from domain.payment import PaymentCaptured, PaymentFailed, PaymentRequested
from domain.shared import Money, Refusal
from eventstore.port import SHARDS
from eventstore.postgres import PostgresStore
from gateways.payments.reconcile import LOCK, Reconciler
from gateways.payments.sandbox import Charges, build
from gateways.payments.sandbox_client import SandboxProvider
from tests.stores_postgres import postgres_store


class Killed(BaseException):
    """The process is gone at this very point."""


class Wire(httpx.AsyncBaseTransport):
    """The way to the provider; `lose` says where it breaks: before the request arrives, or before its answer does."""

    def __init__(self, provider: httpx.ASGITransport) -> None:
        self._provider = provider
        self.lose: str | None = None
        self.fault: BaseException = httpx.ReadError("gone")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.lose == "request":
            raise self.fault
        response = await self._provider.handle_async_request(request)
        if self.lose == "answer":
            raise self.fault
        return response


@dataclass
class Till:
    context: Context
    store: PostgresStore
    pool: Any
    charges: Charges
    wire: Wire
    channel_id: str

    async def buyer(self) -> Actor:
        name = f"bob_{uuid4().hex[:6]}"
        done = await handle(self.context, Call(uuid4()), RegisterAccount(name, "hash"))
        assert isinstance(done, Done)
        return Actor(done.value["account_id"], name)

    async def open(self) -> list[str]:
        return [row[0] for row in await self.pool.fetch("SELECT payment_id FROM payments_open ORDER BY requested_at")]

    async def events(self, stream: str) -> list[type]:
        return [type(recorded.event) for recorded in await self.store.read_stream(stream)]

    def reconciler(self, *, later_s: float = 60) -> Reconciler:
        later = replace(self.context, clock=lambda: datetime.now(UTC) + timedelta(seconds=later_s))
        return Reconciler(self.pool, later)


@pytest.fixture
async def till(database: str, keys_database: str, tmp_path: Path) -> AsyncIterator[Till]:
    charges = Charges(tmp_path / "charges.sqlite")
    wire = Wire(httpx.ASGITransport(build(charges, "secret")))
    async with (
        postgres_store(database, keys_database) as store,
        asyncpg.create_pool(database, min_size=1, max_size=4) as pool,
        httpx.AsyncClient(transport=wire, base_url="http://sandbox") as client,
    ):
        context = Context(store, lambda: datetime.now(UTC), SandboxProvider(client, "secret"))
        owner = Actor(str(uuid4()), "ann")
        opened = await handle(context, Call(uuid4(), owner), OpenChannel("ann"))
        assert isinstance(opened, Done)
        yield Till(context, store, pool, charges, wire, opened.value["channel_id"])
    charges.close()


@pytest.mark.parametrize("fault", [Killed(), httpx.ReadError("gone")], ids=["killed", "cut off"])
async def test_a_charge_whose_answer_nobody_heard_is_captured_once_and_buys_what_it_paid_for(
    till: Till, fault: BaseException
) -> None:
    bob = await till.buyer()
    till.wire.lose, till.wire.fault = "answer", fault
    purchase = Call(uuid4(), bob)
    try:
        unsettled = await handle(till.context, purchase, Subscribe(till.channel_id, 2))
        assert isinstance(unsettled, Refusal)
        assert unsettled.code == "payment_unsettled"
    except Killed:
        pass
    (payment_id,) = await till.open()
    assert await till.events(payment.stream(payment_id)) == [PaymentRequested]
    till.wire.lose = None
    assert await till.reconciler(later_s=0).settle_due() == {}, "too young: somebody may still wait for it"
    assert await till.reconciler().settle_due() == {"captured": 1}
    assert await till.events(payment.stream(payment_id)) == [PaymentRequested, PaymentCaptured]
    started = (await till.store.read_stream(subscription.stream(till.channel_id, bob.account_id)))[0].event
    assert (started.payment_id, started.username, started.tier) == (payment_id, bob.username, 2)
    assert await till.charges.count() == 1
    assert await till.open() == []
    assert await till.reconciler().settle_due() == {}
    again = await handle(till.context, purchase, Subscribe(till.channel_id, 2))
    assert isinstance(again, Done)
    assert again.value["payment_id"] == payment_id
    assert await till.charges.count() == 1


async def test_a_request_that_never_arrived_fails_and_what_arrives_after_that_moves_nothing(till: Till) -> None:
    bob = await till.buyer()
    till.wire.lose, till.wire.fault = "request", Killed()
    with pytest.raises(Killed):
        await handle(till.context, Call(uuid4(), bob), Subscribe(till.channel_id, 1))
    till.wire.lose = None
    (payment_id,) = await till.open()
    assert await till.reconciler().settle_due() == {"failed": 1}
    assert await till.events(payment.stream(payment_id)) == [PaymentRequested, PaymentFailed]
    late = await till.context.provider.charge(payment_id, subscription.PRICES[1], "pm_ok")
    assert late == Declined("never_charged")
    assert await till.charges.count() == 0
    done = await handle(till.context, Call(uuid4(), bob), Subscribe(till.channel_id, 1))
    assert isinstance(done, Done)
    assert await till.charges.count() == 1


async def test_a_provider_that_is_away_leaves_the_payment_for_the_next_pass(till: Till) -> None:
    bob = await till.buyer()
    till.wire.lose = "answer"
    await handle(till.context, Call(uuid4(), bob), Subscribe(till.channel_id, 1))
    assert await till.reconciler().settle_due() == {"unsettled": 1}
    assert len(await till.open()) == 1
    till.wire.lose = None
    assert await till.reconciler().settle_due() == {"captured": 1}


async def test_reconciling_while_the_buyer_tries_again_charges_once_and_starts_once(till: Till) -> None:
    buyers = [await till.buyer() for _ in range(6)]
    till.wire.lose = "answer"
    await asyncio.gather(*(handle(till.context, Call(uuid4(), bob), Subscribe(till.channel_id, 1)) for bob in buyers))
    till.wire.lose = None
    again = [handle(till.context, Call(uuid4(), bob), Subscribe(till.channel_id, 1)) for bob in buyers]
    await asyncio.gather(till.reconciler().settle_due(), *again, till.reconciler().settle_due())
    await till.reconciler().settle_due()
    assert await till.charges.count() == len(buyers)
    assert await till.open() == []
    for bob in buyers:
        assert len(await till.events(subscription.stream(till.channel_id, bob.account_id))) == 1


async def test_one_pod_at_a_time_reconciles(till: Till) -> None:
    async with till.pool.acquire() as other:
        await other.execute("SELECT pg_advisory_lock($1)", LOCK)
        assert await till.reconciler().settle_due() is None
        await other.execute("SELECT pg_advisory_unlock($1)", LOCK)
    assert await till.reconciler().settle_due() == {}


async def test_a_payment_that_cannot_be_recorded_keeps_no_other_waiting(till: Till) -> None:
    class Odd:
        name = "sandbox"

        async def charge(self, payment_id: str, amount: Money, method: str) -> Charged | Declined | Unsettled:
            return await till.context.provider.charge(payment_id, amount, method)

        async def settle(self, payment_id: str, amount: Money) -> Charged | Declined | Unsettled:
            if payment_id == first:
                raise ValueError("an answer that nobody understands")
            return await till.context.provider.settle(payment_id, amount)

    till.wire.lose = "answer"
    for bob in [await till.buyer() for _ in range(3)]:
        await handle(till.context, Call(uuid4(), bob), Subscribe(till.channel_id, 1))
    till.wire.lose = None
    first, *_ = await till.open()
    later = replace(till.context, provider=Odd(), clock=lambda: datetime.now(UTC) + timedelta(seconds=60))
    assert await Reconciler(till.pool, later).settle_due() == {"unsettled": 1, "captured": 2}
    assert await till.open() == [first]


async def test_the_task_settles_by_itself_and_outlives_a_pass_that_fails(till: Till) -> None:
    bob = await till.buyer()
    till.wire.lose = "answer"
    await handle(till.context, Call(uuid4(), bob), Subscribe(till.channel_id, 1))
    till.wire.lose = None
    third = asyncio.Event()
    passes = count(1)

    def clock() -> datetime:
        if next(passes) == 3:
            third.set()
        return datetime.now(UTC)

    await till.pool.execute("ALTER TABLE payments_open RENAME TO elsewhere")
    timed = replace(till.context, clock=clock)
    running = asyncio.create_task(Reconciler(till.pool, timed, after_s=0, every_s=0.01).run())
    async with asyncio.timeout(30):
        await third.wait()
        await till.pool.execute("ALTER TABLE elsewhere RENAME TO payments_open")
        async for recorded in till.store.subscribe(dict.fromkeys(range(SHARDS), 0)):
            if any(isinstance(one.event, PaymentCaptured) for one in recorded):
                break
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await till.charges.count() == 1
    assert await till.open() == []
