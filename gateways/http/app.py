"""The API's ASGI application: routes by subject, the pages behind them, limits before them, and one way to fail.

Made by `gateways.api_role` and by tests. Whatever goes wrong is answered with a problem of `gateways.errors`, never with a trace.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import Counter, Histogram
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eventstore.errors import StoreUnavailable
from eventstore.writer import FAULTS_OF_CONNECTION
from gateways.auth import TooBusy
from gateways.chat import asyncapi
from gateways.errors import Problem
from gateways.http import accounts, channels, chat, clips, money, stream_health, webhooks
from gateways.http.base import Api
from gateways.http.description import describe
from gateways.read_models import NO_READ_MODEL
from gateways.web import pages

log = structlog.get_logger()

BODY_BYTES_MAX: Final = 64 * 1024
LENGTH_DIGITS_MAX: Final = 12
QUERY_BYTES_MAX: Final = 4096
TOO_LARGE: Final = f"A request has at most {BODY_BYTES_MAX} bytes of body and {QUERY_BYTES_MAX} of query."
VALIDATION_ERRORS_SHOWN_MAX: Final = 20

Health = Callable[[], Awaitable[dict[str, Any]]]

_requests = Counter("tallylight_http_requests_total", "Requests answered", ["method", "route", "status"])
_seconds = Histogram("tallylight_http_seconds", "Time to answer", ["route"])


def build(api: Api, *, alive: Health, ready: Health) -> FastAPI:
    """`alive` and `ready` answer {"ok": bool, …} for the front's health paths."""
    app = FastAPI(
        title="Tallylight",
        version="1",
        description="Live streaming whose every fact is an immutable event.",
        docs_url=None,  # the framework's own pages load from another host; ours is one of `gateways.web.pages`
        redoc_url=None,
    )
    app.state.api = api
    for subject in (accounts, channels, clips, stream_health, chat, money, webhooks):
        app.include_router(subject.routes)

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return _health(await alive())

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        return _health(await ready())

    @app.get("/asyncapi.json", include_in_schema=False)
    async def describe_chat() -> dict[str, Any]:
        return asyncapi.document()

    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    app.router.routes.extend(pages.routes)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _fault)
    for fault in (StoreUnavailable, TooBusy, *FAULTS_OF_CONNECTION):
        app.add_exception_handler(fault, _unavailable)
    for missing in NO_READ_MODEL:
        app.add_exception_handler(missing, _no_read_model)
    app.add_middleware(Limits)
    return app


class Limits:
    """Bounds on what comes in, the security headers of what goes out, and the count of both."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if problem := _refused(scope):
            await problem.response()(scope, receive, send)
            return
        got = 0

        async def bounded() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > BODY_BYTES_MAX:
                # In the form that FastAPI lets pass while it reads a body.
                raise HTTPException(413, TOO_LARGE)
            return message

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                names = {name for name, _ in headers}
                if b"x-content-type-options" not in names:
                    headers.append((b"x-content-type-options", b"nosniff"))
                if scope["path"].startswith("/api/") and b"cache-control" not in names:
                    headers.append((b"cache-control", b"no-store"))
                route = getattr(scope.get("route"), "path", "none")
                _requests.labels(scope["method"][:10], route, message["status"]).inc()
            await send(message)

        with _seconds.labels("api" if scope["path"].startswith("/api/") else "pages").time():
            await self._app(scope, bounded, sending)


def _refused(scope: Scope) -> Problem | None:
    """What the head of a request says against it already."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"0")
    if not length.isdigit():
        return Problem("bad_request", "Content-Length is a number.")
    if len(length) > LENGTH_DIGITS_MAX or int(length) > BODY_BYTES_MAX or len(scope["query_string"]) > QUERY_BYTES_MAX:
        return _too_large()
    has_body = int(length) > 0 or b"transfer-encoding" in headers
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if has_body and scope["path"].startswith("/api/") and kind != b"application/json":
        return Problem("media_type_unsupported", "A body is JSON, with Content-Type: application/json.")
    return None


def _too_large() -> Problem:
    return Problem("body_too_large", TOO_LARGE)


def _health(said: dict[str, Any]) -> Response:
    return JSONResponse(said, 200 if said.get("ok") else 503, {"Cache-Control": "no-store"})


async def _problem(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, Problem)
    return fault.response()


async def _invalid(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, RequestValidationError)
    found = [
        {"where": ".".join(map(str, error["loc"]))[:100], "what": str(error["msg"])[:200]}
        for error in fault.errors()[:VALIDATION_ERRORS_SHOWN_MAX]
    ]
    detail = "; ".join(f"{one['where']}: {one['what']}" for one in found[:3])
    return Problem("invalid", detail, errors=found).response()


async def _http(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, HTTPException)
    if fault.status_code == 404 and "text/html" in request.headers.get("Accept", ""):
        return pages.not_found()
    code = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}.get(fault.status_code, "bad_request")
    answer = Problem(code, str(fault.detail)).response()
    if allowed := (fault.headers or {}).get("Allow"):
        answer.headers["Allow"] = allowed
    return answer


async def _unavailable(request: Request, fault: Exception) -> Response:
    log.warning("api.unavailable", path=request.url.path, fault=str(fault)[:200])
    return Problem("unavailable", "Tallylight cannot answer this for a moment; please try again.").response()


async def _no_read_model(request: Request, fault: Exception) -> Response:
    """Before a projector's first start there are no rows, and after an upgrade older ones, until they are made anew."""
    log.error("api.no_read_model", path=request.url.path, fault=str(fault)[:200])
    return Problem("unavailable", "What answers this is being made ready; please try again soon.").response()


async def _fault(request: Request, fault: Exception) -> Response:
    log.error("api.fault", path=request.url.path, exc_info=fault)
    return Problem("internal", "Something is wrong on our side; it has been noted.").response()
