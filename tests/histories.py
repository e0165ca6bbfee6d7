"""Histories that hypothesis draws: events of any kind there is, each in its own stream, and none in a stream before what opens it.

An event's fields are drawn by what they are called and what they hold, so that a new kind of event is drawn as soon as `domain.topics`
lists it. Ids are few, so that events meet; those of things that belong to a channel carry its name, for no two channels share them.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

from hypothesis import strategies as st

from domain import account, broadcast, channel, chat, follow, name, payment, recording, subscription
from domain.account import AccountRegistered
from domain.broadcast import BroadcastStarted
from domain.channel import ChannelOpened, ChatMode
from domain.event import Event
from domain.shared import Money
from domain.subscription import SubscriptionStarted
from domain.topics import EVENTS

CHANNELS: Final = ("c1", "c2", "c3")
PEOPLE: Final = ("ann", "bob", "cy")
EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)

texts = st.sampled_from(["", "first", "Zweiter Titel", "três 🎉", 'a "quoted" \\ one'])
times = st.integers(0, 90_000).map(lambda s: EPOCH + timedelta(seconds=s))
modes = st.builds(
    ChatMode,
    slow_s=st.sampled_from([0, 1, 30]),
    followers_only_min=st.sampled_from([None, 0, 10]),
    subscribers_only=st.booleans(),
    emote_only=st.booleans(),
    unique=st.booleans(),
)
_PERSON: Final = (
    "account_id",
    "author_id",
    "created_by",
    "gifted_by",
    "moderator_id",
    "owner_id",
    "username",
    "moderator",
)
_OF_A_CHANNEL: Final = ("broadcast_id", "clip_id", "message_id", "payment_id", "subscription_id", "reply_to")


class Said(NamedTuple):
    """An event, and where it is appended."""

    stream: str
    key: str
    event: Event


STREAMS: Final[Mapping[str, Callable[[Any], tuple[str, str]]]] = {
    "account": lambda event: (account.stream(event.account_id), event.account_id),
    "name": lambda event: (name.stream(event.name), event.name),
    "channel": lambda event: (channel.stream(event.channel_id), event.channel_id),
    "follow": lambda event: (follow.stream(event.channel_id, event.account_id), event.channel_id),
    "broadcast": lambda event: (broadcast.stream(event.broadcast_id), event.channel_id),
    "recording": lambda event: (recording.stream(event.broadcast_id), event.channel_id),
    "chat": lambda event: (chat.stream(event.channel_id), event.channel_id),
    "subscription": lambda event: (subscription.stream(event.channel_id, event.account_id), event.channel_id),
    "payment": lambda event: (payment.stream(event.payment_id), event.channel_id),
}
"""Stream and partition key of an event, by the first word of its topic."""

OPENINGS: Final[Mapping[str, type[Event]]] = {
    "account": AccountRegistered,
    "channel": ChannelOpened,
    "broadcast": BroadcastStarted,
    "subscription": SubscriptionStarted,
}
"""What a stream begins with."""


def events(kinds: Iterable[type[Event]] = EVENTS) -> st.SearchStrategy[Event]:
    """An event of one of these kinds."""
    return st.tuples(st.sampled_from(tuple(kinds)), st.sampled_from(CHANNELS)).flatmap(lambda drawn: _event(*drawn))


@st.composite
def histories(draw: st.DrawFn, kinds: Iterable[type[Event]], *, size_min: int = 1, size_max: int = 30) -> list[Said]:
    """What was said, mostly of these kinds and now and then of any other."""
    wanted = st.sampled_from(tuple(kinds))
    said: list[Said] = []
    opened: set[str] = set()
    for kind in draw(
        st.lists(wanted | wanted | wanted | st.sampled_from(EVENTS), min_size=size_min, max_size=size_max)
    ):
        channel_id = draw(st.sampled_from(CHANNELS))
        event = draw(_event(kind, channel_id))
        stream, key = _place(event)
        opening = OPENINGS.get(_subject(kind))
        if opening is not None and stream not in opened and kind is not opening:
            said.append(Said(stream, key, _same_subject(draw(_event(opening, channel_id)), event)))
        opened.add(stream)
        said.append(Said(stream, key, event))
    return said


def _subject(kind: type[Event]) -> str:
    return kind.TOPIC.split(".")[0]


def _place(event: Event) -> tuple[str, str]:
    return STREAMS[_subject(type(event))](event)


def _same_subject(opening: Event, event: Event) -> Event:
    """The opening, of the thing that the event is about."""
    ids = {field for field in ("account_id", "broadcast_id", "channel_id") if field in type(opening).model_fields}
    return opening.model_copy(update={field: getattr(event, field) for field in ids})


@cache
def _event(kind: type[Event], channel_id: str) -> st.SearchStrategy[Event]:
    fields = {field: _field(field, info.annotation, channel_id) for field, info in kind.model_fields.items()}
    return st.builds(kind, **fields)


def _field(field: str, annotation: Any, channel_id: str) -> st.SearchStrategy[Any]:
    if field == "channel_id":
        return st.just(channel_id)
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if get_origin(annotation) is tuple:
        return st.lists(texts, max_size=2).map(tuple) if get_args(annotation)[0] is str else st.just(())
    if type(None) in get_args(annotation):
        return st.none() | _field(field, get_args(annotation)[0], channel_id)
    if field in _PERSON:
        return st.sampled_from(PEOPLE)
    if field in _OF_A_CHANNEL:
        return st.sampled_from([f"{channel_id}-{field}-{number}" for number in range(2)])
    return _money(channel_id) if annotation is Money else _BY_TYPE[annotation]


def _money(channel_id: str) -> st.SearchStrategy[Money]:
    """Each channel's money is of one currency."""
    currency = "EUR" if channel_id == CHANNELS[-1] else "USD"
    return st.builds(Money, amount_minor=st.sampled_from([0, 1, 29, 30, 499, 2499]), currency=st.just(currency))


_BY_TYPE: Final[Mapping[Any, st.SearchStrategy[Any]]] = {
    str: texts,
    int: st.integers(0, 3),
    float: st.sampled_from([0.0, 0.25, 12.5, 59.94]),
    bool: st.booleans(),
    datetime: times,
    ChatMode: modes,
}
