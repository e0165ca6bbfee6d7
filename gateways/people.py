"""Queries about people: what an account follows and pays for, and whom a channel has as moderators and has banned.

Beside `gateways.read_models`, for the HTTP API. Reads only; keyset cursors; what has run out is left out by the time it is now.
"""

from datetime import datetime
from typing import Any, Final

from gateways.read_models import Row

_IS_LIVE: Final = "EXISTS (SELECT FROM p_directory.live l WHERE l.channel_id = c.channel_id)"


class People:
    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def display_name(self, account_id: str) -> str | None:
        name: str | None = await self._pool.fetchval(
            "SELECT display_name FROM p_accounts.accounts WHERE account_id = $1", account_id
        )
        return name

    async def follows(self, account_id: str, before: tuple[datetime, str] | None, limit: int) -> list[Row]:
        """Channels somebody follows, the newest follow first."""
        since, channel = before or (None, None)
        rows = await self._pool.fetch(
            f"""SELECT c.name AS channel, c.title, c.category, {_IS_LIVE} AS is_live, f.since
            FROM p_follows.follows f JOIN p_channels.channels c USING (channel_id)
            WHERE f.account_id = $1 AND ($2::timestamptz IS NULL OR (f.since, c.name) < ($2, $3::text))
            ORDER BY f.since DESC, c.name DESC LIMIT $4""",
            account_id,
            since,
            channel,
            limit,
        )
        return [dict(row) for row in rows]

    async def subscriptions(self, account_id: str, after: tuple[datetime, str] | None, limit: int) -> list[Row]:
        """What somebody's subscriptions are that run still, the one that ends next first."""
        expires_at, subscription_id = after or (None, None)
        rows = await self._pool.fetch(
            """SELECT s.subscription_id AS id, c.name AS channel, s.tier, s.started_at, s.expires_at, s.cancelled
            FROM p_subscriptions.subscriptions s JOIN p_channels.channels c USING (channel_id)
            WHERE s.account_id = $1 AND s.expires_at > now()
                AND ($2::timestamptz IS NULL OR (s.expires_at, s.subscription_id) > ($2, $3::text))
            ORDER BY s.expires_at, s.subscription_id LIMIT $4""",
            account_id,
            expires_at,
            subscription_id,
            limit,
        )
        return [dict(row) for row in rows]

    async def moderators(self, channel_id: str, after: tuple[datetime, str] | None, limit: int) -> list[Row]:
        """In the order they were appointed."""
        since, username = after or (None, None)
        rows = await self._pool.fetch(
            """SELECT username, since FROM p_channels.moderators
            WHERE channel_id = $1 AND ($2::timestamptz IS NULL OR (since, username) > ($2, $3::text))
            ORDER BY since, username LIMIT $4""",
            channel_id,
            since,
            username,
            limit,
        )
        return [dict(row) for row in rows]

    async def bans(self, channel_id: str, before: int | None, limit: int) -> list[Row]:
        """Bans and timeouts that hold now, the newest first."""
        rows = await self._pool.fetch(
            """SELECT position, username, moderator, reason, at, until FROM p_bans.bans
            WHERE channel_id = $1 AND (until IS NULL OR until > now()) AND ($2::bigint IS NULL OR position < $2)
            ORDER BY position DESC LIMIT $3""",
            channel_id,
            before,
            limit,
        )
        return [dict(row) for row in rows]
