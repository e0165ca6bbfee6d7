"""Whether a chat message is admitted: the pure twin of the database function that decides (`eventstore/schema`). No I/O, no clock.

The function holds the shard's head while it reads these facts, so its answer is atomic with the append; a property test holds both equal.
The rules, first refusal first:

1. banned, or timed out until a time: refused. Nobody is exempt (owners cannot be banned).
2. subscribers-only, followers-only (for so many minutes), emote-only rooms: refused unless it fits.
3. the same text as the author's last message within `UNIQUE_WINDOW_S`, in a unique-chat room.
4. closer than the cooldown to the author's last admitted message: one second, or the room's slow mode.

Owner and moderators are exempt from 2, 3 and slow mode, never from the platform's one message a second.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from domain.channel import ChatMode

COOLDOWN_S: Final = 1.0
UNIQUE_WINDOW_S: Final = 600


@dataclass(frozen=True, slots=True)
class Ban:
    """`until` None: for ever."""

    until: datetime | None


@dataclass(frozen=True, slots=True)
class LastPost:
    at: datetime
    digest: bytes


@dataclass(frozen=True, slots=True)
class Post:
    digest: bytes
    emote_only_text: bool
    following_since: datetime | None
    subscriber: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """A stable code; `wait_s` where only time must pass, and then the refusal is not final."""

    reason: str
    wait_s: float | None = None


def admit(
    post: Post, *, now: datetime, ban: Ban | None, mode: ChatMode, trusted: bool, last: LastPost | None
) -> Refusal | None:
    """None when admitted. `trusted`: the channel's owner or one of its moderators."""
    if ban is not None and ban.until is None:
        return Refusal("banned")
    if ban is not None and ban.until is not None and now < ban.until:
        return Refusal("timed_out", (ban.until - now).total_seconds())
    if not trusted and (refusal := _room_refuses(post, now, mode, last)):
        return refusal
    cooldown = timedelta(seconds=COOLDOWN_S if trusted else max(COOLDOWN_S, mode.slow_s))
    if last is not None and now - last.at < cooldown:
        code = "rate_limited" if trusted or mode.slow_s <= COOLDOWN_S else "slow_mode"
        return Refusal(code, (cooldown - (now - last.at)).total_seconds())
    return None


def _room_refuses(post: Post, now: datetime, mode: ChatMode, last: LastPost | None) -> Refusal | None:
    if mode.subscribers_only and not post.subscriber:
        return Refusal("subscribers_only")
    if mode.followers_only_min is not None:
        if post.following_since is None:
            return Refusal("followers_only")
        left = timedelta(minutes=mode.followers_only_min) - (now - post.following_since)
        if left > timedelta(0):
            return Refusal("followers_only", left.total_seconds())
    if mode.emote_only and not post.emote_only_text:
        return Refusal("emote_only")
    if mode.unique and last is not None and last.digest == post.digest:
        left = timedelta(seconds=UNIQUE_WINDOW_S) - (now - last.at)
        if left > timedelta(0):
            return Refusal("not_unique", left.total_seconds())
    return None
