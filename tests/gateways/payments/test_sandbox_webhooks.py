"""The sandbox tells of a charge until it is heard, less and less often, and for so many times; across restarts too."""

from pathlib import Path

import httpx
import pytest

from gateways.payments.sandbox import ChargeRequest, Charges
from gateways.payments.sandbox_webhooks import RETRY_S_MIN, TRIES_MAX, tell_due


class Merchant(httpx.AsyncBaseTransport):
    def __init__(self, status: int) -> None:
        self.status = status
        self.heard = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.heard += 1
        if self.status == 0:
            raise httpx.ConnectError("away")
        return httpx.Response(self.status)


async def charged(path: Path) -> Charges:
    charges = Charges(path)
    await charges.charge("p1", ChargeRequest(amount_minor=499, currency="USD", method="pm_ok"))
    return charges


@pytest.mark.parametrize("status", [0, 301, 404, 503])
async def test_who_never_listens_is_given_up_in_the_end(tmp_path: Path, status: int) -> None:
    charges, merchant = await charged(tmp_path / "books"), Merchant(status)
    async with httpx.AsyncClient(transport=merchant) as client:
        now = 1.0
        for number in range(TRIES_MAX):
            assert await charges.untold(now, 10) == [("p1", number)]
            await tell_due(charges, client, "http://merchant/", "secret", now=now)
            now += RETRY_S_MIN * 2**number
            assert await charges.untold(now - 0.1, 10) == [], "not sooner"
    assert merchant.heard == TRIES_MAX
    assert await charges.untold(now + 1e9, 10) == []
    charges.close()


async def test_who_listens_is_told_once_and_a_restart_forgets_nothing(tmp_path: Path) -> None:
    charges, merchant = await charged(tmp_path / "books"), Merchant(204)
    charges.close()
    charges = Charges(tmp_path / "books")
    async with httpx.AsyncClient(transport=merchant) as client:
        for _ in range(3):
            await tell_due(charges, client, "http://merchant/", "secret", now=1.0)
    assert merchant.heard == 1
    charges.close()
