"""What every event store does, over each of them: the Postgres one and the one in memory."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from domain import account, chat
from domain.channel import ChannelDescribed
from domain.chat import MessagePosted, UserBanned
from domain.event import ERASED
from eventstore.index import UnknownIndex
from eventstore.mapper import UnknownTopic
from eventstore.port import (
    EVENTS_PER_APPEND_MAX,
    SHARDS,
    Append,
    Appended,
    ChatPost,
    Duplicate,
    EventStore,
    IndexWrite,
    Outcome,
    Recorded,
    Refused,
    StreamWrite,
    WrongVersion,
    shard_of,
)
from eventstore.validation import InvalidAppend

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Stranger(ChannelDescribed):
    """An event of nobody's registry."""

    TOPIC = "stranger.Event"


def described(title: str, channel_id: str = "c1") -> ChannelDescribed:
    return ChannelDescribed(channel_id=channel_id, title=title, category="")


def command(
    *titles: str,
    channel: str = "c1",
    expected: int | None = None,
    command_id: UUID | None = None,
    index: tuple[IndexWrite, ...] = (),
) -> Append:
    events = [described(title, channel) for title in titles]
    write = StreamWrite(f"channel-{channel}", channel, events, expected)
    return Append(command_id or uuid4(), [write], index, actor="a1", correlation_id=uuid4(), causation_id=uuid4())


def message(
    text: str, *, channel: str = "c1", author: str = "a1", command_id: UUID | None = None, subscriber: bool = False
) -> ChatPost:
    event = MessagePosted(channel_id=channel, message_id=str(uuid4()), author_id=author, username=author, text=text)
    return ChatPost(command_id or uuid4(), channel, author, event, text.encode(), subscriber=subscriber)


def appended(outcome: Outcome) -> Appended:
    assert isinstance(outcome, Appended), outcome
    return outcome


def titles(events: list[Recorded]) -> list[str]:
    return [event.event.title for event in events]


async def test_an_event_comes_back_with_everything_it_was_appended_with(store: EventStore) -> None:
    asked = command("one", "two", expected=0)
    outcome = appended(await store.append(asked))
    (placed,) = outcome.placed
    assert (placed.stream, placed.version, placed.position) == ("channel-c1", 2, 2)
    first, second = await store.read_stream("channel-c1")
    assert (first.event, second.event) == (described("one"), described("two"))
    assert (first.version, second.version, first.position, second.position) == (1, 2, 1, 2)
    assert first.shard == placed.shard == shard_of("c1")
    assert (first.topic, first.category) == ("channel.ChannelDescribed", "lifecycle")
    assert (first.at, first.actor, first.command_id) == (outcome.at, "a1", asked.command_id)
    assert (first.correlation_id, first.causation_id) == (asked.correlation_id, asked.causation_id)


async def test_a_wrong_version_writes_nothing_and_says_where_the_stream_stands(store: EventStore) -> None:
    await store.append(command("one", "two"))
    for expected in (0, 1, 3):
        assert await store.append(command("late", expected=expected)) == WrongVersion("channel-c1", 2)
    appended(await store.append(command("three", expected=2)))
    assert titles(await store.read_stream("channel-c1")) == ["one", "two", "three"]


async def test_a_command_over_several_shards_is_written_whole_or_not_at_all(store: EventStore) -> None:
    appended(await store.append(command("before", channel="c2")))
    writes = [
        StreamWrite(f"channel-{one}", one, [described(one, one)], expected) for one, expected in (("c1", 0), ("c2", 0))
    ]
    assert await store.append(Append(uuid4(), writes)) == WrongVersion("channel-c2", 1)
    assert await store.read_stream("channel-c1") == []
    writes = [
        StreamWrite(f"channel-{one}", one, [described(one, one)], expected) for one, expected in (("c1", 0), ("c2", 1))
    ]
    outcome = appended(await store.append(Append(uuid4(), writes)))
    assert [(placed.stream, placed.version) for placed in outcome.placed] == [("channel-c1", 1), ("channel-c2", 2)]
    assert len({placed.shard for placed in outcome.placed}) == 2


async def test_the_same_command_twice_is_answered_with_the_first_outcome_and_written_once(store: EventStore) -> None:
    asked = command("one", expected=0)
    first = appended(await store.append(asked))
    assert await store.append(asked) == Duplicate(first)
    outcomes = await asyncio.gather(*(store.append(command("again", command_id=asked.command_id)) for _ in range(5)))
    assert outcomes == [Duplicate(first)] * 5
    assert titles(await store.read_stream("channel-c1")) == ["one"]


async def test_a_command_sent_at_once_by_many_is_written_once(store: EventStore) -> None:
    command_id = uuid4()
    outcomes = await asyncio.gather(*(store.append(command("one", command_id=command_id)) for _ in range(20)))
    (first,) = [outcome for outcome in outcomes if isinstance(outcome, Appended)]
    assert Counter(map(type, outcomes)) == {Appended: 1, Duplicate: 19}
    assert all(outcome.of == first for outcome in outcomes if isinstance(outcome, Duplicate))


async def test_of_many_who_expect_one_version_one_wins(store: EventStore) -> None:
    outcomes = await asyncio.gather(*(store.append(command(str(number), expected=0)) for number in range(30)))
    assert Counter(map(type, outcomes)) == {Appended: 1, WrongVersion: 29}
    assert len(await store.read_stream("channel-c1")) == 1


async def test_concurrent_appends_keep_versions_and_positions_dense(store: EventStore) -> None:
    channels = [f"c{number}" for number in range(12)]
    outcomes = await asyncio.gather(
        *(
            store.append(command(*("t" * (number % 3 + 1)), channel=channels[number % len(channels)]))
            for number in range(300)
        )
    )
    assert all(isinstance(outcome, Appended) for outcome in outcomes)
    heads = await store.heads()
    assert sum(heads) == sum(number % 3 + 1 for number in range(300))
    times: dict[int, datetime] = {}
    versions: Counter[str] = Counter()
    for shard in range(SHARDS):
        events = await store.read_shard(shard, after=0)
        assert [event.position for event in events] == list(range(1, heads[shard] + 1))
        for event in events:
            versions[event.stream] += 1
            assert event.version == versions[event.stream]
            assert event.at >= times.get(shard, event.at)
            times[shard] = event.at


async def test_streams_and_shards_are_read_from_where_one_stands(store: EventStore) -> None:
    await store.append(command(*"abcde"))
    await store.append(Append(uuid4(), [StreamWrite("chat-c1", "c1", [banned("a9")])]))
    assert titles(await store.read_stream("channel-c1", after=1, limit=2)) == ["b", "c"]
    assert titles(await store.read_stream_tail("channel-c1", limit=2)) == ["d", "e"]
    assert await store.read_stream_tail("channel-c1", limit=0) == []
    shard = shard_of("c1")
    assert titles(await store.read_shard(shard, after=3, limit=1)) == ["d"]
    chats = await store.read_shard(shard, after=0, categories=["chat", "money"])
    assert [event.position for event in chats] == [6]
    assert await store.read_stream("channel-nobody") == []


def banned(account_id: str, channel: str = "c1") -> UserBanned:
    return UserBanned(
        channel_id=channel, account_id=account_id, username=account_id, moderator_id="m1", moderator="mod"
    )


async def test_a_subscriber_gets_what_is_stored_and_then_what_happens(store: EventStore) -> None:
    await store.append(command("before", "here"))
    shard = shard_of("c1")
    seen: list[str] = []
    async with asyncio.timeout(20):
        feed = store.subscribe({shard: 1})
        async for batch in feed:
            seen += titles(batch)
            if len(seen) == 4:
                break
            await store.append(command(f"live {len(seen)}", f"and {len(seen)}"))
            if len(seen) > 4:
                break
    assert seen[0] == "here"
    assert seen[1:3] == ["live 1", "and 1"]


async def test_index_rows_are_there_the_instant_their_event_is_and_not_before(store: EventStore) -> None:
    key = {"channel_id": "c1", "account_id": "a1"}
    row = IndexWrite("channel_roles", key, {"role": "moderator", "username": "ann"})
    assert await store.index_row("channel_roles", key) is None
    assert isinstance(await store.append(command("no", expected=7, index=(row,))), WrongVersion)
    assert await store.index_row("channel_roles", key) is None
    appended(await store.append(command("yes", index=(row,))))
    assert await store.index_row("channel_roles", key) == {**key, "role": "moderator", "username": "ann"}
    changed = IndexWrite("channel_roles", key, {"role": "owner", "username": "ann"})
    appended(await store.append(command("more", index=(changed,))))
    assert (await store.index_row("channel_roles", key) or {})["role"] == "owner"
    appended(await store.append(command("gone", index=(IndexWrite("channel_roles", key, None),))))
    assert await store.index_row("channel_roles", key) is None


async def test_index_rows_are_found_by_some_of_their_columns(store: EventStore) -> None:
    people = [("c1", "a2", "moderator"), ("c1", "a1", "owner"), ("c2", "a1", "moderator")]
    rows = tuple(
        IndexWrite("channel_roles", {"channel_id": channel, "account_id": account}, {"role": role, "username": account})
        for channel, account, role in people
    )
    appended(await store.append(command("x", index=rows)))
    found = await store.index_rows("channel_roles", {"channel_id": "c1"})
    assert [row["account_id"] for row in found] == ["a1", "a2"]
    found = await store.index_rows("channel_roles", {"role": "moderator", "account_id": "a1"})
    assert found == [{"channel_id": "c2", "account_id": "a1", "role": "moderator", "username": "a1"}]
    assert await store.index_rows("channel_roles", {"username": "nobody"}) == []
    for where in ({}, {"colour": "red"}):
        with pytest.raises(UnknownIndex):
            await store.index_rows("channel_roles", where)


async def test_all_rows_of_a_small_index_table_are_read_in_order(store: EventStore) -> None:
    keys = [{"channel_id": name} for name in ("c2", "c1", "c3")]
    before = await store.index_table("channels_closed")
    appended(await store.append(command("x", index=tuple(IndexWrite("channels_closed", key, {}) for key in keys))))
    appended(await store.append(command("y", index=(IndexWrite("channels_closed", keys[2], None),))))
    assert before == []
    assert await store.index_table("channels_closed") == [{"channel_id": "c1"}, {"channel_id": "c2"}]
    with pytest.raises(UnknownIndex):
        await store.index_table("events")


async def test_index_rows_keep_times_numbers_and_nothing(store: EventStore) -> None:
    until = NOW + timedelta(seconds=1)
    ban = {"channel_id": "c1", "account_id": "a1"}
    mode = {"slow_s": 5, "followers_only_min": None, "subscribers_only": True, "emote_only": False, "unique": True}
    role = {"account_id": "a1", "role": "admin"}
    rows = (
        IndexWrite("chat_bans", ban, {"until": until}),
        IndexWrite("chat_modes", {"channel_id": "c1"}, mode),
        IndexWrite("account_roles", role, {}),
        IndexWrite("account_roles", role, {}),
    )
    appended(await store.append(command("x", index=rows)))
    assert await store.index_row("chat_bans", ban) == {**ban, "until": until}
    assert await store.index_row("chat_modes", {"channel_id": "c1"}) == {"channel_id": "c1", **mode}
    assert await store.index_row("account_roles", role) == role


async def test_what_no_correct_caller_sends_is_refused_before_it_touches_anything(store: EventStore) -> None:
    event = described("x")
    for bad in (
        Append(uuid4(), []),
        Append(uuid4(), [StreamWrite("channel-c1", "c1", [])]),
        Append(uuid4(), [StreamWrite("channel-c1", "c1", [event] * (EVENTS_PER_APPEND_MAX + 1))]),
        Append(uuid4(), [StreamWrite("channel-c1", "c1", [event]), StreamWrite("channel-c1", "c1", [event])]),
        Append(uuid4(), [StreamWrite("nul\x00", "c1", [event])]),
        command("x" * 300_000),
    ):
        with pytest.raises(InvalidAppend):
            await store.append(bad)
    with pytest.raises(UnknownIndex):
        await store.append(command("x", index=(IndexWrite("events", {"shard": 1}, None),)))
    with pytest.raises(UnknownIndex):
        await store.index_row("channel_roles", {"channel_id": "c1"})
    assert sum(await store.heads()) == 0


async def test_an_event_of_no_known_topic_is_a_fault(store: EventStore) -> None:
    with pytest.raises(UnknownTopic):
        await store.append(
            Append(
                uuid4(),
                [StreamWrite("channel-c1", "c1", [Stranger(channel_id="c1", title="", category="")])],
            )
        )


async def test_a_person_erased_reads_as_erased_everywhere_and_for_ever(store: EventStore) -> None:
    registered = [
        account.AccountRegistered(account_id=one, username=one, display_name=one.title(), email=f"{one}@example.org")
        for one in ("ann", "bob")
    ]
    for event in registered:
        name = account.stream(event.account_id)
        appended(await store.append(Append(uuid4(), [StreamWrite(name, event.account_id, [event])])))
    appended(await store.post_message(message("hello", author="ann")))
    assert [event.event for event in await store.read_stream("account-ann")] == registered[:1]
    await store.erase_person("ann")
    await store.erase_person("ann")
    (gone,) = await store.read_stream("account-ann")
    assert (gone.event.display_name, gone.event.email, gone.event.username) == (ERASED, ERASED, "ann")
    assert [event.event.text for event in await store.read_stream("chat-c1")] == [ERASED]
    assert [event.event for event in await store.read_stream("account-bob")] == registered[1:]
    later = account.DisplayNameChanged(account_id="ann", display_name="Ann again")
    appended(await store.append(Append(uuid4(), [StreamWrite("account-ann", "ann", [later])])))
    assert (await store.read_stream_tail("account-ann", limit=1))[0].event.display_name == ERASED


async def test_a_message_is_admitted_with_its_place_in_the_room(store: EventStore) -> None:
    first = appended(await store.post_message(message("hello")))
    second = appended(await store.post_message(message("hi", author="a2")))
    assert [placed.version for placed in (*first.placed, *second.placed)] == [1, 2]
    assert first.placed[0].stream == chat.stream("c1")
    assert [(event.event.text, event.actor) for event in await store.read_stream("chat-c1")] == [
        ("hello", "a1"),
        ("hi", "a2"),
    ]


async def test_a_user_writes_once_a_second_however_many_pods_they_ask(store: EventStore) -> None:
    outcomes = await asyncio.gather(*(store.post_message(message(str(number))) for number in range(8)))
    assert Counter(map(type, outcomes)) == {Appended: 1, Refused: 7}
    for outcome in outcomes:
        if isinstance(outcome, Refused):
            assert outcome.reason == "rate_limited"
            assert outcome.wait_s is not None
            assert 0 < outcome.wait_s <= 1


async def test_a_message_sent_again_is_answered_as_before_and_a_wait_may_be_tried_again(store: EventStore) -> None:
    once = message("hello")
    first = appended(await store.post_message(once))
    assert await store.post_message(once) == Duplicate(first)
    hasty = message("again")
    assert isinstance(await store.post_message(hasty), Refused)
    assert isinstance(await store.post_message(hasty), Refused)


async def test_a_ban_holds_from_the_moment_it_is_appended_and_its_refusal_is_remembered(store: EventStore) -> None:
    row = IndexWrite("chat_bans", {"channel_id": "c1", "account_id": "a1"}, {"until": None})
    appended(await store.append(Append(uuid4(), [StreamWrite("chat-c1", "c1", [banned("a1")])], (row,))))
    refused = message("hello")
    assert await store.post_message(refused) == Refused("banned")
    assert await store.post_message(refused) == Duplicate(Refused("banned"))
    appended(await store.post_message(message("hello", author="a2")))
    assert len(await store.read_stream("chat-c1")) == 2


async def test_a_time_out_ends_by_itself(store: EventStore) -> None:
    def timed_out(seconds: float) -> Append:
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        row = IndexWrite("chat_bans", {"channel_id": "c1", "account_id": "a1"}, {"until": until})
        return Append(uuid4(), [StreamWrite("chat-c1", "c1", [banned("a1")])], (row,))

    await store.append(timed_out(60))
    refused = await store.post_message(message("hello"))
    assert isinstance(refused, Refused)
    assert refused.reason == "timed_out"
    assert refused.wait_s is not None
    assert 50 < refused.wait_s <= 60
    await store.append(timed_out(-1))
    appended(await store.post_message(message("hello")))
