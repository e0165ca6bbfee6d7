"""The log for who only follows it: stored events, tails and decoding over one pool, without the writers of `eventstore.postgres`.

Opened by projectors; `projections.runner.Log` says what it promises.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from eventstore.errors import StoreUnavailable
from eventstore.mapper import EventMapper
from eventstore.port import Recorded
from eventstore.reader import Reader
from eventstore.wire import WireEvent
from eventstore.writer import FAULTS_OF_CONNECTION

T = TypeVar("T")


class FollowedLog:
    """`pool` reaches the migrated event store."""

    def __init__(self, pool: Any, mapper: EventMapper) -> None:
        self._reader = Reader(pool)
        self._mapper = mapper

    async def events(
        self, spans: Mapping[int, tuple[int, int]], *, categories: Iterable[str], topics: Iterable[str], limit: int
    ) -> Mapping[int, Sequence[WireEvent]]:
        return await self._ask(lambda: self._reader.spans(spans, categories, topics, limit))

    async def tails(self) -> Mapping[int, Mapping[str, int]]:
        return await self._ask(self._reader.tails)

    async def decode(self, shard: int, events: Sequence[WireEvent]) -> Sequence[Recorded]:
        return await self._mapper.decode(shard, None, events)

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            return await ask()
        except FAULTS_OF_CONNECTION as fault:
            raise StoreUnavailable(f"the event store is away: {fault}") from fault
