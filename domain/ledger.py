"""The books: which double-entry postings a money event stands for. Pure; the ledger projection writes them, the auditor checks them.

Debits are positive, credits negative, in integer minor units of one currency; every entry sums to zero per currency. Accounts read
`class:name[:whose]` as in plain-text accounting (hledger, beancount), so that an export needs no mapping.

A subscription is paid ahead: the whole amount is owed as service (deferred revenue) and becomes the creator's and the platform's as
it is delivered (IFRS 15, 31–35): the first day when it starts, the rest when its period has ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from domain.event import Event
from domain.payment import DonationReceived, PaymentCaptured, PaymentRefunded
from domain.shared import Money
from domain.subscription import PERIOD_DAYS, SubscriptionExpired, SubscriptionStarted

CREATOR_SHARE_BP: Final = 5_000
"""What a creator gets of a subscription, in basis points."""
DONATION_SHARE_BP: Final = 9_500
PLATFORM_SHARE: Final = "income:platform_share"


def provider_clearing(provider: str) -> str:
    return f"assets:provider_clearing:{provider}"


def provider_fees(provider: str) -> str:
    return f"expenses:provider_fees:{provider}"


def creator_payable(channel_id: str) -> str:
    return f"liabilities:creator_payable:{channel_id}"


def deferred_revenue(channel_id: str) -> str:
    return f"liabilities:deferred_revenue:{channel_id}"


@dataclass(frozen=True, slots=True)
class Posting:
    """One line of an entry: debit > 0, credit < 0."""

    account: str
    amount_minor: int
    currency: str


def postings(event: Event) -> Sequence[Posting]:
    """The balanced entry of a money event; empty where no money moves. Total over all events."""
    match event:
        case PaymentCaptured(purpose="donation"):
            return _donated(event)
        case PaymentCaptured():
            owed = Posting(deferred_revenue(event.channel_id), -event.amount.amount_minor, event.amount.currency)
            return _settled(event) + _drop_zero(owed)
        case SubscriptionStarted(channel_id=channel_id, price=price):
            return _earned(channel_id, Money(amount_minor=price.amount_minor // PERIOD_DAYS, currency=price.currency))
        case SubscriptionExpired(channel_id=channel_id, remaining=remaining):
            return _earned(channel_id, remaining)
        case PaymentRefunded(channel_id=channel_id, amount=amount, provider=provider):
            return _drop_zero(
                Posting(deferred_revenue(channel_id), amount.amount_minor, amount.currency),
                Posting(provider_clearing(provider), -amount.amount_minor, amount.currency),
            )
        case DonationReceived():
            return []  # the message; its money is in the capture
        case _:
            return []


def _settled(event: PaymentCaptured) -> list[Posting]:
    net = event.amount.amount_minor - event.fee.amount_minor
    return _drop_zero(
        Posting(provider_clearing(event.provider), net, event.amount.currency),
        Posting(provider_fees(event.provider), event.fee.amount_minor, event.fee.currency),
    )


def _donated(event: PaymentCaptured) -> list[Posting]:
    amount, currency = event.amount.amount_minor, event.amount.currency
    creator = amount * DONATION_SHARE_BP // 10_000
    return _settled(event) + _drop_zero(
        Posting(creator_payable(event.channel_id), -creator, currency),
        Posting(PLATFORM_SHARE, creator - amount, currency),
    )


def _earned(channel_id: str, amount: Money) -> list[Posting]:
    """Rounding goes to the platform: a creator's cent is never invented."""
    creator = amount.amount_minor * CREATOR_SHARE_BP // 10_000
    return _drop_zero(
        Posting(deferred_revenue(channel_id), amount.amount_minor, amount.currency),
        Posting(creator_payable(channel_id), -creator, amount.currency),
        Posting(PLATFORM_SHARE, creator - amount.amount_minor, amount.currency),
    )


def _drop_zero(*lines: Posting) -> list[Posting]:
    return [line for line in lines if line.amount_minor]
