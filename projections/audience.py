"""How many watch: from the windows that `app` merges to `audience.current_viewers` and `audience.broadcasts` in Postgres.

The gateways join these to the directory, the channel page and the broadcast history. A window's count is published as its records come,
but never below the window's before until all of them have had time to come; then it is what it is. Losing this process loses a window.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

import asyncpg
import structlog

from eventstore.migrate import EVENT_STORE
from eventstore.migrate import migrate as _migrate
from eventstore.writer import FAULTS_OF_CONNECTION
from projections.checkpoints import Pool
from projections.directory import PROJECTION as DIRECTORY
from projections.presence import WINDOW_S, Viewers
from projections.projection import SCHEMA_FOLDER

log = structlog.get_logger()

PUBLISH_S: Final = 1.0
GRACE_S: Final = 4
"""How long after a window's end its records may come."""
CURRENT_S_MAX: Final = 3 * WINDOW_S
"""A count is current for this long after its window's end; readers hold `at > now() - interval` against it."""
CHANNELS_PER_WRITE_MAX: Final = 500

CURRENT: Final = f"at > now() - interval '{CURRENT_S_MAX} seconds'"
"""The condition under which a row of `audience.current_viewers` still counts."""

_LIVE: Final = f"""SELECT DISTINCT ON (channel_id) channel_id, broadcast_id FROM {DIRECTORY.schema}.live WHERE channel_id = ANY($1)
    ORDER BY channel_id, started_at DESC"""
_BEFORE: Final = """SELECT broadcast_id, sketch FROM audience.broadcasts WHERE broadcast_id = ANY($1) ORDER BY broadcast_id FOR UPDATE"""
_CURRENT: Final = """INSERT INTO audience.current_viewers AS c (channel_id, viewers, at)
    SELECT * FROM unnest($1::text[], $2::int[], $3::timestamptz[])
    ON CONFLICT (channel_id) DO UPDATE SET viewers = excluded.viewers, at = excluded.at WHERE c.at <= excluded.at"""
_BROADCASTS: Final = """INSERT INTO audience.broadcasts AS b (broadcast_id, channel_id, peak_viewers, total_views, sketch)
    SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[], $5::bytea[]) ON CONFLICT (broadcast_id) DO UPDATE
    SET peak_viewers = greatest(b.peak_viewers, excluded.peak_viewers), total_views = excluded.total_views, sketch = excluded.sketch"""


async def migrate(dsn: str) -> None:
    """Create the tables. Any process that reads or writes them calls this at its start."""
    # The folder is called as the event store's: yoyo keeps one list of migrations a database, and the list is named by the folder.
    await _migrate(dsn, SCHEMA_FOLDER / "audience" / EVENT_STORE.name)


Clock = Callable[[], datetime]


@dataclass(slots=True)
class _Channel:
    """Windows whose records may still come, and the count of the last one whose records are all there."""

    settled: int = 0
    settled_s: int = 0
    open: dict[int, Viewers] = field(default_factory=dict)
    changed: bool = False


class _Count(NamedTuple):
    channel_id: str
    viewers: int
    at: datetime
    peak: int
    windows: Sequence[Viewers]


class Audience:
    """`changed` tells of a window's viewers so far; `run` publishes."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._channels: dict[str, _Channel] = {}

    def changed(self, channel_id: str, window_s: int, viewers: Viewers) -> None:
        """The merged viewers of a window, again whenever a record adds to them."""
        channel = self._channels.setdefault(channel_id, _Channel())
        if window_s > channel.settled_s:
            channel.open[window_s] = viewers
            channel.changed = True

    async def run(self, clock: Clock = lambda: datetime.now(UTC)) -> None:
        """Publish for ever."""
        while True:
            await asyncio.sleep(PUBLISH_S)
            try:
                await self.publish(clock())
            except (asyncpg.PostgresError, *FAULTS_OF_CONNECTION) as fault:
                # Counts may be lost; the next window brings them anew.
                log.warning("audience", problem="counts not written", error=repr(fault))

    async def publish(self, now: datetime) -> None:
        """Write what changed since the last time."""
        counts = [
            count for channel_id, channel in self._channels.items() if (count := _count(channel_id, channel, now))
        ]
        for first in range(0, len(counts), CHANNELS_PER_WRITE_MAX):
            await self._write(counts[first : first + CHANNELS_PER_WRITE_MAX])
        horizon_s = now.timestamp() - CURRENT_S_MAX - WINDOW_S
        for channel_id in [key for key, one in self._channels.items() if not one.open and one.settled_s < horizon_s]:
            del self._channels[channel_id]

    async def _write(self, counts: Sequence[_Count]) -> None:
        ids = [count.channel_id for count in counts]
        async with self._pool.acquire() as connection, connection.transaction():
            viewers = [count.viewers for count in counts]
            await connection.execute(_CURRENT, ids, viewers, [count.at for count in counts])
            live = {row["channel_id"]: row["broadcast_id"] for row in await connection.fetch(_LIVE, ids)}
            before = {row["broadcast_id"]: row for row in await connection.fetch(_BEFORE, list(live.values()))}
            rows = []
            for count in counts:
                if (broadcast_id := live.get(count.channel_id)) is None:
                    continue
                known = before.get(broadcast_id)
                union = Viewers([] if known is None else [known["sketch"]])
                for window in count.windows:
                    union.add(window.sketch())
                rows.append((broadcast_id, count.channel_id, count.peak, union.count, union.sketch()))
            if rows:
                await connection.execute(_BROADCASTS, *map(list, zip(*sorted(rows), strict=True)))


def _count(channel_id: str, channel: _Channel, now: datetime) -> _Count | None:
    """What to publish of a channel now; settles the windows whose time is over."""
    over = [window_s for window_s in channel.open if window_s + WINDOW_S + GRACE_S <= now.timestamp()]
    if not channel.open or not (channel.changed or over):
        return None
    channel.changed = False
    windows = dict(sorted(channel.open.items()))
    newest_s = max(windows)
    counts = {window_s: viewers.count for window_s, viewers in windows.items()}
    for window_s in sorted(over):
        channel.settled, channel.settled_s = counts[window_s], window_s
        del channel.open[window_s]
    viewers = counts[newest_s] if newest_s not in channel.open else max(counts[newest_s], channel.settled)
    at = datetime.fromtimestamp(newest_s + WINDOW_S, UTC)
    return _Count(channel_id, viewers, at, max(counts.values()), tuple(windows.values()))
