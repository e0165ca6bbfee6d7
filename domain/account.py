"""An account: who a person is to us. Passwords are no facts and never stand in an event."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from domain.event import Category, Event
from domain.shared import Refusal

PLATFORM_ROLES: Final = frozenset({"admin", "finance"})


class AccountRegistered(Event):
    TOPIC: ClassVar[str] = "account.AccountRegistered"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    PERSONAL: ClassVar = {"display_name": "account_id", "email": "account_id"}
    account_id: str
    username: str
    display_name: str
    email: str | None = None


class DisplayNameChanged(Event):
    TOPIC: ClassVar[str] = "account.DisplayNameChanged"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    PERSONAL: ClassVar = {"display_name": "account_id"}
    account_id: str
    display_name: str


class AccountErased(Event):
    TOPIC: ClassVar[str] = "account.AccountErased"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    account_id: str


class RoleGranted(Event):
    """A platform-wide role (`finance` or `admin`)."""

    TOPIC: ClassVar[str] = "account.RoleGranted"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    account_id: str
    role: str


class RoleRevoked(Event):
    TOPIC: ClassVar[str] = "account.RoleRevoked"
    CATEGORY: ClassVar[Category] = Category.LIFECYCLE
    account_id: str
    role: str


def stream(account_id: str) -> str:
    return f"account-{account_id}"


@dataclass(frozen=True, slots=True)
class Account:
    exists: bool = False
    erased: bool = False
    username: str = ""
    display_name: str = ""
    roles: frozenset[str] = frozenset()


def evolve(state: Account, event: Event) -> Account:
    match event:
        case AccountRegistered(username=username, display_name=name):
            return replace(state, exists=True, username=username, display_name=name)
        case DisplayNameChanged(display_name=name):
            return replace(state, display_name=name)
        case AccountErased():
            return replace(state, erased=True, display_name="")
        case RoleGranted(role=role):
            return replace(state, roles=state.roles | {role})
        case RoleRevoked(role=role):
            return replace(state, roles=state.roles - {role})
        case _:
            return state


def _living(state: Account) -> Refusal | None:
    if not state.exists or state.erased:
        return Refusal("account_not_found", "There is no such account.")
    return None


_ROLE_UNKNOWN: Final = Refusal("role_unknown", f"Roles are {', '.join(sorted(PLATFORM_ROLES))}.")


def grant(state: Account, account_id: str, role: str) -> Sequence[Event] | Refusal:
    if refusal := _living(state):
        return refusal
    if role not in PLATFORM_ROLES:
        return _ROLE_UNKNOWN
    return [] if role in state.roles else [RoleGranted(account_id=account_id, role=role)]


def revoke(state: Account, account_id: str, role: str, *, others: bool) -> Sequence[Event] | Refusal:
    """`others`: whether somebody else has the role too."""
    if refusal := _living(state):
        return refusal
    if role not in PLATFORM_ROLES:
        return _ROLE_UNKNOWN
    if role not in state.roles:
        return []
    if role == "admin" and not others:
        return Refusal("last_admin", "This is the last administrator; make another one first.")
    return [RoleRevoked(account_id=account_id, role=role)]


def change_display_name(state: Account, account_id: str, display_name: str) -> Sequence[Event] | Refusal:
    if refusal := _living(state):
        return refusal
    return (
        []
        if state.display_name == display_name
        else [DisplayNameChanged(account_id=account_id, display_name=display_name)]
    )


def erase(state: Account, account_id: str) -> Sequence[Event] | Refusal:
    if state.erased:
        return []
    return _living(state) or [AccountErased(account_id=account_id)]
