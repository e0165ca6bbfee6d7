"""What every route stands on: who asks, one's own writes, lists with opaque cursors, commands and their answers."""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any, Final
from urllib.parse import urlsplit
from uuid import UUID, uuid5

import orjson
from fastapi import Depends, Header, Query, Request, Response, Security
from fastapi.security import APIKeyCookie, HTTPBearer
from pydantic import BaseModel, ConfigDict

from commands.bus import handle
from commands.context import Actor, Call, Context, Done
from domain.shared import Refusal
from eventstore.port import SHARDS, Placed
from gateways.auth import ACCESS_COOKIE, Attempts, Passwords, Sessions, Tokens, bearer, cookie
from gateways.bootstrap import new_id
from gateways.errors import Problem
from gateways.people import People
from gateways.read_models import PAGE_MAX, ReadModels
from media.playback import Signer
from projections.queries import wait_for

POSITION_HEADER: Final = "Tallylight-Position"
POSITIONS_MAX: Final = 8
CURSOR_CHARS_MAX: Final = 400
IDEMPOTENCY_KEY_CHARS_MAX: Final = 128
TIME_MIN: Final = datetime(1970, 1, 1, tzinfo=UTC)
TIME_MAX: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""Times outside of these are nobody's; their ends overflow what computes with them."""
_CALLS: Final = UUID("4a7f4f2e-4f0b-5f1b-bb6b-6f5d2f0e9a31")


@dataclass(frozen=True, slots=True)
class Api:
    """The state of the application: `request.app.state.api`."""

    context: Context
    read_models: ReadModels
    people: People
    sessions: Sessions
    passwords: Passwords
    tokens: Tokens
    pool: Any
    public_url: str
    rtmp_url: str
    srt_url: str
    logins: Attempts
    """By user name and address."""
    logins_of_address: Attempts
    registrations: Attempts
    stream_health: Callable[[str], Awaitable[dict[str, Any] | None]]
    """Of the channel with this id, if it is on air: `gateways.stream_health`."""
    playback: Signer
    """Signs what subscribers play by."""
    webhook_secrets: Mapping[str, str] = field(default_factory=dict)
    """By the name of the provider that signs with it."""


class Body(BaseModel):
    """Base of request bodies: unknown fields are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


def api(request: Request) -> Api:
    state: Api = request.app.state.api
    return state


ApiState = Annotated[Api, Depends(api)]


def whoever(request: Request, state: ApiState) -> Actor | None:
    """Who asks, by bearer token or cookie; None for nobody. A token that is no good is an error, not nobody."""
    header = request.headers.get("Authorization")
    token = bearer(header)
    if token is None and header:
        raise Problem("unauthenticated", "The Authorization header must hold a bearer token.")
    from_cookie = token is None
    token = token or cookie(request.headers.get("Cookie"), ACCESS_COOKIE)
    if token is None:
        return None
    actor = state.tokens.verify(token)
    if actor is None:
        if from_cookie and request.method in ("GET", "HEAD"):
            return None
        raise Problem("unauthenticated", "This access token is not valid (any more).")
    if from_cookie:
        same_site_only(request)
    return actor


def same_site_only(request: Request) -> None:
    """A browser that was sent by another site may look but not act with its cookies (CSRF)."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    fetch_site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if fetch_site in ("same-origin", "none"):
        return
    if fetch_site is None and (origin is None or urlsplit(origin).netloc == request.headers.get("Host")):
        return
    raise Problem("cross_site", "This request came from another site.")


# For the description alone: `whoever` reads them.
_BEARER: Final = HTTPBearer(auto_error=False)
_COOKIE: Final = APIKeyCookie(name=ACCESS_COOKIE, auto_error=False)


def somebody(
    actor: Annotated[Actor | None, Depends(whoever)],
    _bearer: Annotated[object, Security(_BEARER)],
    _cookie: Annotated[object, Security(_COOKIE)],
) -> Actor:
    if actor is None:
        raise Problem("unauthenticated", "Log in first.")
    return actor


Whoever = Annotated[Actor | None, Depends(whoever)]
Somebody = Annotated[Actor, Depends(somebody)]


async def command_id(
    request: Request,
    actor: Whoever,
    idempotency_key: Annotated[str | None, Header(max_length=IDEMPOTENCY_KEY_CHARS_MAX)] = None,
) -> UUID:
    """The id of the command a request makes: the same for the same Idempotency-Key of the same person, address and body.

    The body counts, lest a key used twice make a second wish look granted, or one stranger's registration another's.
    """
    if idempotency_key is None:
        return new_id()
    if not idempotency_key.isascii() or not idempotency_key.strip():
        raise Problem("idempotency_key_invalid", "An Idempotency-Key is 1 to 128 ASCII characters.")
    who = actor.account_id if actor else ""
    body = sha256(await request.body()).hexdigest()
    return uuid5(_CALLS, f"{who}:{request.method}:{request.url.path}:{idempotency_key}:{body}")


CommandId = Annotated[UUID, Depends(command_id)]


async def perform(state: Api, response: Response, call: Call, command: Any) -> Done:
    """Do it, and tell the answer's position; a refusal is a problem."""
    outcome = await handle(state.context, call, command)
    if isinstance(outcome, Refusal):
        raise Problem.of(outcome)
    if outcome.placed:
        response.headers[POSITION_HEADER] = encode_position(outcome.placed)
    return outcome


def encode_position(placed: Sequence[Placed]) -> str:
    return _opaque({str(one.shard): one.position for one in placed})


def reading(*projections: str) -> Callable[..., Any]:
    """A dependency: wait, at most 2 s, until these read models have what the `Tallylight-Position` sent back says."""

    async def wait(request: Request, state: ApiState) -> None:
        header = request.headers.get(POSITION_HEADER)
        if not header:
            return
        positions = _positions(header)
        log: Any = state.context.store
        await wait_for(state.pool, log, positions, projections)

    return wait


def _positions(header: str) -> dict[int, int]:
    invalid = Problem("position_invalid", f"{POSITION_HEADER} is what an earlier answer gave, sent back as it was.")
    try:
        found = {int(shard): position for shard, position in _transparent(header).items()}
    except (ValueError, AttributeError):
        raise invalid from None
    if not 0 < len(found) <= POSITIONS_MAX or not all(
        0 <= shard < SHARDS and isinstance(position, int) and 0 < position < 2**62 for shard, position in found.items()
    ):
        raise invalid
    return found


def limit(limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50) -> int:
    return limit


Limit = Annotated[int, Depends(limit)]
Cursor = Annotated[str | None, Query(max_length=CURSOR_CHARS_MAX)]


def page(
    items: Sequence[Mapping[str, Any]], limit: int, key: Callable[[Mapping[str, Any]], list[Any]]
) -> dict[str, Any]:
    """`{items, next}` of up to `limit` + 1 rows; `key` is what the cursor goes on after."""
    shown = list(items[:limit])
    following = _opaque(key(shown[-1])) if len(items) > limit else None
    return {"items": shown, "next": following}


def after(cursor: str | None, *kinds: Callable[[Any], Any]) -> list[Any] | None:
    """A cursor's values, each by its kind (`text`, `whole`, `small`, `moment`). Raises a problem for what is no cursor of ours."""
    if cursor is None:
        return None
    try:
        values = _transparent(cursor)
        if not isinstance(values, list):
            raise ValueError("no list")
        return [kind(value) for kind, value in zip(kinds, values, strict=True)]
    except ValueError:
        raise Problem("cursor_invalid", "A cursor is the `next` of an earlier answer, sent back as it was.") from None


def text(value: Any) -> str:
    """Text that Postgres takes too."""
    if not isinstance(value, str) or "\x00" in value:
        raise ValueError("no text")
    return value


def whole(value: Any) -> int:
    """A bigint of ours: a position or a count."""
    if type(value) is not int or not 0 <= value < 2**62:
        raise ValueError("no position")
    return value


def small(value: Any) -> int:
    """An int of ours: a shard or a line."""
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError("no small number")
    return value


def moment(value: Any) -> datetime:
    at = datetime.fromisoformat(text(value))
    if at.tzinfo is None or not TIME_MIN <= at <= TIME_MAX:
        raise ValueError("no time of ours")
    return at


def _opaque(value: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(value)).decode().rstrip("=")


def _transparent(text: str) -> Any:
    """Raises ValueError for what `_opaque` did not make."""
    try:
        return orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(str(error)) from None


async def channel_id_of(state: Api, name: str) -> str:
    row = await state.context.store.index_row("names", {"name": _plain(name), "use": "channel"})
    if row is None:
        raise Problem("channel_not_found", "There is no such channel.")
    return str(row["subject_id"])


async def account_of(state: Api, username: str) -> tuple[str, str]:
    """Account id and normalised user name."""
    name = _plain(username)
    row = await state.context.store.index_row("names", {"name": name, "use": "account"})
    if row is None:
        raise Problem("account_not_found", "There is no such user.")
    return str(row["account_id"]), name


def _plain(name: str) -> str:
    # NUL is no text to Postgres, and no name either.
    return name.strip().lower()[:64].replace("\x00", "?")


async def gather(*awaitables: Any) -> list[Any]:
    return list(await asyncio.gather(*awaitables))
