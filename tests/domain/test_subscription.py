"""Subscriptions: what one costs, how long it runs, and that it is ended once."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import subscription
from domain.event import Event
from domain.shared import Money, Refusal
from domain.subscription import (
    PERIOD_DAYS,
    PRICES,
    Subscription,
    SubscriptionCancelled,
    SubscriptionExpired,
    SubscriptionRenewed,
    SubscriptionStarted,
)
from tests import histories
from tests.domain.given import Decide, Decided, Stream, code, deciding

SUBSCRIPTIONS = Stream(Subscription(), subscription.evolve)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
END = NOW + timedelta(days=PERIOD_DAYS)
IDS: dict[str, Any] = {"subscription_id": "s1", "channel_id": "c1", "account_id": "ann"}
STARTED = SubscriptionStarted(
    **IDS, username="ann", tier=1, price=PRICES[1], payment_id="p1", started_at=NOW, expires_at=END
)
RENEWED = SubscriptionRenewed(
    **IDS, tier=1, price=PRICES[1], payment_id="p2", renewed_at=END, expires_at=END + timedelta(days=PERIOD_DAYS)
)
CANCELLED = SubscriptionCancelled(**IDS, expires_at=END)
EXPIRED = SubscriptionExpired(**IDS, remaining=Money(amount_minor=0, currency="USD"))

steps = st.lists(
    st.sampled_from([STARTED, RENEWED, EXPIRED])
    | deciding(
        subscription.cancel,
        st.just("c1"),
        st.just("ann"),
        now=st.sampled_from([NOW, END - timedelta(microseconds=1), END, END + timedelta(days=2 * PERIOD_DAYS)]),
    ),
    max_size=10,
)


def price(
    state: Subscription, *, tier: int = 1, currency: str = "USD", owner: bool = False, now: datetime = NOW
) -> Money | Refusal:
    return subscription.price_of(state, tier=tier, currency=currency, owner=owner, now=now)


def cancel(state: Subscription, *, now: datetime = NOW) -> Decided:
    return subscription.cancel(state, "c1", "ann", now=now)


@given(steps)
def test_deciding_again_says_nothing_new(steps: list[Event | Decide]) -> None:
    SUBSCRIPTIONS.assert_deciding_again_says_nothing_new(steps)


@given(st.lists(histories.events()))
def test_any_recorded_event_is_accepted_and_counts_as_an_attempt(events: list[Event]) -> None:
    assert SUBSCRIPTIONS.given(*events).attempts == len(events)


@pytest.mark.parametrize("tier", PRICES)
def test_each_tier_has_its_price(tier: int) -> None:
    assert price(SUBSCRIPTIONS.given(), tier=tier) == PRICES[tier]


def test_there_is_no_price_for_what_cannot_be_bought() -> None:
    free = SUBSCRIPTIONS.given()
    assert code(price(free, owner=True)) == "own_channel"
    assert code(price(free, tier=4)) == "tier_unknown"
    assert code(price(free, currency="EUR")) == "currency_unknown"
    assert code(price(SUBSCRIPTIONS.given(STARTED))) == "already_subscribed"
    assert code(price(SUBSCRIPTIONS.given(STARTED, CANCELLED))) == "already_subscribed"


def test_what_has_run_out_can_be_bought_anew_and_not_be_cancelled() -> None:
    for ran_out in (SUBSCRIPTIONS.given(STARTED), SUBSCRIPTIONS.given(STARTED, CANCELLED)):
        assert code(price(ran_out, now=END - timedelta(microseconds=1))) == "already_subscribed"
        assert price(ran_out, now=END) == PRICES[1]
        assert code(cancel(ran_out, now=END)) == "subscription_not_found"


def test_what_has_expired_can_be_bought_anew() -> None:
    expired = SUBSCRIPTIONS.given(STARTED, EXPIRED)
    assert price(expired) == PRICES[1]
    assert code(cancel(expired)) == "subscription_not_found"


def test_cancelling_is_said_once_and_a_renewal_takes_it_back() -> None:
    assert cancel(SUBSCRIPTIONS.given(STARTED)) == [CANCELLED]
    assert cancel(SUBSCRIPTIONS.given(STARTED, CANCELLED)) == []
    renewed = cancel(SUBSCRIPTIONS.given(STARTED, CANCELLED, RENEWED))
    assert renewed == [CANCELLED.model_copy(update={"expires_at": RENEWED.expires_at})]


def test_there_is_nothing_to_cancel_where_nothing_runs() -> None:
    assert code(cancel(SUBSCRIPTIONS.given())) == "subscription_not_found"
