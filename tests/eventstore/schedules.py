"""Schedules of commands that several callers send at once, and what came back to whom. `auditor` judges them."""

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Literal
from uuid import UUID, uuid4

from hypothesis import strategies as st

from domain import channel, chat
from domain.channel import ChannelDescribed
from domain.chat import MessagePosted, UserBanned
from domain.event import Event
from eventstore.port import Append, ChatPost, EventStore, IndexWrite, Outcome, StreamWrite, shard_of

ROOMS: Final = 3
AUTHORS: Final = 5
IDS: Final = 10
"""So few that commands are sent again."""


@dataclass(frozen=True, slots=True)
class Write:
    """Events for a channel's stream, at any version, at the one it was seen at just before, or at one it had or may once have."""

    room: int
    events: int
    expected: Literal["any", "seen", "past", "future"]


@dataclass(frozen=True, slots=True)
class Command:
    """`bans`: an author, from the first room that is written to."""

    id: int
    writes: tuple[Write, ...]
    bans: int | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """What is sent again under one nonce is the same author's, in the same room."""

    room: int
    author: int
    nonce: int


Schedule = Sequence[Sequence[Command | Post]]
"""What each caller sends, one after the other; the callers all at once."""

_rooms = st.integers(0, ROOMS - 1)
_authors = st.integers(0, AUTHORS - 1)
_writes = st.builds(Write, _rooms, st.integers(1, 3), st.sampled_from(["any", "any", "seen", "seen", "past", "future"]))
_commands = st.builds(
    Command,
    st.integers(0, IDS - 1),
    st.lists(_writes, min_size=1, max_size=ROOMS, unique_by=lambda write: write.room).map(tuple),
    st.none() | st.none() | _authors,
)
_posts = st.builds(Post, _rooms, _authors, st.integers(0, 1))
schedules: st.SearchStrategy[Schedule] = st.lists(
    st.lists(_commands | _commands | _posts, min_size=1, max_size=8), min_size=2, max_size=8
)

_numbers: Final = count(1)


@dataclass(frozen=True, slots=True)
class Sent:
    """A command and its answer. `began` and `ended` say when, by one count over all that was sent and answered."""

    asked: Append | ChatPost
    began: int
    ended: int
    outcome: Outcome


@dataclass(slots=True)
class Run:
    """One run of a schedule: its channels and command ids are no other's."""

    number: int = field(default_factory=lambda: next(_numbers))
    sent: list[Sent] = field(default_factory=list)
    _ids: dict[Hashable, UUID] = field(default_factory=dict)
    _clock: "count[int]" = field(default_factory=count)

    def channel_id(self, room: int) -> str:
        return f"run{self.number}-{room}"

    @property
    def shards(self) -> set[int]:
        return {shard_of(self.channel_id(room)) for room in range(ROOMS)}

    async def play(self, schedule: Schedule, stores: Sequence[EventStore]) -> None:
        """The callers are dealt to the stores."""
        callers = enumerate(schedule)
        await asyncio.gather(*(self._call(steps, stores[number % len(stores)]) for number, steps in callers))

    async def _call(self, steps: Sequence[Command | Post], store: EventStore) -> None:
        for step in steps:
            asked = self._post(step) if isinstance(step, Post) else await self._append(step, store)
            began = next(self._clock)
            outcome = await (store.post_message(asked) if isinstance(asked, ChatPost) else store.append(asked))
            self.sent.append(Sent(asked, began, next(self._clock), outcome))

    def _id(self, name: Hashable) -> UUID:
        return self._ids.setdefault(name, uuid4())

    def _post(self, post: Post) -> ChatPost:
        channel_id, author = self.channel_id(post.room), f"a{post.author}"
        event = MessagePosted(
            channel_id=channel_id, message_id=uuid4().hex, author_id=author, username=author, text="hello"
        )
        return ChatPost(self._id(post), channel_id, author, event, b"hello")

    async def _append(self, command: Command, store: EventStore) -> Append:
        mark = f"run{self.number}-{next(self._clock)}"
        index = [IndexWrite("account_roles", {"account_id": mark, "role": "sent"}, {})]
        writes = []
        for write in command.writes:
            channel_id = self.channel_id(write.room)
            stream = channel.stream(channel_id)
            events = [
                ChannelDescribed(channel_id=channel_id, title=f"{mark} {number}", category="")
                for number in range(write.events)
            ]
            writes.append(StreamWrite(stream, channel_id, events, await _expected(write, stream, store)))
        if command.bans is not None:
            channel_id, author = self.channel_id(command.writes[0].room), f"a{command.bans}"
            ban: Event = UserBanned(
                channel_id=channel_id,
                account_id=author,
                username=author,
                reason=mark,
                moderator_id="m",
                moderator="mod",
            )
            writes.append(StreamWrite(chat.stream(channel_id), channel_id, [ban]))
            index.append(IndexWrite("chat_bans", {"channel_id": channel_id, "account_id": author}, {"until": None}))
        return Append(self._id(command.id), writes, index, actor="a0")


async def _expected(write: Write, stream: str, store: EventStore) -> int | None:
    if write.expected == "any":
        return None
    tail = await store.read_stream_tail(stream, limit=1)
    seen = tail[-1].version if tail else 0
    # Others come between the look and the command.
    await asyncio.sleep(0)
    match write.expected:
        case "seen":
            return seen
        case "past":
            return seen - 1 if seen else None
        case "future":
            return seen + 7
