"""Facts to put into a spool, and an event plane that is a list."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

from media.port import ArchivedObject, Ended, Fact, Interrupted, SegmentsArchived, Started
from media.spool_log import Range

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_NAMES = UUID(int=7)


def ended(n: int) -> Ended:
    name = f"broadcast-{n}"
    return Ended(fact_id=uuid5(_NAMES, name), broadcast_id=name, channel_id="channel-1", at=START, reason="unpublished")


def started(n: int) -> Started:
    name = f"broadcast-{n}"
    made = uuid5(_NAMES, f"{name} started")
    return Started(
        fact_id=made, broadcast_id=name, channel_id="channel-1", at=START, title="", category="", node="node"
    )


def interrupted(n: int) -> Interrupted:
    made = uuid5(_NAMES, f"interruption {n}")
    return Interrupted(fact_id=made, broadcast_id="broadcast-1", channel_id="channel-1", at=START)


def archived(n: int, *, broadcast: str = "broadcast-1") -> SegmentsArchived:
    at = START + timedelta(seconds=2 * n)
    objects = (ArchivedObject(rendition="source", key=f"source/{n}.m4s", size=1000, sha256="0" * 64),)
    return SegmentsArchived(
        fact_id=uuid5(_NAMES, f"{broadcast}/{n}"),
        broadcast_id=broadcast,
        channel_id="channel-1",
        at=at,
        number=n,
        program_date_time=at,
        offset_s=2.0 * n,
        duration_s=2.0,
        objects=objects,
    )


class Manifests:
    """How many segments the manifest of each recording has; it can be `away`."""

    def __init__(self, **numbers: int) -> None:
        self.numbers = numbers
        self.away = 0
        self.asked: list[Range] = []

    async def restore(self, missing: Range) -> Sequence[SegmentsArchived]:
        self.asked.append(missing)
        if self.away:
            self.away -= 1
            raise ConnectionError("the archive is away")
        made = self.numbers.get(missing.broadcast_id.replace("-", "_"), 0)
        return [archived(n, broadcast=missing.broadcast_id) for n in range(missing.first, made)]


async def restore_nothing(missing: Range) -> Sequence[SegmentsArchived]:
    return []


class ListPlane:
    """Takes facts while it is `there`; refuses whole batches otherwise."""

    def __init__(self, *, there: bool = True) -> None:
        self.facts: list[Fact] = []
        self.there = there
        self.refused = 0
        self._changed = asyncio.Condition()

    async def record(self, facts: Sequence[Fact]) -> None:
        async with self._changed:
            if self.there:
                self.facts += facts
            else:
                self.refused += 1
            self._changed.notify_all()
        if not self.there:
            raise ConnectionError("the event plane is away")

    async def until(self, facts: int = 0, refused: int = 0) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: len(self.facts) >= facts and self.refused >= refused)
