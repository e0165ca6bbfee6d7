"""Subscriptions and their payments: asked for once, charged once, and written together with what they buy.

A payment's id is made of the subscription's stream and of how often that changed, so two who subscribe at once share one payment, and the
provider charges once under it. The capture and the start stand in one commit. Where the provider's answer was lost, `reconcile` asks again.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid5

from commands.authorise import FORBIDDEN, role_in
from commands.context import Call, Charged, Context, Declined, Done, Unsettled
from commands.transact import ATTEMPTS_MAX, CONFLICT, append, load, transact
from domain import payment, subscription
from domain.payment import PaymentCaptured, PaymentFailed, PaymentRequested
from domain.shared import Refusal
from domain.subscription import PERIOD_DAYS, Subscription, SubscriptionStarted
from eventstore.port import StreamWrite, WrongVersion

_PAYMENTS: Final = UUID("c0e7b9f4-2f7d-5c36-9a57-6a55ad3f8a10")
_STEPS: Final = UUID("5a8f3f7e-64bb-5d35-8f0e-6f9cbb1a7d21")


@dataclass(frozen=True, slots=True)
class Subscribe:
    """`method`: the provider's name for how it is paid. `tier`: 1 to 3."""

    channel_id: str
    tier: int
    currency: str = "USD"
    method: str = "pm_ok"


@dataclass(frozen=True, slots=True)
class CancelSubscription:
    channel_id: str


async def subscribe(context: Context, call: Call, command: Subscribe) -> Done | Refusal:
    actor = call.actor
    if actor is None:
        return FORBIDDEN
    stream = subscription.stream(command.channel_id, actor.account_id)
    owner = await role_in(context, command.channel_id, actor.account_id) == "owner"
    state, _ = await load(context, stream, Subscription(), subscription.evolve)
    price = subscription.price_of(state, tier=command.tier, currency=command.currency, owner=owner)
    if isinstance(price, Refusal):
        return await _bought(context, call, stream) or price
    for attempt in range(ATTEMPTS_MAX):
        payment_id = str(uuid5(_PAYMENTS, f"{stream}:{state.attempts}:{attempt}"))
        request = PaymentRequested(
            payment_id=payment_id,
            channel_id=command.channel_id,
            account_id=actor.account_id,
            purpose="subscription",
            subscription_id=str(uuid5(_PAYMENTS, f"{payment_id}:subscription")),
            amount=price,
            provider=context.provider.name,
        )
        asked = await _ask(context, call, request)
        # One that was declined before was another try: the next has an id of its own.
        if isinstance(asked, PaymentRequested):
            return await _settle(context, call, asked, method=command.method, username=actor.username)
    return CONFLICT


async def _bought(context: Context, call: Call, stream: str) -> Done | None:
    """What this very command had bought before, so that sending it again answers the same."""
    for recorded in reversed(await context.store.read_stream_tail(stream, limit=5)):
        event = recorded.event
        if isinstance(event, SubscriptionStarted) and recorded.correlation_id == call.command_id:
            return Done(_receipt(event))
    return None


def _receipt(started: SubscriptionStarted) -> dict[str, Any]:
    return {
        "subscription_id": started.subscription_id,
        "payment_id": started.payment_id,
        "tier": started.tier,
        "expires_at": started.expires_at,
    }


async def _ask(context: Context, call: Call, request: PaymentRequested) -> PaymentRequested | None:
    """The payment as whoever asked first asked for it; None where it had failed."""
    stream = payment.stream(request.payment_id)
    step = Call(uuid5(_STEPS, f"{request.payment_id}:request"), call.actor, call.correlation_id)
    await append(context, step, [StreamWrite(stream, request.channel_id, [request], 0)])
    state, _ = await load(context, stream, payment.Payment(), payment.evolve)
    return None if state.failure is not None else state.request


async def _settle(
    context: Context, call: Call, request: PaymentRequested, *, method: str, username: str
) -> Done | Refusal:
    charge = await context.provider.charge(request.payment_id, request.amount, method)
    match charge:
        case Unsettled(detail=detail):
            return Refusal("payment_unsettled", f"The payment provider has not answered yet: {detail}", retryable=True)
        case Declined(code=code):
            failed = PaymentFailed(
                payment_id=request.payment_id, channel_id=request.channel_id, account_id=request.account_id, code=code
            )
            step = Call(uuid5(_STEPS, f"{request.payment_id}:failed"), call.actor, call.correlation_id)
            await append(
                context, step, [StreamWrite(payment.stream(request.payment_id), request.channel_id, [failed], 1)]
            )
            return Refusal("payment_declined", f"The payment was declined: {code}.")
        case Charged():
            return await _start(context, call, request, charge, username)


async def _start(
    context: Context, call: Call, request: PaymentRequested, charge: Charged, username: str
) -> Done | Refusal:
    """Capture and start in one commit: the money is never without what it bought, nor that without the money."""
    stream = subscription.stream(request.channel_id, request.account_id)
    now = context.clock()
    # Of two who asked at once for different tiers the first one's price was charged.
    tier = next(tier for tier, price in subscription.PRICES.items() if price == request.amount)
    captured = PaymentCaptured(
        payment_id=request.payment_id,
        channel_id=request.channel_id,
        account_id=request.account_id,
        purpose=request.purpose,
        subscription_id=request.subscription_id,
        amount=request.amount,
        fee=charge.fee,
        provider=request.provider,
        provider_ref=charge.provider_ref,
    )
    started = SubscriptionStarted(
        subscription_id=request.subscription_id or request.payment_id,
        channel_id=request.channel_id,
        account_id=request.account_id,
        username=username,
        tier=tier,
        price=request.amount,
        payment_id=request.payment_id,
        started_at=now,
        expires_at=now + timedelta(days=PERIOD_DAYS),
    )
    value = _receipt(started)
    step = Call(uuid5(_STEPS, f"{request.payment_id}:captured"), call.actor, call.command_id)
    _, version = await load(context, stream, Subscription(), subscription.evolve)
    outcome = await append(
        context,
        step,
        [
            StreamWrite(payment.stream(request.payment_id), request.channel_id, [captured], 1),
            StreamWrite(stream, request.channel_id, [started], version),
        ],
    )
    if isinstance(outcome, WrongVersion):
        state, _ = await load(context, stream, Subscription(), subscription.evolve)
        return Done(value) if state.subscription_id == started.subscription_id else CONFLICT
    return Done(value, outcome.placed)


async def cancel_subscription(context: Context, call: Call, command: CancelSubscription) -> Done | Refusal:
    if call.actor is None:
        return FORBIDDEN
    account_id = call.actor.account_id
    return await transact(
        context,
        call,
        stream=subscription.stream(command.channel_id, account_id),
        key=command.channel_id,
        initial=Subscription(),
        evolve=subscription.evolve,
        decide=lambda state: subscription.cancel(state, command.channel_id, account_id),
    )


async def reconcile(context: Context, request: PaymentRequested, *, username: str, method: str) -> Done | Refusal:
    """Finish a payment whose answer was lost, under the same id. Called by who finds a request without an outcome."""
    state, _ = await load(context, payment.stream(request.payment_id), payment.Payment(), payment.evolve)
    if state.captured or state.failure is not None:
        return Done()
    call = Call(uuid5(_STEPS, f"{request.payment_id}:reconcile"))
    return await _settle(context, call, request, method=method, username=username)
