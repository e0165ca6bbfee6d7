"""Our side of the sandbox provider: the `commands.context.Provider` port over its HTTP API."""

from typing import Any, Final

import httpx
import structlog

from commands.context import Charged, Declined, Unsettled
from domain.shared import Money

log = structlog.get_logger()

TIMEOUT_S: Final = 5.0
TRIES: Final = 2
NOT_CHARGED: Final = frozenset({409, 422})
"""This request moved nothing and never will: its key was used by another, or it cannot be charged at all."""


class SandboxProvider:
    name = "sandbox"

    def __init__(self, client: httpx.AsyncClient, secret: str) -> None:
        """`client` has the provider's base URL; its owner closes it."""
        self._client = client
        self._headers = {"Authorization": f"Bearer {secret}"}

    async def charge(self, payment_id: str, amount: Money, method: str) -> Charged | Declined | Unsettled:
        body = {"amount_minor": amount.amount_minor, "currency": amount.currency, "method": method}
        outcome: Charged | Declined | Unsettled = Unsettled("not asked")
        for _ in range(TRIES):
            status, answer = await self._ask("/v1/charges", payment_id, body)
            if status in NOT_CHARGED:
                # Another request may have been charged under this very payment: what became of that is the outcome of both.
                return await self.settle(payment_id, amount)
            outcome = _outcome(status, answer, amount)
            if not isinstance(outcome, Unsettled):
                break
        return outcome

    async def settle(self, payment_id: str, amount: Money) -> Charged | Declined | Unsettled:
        return _outcome(*await self._ask("/v1/charges/settle", payment_id, None), amount)

    async def _ask(self, path: str, payment_id: str, body: Any) -> tuple[int, Any]:
        """Status and body; 0 where nobody answered."""
        headers = self._headers | {"Idempotency-Key": payment_id}
        try:
            response = await self._client.post(path, json=body, headers=headers, timeout=TIMEOUT_S)
            answer = response.json()
        except (httpx.HTTPError, ValueError) as fault:
            log.warning("sandbox", payment_id=payment_id, problem=repr(fault)[:200])
            return 0, repr(fault)[:200]
        if response.status_code != 200:
            log.warning("sandbox", payment_id=payment_id, status=response.status_code, problem=response.text[:200])
        return response.status_code, answer


def _outcome(status: int, answer: Any, amount: Money) -> Charged | Declined | Unsettled:
    if status != 200:
        return Unsettled(f"{status} {answer}"[:200])
    if answer["status"] == "failed":
        return Declined(str(answer["code"]))
    if (answer["amount_minor"], answer["currency"]) != (amount.amount_minor, amount.currency):
        return Unsettled("another amount was charged: for a person to look at")
    return Charged(answer["id"], Money(amount_minor=answer["fee_minor"], currency=answer["currency"]))
