"""A chat pod: the rooms that have members here, kept in step with the log and written to at each tick.

`gateways.chat.server` joins members and posts their messages; `gateways.chat.feed` hands over what Kafka carries. Kafka is only the
fast way: a room sees by its dense positions what it missed and reads that from the event store.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any, Final, Protocol
from uuid import UUID, uuid5

import structlog
from prometheus_client import Counter, Gauge

from domain import channel, chat
from domain.channel import ChatMode
from eventstore.errors import StoreUnavailable
from eventstore.port import Appended, ChatPost, Duplicate, EventStore, Outcome, Recorded, Refused, shard_of
from gateways.chat import frames
from gateways.chat.frames import Json
from gateways.chat.room import LOG_MAX, Room, entry, erase, tick_s, users_of
from gateways.chat.text import emote_only, text_digest

log = structlog.get_logger()

RESUME_MAX: Final = 2000
"""Events sent to one who comes back; what is older is named by a `gap` frame and stands in the history."""
LATE_S: Final = 1.0
"""How long a room waits for Kafka to bring back what it knows was appended, before it asks the store."""
SWEEP_S: Final = 15.0
"""How often every room is compared with the store, whatever Kafka says."""
SWEEP_WITHOUT_KAFKA_S: Final = 0.5

_COMMANDS: Final = UUID("5f0ed2c4-64f6-5d5b-9d9c-7a2d7d6c9a01")

_delivered = Counter("tallylight_chat_frames_total", "Frames written to members")
_filled = Counter("tallylight_chat_gaps_filled_total", "Times a room read from the store what Kafka had not brought")
_members = Gauge("tallylight_chat_members", "Connected members")
_rooms = Gauge("tallylight_chat_rooms", "Rooms held by this pod")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who speaks: from a verified access token or ticket, whose session it came with and until when it was good."""

    account_id: str
    username: str
    session: UUID | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a person is to a channel. Follows and subscriptions come from read models and may lag a second."""

    badges: tuple[str, ...] = ()
    following_since: datetime | None = None
    subscriber: bool = False


class Standings(Protocol):
    async def standing(self, channel_id: str, account_id: str) -> Standing: ...

    async def erased(self, usernames: Collection[str]) -> Collection[str]:
        """Those of them whose accounts were erased."""
        ...


class Feed(Protocol):
    """Brings recorded events of the shards it watches to `Pod.deliver`."""

    @property
    def healthy(self) -> bool: ...

    async def watch(self, shard: int) -> None:
        """Everything appended to the shard after this returns will be delivered."""
        ...

    def unwatch(self, shard: int) -> None: ...


class Member(Protocol):
    """One connection, as the pod sees it."""

    identity: Identity | None
    viewer: str
    """Whatever tells this viewer from others, in this process and in those that serve video."""

    def write(self, data: bytes) -> bool:
        """Queue encoded WebSocket frames; False where the member is gone, or reads too slowly and is being cut off."""
        ...

    def encode(self, payload: bytes) -> bytes: ...


@dataclass(slots=True, eq=False)
class _Held:
    """A room of this pod, from its first guest's coming to its last one's leaving."""

    channel_id: str
    name: str
    shard: int
    guests: set[Member] = field(default_factory=set)
    """Whoever is joining, is in the room, or was cut off and has not left yet: the room is held for them."""
    members: set[Member] = field(default_factory=set)
    """Those of them who are written to."""
    room: Room | None = None
    """None until the store was read."""
    opening: asyncio.Task[Room] | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    tick: asyncio.TimerHandle | None = None
    flushed_at: float = 0.0


@dataclass(slots=True)
class _Missed:
    gap: list[bytes]
    entries: list[Json]


class Pod:
    def __init__(self, store: EventStore, feed: Feed, standings: Standings) -> None:
        self._store = store
        self._feed = feed
        self._standings = standings
        self._held: dict[str, _Held] = {}
        self._late: set[asyncio.Task[None]] = set()

    # -- joining ------------------------------------------------------------------------------------------------

    async def join(self, channel_id: str, name: str, member: Member, *, after: int | None) -> None:
        """Make `member` one of the room's, and tell it where the room stands and what it missed. Raises StoreUnavailable.

        Whatever comes of it, `leave` must follow.
        """
        held = self._held.get(channel_id)
        if held is None:
            held = self._held[channel_id] = _Held(channel_id, name, shard_of(channel_id))
            _rooms.set(len(self._held))
        # Before anything is awaited: who leaves meanwhile must not take the room away.
        held.guests.add(member)
        room = await self._room(held)
        badges = (await self._standing(channel_id, member.identity)).badges
        missed = await self._missed(room, after)
        # From here to the end nothing awaits: no frame of a tick can come between what was missed and what follows.
        self._flush(held)
        user = member.identity.username if member.identity else None
        first = frames.welcome(room=name, position=room.position, user=user, badges=badges, mode=room.mode.model_dump())
        if missed is not None:
            history = missed.gap + room.resume(missed.entries)
        else:
            history = room.recent() if after is None else room.since(after) or []
        if member.write(b"".join(member.encode(payload) for payload in (frames.encode(first), *history))):
            held.members.add(member)
            _members.inc()

    async def _missed(self, room: Room, after: int | None) -> _Missed | None:
        """What the store has after a position, up to where the room's memory goes on; None where that has it all."""
        if after is None or room.remembers(after):
            return None
        at = max(after, room.position - RESUME_MAX)
        missed = _Missed([frames.encode(frames.gap(after + 1, at))] if at > after else [], [])
        while not room.remembers(at):
            events = await self._store.read_stream(room.stream, after=at, limit=LOG_MAX)
            entries = [entry(recorded) for recorded in events]
            erase(entries, await self._standings.erased(users_of(entries)))
            missed.entries.extend(entries)
            at = events[-1].version
        return missed

    async def _room(self, held: _Held) -> Room:
        """The room, read from the store for its first guest; others wait for the same reading."""
        if held.opening is None:
            held.opening = asyncio.create_task(self._open(held))
        return await asyncio.shield(held.opening)

    async def _open(self, held: _Held) -> Room:
        try:
            # Watch first, then read: whatever is appended between the two comes by both ways, and repeats are passed over.
            await self._feed.watch(held.shard)
            tail = await self._store.read_stream_tail(chat.stream(held.channel_id), limit=LOG_MAX)
            room = held.room = Room(held.channel_id, held.name, tail=tail)
            # What the feed brought while this was read found no room.
            await self._catch_up(held, room)
            await self._forget_erased(held, room)
        except BaseException:
            # The next guest tries again.
            held.room = held.opening = None
            raise
        return room

    def leave(self, channel_id: str, member: Member) -> None:
        """The end of every `join`. The last guest to leave takes the room, and what is read for it, away."""
        held = self._held.get(channel_id)
        if held is None or member not in held.guests:
            return
        held.guests.discard(member)
        self._cut_off(held, member)
        if held.guests:
            return
        if held.tick is not None:
            held.tick.cancel()
        if held.opening is not None:
            held.opening.cancel()
        del self._held[channel_id]
        _rooms.set(len(self._held))
        if all(other.shard != held.shard for other in self._held.values()):
            self._feed.unwatch(held.shard)

    def _cut_off(self, held: _Held, member: Member) -> None:
        if member in held.members:
            held.members.discard(member)
            _members.dec()

    def members_of(self, channel_id: str) -> int:
        """How many connections are in a room here."""
        held = self._held.get(channel_id)
        return len(held.members) if held else 0

    def audience(self) -> Iterator[tuple[str, list[str]]]:
        """Each room's channel and those who are in it."""
        for channel_id, held in self._held.items():
            if held.members:
                yield channel_id, [member.viewer for member in held.members]

    # -- what happened ------------------------------------------------------------------------------------------

    def holds(self, stream: str) -> bool:
        """Whether a stream concerns a room held here."""
        kind, _, channel_id = stream.partition("-")
        return kind in ("chat", "channel") and channel_id in self._held

    async def deliver(self, events: Iterable[Recorded]) -> None:
        """Events of one shard in order, of any stream; those of rooms held here are applied. Called by the feed."""
        for stream, run in groupby(events, key=lambda recorded: recorded.stream):
            kind, _, channel_id = stream.partition("-")
            held = self._held.get(channel_id)
            if held is None or held.room is None:
                continue
            if kind == "chat":
                await self._apply(held, held.room, list(run))
            elif kind == "channel":
                for recorded in run:
                    if isinstance(recorded.event, channel.ChatModeChanged):
                        # What is being read at this moment may be the mode before it.
                        async with held.lock:
                            held.room.set_mode(recorded.event.mode)
                        self._schedule(held)

    async def _apply(self, held: _Held, room: Room, events: Sequence[Recorded]) -> None:
        async with held.lock:
            fresh = [recorded for recorded in events if recorded.version > room.position]
            if fresh and fresh[0].version > room.position + 1:
                await self._fill(room)
            room.apply(fresh)
        self._schedule(held)

    async def _fill(self, room: Room) -> None:
        while events := await self._store.read_stream(room.stream, after=room.position, limit=LOG_MAX):
            _filled.inc()
            room.apply(events)

    async def _catch_up(self, held: _Held, room: Room) -> None:
        async with held.lock:
            await self._fill(room)
            room.set_mode(_mode(await self._store.index_row("chat_modes", {"channel_id": held.channel_id})))
        self._schedule(held)

    async def _forget_erased(self, held: _Held, room: Room) -> None:
        """An erasure is a fact of the person's own shard, which the feed does not bring: it is asked for."""
        for user in await self._standings.erased(room.authors):
            room.forget(user)
        self._schedule(held)

    async def sweep(self) -> None:
        """Compare every room with the store now and then: Kafka may be away, or have lost what it held. Runs for ever."""
        swept_at, was_healthy = 0.0, False
        while True:
            await asyncio.sleep(SWEEP_WITHOUT_KAFKA_S)
            now = asyncio.get_running_loop().time()
            # Once more when Kafka is back: what came between the last look and the feed's new beginning, neither has seen.
            healthy = self._feed.healthy
            settled, was_healthy = healthy and was_healthy, healthy
            due = now - swept_at >= SWEEP_S
            if settled and not due:
                continue
            if due:
                swept_at = now
            for held in list(self._held.values()):
                if (room := held.room) is None:
                    continue
                try:
                    await self._catch_up(held, room)
                    if due:
                        await self._forget_erased(held, room)
                except StoreUnavailable:
                    log.warning("chat.sweep", room=held.name, problem="event store away")

    # -- writing ------------------------------------------------------------------------------------------------

    def _schedule(self, held: _Held) -> None:
        if held.tick is not None or held.room is None or not held.room.pending or not held.members:
            return
        loop = asyncio.get_running_loop()
        # A room that was quiet answers at once; a busy one gathers for a tick.
        delay_s = max(0.0, held.flushed_at + tick_s(len(held.members)) - loop.time())
        held.tick = loop.call_later(delay_s, self._flush, held)

    def _flush(self, held: _Held) -> None:
        if held.tick is not None:
            held.tick.cancel()
            held.tick = None
        held.flushed_at = asyncio.get_running_loop().time()
        payloads = held.room.flush() if held.room is not None else []
        if not payloads:
            return
        encoded: bytes | None = None
        for member in tuple(held.members):
            if encoded is None:
                encoded = b"".join(member.encode(payload) for payload in payloads)
            if not member.write(encoded):
                self._cut_off(held, member)
        _delivered.inc(len(held.members))

    # -- posting ------------------------------------------------------------------------------------------------

    async def post(self, channel_id: str, who: Identity, request: frames.PostMessage, *, fallback_id: UUID) -> Json:
        """Ask the store to admit a message; the answer is the poster's frame. `fallback_id` names one sent without a nonce."""
        command_id = fallback_id
        if request.nonce is not None:
            command_id = uuid5(_COMMANDS, f"{channel_id}:{who.account_id}:{request.nonce}")
        try:
            standing = await self._standing(channel_id, who)
        except StoreUnavailable:
            return frames.refused(nonce=request.nonce, reason="unavailable", wait_s=1.0)
        message_id = str(command_id)
        event = chat.MessagePosted(
            channel_id=channel_id,
            message_id=message_id,
            author_id=who.account_id,
            username=who.username,
            text=request.text,
            badges=standing.badges,
            reply_to=request.reply_to,
        )
        post = ChatPost(
            command_id=command_id,
            channel_id=channel_id,
            author_id=who.account_id,
            event=event,
            text_digest=text_digest(request.text),
            emote_only_text=emote_only(request.text),
            following_since=standing.following_since,
            subscriber=standing.subscriber,
        )
        try:
            outcome = await self._store.post_message(post)
        except StoreUnavailable:
            return frames.refused(nonce=request.nonce, reason="unavailable", wait_s=1.0)
        return self._answer(channel_id, request.nonce, message_id, outcome)

    def _answer(self, channel_id: str, nonce: str | None, message_id: str, outcome: Outcome) -> Json:
        match outcome:
            case Appended(placed=placed) | Duplicate(of=Appended(placed=placed)):
                self._expect(channel_id, placed[0].version)
                return frames.accepted(nonce=nonce, message_id=message_id, position=placed[0].version)
            case Refused(reason=reason, wait_s=wait_s) | Duplicate(of=Refused(reason=reason, wait_s=wait_s)):
                return frames.refused(nonce=nonce, reason=reason, wait_s=wait_s)
            case _:
                raise AssertionError(f"chat admission does not answer {outcome!r}")

    def _expect(self, channel_id: str, version: int) -> None:
        """If Kafka has not brought back by then what we know stands in the log, the store has it."""
        held = self._held.get(channel_id)
        room = held.room if held else None
        if held is None or room is None or room.position >= version:
            return

        async def check() -> None:
            await asyncio.sleep(LATE_S)
            if room.position < version and held.guests:
                await self._catch_up(held, room)

        task = asyncio.create_task(check())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _standing(self, channel_id: str, identity: Identity | None) -> Standing:
        return Standing() if identity is None else await self._standings.standing(channel_id, identity.account_id)


def _mode(row: Mapping[str, Any] | None) -> ChatMode:
    if row is None:
        return ChatMode()
    return ChatMode(**{name: row[name] for name in ChatMode.model_fields if row.get(name) is not None})
