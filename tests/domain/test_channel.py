"""Channels: what their page says, their key, their moderators and the modes of their chat, as pure decisions."""

from hypothesis import given
from hypothesis import strategies as st

from domain import channel
from domain.channel import (
    MODERATORS_MAX,
    Channel,
    ChannelDescribed,
    ChannelOpened,
    ChatMode,
    ChatModeChanged,
    ModeratorAppointed,
    ModeratorRemoved,
    StreamKeyRotated,
)
from domain.event import Event
from tests import histories
from tests.domain.given import Decide, Stream, code, deciding

CHANNELS = Stream(Channel(), channel.evolve)
OPENED = ChannelOpened(channel_id="c1", name="ann", owner_id="ann", title="Painting", category="Art")
BOB = ModeratorAppointed(channel_id="c1", account_id="bob", username="bob")
SLOW = ChatMode(slow_s=30)

c1 = st.just("c1")
people = st.sampled_from(histories.PEOPLE)
steps = st.lists(
    st.just(OPENED)
    | deciding(channel.rotate_key, c1, st.sampled_from(["hash-1", "hash-2"]))
    | deciding(
        channel.describe,
        c1,
        title=st.none() | histories.texts,
        category=st.none() | histories.texts,
        tags=st.none() | st.lists(histories.texts, max_size=2).map(tuple),
    )
    | deciding(channel.appoint, c1, people, people)
    | deciding(channel.remove, c1, people, people)
    | deciding(channel.change_mode, c1, histories.modes),
    max_size=15,
)


@given(steps)
def test_deciding_again_says_nothing_new(steps: list[Event | Decide]) -> None:
    CHANNELS.assert_deciding_again_says_nothing_new(steps)


@given(st.lists(histories.events()))
def test_any_recorded_event_is_accepted_and_those_of_other_streams_change_nothing(events: list[Event]) -> None:
    own = [event for event in events if event.TOPIC.startswith("channel.")]
    assert CHANNELS.given(*events) == CHANNELS.given(*own)


def test_what_is_not_described_stays_as_it_is() -> None:
    opened = CHANNELS.given(OPENED)
    assert channel.describe(opened, "c1", title="Drawing", category=None, tags=None) == [
        ChannelDescribed(channel_id="c1", title="Drawing", category="Art")
    ]
    assert channel.describe(opened, "c1", title=None, category="", tags=("ink",)) == [
        ChannelDescribed(channel_id="c1", title="Painting", category="", tags=("ink",))
    ]
    assert channel.describe(opened, "c1", title="Painting", category="Art", tags=()) == []


def test_the_last_key_is_the_channels_key() -> None:
    rotated = StreamKeyRotated(channel_id="c1", key_hash="hash-1")
    assert channel.rotate_key(CHANNELS.given(OPENED), "c1", "hash-1") == [rotated]
    state = CHANNELS.given(OPENED, rotated, StreamKeyRotated(channel_id="c1", key_hash="hash-2"))
    assert state.key_hash == "hash-2"
    assert channel.rotate_key(state, "c1", "hash-1") == [rotated]


def test_a_moderator_is_appointed_and_removed_once() -> None:
    removed = ModeratorRemoved(channel_id="c1", account_id="bob", username="bob")
    assert channel.appoint(CHANNELS.given(OPENED), "c1", "bob", "bob") == [BOB]
    assert channel.appoint(CHANNELS.given(OPENED, BOB), "c1", "bob", "bob") == []
    assert channel.remove(CHANNELS.given(OPENED, BOB), "c1", "bob", "bob") == [removed]
    assert channel.remove(CHANNELS.given(OPENED, BOB, removed), "c1", "bob", "bob") == []


def test_an_owner_is_no_moderator_of_their_own_channel() -> None:
    assert code(channel.appoint(CHANNELS.given(OPENED), "c1", "ann", "ann")) == "already_owner"


def test_moderators_have_a_maximum_that_those_who_are_there_do_not_meet() -> None:
    many = [ModeratorAppointed(channel_id="c1", account_id=f"m{n}", username=f"m{n}") for n in range(MODERATORS_MAX)]
    full = CHANNELS.given(OPENED, *many)
    assert code(channel.appoint(full, "c1", "bob", "bob")) == "too_many_moderators"
    assert channel.appoint(full, "c1", "m0", "m0") == []
    room = channel.evolve(full, ModeratorRemoved(channel_id="c1", account_id="m0", username="m0"))
    assert channel.appoint(room, "c1", "bob", "bob") == [BOB]


def test_modes_change_as_a_whole_and_back() -> None:
    assert channel.change_mode(CHANNELS.given(OPENED), "c1", ChatMode()) == []
    slowed = ChatModeChanged(channel_id="c1", mode=SLOW)
    assert channel.change_mode(CHANNELS.given(OPENED), "c1", SLOW) == [slowed]
    assert channel.change_mode(CHANNELS.given(OPENED, slowed), "c1", ChatMode()) == [
        ChatModeChanged(channel_id="c1", mode=ChatMode())
    ]


def test_nothing_is_decided_about_a_channel_that_is_not_there() -> None:
    nowhere = CHANNELS.given()
    for decided in (
        channel.rotate_key(nowhere, "c1", "hash"),
        channel.describe(nowhere, "c1", title="t", category=None, tags=None),
        channel.appoint(nowhere, "c1", "bob", "bob"),
        channel.remove(nowhere, "c1", "bob", "bob"),
        channel.change_mode(nowhere, "c1", SLOW),
    ):
        assert code(decided) == "channel_not_found"
