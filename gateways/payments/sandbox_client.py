"""Our side of the sandbox provider: the `commands.context.Provider` port over its HTTP API."""

from typing import Any, Final

import httpx

from commands.context import Charged, Declined, Unsettled
from domain.shared import Money

TIMEOUT_S: Final = 5.0
TRIES: Final = 2


class SandboxProvider:
    name = "sandbox"

    def __init__(self, client: httpx.AsyncClient, secret: str) -> None:
        """`client` has the provider's base URL; its owner closes it."""
        self._client = client
        self._headers = {"Authorization": f"Bearer {secret}"}

    async def charge(self, payment_id: str, amount: Money, method: str) -> Charged | Declined | Unsettled:
        outcome: Charged | Declined | Unsettled = Unsettled("not asked")
        body = {"amount_minor": amount.amount_minor, "currency": amount.currency, "method": method}
        for _ in range(TRIES):
            outcome = await self._ask("/v1/charges", payment_id, body)
            if not isinstance(outcome, Unsettled):
                return outcome
        return outcome

    async def settle(self, payment_id: str) -> Charged | Declined | Unsettled:
        return await self._ask("/v1/charges/settle", payment_id, None)

    async def _ask(self, path: str, payment_id: str, body: Any) -> Charged | Declined | Unsettled:
        try:
            response = await self._client.post(
                path, json=body, headers=self._headers | {"Idempotency-Key": payment_id}, timeout=TIMEOUT_S
            )
        except httpx.HTTPError as error:
            return Unsettled(repr(error))
        if response.status_code != 200:
            return Unsettled(f"{response.status_code} {response.text[:200]}")
        answer = response.json()
        if answer["status"] == "failed":
            return Declined(str(answer["code"]))
        return Charged(answer["id"], Money(amount_minor=answer["fee_minor"], currency=answer["currency"]))
