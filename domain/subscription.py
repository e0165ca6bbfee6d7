"""A paid subscription of one account to one channel: one stream a pair, on the channel's shard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar, Final

from domain.event import Category, Event
from domain.shared import Money, Refusal

PERIOD_DAYS: Final = 30


class SubscriptionStarted(Event):
    TOPIC: ClassVar[str] = "subscription.SubscriptionStarted"
    CATEGORY: ClassVar[Category] = Category.MONEY
    subscription_id: str
    channel_id: str
    account_id: str
    username: str
    tier: int
    price: Money
    payment_id: str
    started_at: datetime
    expires_at: datetime
    gift: bool = False
    gifted_by: str | None = None


class SubscriptionRenewed(Event):
    TOPIC: ClassVar[str] = "subscription.SubscriptionRenewed"
    CATEGORY: ClassVar[Category] = Category.MONEY
    subscription_id: str
    channel_id: str
    account_id: str
    tier: int
    price: Money
    payment_id: str
    renewed_at: datetime
    expires_at: datetime


class SubscriptionCancelled(Event):
    """No further renewal; it runs on to `expires_at`."""

    TOPIC: ClassVar[str] = "subscription.SubscriptionCancelled"
    CATEGORY: ClassVar[Category] = Category.MONEY
    subscription_id: str
    channel_id: str
    account_id: str
    expires_at: datetime


class SubscriptionExpired(Event):
    """Its period is over. `remaining` is what of the price had not been earned before this."""

    TOPIC: ClassVar[str] = "subscription.SubscriptionExpired"
    CATEGORY: ClassVar[Category] = Category.MONEY
    subscription_id: str
    channel_id: str
    account_id: str
    remaining: Money


def stream(channel_id: str, account_id: str) -> str:
    return f"subscription-{channel_id}-{account_id}"


PRICES: Final[Mapping[int, Money]] = {
    1: Money(amount_minor=499, currency="USD"),
    2: Money(amount_minor=999, currency="USD"),
    3: Money(amount_minor=2499, currency="USD"),
}


@dataclass(frozen=True, slots=True)
class Subscription:
    """`attempts` counts the events of the stream: it names the next payment, so that two who subscribe at once share one."""

    attempts: int = 0
    subscription_id: str = ""
    expires_at: datetime | None = None
    cancelled: bool = False

    def runs(self, now: datetime) -> bool:
        return self.expires_at is not None and now < self.expires_at


def evolve(state: Subscription, event: Event) -> Subscription:
    attempts = state.attempts + 1
    match event:
        case SubscriptionStarted():
            return Subscription(attempts, event.subscription_id, event.expires_at)
        case SubscriptionRenewed():
            return replace(state, attempts=attempts, expires_at=event.expires_at, cancelled=False)
        case SubscriptionCancelled():
            return replace(state, attempts=attempts, cancelled=True)
        case SubscriptionExpired():
            return Subscription(attempts)
        case _:
            return replace(state, attempts=attempts)


def price_of(state: Subscription, *, tier: int, currency: str, owner: bool, now: datetime) -> Money | Refusal:
    """What a new subscription costs, or why there can be none."""
    if owner:
        return Refusal("own_channel", "One does not subscribe to one's own channel.")
    if state.runs(now):
        return Refusal("already_subscribed", "This subscription runs already.")
    if tier not in PRICES:
        return Refusal("tier_unknown", f"Tiers are {', '.join(map(str, PRICES))}.")
    if currency != PRICES[tier].currency:
        return Refusal("currency_unknown", f"Prices are in {PRICES[tier].currency}.")
    return PRICES[tier]


def cancel(state: Subscription, channel_id: str, account_id: str, *, now: datetime) -> Sequence[Event] | Refusal:
    """It runs on to the end of its period."""
    if state.expires_at is None or not state.runs(now):
        return Refusal("subscription_not_found", "There is no such subscription.")
    if state.cancelled:
        return []
    return [
        SubscriptionCancelled(
            subscription_id=state.subscription_id,
            channel_id=channel_id,
            account_id=account_id,
            expires_at=state.expires_at,
        )
    ]
