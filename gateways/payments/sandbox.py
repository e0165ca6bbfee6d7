"""The sandbox payment provider: a server of its own that behaves like a card processor and moves no money.

Charges are idempotent by `Idempotency-Key` for ever (the same key with another body is refused), kept in a SQLite file so that they
survive its restarts. The payment method picks the outcome, as test cards do elsewhere: `pm_ok`, `pm_declined`,
`pm_insufficient_funds`, and `pm_answer_lost` (charged, but the first answer is a 500). Run by `gateways.roles` as role `sandbox`.
"""

import asyncio
import hmac
import sqlite3
from pathlib import Path
from typing import Annotated, Final, Literal
from uuid import uuid4

from fastapi import FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.base import RequestResponseEndpoint
from starlette.responses import Response

from commands.money import NEVER_CHARGED

FEE_BP: Final = 290
FEE_FIXED_MINOR: Final = 30
AMOUNT_MINOR_MAX: Final = 10_000_000
BODY_BYTES_MAX: Final = 16 * 1024
CLOSED: Final = ""
"""Stands for the request of a key that was settled before any came."""

Method = Literal["pm_ok", "pm_declined", "pm_insufficient_funds", "pm_answer_lost"]
_DECLINES: Final = {"pm_declined": "card_declined", "pm_insufficient_funds": "insufficient_funds"}


class ChargeRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    amount_minor: Annotated[int, Field(gt=0, le=AMOUNT_MINOR_MAX)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    method: Method


class ChargeAnswer(BaseModel):
    """`status` is final. `fee_minor` is what the provider keeps of a captured charge."""

    id: str
    status: Literal["captured", "failed"]
    code: str | None
    amount_minor: int
    currency: str
    fee_minor: int


class Charges:
    """The provider's own books: one row a key, written before anything is answered."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS charges (key TEXT PRIMARY KEY, request TEXT NOT NULL, answer TEXT NOT NULL)"
        )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS to_tell (key TEXT PRIMARY KEY, due REAL NOT NULL, tries INTEGER NOT NULL DEFAULT 0)"
        )
        self._lock = asyncio.Lock()

    async def charge(self, key: str, request: ChargeRequest) -> tuple[ChargeAnswer | None, bool]:
        """The answer under this key and whether it is new; None where the key was used for another request."""
        async with self._lock:
            return await asyncio.to_thread(self._charge, key, request)

    def _charge(self, key: str, request: ChargeRequest) -> tuple[ChargeAnswer | None, bool]:
        wanted = request.model_dump_json()
        row = self._db.execute("SELECT request, answer FROM charges WHERE key = ?", (key,)).fetchone()
        if row is not None:
            return (ChargeAnswer.model_validate_json(row[1]) if row[0] in (wanted, CLOSED) else None), False
        code = _DECLINES.get(request.method)
        fee = 0 if code else min(request.amount_minor, request.amount_minor * FEE_BP // 10_000 + FEE_FIXED_MINOR)
        answer = ChargeAnswer(
            id=f"ch_{uuid4().hex}",
            status="failed" if code else "captured",
            code=code,
            amount_minor=request.amount_minor,
            currency=request.currency,
            fee_minor=fee,
        )
        self._enter(key, wanted, answer)
        return answer, True

    def _enter(self, key: str, request: str, answer: ChargeAnswer) -> None:
        """The charge, and that it is to be told of, in one transaction."""
        with self._db:
            self._db.execute("BEGIN")
            self._db.execute("INSERT INTO charges VALUES (?, ?, ?)", (key, request, answer.model_dump_json()))
            self._db.execute("INSERT INTO to_tell (key, due) VALUES (?, 0)", (key,))

    async def settle(self, key: str) -> ChargeAnswer:
        """What became of this key; one never used is closed, so that a charge still on its way to us moves nothing."""
        async with self._lock:
            return await asyncio.to_thread(self._settle, key)

    def _settle(self, key: str) -> ChargeAnswer:
        row = self._db.execute("SELECT answer FROM charges WHERE key = ?", (key,)).fetchone()
        if row is not None:
            return ChargeAnswer.model_validate_json(row[0])
        answer = ChargeAnswer(
            id=f"ch_{uuid4().hex}", status="failed", code=NEVER_CHARGED, amount_minor=0, currency="XXX", fee_minor=0
        )
        self._enter(key, CLOSED, answer)
        return answer

    async def untold(self, now: float, limit: int) -> list[tuple[str, int]]:
        """Keys whose webhook is due, and how often it was tried."""
        query = "SELECT key, tries FROM to_tell WHERE due <= ? ORDER BY due LIMIT ?"
        async with self._lock:
            return await asyncio.to_thread(lambda: self._db.execute(query, (now, limit)).fetchall())

    async def told(self, key: str) -> None:
        async with self._lock:
            await asyncio.to_thread(self._db.execute, "DELETE FROM to_tell WHERE key = ?", (key,))

    async def tell_again(self, key: str, due: float) -> None:
        async with self._lock:
            await asyncio.to_thread(
                self._db.execute, "UPDATE to_tell SET due = ?, tries = tries + 1 WHERE key = ?", (due, key)
            )

    async def count(self) -> int:
        """How many charges were captured, for audits and tests."""
        async with self._lock:
            rows = await asyncio.to_thread(lambda: self._db.execute("SELECT answer FROM charges").fetchall())
        return sum(ChargeAnswer.model_validate_json(row[0]).status == "captured" for row in rows)

    def close(self) -> None:
        self._db.close()


def build(charges: Charges, secret: str) -> FastAPI:
    """The provider's HTTP API; callers authenticate with `Authorization: Bearer <secret>`."""
    app = FastAPI(title="Sandbox payment provider", docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def bounded(request: Request, answer: RequestResponseEndpoint) -> Response:
        length = request.headers.get("Content-Length", "0")
        # Our one client says how long its bodies are.
        if "Transfer-Encoding" in request.headers or not length.isdigit() or int(length[:12]) > BODY_BYTES_MAX:
            return _error(413, "body_too_large", f"A body has at most {BODY_BYTES_MAX} bytes, and says how many.")
        return await answer(request)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return _error(422, "request_invalid", str(error.errors()[0]["msg"]))

    @app.post("/v1/charges", response_model=None)
    async def charge(
        body: ChargeRequest,
        idempotency_key: Annotated[str, Header(min_length=1, max_length=128)],
        authorization: Annotated[str, Header()] = "",
    ) -> ChargeAnswer | JSONResponse:
        if not hmac.compare_digest(authorization.encode(), f"Bearer {secret}".encode()):
            return _error(401, "unauthenticated", "The API key is wrong.")
        answer, new = await charges.charge(idempotency_key, body)
        if answer is None:
            return _error(409, "idempotency_key_reused", "This key was used for another request.")
        if new and body.method == "pm_answer_lost":
            return _error(500, "internal", "The answer is lost; the charge is not.")
        return answer

    @app.post("/v1/charges/settle", response_model=None)
    async def settle(
        idempotency_key: Annotated[str, Header(min_length=1, max_length=128)],
        authorization: Annotated[str, Header()] = "",
    ) -> ChargeAnswer | JSONResponse:
        if not hmac.compare_digest(authorization.encode(), f"Bearer {secret}".encode()):
            return _error(401, "unauthenticated", "The API key is wrong.")
        return await charges.settle(idempotency_key)

    @app.get("/v1/balance", response_model=None)
    async def balance(authorization: Annotated[str, Header()] = "") -> dict[str, int] | JSONResponse:
        if not hmac.compare_digest(authorization.encode(), f"Bearer {secret}".encode()):
            return _error(401, "unauthenticated", "The API key is wrong.")
        return {"captured_charges": await charges.count()}

    return app


def _error(status: int, code: str, detail: str) -> JSONResponse:
    body = {"type": "about:blank", "status": status, "code": code, "detail": detail}
    return JSONResponse(body, status, media_type="application/problem+json")
