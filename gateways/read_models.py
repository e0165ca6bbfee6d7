"""Queries over the read models, as the HTTP API answers them. Reads only; a row is as old as its projection's checkpoint.

Keyset cursors, never offsets. What was removed from a chat is filtered where it is read.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
import orjson

from projections.audience import CURRENT

PAGE_MAX: Final = 100

Row = dict[str, Any]

_VIEWERS: Final = f"(SELECT viewers FROM audience.current_viewers v WHERE v.channel_id = c.channel_id AND v.{CURRENT})"
_CHANNEL: Final = f"""
SELECT c.channel_id, c.name, c.owner_id, c.title, c.category, c.tags, c.chat_mode, c.opened_at, a.username AS owner,
    coalesce(f.followers, 0) AS follower_count, coalesce(s.subscribers, 0) AS subscriber_count,
    l.broadcast_id, l.started_at, coalesce({_VIEWERS}, 0) AS current_viewers
FROM p_channels.channels c
LEFT JOIN p_accounts.accounts a ON a.account_id = c.owner_id
LEFT JOIN p_follows.counts f ON f.channel_id = c.channel_id
LEFT JOIN p_subscriptions.counts s ON s.channel_id = c.channel_id
LEFT JOIN LATERAL (
    SELECT broadcast_id, started_at FROM p_directory.live l WHERE l.channel_id = c.channel_id ORDER BY started_at DESC LIMIT 1
) l ON true"""
_LIVE: Final = f"""
SELECT * FROM (
    SELECT DISTINCT ON (l.channel_id) c.name, c.title, c.category, l.broadcast_id, l.started_at, coalesce({_VIEWERS}, 0) AS viewers
    FROM p_directory.live l JOIN p_directory.channels c USING (channel_id)
    WHERE $1::text IS NULL OR c.category = $1 ORDER BY l.channel_id, l.started_at DESC
) live
WHERE $2::bigint IS NULL OR (viewers, broadcast_id) < ($2, $3::text)
ORDER BY viewers DESC, broadcast_id DESC LIMIT $4"""
_BROADCAST: Final = """
SELECT b.broadcast_id AS id, c.name AS channel, b.title, b.category, b.started_at, b.ended_at, b.duration_s,
    CASE WHEN NOT b.deleted THEN b.vod_url END AS vod_url,
    coalesce(v.peak_viewers, 0) AS peak_viewers, coalesce(v.total_views, 0) AS total_views
FROM p_broadcasts.broadcasts b
LEFT JOIN p_channels.channels c USING (channel_id)
LEFT JOIN audience.broadcasts v USING (broadcast_id)"""
_SHOWN: Final = """NOT EXISTS (SELECT FROM p_chat_log.deleted d WHERE d.channel_id = m.channel_id AND d.message_id = m.message_id)
    AND NOT EXISTS (SELECT FROM p_chat_log.silenced s
        WHERE s.channel_id = m.channel_id AND s.account_id = m.author_id AND s.position > m.position)
    AND NOT EXISTS (SELECT FROM p_chat_log.cleared x WHERE x.channel_id = m.channel_id AND x.position > m.position)"""
_MESSAGE: Final = "m.message_id AS id, m.position, m.username AS user, m.text, m.badges, m.reply_to, m.at"


class ReadModels:
    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def channel(self, channel_id: str) -> Row | None:
        row = await self._pool.fetchrow(f"{_CHANNEL} WHERE c.channel_id = $1", channel_id)
        return None if row is None else _channel(row)

    async def channels_of(self, account_id: str) -> list[Row]:
        rows = await self._pool.fetch(f"{_CHANNEL} WHERE c.owner_id = $1 ORDER BY c.opened_at", account_id)
        return [_channel(row) for row in rows]

    async def search(self, query: str, limit: int) -> list[Row]:
        """By beginning of the name, or anywhere in the title."""
        escaped = query.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        rows = await self._pool.fetch(
            f"{_CHANNEL} WHERE c.name LIKE $1 OR c.title ILIKE $2"
            " ORDER BY (l.broadcast_id IS NULL), coalesce(f.followers, 0) DESC, c.name LIMIT $3",
            f"{escaped.lower()}%",
            f"%{escaped}%",
            limit,
        )
        return [_channel(row) for row in rows]

    async def live(self, category: str | None, after: tuple[int, str] | None, limit: int) -> list[Row]:
        viewers, broadcast_id = after or (None, None)
        return [dict(row) for row in await self._pool.fetch(_LIVE, category, viewers, broadcast_id, limit)]

    async def categories(self) -> list[str]:
        return [
            row[0]
            for row in await self._pool.fetch("SELECT name FROM p_categories.categories ORDER BY name LIMIT 1000")
        ]

    async def following(self, channel_id: str, account_id: str) -> datetime | None:
        since: datetime | None = await self._pool.fetchval(
            "SELECT since FROM p_follows.follows WHERE channel_id = $1 AND account_id = $2", channel_id, account_id
        )
        return since

    async def subscription(self, channel_id: str, account_id: str) -> Row | None:
        row = await self._pool.fetchrow(
            "SELECT subscription_id, tier, started_at, expires_at, cancelled FROM p_subscriptions.subscriptions"
            " WHERE channel_id = $1 AND account_id = $2 AND expires_at > now()",
            channel_id,
            account_id,
        )
        return None if row is None else dict(row)

    async def subscription_by_id(self, subscription_id: str) -> Row | None:
        row = await self._pool.fetchrow(
            "SELECT channel_id, account_id FROM p_subscriptions.subscriptions WHERE subscription_id = $1",
            subscription_id,
        )
        return None if row is None else dict(row)

    async def broadcasts(self, channel_id: str, before: tuple[datetime, str] | None, limit: int) -> list[Row]:
        started_at, broadcast_id = before or (None, None)
        rows = await self._pool.fetch(
            f"{_BROADCAST} WHERE b.channel_id = $1 AND ($2::timestamptz IS NULL OR (b.started_at, b.broadcast_id) < ($2, $3))"
            " ORDER BY b.started_at DESC, b.broadcast_id DESC LIMIT $4",
            channel_id,
            started_at,
            broadcast_id,
            limit,
        )
        return [dict(row) for row in rows]

    async def broadcast(self, broadcast_id: str) -> Row | None:
        row = await self._pool.fetchrow(f"{_BROADCAST} WHERE b.broadcast_id = $1", broadcast_id)
        return None if row is None else dict(row)

    async def deleted_broadcasts(self, after: str | None) -> list[str]:
        """Ids of those whose recording was deleted, rising; none while there is no read model yet."""
        try:
            rows = await self._pool.fetch(
                "SELECT broadcast_id FROM p_broadcasts.broadcasts WHERE deleted AND ($1::text IS NULL OR broadcast_id > $1)"
                " ORDER BY broadcast_id LIMIT 1000",
                after,
            )
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            return []
        return [row[0] for row in rows]

    async def chat(self, channel_id: str, after: int, limit: int) -> list[Row]:
        rows = await self._pool.fetch(
            f"SELECT {_MESSAGE} FROM p_chat_log.messages m WHERE m.channel_id = $1 AND m.position > $2 AND {_SHOWN}"
            " ORDER BY m.position LIMIT $3",
            channel_id,
            after,
            limit,
        )
        return [_message(row) for row in rows]

    async def message_author(self, channel_id: str, message_id: str) -> tuple[str, str] | None:
        row = await self._pool.fetchrow(
            "SELECT author_id, username FROM p_chat_log.messages WHERE message_id = $1 AND channel_id = $2",
            message_id,
            channel_id,
        )
        return None if row is None else (row[0], row[1])

    async def replay(self, broadcast_id: str, from_s: float, to_s: float, after: int, limit: int) -> list[Row]:
        """Chat of a recording by offset in [`from_s`, `to_s`): what was said while its segments were on air."""
        rows = await self._pool.fetch(
            f"""SELECT {_MESSAGE}, g.offset_s + extract(epoch FROM m.at - g.starts_at)::float8 AS offset
            FROM p_recordings.segments g JOIN p_chat_log.messages m ON m.channel_id = g.channel_id
                AND m.at >= g.starts_at AND m.at < g.starts_at + make_interval(secs => g.duration_s)
            WHERE g.broadcast_id = $1 AND g.offset_s < $3 AND g.offset_s + g.duration_s > $2 AND m.position > $4
                AND g.offset_s + extract(epoch FROM m.at - g.starts_at)::float8 >= $2
                AND g.offset_s + extract(epoch FROM m.at - g.starts_at)::float8 < $3 AND {_SHOWN}
            ORDER BY m.position LIMIT $5""",
            broadcast_id,
            from_s,
            to_s,
            after,
            limit,
        )
        return [_message(row) | {"offset": round(row["offset"], 3)} for row in rows]

    async def moderation_log(self, channel_id: str, before: int | None, limit: int) -> list[Row]:
        rows = await self._pool.fetch(
            "SELECT position, at, action, moderator, target, message_id, reason, duration_s, until, mode"
            " FROM p_moderation.entries WHERE channel_id = $1 AND ($2::bigint IS NULL OR position < $2)"
            " ORDER BY position DESC LIMIT $3",
            channel_id,
            before,
            limit,
        )
        return [dict(row) | {"mode": orjson.loads(row["mode"]) if row["mode"] else None} for row in rows]

    async def trial_balance(self, as_of: datetime | None) -> list[Row]:
        """Every account's debits and credits in minor units."""
        rows = await self._pool.fetch(
            """SELECT account, currency, sum(greatest(amount_minor, 0))::bigint AS debit_minor,
                sum(greatest(-amount_minor, 0))::bigint AS credit_minor
            FROM p_ledger.postings WHERE $1::timestamptz IS NULL OR booked_at <= $1
            GROUP BY account, currency ORDER BY account, currency""",
            as_of,
        )
        return [dict(row) | {"balance_minor": row["debit_minor"] - row["credit_minor"]} for row in rows]

    async def postings(self, account: str, after: Sequence[Any] | None, limit: int) -> list[Row]:
        """An account's postings in the order they were booked."""
        at, shard, position, line = after or (None, 0, 0, 0)
        rows = await self._pool.fetch(
            """SELECT booked_at, shard, position, line, currency, amount_minor, stream, topic FROM p_ledger.postings
            WHERE account = $1 AND ($2::timestamptz IS NULL OR (booked_at, shard, position, line) > ($2, $3, $4, $5))
            ORDER BY booked_at, shard, position, line LIMIT $6""",
            account,
            at,
            shard,
            position,
            line,
            limit,
        )
        return [dict(row) for row in rows]


def _channel(row: Mapping[str, Any]) -> Row:
    return dict(row) | {
        "tags": orjson.loads(row["tags"]),
        "chat_mode": orjson.loads(row["chat_mode"]),
        "is_live": row["broadcast_id"] is not None,
        "playback_url": f"/live/{row['name']}/index.m3u8" if row["broadcast_id"] else None,
    }


def _message(row: Mapping[str, Any]) -> Row:
    return {
        "id": row["id"],
        "position": row["position"],
        "user": row["user"],
        "text": row["text"],
        "badges": orjson.loads(row["badges"]),
        "reply_to": row["reply_to"],
        "at": row["at"],
    }
