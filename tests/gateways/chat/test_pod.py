"""A pod holds a room for as long as anybody is in it, coming or going, and reads of the log what its rooms need, no more and no less."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import uuid4

import orjson
import pytest
import pytest_asyncio
from prometheus_client import REGISTRY

from domain.channel import ChatMode, ChatModeChanged
from domain.chat import MessageDeleted, MessagePosted
from domain.event import Event
from eventstore.errors import StoreUnavailable
from eventstore.memory import MemoryStore
from eventstore.port import Append, Appended, ChatPost, IndexWrite, StreamWrite, shard_of
from gateways.chat import pod as pods
from gateways.chat.pod import Identity, Pod, Standing
from gateways.chat.room import LOG_MAX
from tests.gateways.chat.stand import ROOM, ROOM_ID, Standings, StoreFeed
from tests.stores import memory_store


class Guest:
    """A connection that keeps what it was sent; `reads` False: one that is being cut off."""

    def __init__(self, name: str | None = None) -> None:
        self.identity = Identity(f"a-{name}", name) if name else None
        self.viewer = name or "somebody"
        self.reads = True
        self.cut_off = asyncio.Event()
        self.frames: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def encode(self, payload: bytes) -> bytes:
        return payload + b"\n"

    def write(self, data: bytes) -> bool:
        if not self.reads:
            self.cut_off.set()
            return False
        for line in data.splitlines():
            self.frames.put_nowait(orjson.loads(line))
        return True

    async def until(self, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(10):
            while (frame := await self.frames.get())["type"] != kind:
                pass
        return frame


class WatchedFeed(StoreFeed):
    """Keeps which shards are watched; `asked` when one is to be; `open` lets that go through."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.watched: set[int] = set()
        self.asked, self.open = asyncio.Event(), asyncio.Event()
        self.open.set()

    async def watch(self, shard: int) -> None:
        self.watched.add(shard)
        self.asked.set()
        await self.open.wait()

    def unwatch(self, shard: int) -> None:
        self.watched.remove(shard)


class GatedStandings(Standings):
    """`asked` when somebody's standing is wanted; the answer waits for `gate`, or there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.away = False

    async def standing(self, channel_id: str, account_id: str) -> Standing:
        self.asked.set()
        await self.gate.wait()
        if self.away:
            raise StoreUnavailable("read models away")
        return await super().standing(channel_id, account_id)


@dataclass
class Held:
    store: MemoryStore = field(default_factory=memory_store)

    def __post_init__(self) -> None:
        self.feed, self.standings = WatchedFeed(self.store), GatedStandings()
        self.pod = self.feed.pod = Pod(self.store, self.feed, self.standings)

    async def say(self, text: str, user: str = "ann") -> None:
        said = MessagePosted(channel_id=ROOM_ID, message_id=text, author_id=f"a-{user}", username=user, text=text)
        post = ChatPost(uuid4(), ROOM_ID, f"a-{user}", said, text.encode())
        assert isinstance(await self.store.post_message(post), Appended)

    async def append(self, event: Event, *index: IndexWrite, stream: str = f"chat-{ROOM_ID}") -> None:
        append = Append(uuid4(), [StreamWrite(stream, ROOM_ID, [event])], index)
        assert isinstance(await self.store.append(append), Appended)

    async def join(self, guest: Guest, channel_id: str = ROOM_ID, *, after: int | None = None) -> None:
        await self.pod.join(channel_id, ROOM, guest, after=after)

    def holds_nothing(self) -> bool:
        return not self.pod.holds(f"chat-{ROOM_ID}") and not self.feed.watched


@pytest_asyncio.fixture
async def held() -> AsyncIterator[Held]:
    one = Held()
    running = asyncio.create_task(one.feed.run())
    yield one
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


@pytest_asyncio.fixture
async def swept(held: Held, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Held]:
    """Rooms are compared with the store all the time, and Kafka brings nothing."""
    monkeypatch.setattr(pods, "SWEEP_S", 0.0)
    monkeypatch.setattr(pods, "SWEEP_WITHOUT_KAFKA_S", 0.02)
    held.feed.carries.clear()
    sweeping = asyncio.create_task(held.pod.sweep())
    yield held
    sweeping.cancel()
    with suppress(asyncio.CancelledError):
        await sweeping


def members() -> float:
    return REGISTRY.get_sample_value("tallylight_chat_members") or 0.0


async def test_who_joins_while_the_last_one_leaves_hears_what_is_said_then(held: Held) -> None:
    before = members()
    last, coming = Guest(), Guest("bob")
    await held.join(last)
    held.standings.gate.clear()
    joining = asyncio.create_task(held.join(coming))
    await held.standings.asked.wait()
    held.pod.leave(ROOM_ID, last)
    held.standings.gate.set()
    await joining
    await held.say("hello")
    assert [item["text"] for item in (await coming.until("messages"))["items"]] == ["hello"]
    assert members() == before + 1
    held.pod.leave(ROOM_ID, coming)
    assert held.holds_nothing()
    assert members() == before


async def test_a_room_is_let_go_though_its_last_member_was_cut_off_first(held: Held) -> None:
    before = members()
    slow = Guest()
    await held.join(slow)
    slow.reads = False
    await held.say("one too many")
    async with asyncio.timeout(10):
        await slow.cut_off.wait()
    assert held.pod.members_of(ROOM_ID) == 0
    assert members() == before
    held.pod.leave(ROOM_ID, slow)
    assert held.holds_nothing()


async def test_a_room_is_let_go_by_one_who_was_gone_before_the_welcome(held: Held) -> None:
    gone = Guest()
    gone.reads = False
    await held.join(gone)
    held.pod.leave(ROOM_ID, gone)
    assert held.holds_nothing()


async def test_a_room_is_let_go_when_nobody_could_be_let_in(held: Held) -> None:
    held.standings.away = True
    guest = Guest("bob")
    with pytest.raises(StoreUnavailable):
        await held.join(guest)
    held.pod.leave(ROOM_ID, guest)
    assert held.holds_nothing()


async def test_a_room_is_let_go_by_one_who_leaves_while_it_is_opened(held: Held) -> None:
    held.feed.open.clear()
    hasty = Guest()
    joining = asyncio.create_task(held.join(hasty))
    async with asyncio.timeout(10):
        await held.feed.asked.wait()
    joining.cancel()
    with suppress(asyncio.CancelledError):
        await joining
    held.pod.leave(ROOM_ID, hasty)
    assert held.holds_nothing()
    held.feed.open.set()
    patient = Guest()
    await held.join(patient)
    assert (await patient.until("welcome"))["position"] == 0


async def test_a_room_that_could_not_be_read_is_read_anew_for_the_next(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("gone")

    first, second = Guest(), Guest()
    with monkeypatch.context() as outage:
        outage.setattr(held.store, "read_stream_tail", away)
        with pytest.raises(StoreUnavailable):
            await held.join(first)
    await held.join(second)
    assert (await second.until("welcome"))["position"] == 0


async def test_a_shard_is_read_for_as_long_as_any_room_of_it_is_held(held: Held) -> None:
    shard = shard_of(ROOM_ID)
    neighbour = next(name for number in count() if shard_of(name := f"c-{number}") == shard)
    guests = [Guest(), Guest()]
    for guest, channel_id in zip(guests, (ROOM_ID, neighbour), strict=True):
        await held.join(guest, channel_id)
    held.pod.leave(ROOM_ID, guests[0])
    assert held.feed.watched == {shard}
    held.pod.leave(neighbour, guests[1])
    assert held.feed.watched == set()


async def test_what_is_brought_while_a_room_is_being_read_is_not_lost(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.feed.carries.clear()  # but for what is delivered here
    read = held.store.read_stream_tail

    async def late(stream: str, *, limit: int) -> Any:
        tail = await read(stream, limit=limit)
        await held.say("in between")
        await held.pod.deliver(await held.store.read_stream(stream))
        return tail

    monkeypatch.setattr(held.store, "read_stream_tail", late)
    guest = Guest()
    await held.join(guest)
    assert (await guest.until("welcome"))["position"] == 1
    assert [item["text"] for item in (await guest.until("messages"))["items"]] == ["in between"]


async def test_a_mode_that_the_feed_lost_is_announced(swept: Held) -> None:
    guest = Guest()
    await swept.join(guest)
    mode = ChatMode(slow_s=30)
    row = IndexWrite("chat_modes", {"channel_id": ROOM_ID}, mode.model_dump())
    await swept.append(ChatModeChanged(channel_id=ROOM_ID, mode=mode), row, stream=f"channel-{ROOM_ID}")
    assert (await guest.until("mode"))["mode"]["slow_s"] == 30
    later = Guest()
    await swept.join(later)
    assert (await later.until("welcome"))["mode"]["slow_s"] == 30


async def test_an_erased_persons_messages_vanish_from_screens_and_from_what_is_sent_later(swept: Held) -> None:
    watching, later = Guest(), Guest()
    await swept.say("my street is Elm Street", "bob")
    await swept.say("hello", "ann")
    await swept.join(watching)
    assert len((await watching.until("messages"))["items"]) == 2
    swept.standings.gone.add("bob")
    assert await watching.until("erased") == {"type": "erased", "user": "bob"}
    await swept.join(later)
    assert [item["text"] for item in (await later.until("messages"))["items"]] == ["hello"]


async def test_a_room_that_is_opened_later_shows_nothing_of_the_erased(held: Held) -> None:
    await held.say("my street is Elm Street", "bob")
    await held.say("hello", "ann")
    held.standings.gone.add("bob")
    guest = Guest()
    await held.join(guest)
    assert [item["text"] for item in (await guest.until("messages"))["items"]] == ["hello"]


async def test_who_comes_back_after_long_gets_nothing_that_was_removed_or_erased_since(held: Held) -> None:
    for number in range(LOG_MAX + 10):
        await held.say(f"m{number}", f"u{number}")
    deleted = MessageDeleted(
        channel_id=ROOM_ID, message_id="m2", author_id="a-u2", username="u2", moderator_id="m", moderator="mod"
    )
    await held.append(deleted)
    held.standings.gone.add("u3")
    back = Guest()
    await held.join(back, after=1)
    texts: list[str] = []
    while len(texts) < LOG_MAX + 7:
        texts += [item["text"] for item in (await back.until("messages"))["items"]]
    assert texts == ["m1", *(f"m{number}" for number in range(4, LOG_MAX + 10))]
    assert (await back.until("deleted"))["id"] == "m2"
