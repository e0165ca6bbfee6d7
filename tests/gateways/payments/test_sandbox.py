"""The sandbox provider and our client of it, over its real HTTP API."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from commands.context import Charged, Declined, Unsettled
from domain.shared import Money
from gateways.payments.sandbox import Charges, build
from gateways.payments.sandbox_client import SandboxProvider

PRICE = Money(amount_minor=499, currency="USD")


@pytest.fixture
async def charges(tmp_path: Path) -> AsyncIterator[Charges]:
    books = Charges(tmp_path / "sandbox.db")
    yield books
    books.close()


@pytest.fixture
async def client(charges: Charges) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(build(charges, "secret"))
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as http:
        yield http


async def test_a_good_card_is_charged_once_however_often_we_ask(client: httpx.AsyncClient, charges: Charges) -> None:
    provider = SandboxProvider(client, "secret")
    outcomes = await asyncio.gather(*(provider.charge("p1", PRICE, "pm_ok") for _ in range(20)))
    assert all(isinstance(outcome, Charged) and outcome.fee.amount_minor == 44 for outcome in outcomes)
    assert len(set(outcomes)) == 1
    assert await charges.count() == 1


@pytest.mark.parametrize(
    ("method", "code"), [("pm_declined", "card_declined"), ("pm_insufficient_funds", "insufficient_funds")]
)
async def test_a_bad_card_is_declined_with_its_reason(
    client: httpx.AsyncClient, charges: Charges, method: str, code: str
) -> None:
    assert await SandboxProvider(client, "secret").charge("p1", PRICE, method) == Declined(code)
    assert await charges.count() == 0


async def test_a_lost_answer_is_asked_for_again_and_charged_once(client: httpx.AsyncClient, charges: Charges) -> None:
    outcome = await SandboxProvider(client, "secret").charge("p1", PRICE, "pm_answer_lost")
    assert isinstance(outcome, Charged)
    assert await charges.count() == 1


@pytest.mark.parametrize("length", ["16385", "999999999999999999", "x"])
async def test_a_body_without_a_bound_is_refused_before_it_is_read(client: httpx.AsyncClient, length: str) -> None:
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append(True)
        yield b"{}"

    headers = {"Authorization": "Bearer secret", "Idempotency-Key": "k", "Content-Type": "application/json"}
    for more in ({"Content-Length": length}, {}):  # without it, httpx says Transfer-Encoding: chunked
        answer = await client.post("/v1/charges", content=body(), headers=headers | more)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert not read


async def test_charges_survive_a_restart(client: httpx.AsyncClient, charges: Charges, tmp_path: Path) -> None:
    before = await SandboxProvider(client, "secret").charge("p1", PRICE, "pm_ok")
    charges.close()
    again = Charges(tmp_path / "sandbox.db")
    transport = httpx.ASGITransport(build(again, "secret"))
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as http:
        assert await SandboxProvider(http, "secret").charge("p1", PRICE, "pm_ok") == before
    again.close()


async def test_a_key_used_for_another_amount_is_refused(client: httpx.AsyncClient) -> None:
    provider = SandboxProvider(client, "secret")
    await provider.charge("p1", PRICE, "pm_ok")
    other = await provider.charge("p1", Money(amount_minor=500, currency="USD"), "pm_ok")
    assert isinstance(other, Unsettled)
    assert "another amount" in other.detail


async def test_two_cards_for_one_payment_come_to_the_same(client: httpx.AsyncClient, charges: Charges) -> None:
    provider = SandboxProvider(client, "secret")
    cards = ("pm_ok", "pm_declined", "pm_insufficient_funds", "no_such_card")
    assert len(set(await asyncio.gather(*(provider.charge("p1", PRICE, card) for card in cards)))) == 1
    assert await charges.count() <= 1
    assert await provider.charge("p2", PRICE, "no_such_card") == Declined("never_charged")


async def test_a_wrong_api_key_is_told_so(client: httpx.AsyncClient) -> None:
    outcome = await SandboxProvider(client, "guess").charge("p1", PRICE, "pm_ok")
    assert isinstance(outcome, Unsettled)
    assert "401" in outcome.detail


@pytest.mark.parametrize("body", [{}, {"amount_minor": -1, "currency": "USD", "method": "pm_ok"}, {"amount_minor": 1}])
async def test_a_malformed_charge_gets_a_typed_error(client: httpx.AsyncClient, body: dict[str, object]) -> None:
    headers = {"Authorization": "Bearer secret", "Idempotency-Key": "k"}
    response = await client.post("/v1/charges", json=body, headers=headers)
    assert response.status_code == 422
    assert response.json()["code"] == "request_invalid"


async def test_a_provider_that_is_away_is_unknown_not_declined() -> None:
    async with httpx.AsyncClient(base_url="http://127.0.0.1:1") as http:
        assert isinstance(await SandboxProvider(http, "secret").charge("p1", PRICE, "pm_ok"), Unsettled)


async def test_what_became_of_a_charge_is_told_by_its_key_and_a_key_never_used_is_closed(
    client: httpx.AsyncClient, charges: Charges
) -> None:
    provider = SandboxProvider(client, "secret")
    charged = await provider.charge("p1", PRICE, "pm_ok")
    declined = await provider.charge("p2", PRICE, "pm_declined")
    assert await provider.settle("p1", PRICE) == charged
    assert await provider.settle("p2", PRICE) == declined
    for _ in range(2):
        assert await provider.settle("p3", PRICE) == Declined("never_charged")
        assert await provider.charge("p3", PRICE, "pm_ok") == Declined("never_charged")
    assert await charges.count() == 1
    assert isinstance(await SandboxProvider(client, "guess").settle("p1", PRICE), Unsettled)
