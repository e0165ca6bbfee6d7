"""Who is at a room's door, and what they are to the channel: `Doorkeeper` and `Standings` over the event store and the read models.

The role `chat` makes one of each. A person's standing is kept for a moment, since each message asks for it.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection
from time import monotonic
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg

from eventstore.errors import StoreUnavailable
from eventstore.port import EventStore
from eventstore.writer import FAULTS_OF_CONNECTION
from gateways.auth import ACCESS_COOKIE, Sessions, Tokens, bearer, cookie
from gateways.chat.pod import Identity, Standing
from gateways.chat.server import Unauthenticated
from gateways.read_models import ReadModels

STANDING_S: Final = 1.0
STANDINGS_MAX: Final = 20_000
TICKET_CHARS_MAX: Final = 200
_BADGES: Final = {"owner": ("broadcaster",), "moderator": ("moderator",)}

Away = (asyncpg.PostgresError, *FAULTS_OF_CONNECTION)


class Door:
    def __init__(self, store: EventStore, tokens: Tokens, sessions: Sessions) -> None:
        self._store = store
        self._tokens = tokens
        self._sessions = sessions

    async def identify(
        self, *, authorization: str | None, cookie: str | None, origin: str | None, host: str | None, ticket: str | None
    ) -> Identity | Unauthenticated | None:
        if authorization:
            return self._by_token(bearer(authorization)) or _TOKEN
        if ticket:
            return await self._by_ticket(ticket) or _TICKET
        # A cookie that ran out makes a reader a stranger. One that another site's page made the browser send counts for nothing.
        same_site = origin is None or urlsplit(origin).netloc == host
        return self._by_token(_access(cookie)) if same_site else None

    async def channel_id(self, name: str) -> str | None:
        row = await self._store.index_row("names", {"name": name, "use": "channel"}) if name.isprintable() else None
        return None if row is None else str(row["subject_id"])

    def _by_token(self, token: str | None) -> Identity | None:
        access = self._tokens.read(token) if token else None
        if access is None:
            return None
        return Identity(access.actor.account_id, access.actor.username, access.session, access.expires_at)

    async def _by_ticket(self, ticket: str) -> Identity | None:
        if len(ticket) > TICKET_CHARS_MAX:
            return None
        try:
            found = await self._sessions.redeem(ticket)
        except Away as fault:
            raise StoreUnavailable(repr(fault)) from fault
        return None if found is None else Identity(*found)

    async def alive(self, sessions: Collection[UUID]) -> Collection[UUID]:
        try:
            return await self._sessions.alive(sessions)
        except Away as fault:
            raise StoreUnavailable(repr(fault)) from fault


_TOKEN: Final = Unauthenticated("unauthenticated", "This access token is not valid (any more).")
_TICKET: Final = Unauthenticated("ticket_invalid", "This ticket was used before, or has run out.")


def _access(header: str | None) -> str | None:
    return cookie(header, ACCESS_COOKIE)


class ModelStandings:
    """Roles from the store's own table; follows, subscriptions and erasures from the read models, which may lag a second."""

    def __init__(self, store: EventStore, models: ReadModels, *, clock: Callable[[], float] = monotonic) -> None:
        self._store = store
        self._models = models
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], tuple[float, Standing]] = OrderedDict()

    async def standing(self, channel_id: str, account_id: str) -> Standing:
        key, now = (channel_id, account_id), self._clock()
        kept = self._kept.get(key)
        if kept is not None and now - kept[0] < STANDING_S:
            return kept[1]
        standing = await self._read(channel_id, account_id)
        self._kept[key] = (now, standing)
        self._kept.move_to_end(key)
        while len(self._kept) > STANDINGS_MAX:
            self._kept.popitem(last=False)
        return standing

    async def erased(self, usernames: Collection[str]) -> Collection[str]:
        if not usernames:
            return ()
        try:
            return await self._models.erased(usernames)
        except Away as fault:
            raise StoreUnavailable(repr(fault)) from fault

    async def _read(self, channel_id: str, account_id: str) -> Standing:
        role = await self._store.index_row("channel_roles", {"channel_id": channel_id, "account_id": account_id})
        try:
            since = await self._models.following(channel_id, account_id)
            subscription = await self._models.subscription(channel_id, account_id)
        except Away as fault:
            raise StoreUnavailable(repr(fault)) from fault
        badges = _BADGES.get(role["role"], ()) if role is not None else ()
        if subscription is not None:
            badges = (*badges, "subscriber")
        return Standing(badges, since, subscription is not None)
