"""A payment through a provider: asked for once, then captured, failed or refunded by what the provider says."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from domain.event import Category, Event
from domain.shared import Money


class PaymentRequested(Event):
    TOPIC: ClassVar[str] = "payment.PaymentRequested"
    CATEGORY: ClassVar[Category] = Category.MONEY
    payment_id: str
    channel_id: str
    account_id: str
    purpose: Literal["subscription", "gift", "donation"]
    subscription_id: str | None = None
    amount: Money
    provider: str


class PaymentCaptured(Event):
    TOPIC: ClassVar[str] = "payment.PaymentCaptured"
    CATEGORY: ClassVar[Category] = Category.MONEY
    payment_id: str
    channel_id: str
    account_id: str
    purpose: Literal["subscription", "gift", "donation"]
    subscription_id: str | None = None
    amount: Money
    fee: Money
    provider: str
    provider_ref: str


class PaymentFailed(Event):
    TOPIC: ClassVar[str] = "payment.PaymentFailed"
    CATEGORY: ClassVar[Category] = Category.MONEY
    payment_id: str
    channel_id: str
    account_id: str
    code: str


class PaymentRefunded(Event):
    TOPIC: ClassVar[str] = "payment.PaymentRefunded"
    CATEGORY: ClassVar[Category] = Category.MONEY
    payment_id: str
    channel_id: str
    account_id: str
    amount: Money
    provider: str
    provider_ref: str


class DonationReceived(Event):
    TOPIC: ClassVar[str] = "payment.DonationReceived"
    CATEGORY: ClassVar[Category] = Category.MONEY
    PERSONAL: ClassVar = {"message": "account_id"}
    payment_id: str
    channel_id: str
    account_id: str
    username: str
    amount: Money
    message: str | None = None


def stream(payment_id: str) -> str:
    return f"payment-{payment_id}"


@dataclass(frozen=True, slots=True)
class Payment:
    request: PaymentRequested | None = None
    captured: bool = False
    failure: str | None = None


def evolve(state: Payment, event: Event) -> Payment:
    match event:
        case PaymentRequested():
            return replace(state, request=event)
        case PaymentCaptured():
            return replace(state, captured=True)
        case PaymentFailed(code=code):
            return replace(state, failure=code)
        case _:
            return state
