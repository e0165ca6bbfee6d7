"""The general ledger: every posting of every money event, and the balance of each account.

What an event posts is decided in `domain.ledger`; here it only becomes rows. `gateways` reads the trial balance and an account's
postings from it; `tallylight ledger verify` compares it with the event store.
"""

from collections.abc import Iterable
from typing import Final

from domain import ledger
from domain.payment import PaymentCaptured, PaymentRefunded
from domain.subscription import SubscriptionExpired, SubscriptionStarted
from eventstore.port import Recorded
from projections.projection import Projection
from projections.rows import Bump, Change, Put, Table

POSTINGS: Final = Table(
    "postings",
    {"shard": "int", "position": "bigint", "line": "int"},
    {
        "stream": "text",
        "version": "bigint",
        "topic": "text",
        "account": "text",
        "currency": "text",
        "amount_minor": "bigint",
        "booked_at": "timestamptz",
    },
)
BALANCES: Final = Table(
    "balances",
    {"account": "text", "currency": "text"},
    {"debit_minor": "bigint", "credit_minor": "bigint", "postings": "bigint"},
    shared=True,
)


def _posted(recorded: Recorded) -> Iterable[Change]:
    for line, posting in enumerate(ledger.postings(recorded.event)):
        values = {
            "stream": recorded.stream,
            "version": recorded.version,
            "topic": recorded.topic,
            "account": posting.account,
            "currency": posting.currency,
            "amount_minor": posting.amount_minor,
            "booked_at": recorded.at,
        }
        yield Put(POSTINGS, (recorded.shard, recorded.position, line), values)
        moved = {
            "debit_minor": max(posting.amount_minor, 0),
            "credit_minor": max(-posting.amount_minor, 0),
            "postings": 1,
        }
        yield Bump(BALANCES, (posting.account, posting.currency), moved)


PROJECTION: Final = Projection(
    "ledger",
    version=1,
    tables=(POSTINGS, BALANCES),
    handlers={
        PaymentCaptured: _posted,
        PaymentRefunded: _posted,
        SubscriptionStarted: _posted,
        SubscriptionExpired: _posted,
    },
)
