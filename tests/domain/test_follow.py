"""Follows: on or off, and said only when it changes."""

from hypothesis import given
from hypothesis import strategies as st

from domain import follow
from domain.event import Event
from domain.follow import ChannelFollowed, ChannelUnfollowed
from tests import histories
from tests.domain.given import Decide, Stream, deciding

FOLLOWS = Stream(False, follow.evolve)
FOLLOWED = ChannelFollowed(channel_id="c1", account_id="ann")
UNFOLLOWED = ChannelUnfollowed(channel_id="c1", account_id="ann")

pair = (st.just("c1"), st.just("ann"))
steps = st.lists(deciding(follow.follow, *pair) | deciding(follow.unfollow, *pair), max_size=8)


@given(steps)
def test_deciding_again_says_nothing_new(steps: list[Event | Decide]) -> None:
    FOLLOWS.assert_deciding_again_says_nothing_new(steps)


@given(steps)
def test_follows_and_unfollows_take_turns(steps: list[Decide]) -> None:
    state, said = False, list[Event]()
    for step in steps:
        decided = step(state)
        state = FOLLOWS.then(state, decided)
        said += decided  # type: ignore[arg-type]  # a follow is never refused
    assert [event == FOLLOWED for event in said] == [number % 2 == 0 for number in range(len(said))]


@given(st.lists(histories.events()))
def test_any_recorded_event_is_accepted_and_those_of_other_streams_change_nothing(events: list[Event]) -> None:
    own = [event for event in events if event.TOPIC.startswith("follow.")]
    assert FOLLOWS.given(*events) == FOLLOWS.given(*own)


def test_a_follow_is_said_once_and_taken_back_once() -> None:
    assert follow.follow(FOLLOWS.given(), "c1", "ann") == [FOLLOWED]
    assert follow.follow(FOLLOWS.given(FOLLOWED), "c1", "ann") == []
    assert follow.unfollow(FOLLOWS.given(FOLLOWED), "c1", "ann") == [UNFOLLOWED]
    assert follow.unfollow(FOLLOWS.given(FOLLOWED, UNFOLLOWED), "c1", "ann") == []
