"""The sandbox's webhooks: every charge's outcome is told to the merchant's address until it says 2xx, or for so many times.

Run beside the sandbox's server by `gateways.roles`. What is to be told lies in the provider's books and outlives its restarts.
"""

import asyncio
import time
from typing import Final

import httpx
import orjson
import structlog

from gateways.payments import signature
from gateways.payments.sandbox import Charges

log = structlog.get_logger()

TIMEOUT_S: Final = 15.0
POLL_S: Final = 1.0
BATCH_MAX: Final = 20
TRIES_MAX: Final = 12
RETRY_S_MIN: Final = 1.0
"""Doubled with each try: the last comes more than an hour after the first."""


async def deliver(charges: Charges, client: httpx.AsyncClient, url: str, secret: str) -> None:
    """Tell until cancelled."""
    while True:
        if not await tell_due(charges, client, url, secret, now=time.time()):
            await asyncio.sleep(POLL_S)


async def tell_due(charges: Charges, client: httpx.AsyncClient, url: str, secret: str, *, now: float) -> int:
    """Tell what is due, as much as goes at once; how much that was."""
    due = await charges.untold(now, BATCH_MAX)
    await asyncio.gather(*(_tell(charges, client, url, secret, key, tries, now) for key, tries in due))
    return len(due)


async def _tell(
    charges: Charges, client: httpx.AsyncClient, url: str, secret: str, key: str, tries: int, now: float
) -> None:
    body = orjson.dumps({"type": "charge.settled", "payment_id": key})
    headers = {
        "Content-Type": "application/json",
        signature.HEADER: signature.sign(secret, body, now_s=int(time.time())),
    }
    try:
        answer = await client.post(url, content=body, headers=headers, timeout=TIMEOUT_S)
        problem = None if answer.is_success else f"{answer.status_code}"
    except httpx.HTTPError as fault:
        problem = repr(fault)[:200]
    if problem is None or tries + 1 >= TRIES_MAX:
        await charges.told(key)
    else:
        await charges.tell_again(key, now + RETRY_S_MIN * 2**tries)
    log.info("sandbox.webhook", payment_id=key, tries=tries + 1, problem=problem)
