"""What a payment provider is to us. Called by `commands.money` through its own port; each provider is one adapter here."""

from dataclasses import dataclass
from typing import Literal, Protocol

from domain.shared import Money


@dataclass(frozen=True, slots=True)
class Charged:
    """The provider has the money: its reference, and what it keeps of it."""

    provider_ref: str
    fee: Money


@dataclass(frozen=True, slots=True)
class Declined:
    """Final for this payment; `code` is stable (`card_declined`, `insufficient_funds`, …)."""

    code: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """No answer, or none that says what happened: ask again with the same payment id, never charge under another."""

    detail: str


Charge = Charged | Declined | Unknown


class PaymentProvider(Protocol):
    name: Literal["sandbox", "stripe"]

    async def charge(self, payment_id: str, amount: Money, method: str) -> Charge:
        """Charge once for ever under `payment_id`: asked again it answers what became of the first. Never raises for faults."""
        ...
