"""What others ask about the read models as a whole: have they come as far as a mutation's position, and how far behind is each.

Called by the gateways (`Tallylight-Position`, `tallylight projections status`) and by the watchdog. Reads only.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from projections import checkpoints
from projections.checkpoints import Current, Missing, Pool
from projections.projection import Projection
from projections.registry import PROJECTIONS, projection
from projections.runner import Log

WAIT_S_MAX: Final = 2.0
_POLL_S_MIN: Final = 0.004
_POLL_S_MAX: Final = 0.06
_LOOK_MAX: Final = 100


async def wait_for(
    pool: Pool,
    log: Log,
    positions: Mapping[int, int],
    projections: Collection[str],
    *,
    timeout_s: float = WAIT_S_MAX,
) -> bool:
    """Whether these read models have, within the time, every event of theirs up to the positions (shard → position).

    A stored checkpoint may stand before events that do not concern its projection: then the log says that nothing is missing.
    """
    if not positions or not projections:
        return True
    waiting = [projection(name) for name in projections]
    end = time.monotonic() + timeout_s
    pause = _POLL_S_MIN
    missing = await _missing(pool, log, positions, waiting)
    while missing and (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, _POLL_S_MAX)
        missing = await _still(pool, missing) or await _missing(pool, log, positions, waiting)
    return not missing


async def _missing(
    pool: Pool, log: Log, positions: Mapping[int, int], projections: Sequence[Projection]
) -> dict[str, dict[int, int]]:
    """By projection, the shards that lack events of its own, and a position each must reach at least."""
    missing: dict[str, dict[int, int]] = {}
    stand = await _positions(pool, [one.name for one in projections], positions)
    for one in projections:
        spans = {
            shard: (stand[one.name, shard], upto) for shard, upto in positions.items() if stand[one.name, shard] < upto
        }
        if not spans:
            continue
        found = await log.events(spans, categories=one.categories, topics=one.topics, limit=_LOOK_MAX)
        if needed := {shard: events[-1].position for shard, events in found.items() if events}:
            missing[one.name] = needed
    return missing


async def _still(pool: Pool, missing: Mapping[str, Mapping[int, int]]) -> dict[str, dict[int, int]]:
    shards = {shard for needed in missing.values() for shard in needed}
    stand = await _positions(pool, list(missing), shards)
    left = {
        name: {shard: upto for shard, upto in needed.items() if stand[name, shard] < upto}
        for name, needed in missing.items()
    }
    return {name: needed for name, needed in left.items() if needed}


async def _positions(pool: Pool, names: Sequence[str], shards: Iterable[int]) -> dict[tuple[str, int], int]:
    """Checkpoints by projection and shard, in one statement."""
    selects = [
        f"SELECT '{name}' AS name, shard, position FROM {projection(name).schema}.checkpoints WHERE shard = ANY($1)"
        for name in names
    ]
    rows = await pool.fetch(" UNION ALL ".join(selects), list(shards))
    return {(row["name"], row["shard"]): row["position"] for row in rows}


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """`lag`: positions between the checkpoint and the last event of the projection's categories; 0 when it has them all."""

    shard: int
    position: int
    lag: int
    parked: str | None = None


@dataclass(frozen=True, slots=True)
class ProjectionStatus:
    """`state`: `live`, `missing` (no rows yet) or `outdated` (waits for its rebuild).

    Shards that hold no event of the projection's categories are left out.
    """

    name: str
    state: str
    shards: Sequence[ShardStatus] = field(default=())

    @property
    def position(self) -> int:
        """The sum over the shards."""
        return sum(shard.position for shard in self.shards)

    @property
    def lag(self) -> int:
        return sum(shard.lag for shard in self.shards)


async def status(pool: Pool, log: Log) -> list[ProjectionStatus]:
    """Every projection of the registry, with where each shard of it stands."""
    tails = await log.tails()
    return [await _status(pool, one, tails) for one in PROJECTIONS.values()]


async def _status(pool: Pool, one: Projection, tails: Mapping[int, Mapping[str, int]]) -> ProjectionStatus:
    async with pool.acquire() as connection:
        state = await checkpoints.state(connection, one)
        if isinstance(state, Missing):
            return ProjectionStatus(one.name, "missing")
        positions = await checkpoints.load(connection, one.schema)
        rows = await connection.fetch(f"SELECT shard, position, error FROM {one.schema}.parked")
    parked = {row["shard"]: row["error"] for row in rows if row["position"] == positions[row["shard"]]}
    shards = []
    for shard, categories in sorted(tails.items()):
        last = max((categories.get(category, 0) for category in one.categories), default=0)
        if last:
            at = positions[shard]
            shards.append(ShardStatus(shard, at, max(0, last - at), parked.get(shard)))
    return ProjectionStatus(one.name, "live" if isinstance(state, Current) else "outdated", shards)
