"""Webhooks of the sandbox provider: what it tells, in whatever order and however often, comes to one capture and one subscription."""

import asyncio
import time
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest

from domain import payment, subscription
from domain.payment import PaymentCaptured, PaymentRequested
from gateways.payments import signature
from gateways.payments.sandbox_webhooks import deliver
from tests.gateways.http.conftest import Person, Stand, problem

SECRET = "sandbox-secret"
URL = "/webhooks/sandbox"


async def tell(stand: Stand, body: bytes, *, secret: str = SECRET, at: float | None = None) -> httpx.Response:
    signed = signature.sign(secret, body, now_s=int(time.time() if at is None else at))
    headers = {"Content-Type": "application/json", signature.HEADER: signed}
    return await stand.client.post(URL, content=body, headers=headers)


def of(payment_id: str) -> bytes:
    return orjson.dumps({"type": "charge.settled", "payment_id": payment_id})


async def cut_off(stand: Stand, buyer: Person, path: str) -> str:
    """A purchase whose process dies once the charge is made: the payment's id."""
    charge = stand.api.context.provider.charge

    async def charged_and_gone(payment_id: str, amount: Any, method: str) -> Any:
        await charge(payment_id, amount, method)
        raise asyncio.CancelledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(stand.api.context.provider), "charge", lambda _, *told: charged_and_gone(*told))
        with pytest.raises(asyncio.CancelledError):
            await buyer.ask("POST", path, {"tier": 1}, **{"Idempotency-Key": "k"})
    found = "SELECT payment_id FROM payments_open WHERE account_id = $1"
    return str(await stand.services.pool.fetchval(found, buyer.account_id))


async def events(stand: Stand, stream: str) -> list[type]:
    return [type(recorded.event) for recorded in await stand.services.store.read_stream(stream)]


async def test_a_webhook_settles_what_nobody_waited_for_and_repeats_change_nothing(stand: Stand) -> None:
    ann, bob = await stand.register("ann"), await stand.register("bob")
    name = await ann.open_channel()
    channel_id = (await ann.get(f"/channels/{name}"))["channel_id"]
    payment_id = await cut_off(stand, bob, f"/channels/{name}/subscriptions")
    assert await events(stand, payment.stream(payment_id)) == [PaymentRequested]
    charged = await stand.charges.count()
    answers = await asyncio.gather(*(tell(stand, of(payment_id)) for _ in range(5)))
    answers.append(await tell(stand, of(payment_id), at=time.time() - 200))
    assert {answer.status_code for answer in answers} == {204}
    assert await events(stand, payment.stream(payment_id)) == [PaymentRequested, PaymentCaptured]
    assert len(await events(stand, subscription.stream(channel_id, bob.account_id))) == 1
    assert await stand.charges.count() == charged
    again = await bob.ask("POST", f"/channels/{name}/subscriptions", {"tier": 1}, **{"Idempotency-Key": "k"})
    assert again.status_code == 201, "the purchase sent again finds what it bought"


async def test_only_the_provider_is_listened_to(stand: Stand) -> None:
    body = of(str(uuid4()))
    problem(await tell(stand, body, secret="guess"), 401, "signature_invalid")
    problem(await tell(stand, body, at=time.time() - 1000), 401, "signature_invalid")
    problem(await stand.client.post(URL, content=body), 401, "signature_invalid")
    problem(await stand.client.post("/webhooks/nobody", content=body), 404, "not_found")
    problem(await tell(stand, body), 404, "payment_not_found")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"payment_id":1}', b'{"payment_id":"\\u0000"}', b"\xff"])
async def test_a_signed_webhook_that_says_nothing_is_invalid(stand: Stand, body: bytes) -> None:
    problem(await tell(stand, body), 422, "invalid")


async def test_the_sandbox_tells_until_it_is_heard(stand: Stand) -> None:
    ann, bob = await stand.register("ann"), await stand.register("bob")
    name = await ann.open_channel()
    payment_id = await cut_off(stand, bob, f"/channels/{name}/subscriptions")
    tried: dict[str, int] = {}
    heard = asyncio.Event()

    class Way(httpx.AsyncBaseTransport):
        """Deaf at first, then to the API."""

        def __init__(self) -> None:
            self.api = httpx.ASGITransport(stand.app)

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            told = orjson.loads(await request.aread())["payment_id"]
            tried[told] = tried.get(told, 0) + 1
            if told != payment_id:
                return httpx.Response(204)
            if tried[told] == 1:
                raise httpx.ConnectError("deaf")
            answer = await self.api.handle_async_request(request)
            assert answer.status_code == 204
            heard.set()
            return answer

    async with httpx.AsyncClient(transport=Way()) as client:
        telling = asyncio.create_task(deliver(stand.charges, client, f"http://test{URL}", SECRET))
        async with asyncio.timeout(30):
            await heard.wait()
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
    assert await events(stand, payment.stream(payment_id)) == [PaymentRequested, PaymentCaptured]
