"""Names: each use of a name is held by one, both uses of it by one account."""

from hypothesis import given
from hypothesis import strategies as st

from domain import name
from domain.event import Event
from domain.name import Claims, NameClaimed, NameReleased
from domain.shared import Refusal
from tests import histories
from tests.domain.given import Decide, Stream, code, deciding

NAMES = Stream(Claims(), name.evolve)
ANNS = NameClaimed(name="ann", use="account", account_id="a1", subject_id="a1")

uses = st.sampled_from(["account", "channel"])
claims = deciding(
    name.claim,
    st.just("ann"),
    uses,
    account_id=st.sampled_from(["a1", "a2"]),
    subject_id=st.sampled_from(["a1", "c1", "c2"]),
)
steps = st.lists(claims | st.builds(NameReleased, name=st.just("ann"), use=uses), max_size=12)


@given(steps)
def test_deciding_again_says_nothing_new(steps: list[Event | Decide]) -> None:
    NAMES.assert_deciding_again_says_nothing_new(steps)


@given(steps)
def test_a_name_is_never_two_accounts(steps: list[Event | Decide]) -> None:
    state = NAMES.initial
    for step in steps:
        before = state
        state = name.evolve(state, step) if isinstance(step, Event) else NAMES.then(state, step(state))
        assert len({holder for holder, _ in state.held.values()}) <= 1
        if not isinstance(step, Event):
            assert all(state.held[use] == by for use, by in before.held.items()), "nobody's claim is overwritten"


@given(st.lists(histories.events()))
def test_any_recorded_event_is_accepted_and_those_of_other_streams_change_nothing(events: list[Event]) -> None:
    own = [event for event in events if event.TOPIC.startswith("name.")]
    assert NAMES.given(*events) == NAMES.given(*own)


def test_the_other_use_of_a_name_is_its_holders_alone() -> None:
    held = NAMES.given(ANNS)
    assert code(name.claim(held, "ann", "channel", account_id="a2", subject_id="c2")) == "name_taken"
    assert name.claim(held, "ann", "channel", account_id="a1", subject_id="c1") == [
        NameClaimed(name="ann", use="channel", account_id="a1", subject_id="c1")
    ]


def test_a_use_is_not_claimed_for_two_things_even_by_one_account() -> None:
    held = NAMES.given(NameClaimed(name="ann", use="channel", account_id="a1", subject_id="c1"))
    assert code(name.claim(held, "ann", "channel", account_id="a1", subject_id="c2")) == "name_taken"


def test_a_name_released_is_free_for_anybody() -> None:
    free = NAMES.given(ANNS, NameReleased(name="ann", use="account"))
    assert not isinstance(name.claim(free, "ann", "account", account_id="a2", subject_id="a2"), Refusal)
