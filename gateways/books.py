"""The books as an auditor reads them: every posting recomputed from the event store and compared with the rows, and the balances.

Called by `tallylight ledger`, and by whoever shows a trial balance. It only reads; what the projection has not reached is lag, no error.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from domain import ledger
from domain.event import Category
from eventstore.port import EventStore

PAGE: Final = 1000
DIFFERENCES_MAX: Final = 100

Line = tuple[str, str, int]
"""Account, currency, amount in minor units: debit positive."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the rows and the events disagree, or an entry does not balance."""

    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Verified:
    events: int
    postings: int
    behind: int
    """Events that the ledger has not reached yet."""
    differences: Sequence[Difference]


@dataclass(frozen=True, slots=True)
class Balance:
    account: str
    currency: str
    debit_minor: int
    credit_minor: int


async def verify(connection: Any, store: EventStore) -> Verified:
    """Recompute all postings up to the ledger's checkpoints; `connection` reads everything in one snapshot."""
    differences: list[Difference] = []
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    events = postings = behind = 0
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        rows = await connection.fetch("SELECT shard, position FROM p_ledger.checkpoints ORDER BY shard")
        for shard, upto in rows:
            booked = await _booked(connection, shard)
            async for recorded in _money(store, shard):
                if recorded.position > upto:
                    behind += 1
                    continue
                events += 1
                meant = [(one.account, one.currency, one.amount_minor) for one in ledger.postings(recorded.event)]
                postings += len(meant)
                found = booked.pop(recorded.position, [])
                differences += _compare(
                    f"{shard}:{recorded.position} {recorded.stream}@{recorded.version}", meant, found
                )
                for account, currency, amount in meant:
                    side = sums[account, currency]
                    side[0 if amount > 0 else 1] += abs(amount)
                    side[2] += 1
            differences += [Difference(f"{shard}:{position}", "booked, but no event says so") for position in booked]
        differences += await _compare_balances(connection, sums)
    return Verified(events, postings, behind, differences[:DIFFERENCES_MAX])


async def trial_balance(connection: Any, *, as_of: date | None = None) -> Sequence[Balance]:
    """Each account's debits and credits, up to the end of a day (UTC) or as they stand."""
    if as_of is None:
        rows = await connection.fetch(
            "SELECT account, currency, debit_minor, credit_minor FROM p_ledger.balances ORDER BY 1, 2"
        )
    else:
        rows = await connection.fetch(
            "SELECT account, currency, coalesce(sum(amount_minor) FILTER (WHERE amount_minor > 0), 0)::bigint,"
            " coalesce(-sum(amount_minor) FILTER (WHERE amount_minor < 0), 0)::bigint FROM p_ledger.postings"
            " WHERE booked_at < $1 GROUP BY 1, 2 ORDER BY 1, 2",
            _end_of(as_of),
        )
    return [Balance(*row) for row in rows]


def totals(balances: Sequence[Balance]) -> Mapping[str, tuple[int, int]]:
    """Debits and credits by currency; equal where the books balance."""
    summed: dict[str, tuple[int, int]] = {}
    for one in balances:
        debit, credit = summed.get(one.currency, (0, 0))
        summed[one.currency] = (debit + one.debit_minor, credit + one.credit_minor)
    return summed


async def _booked(connection: Any, shard: int) -> dict[int, list[Line]]:
    booked: dict[int, list[Line]] = {}
    async for row in connection.cursor(
        "SELECT position, account, currency, amount_minor FROM p_ledger.postings WHERE shard = $1"
        " ORDER BY position, line",
        shard,
        prefetch=PAGE,
    ):
        booked.setdefault(row[0], []).append((row[1], row[2], row[3]))
    return booked


async def _money(store: EventStore, shard: int) -> AsyncIterator[Any]:
    after = 0
    while page := await store.read_shard(shard, after=after, limit=PAGE, categories=[Category.MONEY.value]):
        for recorded in page:
            yield recorded
        after = page[-1].position


def _compare(where: str, meant: Sequence[Line], found: Sequence[Line]) -> list[Difference]:
    differences = []
    if list(meant) != list(found):
        differences.append(Difference(where, f"the event means {_told(meant)}; booked is {_told(found)}"))
    for currency in {currency for _, currency, _ in found}:
        total = sum(amount for _, one, amount in found if one == currency)
        if total:
            differences.append(Difference(where, f"the entry is off balance by {total} {currency}"))
    return differences


async def _compare_balances(connection: Any, sums: Mapping[tuple[str, str], Sequence[int]]) -> list[Difference]:
    rows = await connection.fetch(
        "SELECT account, currency, debit_minor, credit_minor, postings FROM p_ledger.balances"
    )
    kept = {(row[0], row[1]): list(row[2:]) for row in rows}
    return [
        Difference(
            f"balance of {account}", f"the events mean {meant} {currency} (debit, credit, postings); kept is {found}"
        )
        for account, currency in sorted(set(sums) | set(kept))
        if (meant := list(sums.get((account, currency), [0, 0, 0])))
        != (found := kept.get((account, currency), [0, 0, 0]))
    ]


def _told(lines: Sequence[Line]) -> str:
    return ", ".join(f"{account} {amount:+d} {currency}" for account, currency, amount in lines) or "nothing"


def _end_of(day: date) -> datetime:
    return datetime.combine(day + timedelta(days=1), time(), UTC)
