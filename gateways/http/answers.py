"""What the API answers, as clients may rely on it (design §9): one model an object, for the routes and for what /openapi.json says of them.

A field that is not here reaches nobody; one that is here is there in every answer, but for those that say when they are left out.
"""

from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from domain.channel import ChatMode
from media.health import StreamHealth

Item = TypeVar("Item")


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Page(Answer, Generic[Item]):
    """`next` is an opaque cursor for `?cursor=`, null at the end."""

    items: list[Item]
    next: str | None


class ProblemDetails(Answer):
    """RFC 9457. `code` is stable, and for programs; `detail` is for people. With `wait_s` the same may succeed so many seconds later."""

    model_config = ConfigDict(frozen=True, extra="allow")
    type: str
    title: str
    status: int
    code: str
    detail: str
    wait_s: float | None = None


# -- accounts ---------------------------------------------------------------------------------------------------------


class NewAccountMade(Answer):
    account_id: str
    username: str


class SessionBegun(Answer):
    """`refresh_token` is left out for browsers, which have it in a cookie that no script can read."""

    access_token: str
    token_type: str
    expires_in: int
    username: str
    refresh_token: str = ""


class Ticket(Answer):
    ticket: str
    expires_in: int


class OwnChannel(Answer):
    name: str
    title: str
    is_live: bool


class Me(Answer):
    account_id: str
    username: str
    display_name: str
    roles: list[str]
    channels: list[OwnChannel]


class FollowedChannel(Answer):
    channel: str
    title: str
    category: str
    is_live: bool
    since: datetime


class OwnSubscription(Answer):
    """A cancelled one runs on to `expires_at`."""

    id: str
    channel: str
    tier: int
    started_at: datetime
    expires_at: datetime
    cancelled: bool


# -- channels ---------------------------------------------------------------------------------------------------------


class ChannelOpened(Answer):
    channel_id: str
    name: str


class SubscriptionHere(Answer):
    subscription_id: str
    tier: int
    started_at: datetime
    expires_at: datetime
    cancelled: bool


class Channel(Answer):
    """`owner_display_name` is null for one who was erased.

    `following` and `subscription` (null: none that runs) are of who asks, and left out for nobody.
    """

    channel_id: str
    name: str
    owner: str | None
    owner_display_name: str | None
    title: str
    category: str
    tags: list[str]
    chat_mode: dict[str, Any]
    subscribers_only_playback: bool
    opened_at: datetime
    follower_count: int
    subscriber_count: int
    is_live: bool
    broadcast_id: str | None
    started_at: datetime | None
    current_viewers: int
    playback_url: str | None
    following: bool = False
    subscription: SubscriptionHere | None = None


class LiveChannel(Answer):
    channel: str
    title: str
    category: str
    started_at: datetime
    viewers: int
    playback_url: str
    broadcast_id: str


class FoundChannel(Answer):
    channel: str
    name: str
    title: str
    category: str
    is_live: bool
    current_viewers: int
    follower_count: int
    playback_url: str | None


class Category(Answer):
    name: str


class StreamKey(Answer):
    """Told once."""

    stream_key: str
    rtmp_url: str
    srt_url: str | None


class Ingest(Answer):
    name: str
    rtmp_url: str
    srt_url: str | None


class StreamHealthNow(Answer):
    """Null while nothing is on air."""

    broadcast: StreamHealth | None


# -- broadcasts and clips ---------------------------------------------------------------------------------------------


class PlaybackToken(Answer):
    """`prefix` stands before any media path of the channel."""

    token: str
    prefix: str
    expires_in: int


class Broadcast(Answer):
    """`vod_url` is null while nothing is recorded, and where the recording was deleted or is not `published`."""

    id: str
    channel: str | None
    title: str
    category: str
    subscribers_only: bool
    started_at: datetime
    ended_at: datetime | None
    duration_s: float | None
    peak_viewers: int
    total_views: int
    published: bool
    vod_url: str | None
    poster_url: str | None
    storyboard_url: str | None


class ClipMade(Answer):
    id: str
    start_s: float
    end_s: float
    playback_url: str
    download_url: str


class Clip(ClipMade):
    broadcast_id: str
    channel: str | None
    title: str
    created_by: str | None
    created_at: datetime
    duration_s: float
    subscribers_only: bool


class Chapter(Answer):
    start_s: float
    title: str
    category: str


# -- chat and moderation ----------------------------------------------------------------------------------------------


class Message(Answer):
    id: str
    position: int
    user: str
    text: str
    badges: list[str]
    reply_to: str | None
    at: datetime


class ReplayedMessage(Message):
    """`offset`: seconds of the recording."""

    offset: float


class BanMade(Answer):
    """`until` is null for a ban, which lasts until it is lifted."""

    username: str
    until: datetime | None
    reason: str | None


class Ban(BanMade):
    position: int
    moderator: str
    at: datetime


class Moderator(Answer):
    username: str
    since: datetime


class ModerationEntry(Answer):
    position: int
    at: datetime
    action: str
    moderator: str | None
    target: str | None
    message_id: str | None
    reason: str | None
    duration_s: int | None
    until: datetime | None
    mode: ChatMode | None


# -- money ------------------------------------------------------------------------------------------------------------


class SubscriptionBought(Answer):
    id: str
    subscription_id: str
    payment_id: str
    tier: int
    expires_at: datetime


class Balance(Answer):
    account: str
    currency: str
    debit_minor: int
    credit_minor: int
    balance_minor: int


class Total(Answer):
    debit_minor: int
    credit_minor: int


class TrialBalance(Page[Balance]):
    """`totals` by currency."""

    totals: dict[str, Total]
    balanced: bool


class Posting(Answer):
    booked_at: datetime
    shard: int
    position: int
    line: int
    currency: str
    amount_minor: int
    stream: str
    topic: str
