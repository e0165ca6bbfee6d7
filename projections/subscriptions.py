"""Who subscribes to whom, at which tier and until when. Whether one runs still is judged by who reads, by the time it is then."""

from collections.abc import Iterable
from typing import Final

from domain.subscription import SubscriptionCancelled, SubscriptionExpired, SubscriptionRenewed, SubscriptionStarted
from eventstore.port import Recorded
from projections.projection import Projection
from projections.rows import Change, Delete, Patch, Put, Table

SUBSCRIPTIONS: Final = Table(
    "subscriptions",
    {"channel_id": "text", "account_id": "text"},
    {
        "subscription_id": "text",
        "username": "text",
        "tier": "int",
        "started_at": "timestamptz",
        "expires_at": "timestamptz",
        "cancelled": "boolean",
        "gift": "boolean",
        "gifted_by": "text",
    },
)


def _started(recorded: Recorded) -> Iterable[Change]:
    event: SubscriptionStarted = recorded.event
    values = {
        "subscription_id": event.subscription_id,
        "username": event.username,
        "tier": event.tier,
        "started_at": event.started_at,
        "expires_at": event.expires_at,
        "cancelled": False,
        "gift": event.gift,
        "gifted_by": event.gifted_by,
    }
    yield Put(SUBSCRIPTIONS, (event.channel_id, event.account_id), values)


def _renewed(recorded: Recorded) -> Iterable[Change]:
    event: SubscriptionRenewed = recorded.event
    values = {"tier": event.tier, "expires_at": event.expires_at, "cancelled": False}
    yield Patch(SUBSCRIPTIONS, (event.channel_id, event.account_id), values)


def _cancelled(recorded: Recorded) -> Iterable[Change]:
    event: SubscriptionCancelled = recorded.event
    values = {"expires_at": event.expires_at, "cancelled": True}
    yield Patch(SUBSCRIPTIONS, (event.channel_id, event.account_id), values)


def _expired(recorded: Recorded) -> Iterable[Change]:
    event: SubscriptionExpired = recorded.event
    yield Delete(SUBSCRIPTIONS, (event.channel_id, event.account_id))


PROJECTION: Final = Projection(
    "subscriptions",
    version=2,
    tables=(SUBSCRIPTIONS,),
    handlers={
        SubscriptionStarted: _started,
        SubscriptionRenewed: _renewed,
        SubscriptionCancelled: _cancelled,
        SubscriptionExpired: _expired,
    },
)
