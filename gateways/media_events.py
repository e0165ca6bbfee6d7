"""The event plane as the media plane sees it: fills `media.port.EventPlane`. The role `media` opens it; nothing else calls it.

Each fact becomes one event under the fact's own id as command id, so that a fact told twice is recorded once: the store remembers the ids
of a day, and of a fact that may be older its stream is asked whether it has it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import groupby
from typing import Final
from uuid import UUID

import structlog

from domain import broadcast, channel, recording
from domain.broadcast import (
    BroadcastEnded,
    BroadcastInterrupted,
    BroadcastResumed,
    BroadcastStarted,
    RecordingPublished,
)
from domain.channel import Channel
from domain.event import Event
from domain.recording import SegmentObject, SegmentsRecorded
from eventstore.errors import StoreUnavailable
from eventstore.port import Append, Appended, EventStore, StreamWrite, WrongVersion
from media.port import (
    Denied,
    Ended,
    Fact,
    Grant,
    Interrupted,
    RecordingReady,
    RenditionAdded,
    Resumed,
    SegmentsArchived,
    Started,
)

log = structlog.get_logger()

AUTHORISE_S_MAX: Final = 2.0
KEY_CHARS_MAX: Final = 200
GRANTED_MAX: Final = 1000
PAGE: Final = 1000
REMEMBERED: Final = timedelta(hours=1)
"""A fact younger than this was told within it, if it was told before. Far below the store's day, for an encoder that sends faster than
real time dates what it sends ahead of the clock."""
STREAMS_READ_MAX: Final = 4


@dataclass(slots=True)
class _Stream:
    """Which facts a stream has, up to a version."""

    version: int = 0
    facts: set[UUID] = field(default_factory=set)


class StoreEventPlane:
    def __init__(self, store: EventStore, seen: Callable[[str, str], None], *, clock: Callable[[], datetime]) -> None:
        """`seen(channel_id, viewer)` counts a viewer (`gateways.presence_sender`)."""
        self._store = store
        self._seen = seen
        self._clock = clock
        self._streams: OrderedDict[str, _Stream] = OrderedDict()  # those last asked for old facts
        self._granted: OrderedDict[str, Grant] = OrderedDict()  # by the key's hash
        self.is_on: Callable[[str], bool] = lambda _: False
        """Whether a broadcast of this channel is on here, or may come back: then its key is remembered while the store is away."""

    async def authorise(self, stream_key: str, *, peer: str) -> Grant | Denied:
        if not 0 < len(stream_key) <= KEY_CHARS_MAX:
            return Denied(reason="unknown")
        key_hash = sha256(stream_key.encode()).hexdigest()
        try:
            async with asyncio.timeout(AUTHORISE_S_MAX):
                answer = await self._grant(key_hash)
        except (StoreUnavailable, TimeoutError) as fault:
            known = self._granted.get(key_hash)
            if known is not None and self.is_on(known.channel_id):
                log.warning("authorise.remembered", peer=peer, channel=known.channel, why=repr(fault))
                return known
            log.warning("authorise.unavailable", peer=peer, why=repr(fault))
            return Denied(reason="unavailable")
        self._granted.pop(key_hash, None)
        if isinstance(answer, Grant):
            self._granted[key_hash] = answer
            while len(self._granted) > GRANTED_MAX:
                self._granted.popitem(last=False)
        return answer

    async def _grant(self, key_hash: str) -> Grant | Denied:
        row = await self._store.index_row("stream_keys", {"key_hash": key_hash})
        if row is None:
            return Denied(reason="unknown")
        state, after = Channel(), 0
        while events := await self._store.read_stream(channel.stream(row["channel_id"]), after=after, limit=PAGE):
            for recorded in events:
                state = channel.evolve(state, recorded.event)
            after = events[-1].version
        return Grant(channel_id=row["channel_id"], channel=row["channel"], title=state.title, category=state.category)

    async def record(self, facts: Sequence[Fact]) -> None:
        """In order for each broadcast; broadcasts side by side, so that the store's group commit has groups to commit."""
        by_broadcast = groupby(sorted(facts, key=lambda fact: fact.broadcast_id), key=lambda fact: fact.broadcast_id)
        async with asyncio.TaskGroup() as tasks:
            for _, told in by_broadcast:
                tasks.create_task(self._record(list(told)))

    async def _record(self, facts: Iterable[Fact]) -> None:
        for fact in facts:
            stream, event = event_of(fact)
            if self._clock() - fact.at > REMEMBERED:
                await self._record_old(fact, stream, event)
            else:
                await self._store.append(Append(fact.fact_id, [StreamWrite(stream, fact.channel_id, [event])]))

    async def _record_old(self, fact: Fact, stream: str, event: Event) -> None:
        """What a recovery, or a spool after days, tells again: appended only where the stream stands as it was read."""
        known = self._streams.pop(stream, None)
        if known is None:
            await self._read_on(stream, known := _Stream())
        while fact.fact_id not in known.facts:
            write = StreamWrite(stream, fact.channel_id, [event], known.version)
            outcome = await self._store.append(Append(fact.fact_id, [write]))
            if isinstance(outcome, WrongVersion):
                await self._read_on(stream, known)
                continue
            known.facts.add(fact.fact_id)
            if isinstance(outcome, Appended):
                known.version = outcome.placed[0].version
        self._streams[stream] = known
        while len(self._streams) > STREAMS_READ_MAX:
            self._streams.popitem(last=False)

    async def _read_on(self, stream: str, known: _Stream) -> None:
        while events := await self._store.read_stream(stream, after=known.version, limit=PAGE):
            known.facts.update(recorded.command_id for recorded in events if recorded.command_id is not None)
            known.version = events[-1].version

    def watching(self, channel_id: str, viewer: str) -> None:
        self._seen(channel_id, viewer)


def event_of(fact: Fact) -> tuple[str, Event]:
    """A fact's stream and event."""
    whose = {"broadcast_id": fact.broadcast_id, "channel_id": fact.channel_id}
    event: Event
    match fact:
        case Started():
            event = BroadcastStarted(
                **whose,
                title=fact.title,
                category=fact.category,
                started_at=fact.at,
                node=fact.node,
                encoder=fact.encoder,
            )
        case RenditionAdded():
            event = broadcast.RenditionAdded(
                **whose,
                name=fact.name,
                codecs=fact.codecs,
                width=fact.width,
                height=fact.height,
                frame_rate=fact.frame_rate,
                bandwidth=fact.bandwidth,
            )
        case Interrupted():
            event = BroadcastInterrupted(**whose, interrupted_at=fact.at)
        case Resumed():
            event = BroadcastResumed(**whose, resumed_at=fact.at)
        case Ended():
            event = BroadcastEnded(**whose, ended_at=fact.at, reason=fact.reason)
        case RecordingReady():
            event = RecordingPublished(**whose, vod_url=fact.vod_url, duration_s=fact.duration_s)
        case SegmentsArchived():
            objects = tuple(SegmentObject.model_validate(made.model_dump()) for made in fact.objects)
            recorded = SegmentsRecorded(
                **whose,
                number=fact.number,
                apart=fact.apart,
                program_date_time=fact.program_date_time,
                offset_s=fact.offset_s,
                duration_s=fact.duration_s,
                objects=objects,
            )
            return recording.stream(fact.broadcast_id), recorded
    return broadcast.stream(fact.broadcast_id), event
