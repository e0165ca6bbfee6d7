"""Queries over the read models, as the HTTP API answers them. Reads only; a row is as old as its projection's checkpoint.

Keyset cursors, never offsets. What was removed from a chat is filtered where it is read.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
import orjson

from projections.audience import CURRENT

PAGE_MAX: Final = 100
NO_READ_MODEL: Final = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InvalidSchemaNameError)
"""What a query meets where no projector has made its tables, or made them for an older release."""

Row = dict[str, Any]

_VIEWERS: Final = f"(SELECT viewers FROM audience.current_viewers v WHERE v.channel_id = c.channel_id AND v.{CURRENT})"
_SUBSCRIBERS: Final = (
    "(SELECT count(*) FROM p_subscriptions.subscriptions s WHERE s.channel_id = c.channel_id AND s.expires_at > now())"
)
_CHANNEL: Final = f"""
SELECT c.channel_id, c.name, c.owner_id, c.title, c.category, c.tags, c.chat_mode, c.subscribers_only_playback,
    c.opened_at,
    a.username AS owner, CASE WHEN a.erased_at IS NULL THEN a.display_name END AS owner_display_name,
    coalesce(f.followers, 0) AS follower_count, {_SUBSCRIBERS} AS subscriber_count,
    l.broadcast_id, l.started_at, coalesce({_VIEWERS}, 0) AS current_viewers
FROM p_channels.channels c
LEFT JOIN p_accounts.accounts a ON a.account_id = c.owner_id
LEFT JOIN p_follows.counts f ON f.channel_id = c.channel_id
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
    coalesce(c.subscribers_only_playback, false) AS subscribers_only,
    CASE WHEN NOT b.deleted AND NOT b.unpublished THEN b.vod_url END AS vod_url, NOT b.unpublished AS published,
    coalesce(v.peak_viewers, 0) AS peak_viewers, coalesce(v.total_views, 0) AS total_views
FROM p_broadcasts.broadcasts b
LEFT JOIN p_channels.channels c USING (channel_id)
LEFT JOIN audience.broadcasts v USING (broadcast_id)"""
_CLIP: Final = """
SELECT k.clip_id AS id, k.broadcast_id, c.name AS channel, k.title, a.username AS created_by, k.created_at, k.start_s, k.end_s,
    coalesce(c.subscribers_only_playback, false) AS subscribers_only
FROM p_broadcasts.clips k
LEFT JOIN p_channels.channels c USING (channel_id)
LEFT JOIN p_accounts.accounts a ON a.account_id = k.created_by"""
# A recording as its player counts: one segment after the other, whatever time passed between them. Those of a rendition apart (below zero)
# tell the same times again.
_TIMELINE: Final = """
SELECT channel_id, starts_at, duration_s, sum(duration_s) OVER (ORDER BY number) - duration_s AS offset_s,
    number = max(number) OVER () AS newest
FROM p_recordings.segments WHERE broadcast_id = $1 AND number >= 0"""
CHAPTER_S_MIN: Final = 2.0
_SHOWN: Final = """NOT EXISTS (SELECT FROM p_chat_log.deleted d WHERE d.channel_id = m.channel_id AND d.message_id = m.message_id)
    AND NOT EXISTS (SELECT FROM p_chat_log.silenced s
        WHERE s.channel_id = m.channel_id AND s.account_id = m.author_id AND s.position > m.position)
    AND NOT EXISTS (SELECT FROM p_chat_log.cleared x WHERE x.channel_id = m.channel_id AND x.position > m.position)
    AND NOT EXISTS (SELECT FROM p_accounts.accounts a WHERE a.account_id = m.author_id AND a.erased_at IS NOT NULL)"""
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

    async def search(self, query: str, after: tuple[int, int, str] | None, limit: int) -> list[Row]:
        """By beginning of the name, or anywhere in the title: what is live first, then by followers."""
        offline, followers, name = after or (None, None, None)
        escaped = query.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        rows = await self._pool.fetch(
            f"""SELECT * FROM ({_CHANNEL} WHERE c.name LIKE $1 OR c.title ILIKE $2) found
            WHERE $3::int IS NULL OR ((broadcast_id IS NULL)::int, -follower_count, name) > ($3, -$4::bigint, $5::text)
            ORDER BY (broadcast_id IS NULL)::int, follower_count DESC, name LIMIT $6""",
            f"{escaped.lower()}%",
            f"%{escaped}%",
            offline,
            followers,
            name,
            limit,
        )
        return [_channel(row) for row in rows]

    async def live(self, category: str | None, after: tuple[int, str] | None, limit: int) -> list[Row]:
        viewers, broadcast_id = after or (None, None)
        return [dict(row) for row in await self._pool.fetch(_LIVE, category, viewers, broadcast_id, limit)]

    async def categories(self, after: str | None, limit: int) -> list[str]:
        rows = await self._pool.fetch(
            "SELECT name FROM p_categories.categories WHERE $1::text IS NULL OR name > $1 ORDER BY name LIMIT $2",
            after,
            limit,
        )
        return [row[0] for row in rows]

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
        return [_broadcast(row) for row in rows]

    async def broadcast(self, broadcast_id: str) -> Row | None:
        row = await self._pool.fetchrow(f"{_BROADCAST} WHERE b.broadcast_id = $1", broadcast_id)
        return None if row is None else _broadcast(row)

    async def chapters(self, broadcast_id: str) -> list[Row]:
        """`start_s`, `title`, `category` of each, by where it begins in the recording; what was said while nothing was on air begins with
        what came next."""
        rows = await self._pool.fetch(
            f"""WITH timeline AS ({_TIMELINE}), broadcast AS (
                SELECT channel_id, started_at, coalesce(ended_at, now()) AS ended_at FROM p_broadcasts.broadcasts WHERE broadcast_id = $1
            )
            SELECT d.title, d.category, coalesce((
                SELECT t.offset_s + greatest(0, extract(epoch FROM d.at - t.starts_at))::float8 FROM timeline t
                WHERE t.starts_at + make_interval(secs => t.duration_s) > d.at ORDER BY t.starts_at LIMIT 1
            ), extract(epoch FROM d.at - b.started_at)::float8) AS start_s
            FROM broadcast b JOIN p_broadcasts.descriptions d
                ON d.channel_id = b.channel_id AND d.at >= b.started_at AND d.at < b.ended_at
            ORDER BY d.position""",
            broadcast_id,
        )
        found: list[Row] = []
        for row in rows:
            chapter = {"start_s": round(row["start_s"], 3), "title": row["title"], "category": row["category"]}
            if found and (found[-1]["title"], found[-1]["category"]) == (row["title"], row["category"]):
                continue
            if found and chapter["start_s"] - found[-1]["start_s"] < CHAPTER_S_MIN:
                found.pop()  # corrected at once: nobody saw the other
            found.append(chapter)
        return found

    async def offset_of(self, broadcast_id: str, at: datetime) -> float | None:
        """Where in the recording a moment is, in seconds; None before there is a broadcast. The newest of it may not be recorded yet."""
        offset: float | None = await self._pool.fetchval(
            f"""WITH timeline AS ({_TIMELINE}) SELECT coalesce((
                SELECT t.offset_s + least(
                    extract(epoch FROM $2 - t.starts_at)::float8,
                    -- The last that is known goes on until it is known where it ends.
                    CASE WHEN t.newest THEN 'infinity'::float8 ELSE t.duration_s END
                ) FROM timeline t WHERE t.starts_at <= $2 ORDER BY t.starts_at DESC LIMIT 1
            ), greatest(0, extract(epoch FROM $2 - b.started_at))::float8)
            FROM p_broadcasts.broadcasts b WHERE b.broadcast_id = $1""",
            broadcast_id,
            at,
        )
        return offset

    async def clip(self, clip_id: str) -> Row | None:
        row = await self._pool.fetchrow(f"{_CLIP} WHERE k.clip_id = $1 AND NOT k.deleted", clip_id)
        return None if row is None else dict(row)

    async def clips(
        self, *, channel_id: str | None, broadcast_id: str | None, before: tuple[datetime, str] | None, limit: int
    ) -> list[Row]:
        """Of a channel or of a broadcast, the newest first."""
        created_at, clip_id = before or (None, None)
        rows = await self._pool.fetch(
            f"""{_CLIP} WHERE NOT k.deleted AND ($1::text IS NULL OR k.channel_id = $1) AND ($2::text IS NULL OR k.broadcast_id = $2)
                AND ($3::timestamptz IS NULL OR (k.created_at, k.clip_id) < ($3, $4))
            ORDER BY k.created_at DESC, k.clip_id DESC LIMIT $5""",
            channel_id,
            broadcast_id,
            created_at,
            clip_id,
            limit,
        )
        return [dict(row) for row in rows]

    async def cut(self, clip_id: str) -> tuple[str, float, float] | None:
        """Of which broadcast a clip is, and from where to where."""
        found = await self._no_tables_yet(
            "SELECT broadcast_id, start_s, end_s FROM p_broadcasts.clips WHERE clip_id = $1 AND NOT deleted", clip_id
        )
        return (found[0][0], found[0][1], found[0][2]) if found else None

    async def clips_of(self, broadcast_id: str) -> list[str]:
        rows = await self._no_tables_yet(
            "SELECT clip_id FROM p_broadcasts.clips WHERE broadcast_id = $1 AND NOT deleted", broadcast_id
        )
        return [row[0] for row in rows]

    async def deleted_broadcasts(self, after: str | None) -> list[str]:
        """Ids of those whose recording was deleted, rising; none while there is no read model yet."""
        rows = await self._no_tables_yet(
            "SELECT broadcast_id FROM p_broadcasts.broadcasts WHERE deleted AND ($1::text IS NULL OR broadcast_id > $1)"
            " ORDER BY broadcast_id LIMIT 1000",
            after,
        )
        return [row[0] for row in rows]

    async def deleted_clips(self, after: str | None) -> list[str]:
        rows = await self._no_tables_yet(
            "SELECT clip_id FROM p_broadcasts.clips WHERE deleted AND ($1::text IS NULL OR clip_id > $1)"
            " ORDER BY clip_id LIMIT 1000",
            after,
        )
        return [row[0] for row in rows]

    async def unpublished_broadcasts(self) -> list[str]:
        rows = await self._no_tables_yet(
            "SELECT broadcast_id FROM p_broadcasts.broadcasts WHERE unpublished AND NOT deleted"
        )
        return [row[0] for row in rows]

    async def ended_before(self, at: datetime, limit: int) -> list[tuple[str, str]]:
        """Broadcasts whose recordings are older: ids of channel and broadcast."""
        rows = await self._no_tables_yet(
            "SELECT channel_id, broadcast_id FROM p_broadcasts.broadcasts WHERE ended_at < $1 AND NOT deleted"
            " ORDER BY ended_at LIMIT $2",
            at,
            limit,
        )
        return [(row[0], row[1]) for row in rows]

    async def _no_tables_yet(self, query: str, *arguments: Any) -> list[Any]:
        """Nothing, while there is no read model yet."""
        try:
            found: list[Any] = await self._pool.fetch(query, *arguments)
        except NO_READ_MODEL:
            return []
        return found

    async def chat(self, channel_id: str, after: int, limit: int) -> list[Row]:
        rows = await self._pool.fetch(
            f"SELECT {_MESSAGE} FROM p_chat_log.messages m WHERE m.channel_id = $1 AND m.position > $2 AND {_SHOWN}"
            " ORDER BY m.position LIMIT $3",
            channel_id,
            after,
            limit,
        )
        return [_message(row) for row in rows]

    async def erased(self, usernames: Collection[str]) -> set[str]:
        """Those of them whose accounts were erased."""
        rows = await self._no_tables_yet(
            "SELECT username FROM p_accounts.accounts WHERE username = ANY($1::text[]) AND erased_at IS NOT NULL",
            list(usernames),
        )
        return {row[0] for row in rows}

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
            f"""WITH timeline AS ({_TIMELINE})
            SELECT {_MESSAGE}, g.offset_s + extract(epoch FROM m.at - g.starts_at)::float8 AS offset
            FROM timeline g JOIN p_chat_log.messages m ON m.channel_id = g.channel_id
                AND m.at >= g.starts_at AND m.at < g.starts_at + make_interval(secs => g.duration_s)
            WHERE g.offset_s < $3 AND g.offset_s + g.duration_s > $2 AND m.position > $4
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
            # Facts of the channel's own stream name their moderator by id alone.
            "SELECT e.position, e.at, e.action, coalesce(e.moderator, a.username) AS moderator, e.target, e.message_id,"
            " CASE WHEN t.erased_at IS NULL THEN e.reason END AS reason, e.duration_s, e.until, e.mode"
            " FROM p_moderation.entries e LEFT JOIN p_accounts.accounts a ON a.account_id = e.moderator_id"
            " LEFT JOIN p_accounts.accounts t ON t.account_id = e.target_id"
            " WHERE e.channel_id = $1 AND ($2::bigint IS NULL OR e.position < $2) ORDER BY e.position DESC LIMIT $3",
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


def _broadcast(row: Mapping[str, Any]) -> Row:
    folder = f"/vod/{row['id']}/storyboard/" if row["vod_url"] else None
    return dict(row) | {
        "poster_url": folder and f"{folder}poster.jpg",
        "storyboard_url": folder and f"{folder}index.vtt",
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
