"""Who is who: passwords (argon2id), short-lived signed access tokens, rotating refresh tokens, one-use chat tickets.

Used by the HTTP API, which hands them out, and by chat, which only verifies. Secrets are stored as hashes; none is ever logged.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from commands.context import Actor

ACCESS_S: Final = 900
REFRESH_S: Final = 30 * 86_400
TICKET_S: Final = 30
ROTATION_GRACE_S: Final = 10
"""Two tabs of a browser may present the same cookie within this time; later it is a theft. API clients have no tabs."""
ACCESS_COOKIE: Final = "tallylight_access"
REFRESH_COOKIE: Final = "tallylight_refresh"
PASSWORD_CHARS_MIN: Final = 8
PASSWORD_CHARS_MAX: Final = 256
HASHING_MAX: Final = 2
"""Hashes at a time: each takes 64 MiB and a core for some 50 ms."""
HASHES_WAITING_MAX: Final = 64
"""More than that would wait longer than people do."""
_ISSUER: Final = "tallylight"

MIGRATIONS: Final = Path(__file__).parent / "schema_sessions"


class TooBusy(Exception):
    """More passwords wait to be hashed than may."""


class Passwords:
    """Argon2id with the library's parameters (RFC 9106, low memory), off the event loop, a bounded number at a time.

    Raises `TooBusy` while too many wait.
    """

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._gate = asyncio.Semaphore(HASHING_MAX)
        self._here = 0
        self._nobody = self._hasher.hash(secrets.token_urlsafe(16))

    async def hash(self, password: str) -> str:
        async with self._turn():
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, password: str, hashed: str | None) -> bool:
        """False for a wrong one. An unknown user (None) takes as long as a known one."""
        async with self._turn():
            return await asyncio.to_thread(self._verify, password, hashed)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._here >= HASHING_MAX + HASHES_WAITING_MAX:
            raise TooBusy
        self._here += 1
        try:
            async with self._gate:
                yield
        finally:
            self._here -= 1

    def _verify(self, password: str, hashed: str | None) -> bool:
        try:
            self._hasher.verify(hashed or self._nobody, password)
        except (VerificationError, InvalidHashError):
            return False
        return hashed is not None


@dataclass(frozen=True, slots=True)
class Access:
    """What an access token says: whose it is, which session it came with, and until when it is good."""

    actor: Actor
    session: UUID
    expires_at: datetime


class Tokens:
    """Access tokens: JWT (RFC 7519), HS256, verified without any store."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def issue(self, actor: Actor, session: UUID) -> str:
        """`session`: the family of refresh tokens it came with, so that its bearer can end that."""
        now = datetime.now(UTC)
        claims = {
            "iss": _ISSUER,
            "sub": actor.account_id,
            "name": actor.username,
            "roles": sorted(actor.roles),
            "sid": str(session),
            "iat": now,
            "exp": now + timedelta(seconds=ACCESS_S),
        }
        return jwt.encode(claims, self._secret, "HS256")

    def read(self, token: str) -> Access | None:
        """None for any token that is not ours or no longer good."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token, self._secret, ["HS256"], issuer=_ISSUER, options={"require": ["exp", "sub", "iss", "sid"]}
            )
            actor = Actor(str(claims["sub"]), str(claims["name"]), frozenset(map(str, claims["roles"])))
            return Access(actor, UUID(claims["sid"]), datetime.fromtimestamp(claims["exp"], UTC))
        except (jwt.PyJWTError, KeyError, TypeError, ValueError):
            return None

    def verify(self, token: str) -> Actor | None:
        """Whose a good token is."""
        access = self.read(token)
        return access.actor if access else None

    def session_of(self, token: str) -> UUID | None:
        """The session of a good token."""
        access = self.read(token)
        return access.session if access else None


@dataclass(frozen=True, slots=True)
class Session:
    """Whose it is, the family of its refresh tokens, and the token to present next time."""

    account_id: str
    username: str
    family: UUID
    token: str


class Redeemed(NamedTuple):
    """Who a ticket lets in, and the session it came with."""

    account_id: str
    username: str
    session: UUID | None


class Sessions:
    """Refresh tokens and tickets in Postgres, so that any process can take them."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def begin(self, account_id: str, username: str) -> Session:
        session = Session(account_id, username, uuid4(), secrets.token_urlsafe(32))
        await self._insert(self._pool, session)
        return session

    async def refresh(self, token: str, *, grace_s: float = 0) -> Session | None:
        """A new token for a good one. A token presented again after its grace ends all of its family: somebody copied it."""
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(
                "SELECT family, account_id, username, used_at, expires_at > now() AS good,"
                " used_at <= now() - make_interval(secs => $2) AS stale FROM sessions WHERE token_hash = $1 FOR UPDATE",
                _hash(token),
                grace_s,
            )
            if row is None or not row["good"]:
                return None
            if row["stale"]:
                await connection.execute("DELETE FROM sessions WHERE family = $1", row["family"])
                return None
            await connection.execute(
                "UPDATE sessions SET used_at = coalesce(used_at, now()) WHERE token_hash = $1", _hash(token)
            )
            fresh = Session(row["account_id"], row["username"], row["family"], secrets.token_urlsafe(32))
            await self._insert(connection, fresh)
            return fresh

    async def end(self, token: str) -> None:
        await self._pool.execute(
            "DELETE FROM sessions WHERE family = (SELECT family FROM sessions WHERE token_hash = $1)", _hash(token)
        )

    async def end_family(self, family: UUID) -> None:
        await self._pool.execute("DELETE FROM sessions WHERE family = $1", family)

    async def end_all(self, account_id: str) -> None:
        """All of a person's, tickets too."""
        await self._pool.execute("DELETE FROM sessions WHERE account_id = $1", account_id)
        await self._pool.execute("DELETE FROM chat_tickets WHERE account_id = $1", account_id)

    async def alive(self, families: Collection[UUID]) -> set[UUID]:
        """Those of them that have neither ended nor run out."""
        rows = await self._pool.fetch(
            "SELECT DISTINCT family FROM sessions WHERE family = ANY($1::uuid[]) AND expires_at > now()", list(families)
        )
        return {row[0] for row in rows}

    async def ticket(self, actor: Actor, session: UUID | None = None) -> str:
        ticket = secrets.token_urlsafe(24)
        await self._pool.execute(
            "INSERT INTO chat_tickets (ticket_hash, account_id, username, expires_at, session)"
            " VALUES ($1, $2, $3, now() + make_interval(secs => $4), $5)",
            _hash(ticket),
            actor.account_id,
            actor.username,
            TICKET_S,
            session,
        )
        return ticket

    async def redeem(self, ticket: str) -> Redeemed | None:
        """Once."""
        row = await self._pool.fetchrow(
            "DELETE FROM chat_tickets WHERE ticket_hash = $1"
            " RETURNING account_id, username, session, expires_at > now() AS good",
            _hash(ticket),
        )
        if row is None or not row["good"]:
            return None
        return Redeemed(row["account_id"], row["username"], row["session"])

    async def forget_expired(self) -> None:
        await self._pool.execute("DELETE FROM sessions WHERE expires_at < now()")
        await self._pool.execute("DELETE FROM chat_tickets WHERE expires_at < now()")

    @staticmethod
    async def _insert(connection: Any, session: Session) -> None:
        await connection.execute(
            "INSERT INTO sessions VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))",
            _hash(session.token),
            session.family,
            session.account_id,
            session.username,
            REFRESH_S,
        )


class Attempts:
    """How often something failed, by key, in a window: bounded, the oldest key forgotten first."""

    def __init__(self, *, most: int, window_s: float, keys_max: int = 20_000) -> None:
        self._most = most
        self._window_s = window_s
        self._keys_max = keys_max
        self._failed: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def wait_s(self, key: str, now: float) -> float:
        """0 where another attempt is welcome."""
        since, count = self._failed.get(key, (now, 0))
        left = since + self._window_s - now
        return left if count >= self._most and left > 0 else 0.0

    def note(self, key: str, now: float) -> None:
        since, count = self._failed.get(key, (now, 0))
        if now - since >= self._window_s:
            since, count = now, 0
        self._failed[key] = (since, count + 1)
        self._failed.move_to_end(key)
        while len(self._failed) > self._keys_max:
            self._failed.popitem(last=False)


def cookie(header: str | None, name: str) -> str | None:
    """One cookie's value out of a Cookie header."""
    if not header:
        return None
    try:
        morsel = SimpleCookie(header).get(name)
    except CookieError:
        return None
    return morsel.value if morsel else None


def bearer(header: str | None) -> str | None:
    """The token of an Authorization header; None where there is none of that kind."""
    kind, _, token = (header or "").partition(" ")
    return token.strip() if kind.lower() == "bearer" and token.strip() else None


def _hash(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
