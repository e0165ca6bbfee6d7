"""`tallylight ledger verify|trial-balance`: what `gateways.books` finds, for a person at a terminal.

Called by `gateways.cli`. It only reads.
"""

from datetime import date

import orjson
import typer

from gateways import books
from gateways.beside import Beside, beside
from projections import checkpoints
from projections.ledger import PROJECTION


async def show_verified() -> int:
    """The exit code: 1 with differences, 2 where there is no ledger to verify."""
    async with beside() as here:
        if not await _live(here):
            return 2
        async with here.pool.acquire() as connection:
            found = await books.verify(connection, here.store)
    for difference in found.differences:
        typer.echo(f"DIFFERS {difference.where}: {difference.what}")
    behind = f"; {found.behind} more wait for the projection" if found.behind else ""
    typer.echo(
        f"{found.postings} postings of {found.events} events recomputed, {len(found.differences)} differences{behind}"
    )
    return 1 if found.differences else 0


async def show_trial_balance(*, as_of: date | None, machine: bool) -> int:
    """The exit code: 1 where debits and credits of a currency differ, 2 where there is no ledger."""
    async with beside() as here:
        if not await _live(here):
            return 2
        async with here.pool.acquire() as connection:
            found = await books.trial_balance(connection, as_of=as_of)
    totals = books.totals(found)
    if machine:
        for one in found:
            typer.echo(orjson.dumps(one).decode())
    else:
        typer.echo(f"{'account':<60}{'debit':>16}{'credit':>16}")
        for one in found:
            typer.echo(f"{one.account:<60}{_amount(one.debit_minor):>16}{_amount(one.credit_minor):>16} {one.currency}")
        for currency, (debit, credit) in sorted(totals.items()):
            typer.echo(f"{'total':<60}{_amount(debit):>16}{_amount(credit):>16} {currency}")
    return 0 if all(debit == credit for debit, credit in totals.values()) else 1


async def _live(here: Beside) -> bool:
    async with here.pool.acquire() as connection:
        if isinstance(await checkpoints.state(connection, PROJECTION), checkpoints.Current):
            return True
    typer.echo("There is no ledger yet: no projector has run on this database.", err=True)
    return False


def _amount(minor: int) -> str:
    """In minor units, as kept: how many make a whole differs by currency."""
    return f"{minor:,}" if minor else ""
