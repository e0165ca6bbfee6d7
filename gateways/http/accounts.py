"""Registering, logging in and out, and tickets for chat."""

import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from pydantic import StringConstraints

from commands.accounts import EraseAccount, RegisterAccount
from commands.authorise import platform_roles
from commands.context import Actor, Call
from gateways.auth import (
    ACCESS_COOKIE,
    ACCESS_S,
    PASSWORD_CHARS_MAX,
    PASSWORD_CHARS_MIN,
    REFRESH_COOKIE,
    REFRESH_S,
    TICKET_S,
    cookie,
)
from gateways.errors import Problem
from gateways.http.base import Api, ApiState, Body, CommandId, Somebody, perform, reading, same_site_only

routes = APIRouter(prefix="/api/v1", tags=["accounts"])

_SESSIONS_PATH: Final = "/api/v1/sessions"
Password = Annotated[
    str, StringConstraints(strip_whitespace=False, min_length=PASSWORD_CHARS_MIN, max_length=PASSWORD_CHARS_MAX)
]
Email = Annotated[str, StringConstraints(max_length=254, pattern=r"^[^@\s\x00]+@[^@\s\x00]+$")]


class NewAccount(Body):
    username: Annotated[str, StringConstraints(max_length=64)]
    password: Password
    email: Email | None = None


class Credentials(Body):
    username: Annotated[str, StringConstraints(max_length=64)]
    password: Annotated[str, StringConstraints(strip_whitespace=False, max_length=PASSWORD_CHARS_MAX)]


class Refresh(Body):
    """For clients without cookies."""

    refresh_token: Annotated[str, StringConstraints(max_length=200)] | None = None


@routes.post("/accounts", status_code=201)
async def register(
    body: NewAccount, request: Request, response: Response, state: ApiState, command_id: CommandId
) -> dict[str, Any]:
    peer = _peer(request)
    if wait_s := state.registrations.wait_s(peer, time.monotonic()):
        raise Problem("too_many_attempts", "Too many accounts from this address; please wait.", wait_s=round(wait_s, 1))
    hashed = await state.passwords.hash(body.password)
    done = await perform(state, response, Call(command_id), RegisterAccount(body.username, hashed, email=body.email))
    state.registrations.note(peer, time.monotonic())
    return dict(done.value)


@routes.get("/accounts/me", dependencies=[Depends(reading("channels"))])
async def me(state: ApiState, actor: Somebody) -> dict[str, Any]:
    channels = await state.read_models.channels_of(actor.account_id)
    return {
        "account_id": actor.account_id,
        "username": actor.username,
        "roles": sorted(actor.roles),
        "channels": [{"name": one["name"], "title": one["title"], "is_live": one["is_live"]} for one in channels],
    }


@routes.delete("/accounts/me", status_code=204)
async def erase(response: Response, state: ApiState, actor: Somebody, command_id: CommandId) -> None:
    """Erasure: the person's key is destroyed, and with it every personal text of theirs."""
    await perform(state, response, Call(command_id, actor), EraseAccount(actor.account_id))
    _forget_cookies(response)


@routes.post("/sessions")
async def log_in(body: Credentials, request: Request, response: Response, state: ApiState) -> dict[str, Any]:
    same_site_only(request)
    username = body.username.strip().lower().replace("\x00", "?")
    keys = (f"name:{username}", f"peer:{_peer(request)}")
    now = time.monotonic()
    if wait_s := max(state.logins.wait_s(key, now) for key in keys):
        raise Problem("too_many_attempts", "Too many wrong passwords; please wait.", wait_s=round(wait_s, 1))
    row = await state.context.store.index_row("credentials", {"username": username})
    if not await state.passwords.verify(body.password, row["password_hash"] if row else None) or row is None:
        for key in keys:
            state.logins.note(key, now)
        raise Problem("credentials_invalid", "User name or password is wrong.")
    token = await state.sessions.begin(row["account_id"], username)
    return await _session(state, request, response, row["account_id"], username, token)


@routes.post("/sessions/refresh")
async def refresh(request: Request, response: Response, state: ApiState, body: Refresh | None = None) -> dict[str, Any]:
    same_site_only(request)
    given = (body.refresh_token if body else None) or cookie(request.headers.get("Cookie"), REFRESH_COOKIE)
    refreshed = await state.sessions.refresh(given) if given else None
    if refreshed is None:
        raise Problem("session_ended", "This session has ended; log in again.")
    return await _session(state, request, response, refreshed.account_id, refreshed.username, refreshed.token)


@routes.delete("/sessions/current", status_code=204)
async def log_out(request: Request, response: Response, state: ApiState) -> None:
    same_site_only(request)
    if token := cookie(request.headers.get("Cookie"), REFRESH_COOKIE):
        await state.sessions.end(token)
    _forget_cookies(response)


@routes.post("/chat-tickets", status_code=201)
async def chat_ticket(state: ApiState, actor: Somebody) -> dict[str, Any]:
    """For clients that can set neither header nor cookie on a WebSocket: good once, for half a minute."""
    return {"ticket": await state.sessions.ticket(actor), "expires_in": TICKET_S}


async def _session(
    state: Api, request: Request, response: Response, account_id: str, username: str, refresh_token: str
) -> dict[str, Any]:
    actor = Actor(account_id, username, await platform_roles(state.context, account_id))
    access = state.tokens.issue(actor)
    secure = request.url.scheme == "https"
    response.set_cookie(ACCESS_COOKIE, access, ACCESS_S, httponly=True, secure=secure, samesite="lax", path="/")
    response.set_cookie(
        REFRESH_COOKIE, refresh_token, REFRESH_S, httponly=True, secure=secure, samesite="strict", path=_SESSIONS_PATH
    )
    response.headers["Cache-Control"] = "no-store"
    answer = {"access_token": access, "token_type": "bearer", "expires_in": ACCESS_S, "username": username}
    # A browser has it as a cookie that no script can read; it stays that way.
    if "Sec-Fetch-Site" not in request.headers and "Origin" not in request.headers:
        answer["refresh_token"] = refresh_token
    return answer


def _forget_cookies(response: Response) -> None:
    response.delete_cookie(ACCESS_COOKIE, path="/")
    response.delete_cookie(REFRESH_COOKIE, path=_SESSIONS_PATH)


def _peer(request: Request) -> str:
    return request.client.host if request.client else "unknown"
