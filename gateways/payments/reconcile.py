"""Reconciliation: payments that were asked for and never came to an outcome are settled by asking their provider what became of them.

A task of the role `api`. Every pod runs one and a Postgres advisory lock lets one at a time work; two at once would do no harm, since
each payment is settled under its own id. It never charges: a payment that never reached the provider is closed there and fails here.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg
import structlog
from prometheus_client import Counter, Gauge

from commands.context import Context, Done
from commands.money import reconcile
from domain.shared import Refusal
from eventstore.writer import FAULTS_OF_CONNECTION

log = structlog.get_logger()

LOCK: Final = 7308613711
AFTER_S: Final = 30.0
"""Longer than a living request waits for its provider."""
EVERY_S: Final = 10.0
PAGE_MAX: Final = 100
AT_ONCE_MAX: Final = 4

_settled = Counter(
    "tallylight_payments_reconciled_total", "Payments without an outcome that were asked after", ["outcome"]
)
_open = Gauge("tallylight_payments_unsettled", "Payments that were still without an outcome after the last pass")

_DUE: Final = """SELECT payment_id, requested_at FROM payments_open
WHERE requested_at < $1 AND ($2::timestamptz IS NULL OR (requested_at, payment_id) > ($2, $3))
ORDER BY requested_at, payment_id LIMIT $4"""

CAPTURED: Final = "captured"
FAILED: Final = "failed"
UNSETTLED: Final = "unsettled"


class Reconciler:
    """`pool` is of the database whose index tables `context.store` writes."""

    def __init__(self, pool: Any, context: Context, *, after_s: float = AFTER_S, every_s: float = EVERY_S) -> None:
        self._pool = pool
        self._context = context
        self._after = timedelta(seconds=after_s)
        self._every_s = every_s
        self._at_once = asyncio.Semaphore(AT_ONCE_MAX)

    async def run(self) -> None:
        """Pass after pass until cancelled. A pass that fails is logged and made up for by the next."""
        while True:
            try:
                await self.settle_due()
            except (asyncpg.PostgresError, *FAULTS_OF_CONNECTION) as away:
                log.warning("payments.reconcile", problem=repr(away)[:200], again_in_s=self._every_s)
            await asyncio.sleep(self._every_s)

    async def settle_due(self) -> Mapping[str, int] | None:
        """One pass over what is due, oldest first: how many came to which outcome. None where another pod is at it."""
        async with self._pool.acquire() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
                return None
            try:
                return await self._pass(connection)
            finally:
                if not connection.is_closed():
                    await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)

    async def _pass(self, connection: Any) -> Mapping[str, int]:
        before = self._context.clock() - self._after
        after: tuple[datetime | None, str] = (None, "")
        came_to: dict[str, int] = {}
        while due := await connection.fetch(_DUE, before, *after, PAGE_MAX):
            for outcome in await asyncio.gather(*(self._settle(row["payment_id"]) for row in due)):
                came_to[outcome] = came_to.get(outcome, 0) + 1
            after = (due[-1]["requested_at"], due[-1]["payment_id"])
        _open.set(came_to.get(UNSETTLED, 0))
        return came_to

    async def _settle(self, payment_id: str) -> str:
        async with self._at_once:
            try:
                outcome = _came_to(await reconcile(self._context, payment_id))
            except Exception:
                # One payment's trouble must not keep the others waiting; the next pass asks again.
                log.exception("payments.reconcile", payment_id=payment_id)
                outcome = UNSETTLED
        _settled.labels(outcome).inc()
        log.info("payments.reconciled", payment_id=payment_id, outcome=outcome)
        return outcome


def _came_to(outcome: Done | Refusal) -> str:
    match outcome:
        case Done():
            return CAPTURED
        case Refusal(code="payment_declined"):
            return FAILED
        case Refusal():
            return UNSETTLED
