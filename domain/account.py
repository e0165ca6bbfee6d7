"""An account: who a person is to us. Passwords are no facts and never stand in an event."""

from typing import ClassVar

from domain.event import Category, Event


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
