"""The books balance, whatever happens, and nobody's cent is invented."""

from datetime import UTC, datetime, timedelta
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from domain import ledger
from domain.event import Event
from domain.payment import DonationReceived, PaymentCaptured, PaymentRefunded
from domain.shared import Money
from domain.subscription import PERIOD_DAYS, SubscriptionExpired, SubscriptionStarted

NOW = datetime(2026, 1, 1, tzinfo=UTC)
amounts = st.integers(min_value=0, max_value=10**9)


def usd(amount_minor: int) -> Money:
    return Money(amount_minor=amount_minor, currency="USD")


def captured(amount: int, fee: int, purpose: Literal["subscription", "donation"] = "subscription") -> PaymentCaptured:
    return PaymentCaptured(
        payment_id="p", channel_id="c", account_id="a", purpose=purpose, amount=usd(amount), fee=usd(fee),
        provider="sandbox", provider_ref="r",
    )  # fmt: skip


def started(price: int) -> SubscriptionStarted:
    return SubscriptionStarted(
        subscription_id="s", channel_id="c", account_id="a", username="alice", tier=1, price=usd(price), payment_id="p",
        started_at=NOW, expires_at=NOW + timedelta(days=PERIOD_DAYS),
    )  # fmt: skip


def expired(remaining: int) -> SubscriptionExpired:
    return SubscriptionExpired(subscription_id="s", channel_id="c", account_id="a", remaining=usd(remaining))


events: st.SearchStrategy[Event] = st.one_of(
    st.builds(captured, amounts, amounts, st.sampled_from(["subscription", "donation"])),
    st.builds(started, amounts),
    st.builds(expired, amounts),
    st.builds(
        lambda n: PaymentRefunded(
            payment_id="p", channel_id="c", account_id="a", amount=usd(n), provider="sandbox", provider_ref="r"
        ),
        amounts,
    ),
)


@given(events)
def test_every_entry_sums_to_zero(event: Event) -> None:
    assert sum(posting.amount_minor for posting in ledger.postings(event)) == 0


@given(events)
def test_no_line_of_an_entry_is_empty(event: Event) -> None:
    assert all(posting.amount_minor for posting in ledger.postings(event))


@given(st.integers(min_value=PERIOD_DAYS, max_value=10**9), st.integers(min_value=0, max_value=29))
def test_a_whole_period_leaves_nothing_deferred(price: int, fee: int) -> None:
    day_one = price // PERIOD_DAYS
    lines = [
        *ledger.postings(captured(price, fee)),
        *ledger.postings(started(price)),
        *ledger.postings(expired(price - day_one)),
    ]
    by_account: dict[str, int] = {}
    for line in lines:
        by_account[line.account] = by_account.get(line.account, 0) + line.amount_minor
    assert by_account["liabilities:deferred_revenue:c"] == 0
    assert -by_account["liabilities:creator_payable:c"] <= price // 2
    assert by_account["assets:provider_clearing:sandbox"] == price - fee


def test_a_donation_is_the_creators_at_once_less_the_platforms_share() -> None:
    lines = {line.account: line.amount_minor for line in ledger.postings(captured(1000, 59, "donation"))}
    assert lines == {
        "assets:provider_clearing:sandbox": 941,
        "expenses:provider_fees:sandbox": 59,
        "liabilities:creator_payable:c": -950,
        "income:platform_share": -50,
    }


def test_an_event_that_moves_no_money_posts_nothing() -> None:
    donation = DonationReceived(payment_id="p", channel_id="c", account_id="a", username="alice", amount=usd(1))
    assert ledger.postings(donation) == []
