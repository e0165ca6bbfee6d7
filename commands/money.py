"""Subscriptions and their payments: asked for once, charged once, and written together with what they buy.

A payment's id is made of the subscription's stream and of how often that changed, so two who subscribe at once share one payment, and the
provider charges once under it. The capture and the start stand in one commit. A payment stands in the index `payments_open` from its
request to its outcome; where the provider's answer was lost or nobody lived to hear it, `reconcile` asks what became of it.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid5

from commands.authorise import FORBIDDEN, role_in
from commands.context import Call, Charged, Context, Declined, Done, Unsettled
from commands.transact import CONFLICT, append, load, transact
from domain import account, payment, subscription
from domain.payment import PaymentCaptured, PaymentFailed, PaymentRequested
from domain.shared import Refusal
from domain.subscription import PERIOD_DAYS, Subscription, SubscriptionStarted
from eventstore.port import IndexWrite, StreamWrite, WrongVersion

_PAYMENTS: Final = UUID("c0e7b9f4-2f7d-5c36-9a57-6a55ad3f8a10")
_STEPS: Final = UUID("5a8f3f7e-64bb-5d35-8f0e-6f9cbb1a7d21")
TAIL: Final = 5
DECLINES_MAX: Final = 100
"""Payments tried for one subscription: who tests stolen cards meets an end."""
NEVER_CHARGED: Final = "never_charged"
"""The failure of a payment that was asked for and never reached its provider."""


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
    # Also where it has run out since: what one command bought it does not buy again.
    if state.subscription_id and (bought := await _bought(context, call, stream)):
        return bought
    price = subscription.price_of(state, tier=command.tier, currency=command.currency, owner=owner, now=context.clock())
    if isinstance(price, Refusal):
        return price
    for attempt in range(DECLINES_MAX):
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
        if isinstance(asked, Refusal):
            return asked
        # One that failed before was another try: the next has an id of its own.
        if asked is not None:
            charge = await context.provider.charge(asked.payment_id, asked.amount, command.method)
            return await _record(context, call, asked, charge, actor.username)
    return Refusal("too_many_attempts", "Too many payments for this subscription were declined.")


async def _bought(context: Context, call: Call, stream: str) -> Done | None:
    """What this very command had bought before, so that sending it again answers the same."""
    for recorded in reversed(await context.store.read_stream_tail(stream, limit=TAIL)):
        event = recorded.event
        if isinstance(event, SubscriptionStarted) and recorded.correlation_id == call.command_id:
            return Done(_receipt(event))
    return None


async def _started(context: Context, stream: str, payment_id: str) -> SubscriptionStarted | None:
    """What a payment bought, as it stands in the log."""
    for recorded in reversed(await context.store.read_stream_tail(stream, limit=TAIL)):
        if isinstance(recorded.event, SubscriptionStarted) and recorded.event.payment_id == payment_id:
            return recorded.event
    return None


def _receipt(started: SubscriptionStarted) -> dict[str, Any]:
    return {
        "subscription_id": started.subscription_id,
        "payment_id": started.payment_id,
        "tier": started.tier,
        "expires_at": started.expires_at,
    }


async def _ask(context: Context, call: Call, request: PaymentRequested) -> PaymentRequested | Refusal | None:
    """The payment as whoever asked first asked for it; None where it had failed, and why where this very command had asked."""
    stream = payment.stream(request.payment_id)
    step = Call(uuid5(_STEPS, f"{request.payment_id}:request"), call.actor, call.command_id)
    open_row = {
        "channel_id": request.channel_id,
        "account_id": request.account_id,
        "requested_at": context.clock(),
    }
    await append(
        context,
        step,
        [StreamWrite(stream, request.channel_id, [request], 0)],
        [IndexWrite("payments_open", {"payment_id": request.payment_id}, open_row)],
    )
    first, *_ = recorded = await context.store.read_stream(stream)
    state = payment.Payment()
    for one in recorded:
        state = payment.evolve(state, one.event)
    if state.failure is None:
        return state.request
    # Declined is an answer, given again to who asks again; never charged is none, and is made up for.
    again = first.correlation_id == call.command_id and state.failure != NEVER_CHARGED
    return _declined(state.failure) if again else None


async def _record(
    context: Context,
    call: Call,
    request: PaymentRequested,
    charge: Charged | Declined | Unsettled,
    username: str,
) -> Done | Refusal:
    """What the provider says, as facts."""
    match charge:
        case Unsettled():
            return Refusal(
                "payment_unsettled",
                "The payment provider has not answered yet. Try again; you will be charged once.",
                retryable=True,
            )
        case Declined(code=code):
            failed = PaymentFailed(
                payment_id=request.payment_id, channel_id=request.channel_id, account_id=request.account_id, code=code
            )
            step = Call(uuid5(_STEPS, f"{request.payment_id}:failed"), call.actor, call.command_id)
            outcome = await append(
                context,
                step,
                [StreamWrite(payment.stream(request.payment_id), request.channel_id, [failed], 1)],
                [_closed(request)],
            )
            return CONFLICT if isinstance(outcome, WrongVersion) else _declined(code)
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
    step = Call(uuid5(_STEPS, f"{request.payment_id}:captured"), call.actor, call.command_id)
    _, version = await load(context, stream, Subscription(), subscription.evolve)
    outcome = await append(
        context,
        step,
        [
            StreamWrite(payment.stream(request.payment_id), request.channel_id, [captured], 1),
            StreamWrite(stream, request.channel_id, [started], version),
        ],
        [_closed(request)],
    )
    # Of several who write the same start the log keeps one: its times are the ones to tell.
    kept = await _started(context, stream, request.payment_id)
    if kept is None:
        return CONFLICT
    return Done(_receipt(kept), () if isinstance(outcome, WrongVersion) else outcome.placed)


def _closed(request: PaymentRequested) -> IndexWrite:
    return IndexWrite("payments_open", {"payment_id": request.payment_id}, None)


def _declined(code: str) -> Refusal:
    return Refusal("payment_declined", f"The payment was declined: {code}.")


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
        decide=lambda state: subscription.cancel(state, command.channel_id, account_id, now=context.clock()),
    )


async def reconcile(context: Context, payment_id: str) -> Done | Refusal:
    """Finish a payment that nobody waits for any more: captured with what it buys, failed, or still unsettled.

    Harmless whenever and however often it is called: the provider's answer is final and its recording is one command.
    """
    recorded = await context.store.read_stream(payment.stream(payment_id))
    state = payment.Payment()
    for one in recorded:
        state = payment.evolve(state, one.event)
    request = state.request
    if request is None:
        return Refusal("payment_not_found", "There is no such payment.")
    if state.captured:
        return Done()
    if state.failure is not None:
        return _declined(state.failure)
    # As the command that asked for it, so that sending that again finds what it bought.
    call = Call(recorded[0].correlation_id or uuid5(_STEPS, f"{payment_id}:reconcile"))
    buyer = (await context.store.read_stream(account.stream(request.account_id), limit=1))[0].event
    charge = await context.provider.settle(payment_id, request.amount)
    return await _record(context, call, request, charge, buyer.username)
