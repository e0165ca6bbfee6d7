"""Takes what erased persons wrote, or what was written about them, out of the rows of read models. Run by the role `projector`.

Queries leave it out as soon as `accounts` knows of the erasure. The rows need another look, not a handler: a message may be applied after
its author's erasure, which stands in another shard, and be readable still, for keys are cached (`eventstore.keys.CACHE_S`). Rows that a
rebuild writes are born without these texts.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import asyncpg
import structlog

from domain.event import ERASED
from projections import accounts
from projections.checkpoints import Pool
from projections.projection import Projection
from projections.registry import PROJECTIONS

log = structlog.get_logger()

EVERY_S: Final = 60.0
AGAIN_S: Final = 86_400.0
"""For so long after an erasure its rows are looked at: far longer than a key is cached, and than any projection should lag."""


async def run(pool: Pool) -> None:
    """For ever: everybody who ever was erased first, then whoever was of late."""
    late_s: float | None = None
    while True:
        try:
            await forget(pool, late_s=late_s)
            late_s = AGAIN_S
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as fault:
            # Away, or a read model is being swapped: the next look has it.
            log.warning("forgetting", problem=repr(fault))
        await asyncio.sleep(EVERY_S)


async def forget(
    pool: Any, *, late_s: float | None = None, projections: Iterable[Projection] = PROJECTIONS.values()
) -> None:
    """Overwrite the personal columns of everybody erased, or with `late_s` of those erased within that time."""
    for projection in projections:
        for table in projection.tables:
            for column, person in table.personal.items():
                await pool.execute(
                    f"""UPDATE {projection.schema}.{table.name} t SET {column} = $1
                    FROM {accounts.PROJECTION.schema}.{accounts.ACCOUNTS.name} a
                    WHERE a.account_id = t.{person} AND a.erased_at IS NOT NULL AND t.{column} <> $1
                        AND ($2::float8 IS NULL OR a.erased_at > now() - make_interval(secs => $2))""",
                    ERASED,
                    late_s,
                )
