"""Accounts: roles, display names and erasure, as pure decisions."""

from hypothesis import given
from hypothesis import strategies as st

from domain import account
from domain.account import Account, AccountErased, AccountRegistered, DisplayNameChanged, RoleGranted, RoleRevoked
from domain.event import Event
from tests import histories
from tests.domain.given import Decide, Stream, code, deciding

ACCOUNTS = Stream(Account(), account.evolve)
REGISTERED = AccountRegistered(account_id="ann", username="ann", display_name="Ann")
FINANCE = RoleGranted(account_id="ann", role="finance")
ERASED = AccountErased(account_id="ann")

roles = st.sampled_from(["admin", "finance", "king"])
ann = st.just("ann")
steps = st.lists(
    st.just(REGISTERED)
    | st.builds(RoleRevoked, account_id=ann, role=roles)
    | deciding(account.grant, ann, roles)
    | deciding(account.revoke, ann, roles, others=st.booleans())
    | deciding(account.change_display_name, ann, histories.texts)
    | deciding(account.erase, ann),
    max_size=12,
)


@given(steps)
def test_deciding_again_says_nothing_new(steps: list[Event | Decide]) -> None:
    ACCOUNTS.assert_deciding_again_says_nothing_new(steps)


@given(st.lists(histories.events()))
def test_any_recorded_event_is_accepted_and_those_of_other_streams_change_nothing(events: list[Event]) -> None:
    own = [event for event in events if event.TOPIC.startswith("account.")]
    assert ACCOUNTS.given(*events) == ACCOUNTS.given(*own)


def test_a_role_is_granted_once_and_may_be_taken_back() -> None:
    registered = ACCOUNTS.given(REGISTERED)
    assert account.grant(registered, "ann", "finance") == [FINANCE]
    assert account.grant(ACCOUNTS.given(REGISTERED, FINANCE), "ann", "finance") == []
    taken = ACCOUNTS.given(REGISTERED, FINANCE, RoleRevoked(account_id="ann", role="finance"))
    assert taken.roles == frozenset()
    assert account.grant(taken, "ann", "finance") == [FINANCE]


def test_a_role_is_revoked_once_and_the_last_administrators_never() -> None:
    admin = ACCOUNTS.given(REGISTERED, RoleGranted(account_id="ann", role="admin"))
    revoked = RoleRevoked(account_id="ann", role="admin")
    assert code(account.revoke(admin, "ann", "admin", others=False)) == "last_admin"
    assert account.revoke(admin, "ann", "admin", others=True) == [revoked]
    assert account.revoke(ACCOUNTS.given(REGISTERED), "ann", "admin", others=False) == []
    assert code(account.revoke(admin, "ann", "moderator", others=True)) == "role_unknown"
    alone = ACCOUNTS.given(REGISTERED, FINANCE)
    assert account.revoke(alone, "ann", "finance", others=False) == [RoleRevoked(account_id="ann", role="finance")]


def test_roles_are_the_platforms_own() -> None:
    assert code(account.grant(ACCOUNTS.given(REGISTERED), "ann", "moderator")) == "role_unknown"


def test_a_display_name_is_changed_to_another_and_not_to_itself() -> None:
    registered = ACCOUNTS.given(REGISTERED)
    changed = DisplayNameChanged(account_id="ann", display_name="Annie")
    assert account.change_display_name(registered, "ann", "Annie") == [changed]
    assert account.change_display_name(registered, "ann", "Ann") == []
    assert account.change_display_name(ACCOUNTS.given(REGISTERED, changed), "ann", "Ann") == [
        DisplayNameChanged(account_id="ann", display_name="Ann")
    ]


def test_erasing_is_said_once_and_leaves_no_name() -> None:
    assert account.erase(ACCOUNTS.given(REGISTERED), "ann") == [ERASED]
    erased = ACCOUNTS.given(REGISTERED, ERASED)
    assert erased.display_name == ""
    assert account.erase(erased, "ann") == []


def test_nothing_is_decided_about_an_account_that_is_not_there_or_not_any_more() -> None:
    for state in (ACCOUNTS.given(), ACCOUNTS.given(REGISTERED, ERASED)):
        assert code(account.grant(state, "ann", "finance")) == "account_not_found"
        assert code(account.change_display_name(state, "ann", "Annie")) == "account_not_found"
    assert code(account.erase(ACCOUNTS.given(), "ann")) == "account_not_found"
