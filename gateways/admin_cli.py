"""`tallylight admin create`: the first administrator, from the machine itself, where nobody stands behind the command yet.

Called by `gateways.cli`. It sends the same commands as everybody; whoever may read the data folder is trusted with it.
"""

from datetime import UTC, datetime
from typing import Final

import typer
from argon2 import PasswordHasher
from uuid_utils.compat import uuid7

from commands.accounts import GrantRole, RegisterAccount
from commands.bus import handle
from commands.context import Call, Charged, Context, Declined, Unsettled
from domain.shared import Money, Refusal, normalise_name
from gateways.beside import beside

PASSWORD_CHARS_MIN: Final = 10
PASSWORD_CHARS_MAX: Final = 200


class _NoProvider:
    """Nothing here takes money."""

    name = "none"

    async def charge(self, payment_id: str, amount: Money, method: str) -> Charged | Declined | Unsettled:
        raise NotImplementedError

    async def settle(self, payment_id: str, amount: Money) -> Charged | Declined | Unsettled:
        raise NotImplementedError


async def create(username: str, password: str | None) -> int:
    """Register the account unless it is there, and make it an administrator. The exit code: 1 when that is refused."""
    normal = normalise_name(username)
    if isinstance(normal, Refusal):
        return _refused(normal)
    async with beside() as here:
        context = Context(here.store, lambda: datetime.now(UTC), _NoProvider())
        known = await here.store.index_row("credentials", {"username": normal})
        if known is None:
            if password is None:
                password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
            if not PASSWORD_CHARS_MIN <= len(password) <= PASSWORD_CHARS_MAX:
                typer.echo(f"A password has {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters.", err=True)
                return 1
            command = RegisterAccount(username, PasswordHasher().hash(password))
            registered = await handle(context, Call(uuid7()), command)
            if isinstance(registered, Refusal):
                return _refused(registered)
            account_id = registered.value["account_id"]
        else:
            account_id = known["account_id"]
        granted = await handle(context, Call(uuid7()), GrantRole(account_id, "admin", trusted=True))
        if isinstance(granted, Refusal):
            return _refused(granted)
    made = "is an administrator now" if known is not None else "was registered as an administrator"
    typer.echo(f"{normal} {made} (account {account_id}).")
    return 0


def _refused(refusal: Refusal) -> int:
    typer.echo(refusal.detail, err=True)
    return 1
