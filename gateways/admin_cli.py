"""`tallylight admin create|grant|revoke`: who has which role, from the machine itself, where nobody stands behind the command yet.

Called by `gateways.cli`. It sends the same commands as everybody; whoever may read the data folder is trusted with it.
"""

from datetime import UTC, datetime
from typing import Final

import typer
from argon2 import PasswordHasher
from uuid_utils.compat import uuid7

from commands.accounts import GrantRole, RegisterAccount, RevokeRole
from commands.bus import handle
from commands.context import Call, Charged, Context, Declined, Unsettled
from domain.shared import Money, Refusal, normalise_name
from gateways.auth import ACCESS_S, PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN
from gateways.beside import Beside, beside

ROLES_LOCK: Final = 1_413_565_011
"""An advisory lock: of two who revoke at once, the second sees what the first left."""


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
        context = _context(here)
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


async def grant(username: str, role: str) -> int:
    """The exit code: 1 when that is refused."""
    async with beside() as here:
        account_id = await _account_id(here, username)
        if account_id is None:
            return _nobody(username)
        granted = await handle(_context(here), Call(uuid7()), GrantRole(account_id, role, trusted=True))
    if isinstance(granted, Refusal):
        return _refused(granted)
    typer.echo(
        f"{username} {'has' if granted.placed else 'had'} the role {role}{_FROM_WHEN if granted.placed else ' already'}."
    )
    return 0


async def revoke(username: str, role: str) -> int:
    """The exit code: 1 when that is refused, as the last administrator's is."""
    async with beside() as here, here.pool.acquire() as connection:
        account_id = await _account_id(here, username)
        if account_id is None:
            return _nobody(username)
        await connection.execute("SELECT pg_advisory_lock($1)", ROLES_LOCK)
        try:
            revoked = await handle(_context(here), Call(uuid7()), RevokeRole(account_id, role, trusted=True))
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", ROLES_LOCK)
    if isinstance(revoked, Refusal):
        return _refused(revoked)
    typer.echo(
        f"{username} has the role {role} no more{_FROM_WHEN}." if revoked.placed else f"{username} had no role {role}."
    )
    return 0


_FROM_WHEN: Final = f", from the next log-in or refresh on: within {ACCESS_S // 60} minutes"


def _context(here: Beside) -> Context:
    return Context(here.store, lambda: datetime.now(UTC), _NoProvider())


async def _account_id(here: Beside, username: str) -> str | None:
    name = username.strip().lower()
    row = await here.store.index_row("names", {"name": name, "use": "account"})
    return None if row is None else str(row["account_id"])


def _nobody(username: str) -> int:
    typer.echo(f"There is no account {username!r}.", err=True)
    return 1


def _refused(refusal: Refusal) -> int:
    typer.echo(refusal.detail, err=True)
    return 1
