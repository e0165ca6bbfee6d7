"""A paid subscription of one account to one channel: one stream a pair, on the channel's shard."""

from datetime import datetime
from typing import ClassVar, Final

from domain.event import Category, Event
from domain.shared import Money

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
