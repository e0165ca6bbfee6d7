"""Registering, logging in and out, and tickets for chat."""

import time
from collections.abc import Sequence
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import AfterValidator, StringConstraints

from commands.accounts import ChangeDisplayName, EraseAccount, RegisterAccount
from commands.authorise import platform_roles
from commands.context import Actor, Call
from domain.shared import Refusal, normalise_name
from gateways.auth import (
    ACCESS_COOKIE,
    ACCESS_S,
    PASSWORD_CHARS_MAX,
    PASSWORD_CHARS_MIN,
    REFRESH_COOKIE,
    REFRESH_S,
    ROTATION_GRACE_S,
    TICKET_S,
    Attempts,
    Session,
    bearer,
    cookie,
)
from gateways.errors import Problem
from gateways.http.answers import FollowedChannel, Me, NewAccountMade, OwnSubscription, Page, SessionBegun, Ticket
from gateways.http.base import (
    Api,
    ApiState,
    Body,
    CommandId,
    Cursor,
    Limit,
    Somebody,
    after,
    moment,
    page,
    perform,
    reading,
    same_site_only,
    text,
)
from gateways.peers import counted_as

routes = APIRouter(prefix="/api/v1", tags=["accounts"])

_SESSIONS_PATH: Final = "/api/v1/sessions"
Password = Annotated[
    str, StringConstraints(strip_whitespace=False, min_length=PASSWORD_CHARS_MIN, max_length=PASSWORD_CHARS_MAX)
]
DISPLAY_NAME_CHARS_MAX: Final = 40


def _visible(name: str) -> str:
    """Neither controls nor marks that turn or hide what is beside them."""
    if not name.isprintable():
        raise ValueError("must be of characters one can see")
    return name


DisplayName = Annotated[
    str, StringConstraints(min_length=1, max_length=DISPLAY_NAME_CHARS_MAX), AfterValidator(_visible)
]
Email = Annotated[str, StringConstraints(max_length=254, pattern=r"^[^@\s\x00]+@[^@\s\x00]+$")]


class NewAccount(Body):
    username: Annotated[str, StringConstraints(max_length=64)]
    password: Password
    email: Email | None = None


class AccountPatch(Body):
    display_name: DisplayName


class Credentials(Body):
    username: Annotated[str, StringConstraints(max_length=64)]
    password: Annotated[str, StringConstraints(strip_whitespace=False, max_length=PASSWORD_CHARS_MAX)]


class Refresh(Body):
    """For clients without cookies."""

    refresh_token: Annotated[str, StringConstraints(max_length=200)] | None = None


@routes.post("/accounts", status_code=201, response_model=NewAccountMade)
async def register(
    body: NewAccount, request: Request, response: Response, state: ApiState, command_id: CommandId
) -> dict[str, Any]:
    # First what costs nothing: a hash is dear.
    if isinstance(refusal := normalise_name(body.username), Refusal):
        raise Problem.of(refusal)
    peer = _peer(request)
    if wait_s := state.registrations.wait_s(peer, time.monotonic()):
        raise Problem("too_many_attempts", "Too many accounts from this address; please wait.", wait_s=round(wait_s, 1))
    state.registrations.note(peer, time.monotonic())
    hashed = await state.passwords.hash(body.password)
    done = await perform(state, response, Call(command_id), RegisterAccount(body.username, hashed, email=body.email))
    return dict(done.value)


@routes.get("/accounts/me", dependencies=[Depends(reading("accounts", "channels"))], response_model=Me)
async def me(state: ApiState, actor: Somebody) -> dict[str, Any]:
    channels = await state.read_models.channels_of(actor.account_id)
    display_name = await state.people.display_name(actor.account_id)
    return {
        "account_id": actor.account_id,
        "username": actor.username,
        "display_name": actor.username if display_name is None else display_name,
        "roles": sorted(actor.roles),
        "channels": [{"name": one["name"], "title": one["title"], "is_live": one["is_live"]} for one in channels],
    }


@routes.patch("/accounts/me", status_code=204)
async def describe(
    body: AccountPatch, response: Response, state: ApiState, actor: Somebody, command_id: CommandId
) -> None:
    await perform(state, response, Call(command_id, actor), ChangeDisplayName(body.display_name))


@routes.get(
    "/accounts/me/follows",
    dependencies=[Depends(reading("follows", "channels", "directory"))],
    response_model=Page[FollowedChannel],
)
async def follows(state: ApiState, actor: Somebody, limit: Limit, cursor: Cursor = None) -> dict[str, Any]:
    """Channels this account follows, the newest follow first."""
    before = after(cursor, moment, text)
    rows = await state.people.follows(actor.account_id, (before[0], before[1]) if before else None, limit + 1)
    return page(rows, limit, lambda row: [row["since"].isoformat(), row["channel"]])


@routes.get(
    "/accounts/me/subscriptions",
    dependencies=[Depends(reading("subscriptions", "channels"))],
    response_model=Page[OwnSubscription],
)
async def subscriptions(state: ApiState, actor: Somebody, limit: Limit, cursor: Cursor = None) -> dict[str, Any]:
    """This account's subscriptions that run still, the one that ends next first."""
    start = after(cursor, moment, text)
    rows = await state.people.subscriptions(actor.account_id, (start[0], start[1]) if start else None, limit + 1)
    return page(rows, limit, lambda row: [row["expires_at"].isoformat(), row["id"]])


@routes.delete("/accounts/me", status_code=204)
async def erase(response: Response, state: ApiState, actor: Somebody, command_id: CommandId) -> None:
    """Erasure: the person's key is destroyed, and with it every personal text of theirs."""
    await perform(state, response, Call(command_id, actor), EraseAccount(actor.account_id))
    await state.sessions.end_all(actor.account_id)
    _forget_cookies(response)


@routes.post("/sessions", response_model=SessionBegun, response_model_exclude_unset=True)
async def log_in(body: Credentials, request: Request, response: Response, state: ApiState) -> dict[str, Any]:
    same_site_only(request)
    username = body.username.strip().lower().replace("\x00", "?")
    peer = _peer(request)
    # Per name and address, so that nobody can lock somebody else out; and per address, lest one tries every name.
    bounds = ((state.logins, f"{username} {peer}"), (state.logins_of_address, peer))
    _bounded(bounds)
    row = await state.context.store.index_row("credentials", {"username": username})
    right = await state.passwords.verify(body.password, row["password_hash"] if row else None)
    # Again: of many guesses sent at once, those beyond the bound are not told whether they were right.
    _bounded(bounds)
    if not right or row is None:
        for attempts, key in bounds:
            attempts.note(key, time.monotonic())
        raise Problem("credentials_invalid", "User name or password is wrong.")
    return await _told(state, request, response, await state.sessions.begin(row["account_id"], username))


def _bounded(bounds: Sequence[tuple[Attempts, str]]) -> None:
    if wait_s := max(attempts.wait_s(key, time.monotonic()) for attempts, key in bounds):
        raise Problem("too_many_attempts", "Too many wrong passwords; please wait.", wait_s=round(wait_s, 1))


@routes.post("/sessions/refresh", response_model=SessionBegun, response_model_exclude_unset=True)
async def refresh(request: Request, response: Response, state: ApiState, body: Refresh | None = None) -> dict[str, Any]:
    same_site_only(request)
    session = None
    if told := body.refresh_token if body else None:
        session = await state.sessions.refresh(told)
    elif kept := cookie(request.headers.get("Cookie"), REFRESH_COOKIE):
        session = await state.sessions.refresh(kept, grace_s=ROTATION_GRACE_S)
    if session is None:
        raise Problem("session_ended", "This session has ended; log in again.")
    return await _told(state, request, response, session)


@routes.delete("/sessions/current", status_code=204)
async def log_out(request: Request, response: Response, state: ApiState) -> None:
    """Ends the session of the refresh cookie, or else that of the access token, by whichever way it came."""
    same_site_only(request)
    cookies = request.headers.get("Cookie")
    token = bearer(request.headers.get("Authorization"))
    if token is None and (refresh_token := cookie(cookies, REFRESH_COOKIE)):
        await state.sessions.end(refresh_token)
    elif family := _session(request, state):
        await state.sessions.end_family(family)
    else:
        raise Problem("unauthenticated", "There is no session to end.")
    _forget_cookies(response)


@routes.post("/chat-tickets", status_code=201, response_model=Ticket)
async def chat_ticket(request: Request, state: ApiState, actor: Somebody) -> dict[str, Any]:
    """For clients that can set neither header nor cookie on a WebSocket: good once, for half a minute."""
    ticket = await state.sessions.ticket(actor, _session(request, state))
    return {"ticket": ticket, "expires_in": TICKET_S}


async def _told(state: Api, request: Request, response: Response, session: Session) -> dict[str, Any]:
    actor = Actor(session.account_id, session.username, await platform_roles(state.context, session.account_id))
    access = state.tokens.issue(actor, session.family)
    secure = request.url.scheme == "https"
    response.set_cookie(ACCESS_COOKIE, access, ACCESS_S, httponly=True, secure=secure, samesite="lax", path="/")
    response.set_cookie(
        REFRESH_COOKIE, session.token, REFRESH_S, httponly=True, secure=secure, samesite="strict", path=_SESSIONS_PATH
    )
    response.headers["Cache-Control"] = "no-store"
    answer = {"access_token": access, "token_type": "bearer", "expires_in": ACCESS_S, "username": session.username}
    # A browser has it as a cookie that no script can read; it stays that way.
    if "Sec-Fetch-Site" not in request.headers and "Origin" not in request.headers:
        answer["refresh_token"] = session.token
    return answer


def _forget_cookies(response: Response) -> None:
    response.delete_cookie(ACCESS_COOKIE, path="/")
    response.delete_cookie(REFRESH_COOKIE, path=_SESSIONS_PATH)


def _peer(request: Request) -> str:
    """The address the front saw."""
    return counted_as(request.client.host if request.client else "unknown")


def _session(request: Request, state: Api) -> UUID | None:
    """The session of the access token, by whichever way it came."""
    token = bearer(request.headers.get("Authorization")) or cookie(request.headers.get("Cookie"), ACCESS_COOKIE)
    return state.tokens.session_of(token or "")
