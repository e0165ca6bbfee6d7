"""A broadcast from its first tag to its last: demuxed, packaged, transcoded, kept, its facts told. The RTMP server hands publishers over.

`Broadcasts` is the node's `Ingest`. A publisher whose connection breaks, or who falls silent, has interrupted the broadcast: after
`SILENT_S_MAX` a slate is shown; who comes back within `RESUME_S_MAX` goes on in the same broadcast, and who does not has ended it with
the last frame that came. Never waits for the event plane; what happens to one broadcast never reaches another.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Literal
from uuid import UUID

import structlog
from obstore.exceptions import BaseError
from prometheus_client import Counter, Gauge

from media.archive import Archive, Recorder
from media.encoders import LIBX264, Encoder
from media.facts import ended, fact_id, fact_of
from media.flv import Began, Demuxer, Frame
from media.health import State, StreamHealth, Vitals, advice
from media.hls.live import LiveBroadcast, LiveRegistry
from media.ladder import AUDIO, AUDIO_BANDWIDTH, LADDER, Room, Rung, rungs_for
from media.lease import Held, Lease, Leases
from media.lease import State as LeaseState
from media.port import Fact, Grant, Interrupted, RenditionAdded, Resumed, SegmentsArchived, Started
from media.sample import AlreadyPublishing, BadMedia, NoRoom, Rendition, SampleSink, Tag, TagSink, VideoTrack
from media.slate import Loop, Slate, Slates, shape_of
from media.takeover import Taken, take
from media.transcoder import Transcoder

log = structlog.get_logger()

SOURCE: Final = "source"
RESUME_S_MAX: Final = 90.0
SILENT_S_MAX: Final = 3.0
"""So long viewers see the last picture, and a second publisher is refused; then there is a slate, and whoever comes takes over."""
SILENT_SHOWN_S: Final = 1.5
"""What its broadcaster is told is silence."""
WATCH_S: Final = 0.5
SLATES_AFTER_S: Final = 4.0
"""A broadcast that has lasted so long has its slates encoded, should it need them."""
FLASH: Final = "FMLE/"
"""What encoders call themselves when they connect, for old servers' sake; their metadata say who they are."""
FACTS_WAITING_MAX: Final = 10_000
CLOSE_S_MAX: Final = 15.0
STOP_S_MAX: Final = 30.0
TAKE_S_MAX: Final = 9.0
"""Encoders wait no longer to be let in."""

_broadcasts = Gauge("tallylight_broadcasts", "Broadcasts that are live or may come back")
_ended = Counter("tallylight_broadcasts_ended_total", "Broadcasts that ended", ["reason"])

Reason = Literal["unpublished", "disconnected"]


class Reporter:
    """Facts from code that cannot wait, put in the spool in order. Facts of segments are refused when too many wait, which they do only
    while the spool's disk takes nothing."""

    def __init__(self, put: Callable[[Fact], Awaitable[bool]]) -> None:
        self._put = put
        self._facts: asyncio.Queue[Fact] = (
            asyncio.Queue()
        )  # bounded by FACTS_WAITING_MAX and the node's number of broadcasts
        self._reported = self._done = 0
        self._progress = asyncio.Condition()
        self._task = asyncio.create_task(self._work())

    def report(self, fact: Fact) -> bool:
        if isinstance(fact, SegmentsArchived) and self._facts.qsize() >= FACTS_WAITING_MAX:
            return False
        self._reported += 1
        self._facts.put_nowait(fact)
        return True

    async def kept(self) -> None:
        """Until what was reported so far is in the spool. Give it a timeout."""
        wanted = self._reported
        async with self._progress:
            await self._progress.wait_for(lambda: self._done >= wanted)

    async def close(self) -> None:
        """Everything reported is in the spool, or could not be in time."""
        try:
            async with asyncio.timeout(CLOSE_S_MAX):
                await self._facts.join()
        except TimeoutError:
            log.error("facts_lost", facts=self._reported - self._done)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            fact = await self._facts.get()
            if not await self._put(fact):
                log.error("fact_lost", kind=fact.kind, broadcast=fact.broadcast_id)
            self._facts.task_done()
            async with self._progress:
                self._done += 1
                self._progress.notify_all()


@dataclass(frozen=True, slots=True)
class Node:
    """What every broadcast of this process shares."""

    registry: LiveRegistry
    archive: Archive
    reporter: Reporter
    name: str
    binary: Path
    top_height: int
    now: Callable[[], datetime]
    new_id: Callable[[], UUID]
    slates: Slates | None = None
    room: Room = field(default_factory=lambda: Room(math.inf))
    ladder: tuple[Rung, ...] = LADDER
    encoder: Encoder = LIBX264
    leases: Leases | None = None
    """Where other nodes may have a channel's broadcast."""
    recorded: Callable[[str], Awaitable[None]] | None = None
    """Told of a broadcast whose recording is closed: its pictures can be made."""


class Broadcasts:
    def __init__(
        self, node: Node, *, most: int, resume_s: float = RESUME_S_MAX, silent_s: float = SILENT_S_MAX
    ) -> None:
        self._node = node
        self._silent_s = silent_s
        self._most = most
        self._resume_s = resume_s
        self._by_channel: dict[str, _Broadcast] = {}
        self._claiming: set[str] = set()
        self._draining = False
        self._ending: set[asyncio.Task[None]] = set()
        self._afterwards: set[asyncio.Future[None]] = set()

    async def open(self, grant: Grant, *, encoder: str, peer: str) -> TagSink:
        """Begin, or resume, the channel's broadcast. Raises `AlreadyPublishing` or `NoRoom`."""
        if self._draining:
            raise NoRoom
        broadcast = self._by_channel.get(grant.channel_id)
        if broadcast is None:
            if len(self._by_channel) + len(self._claiming) >= self._most:
                raise NoRoom
            broadcast = await self._begun(grant, encoder)
        elif broadcast.publisher is not None and not broadcast.publisher.is_silent(self._silent_s):
            raise AlreadyPublishing
        return broadcast.take(_Publisher(self, broadcast))

    async def _begun(self, grant: Grant, encoder: str) -> "_Broadcast":
        """The channel's new broadcast, once no other node has one."""
        leases, channel_id = self._node.leases, grant.channel_id
        if channel_id in self._claiming:
            raise AlreadyPublishing
        self._claiming.add(channel_id)
        try:
            broadcast = _Broadcast(self._node, grant, encoder, self._silent_s)
            if leases is not None:
                claim = await leases.claim(channel_id)
                lease = broadcast.lease = Lease(
                    leases, channel_id, broadcast.id, claim.term, lost=lambda: self._taken(broadcast)
                )
                if claim.before is not None:
                    await self._take_over(broadcast, lease, claim.before, leases)
                await lease.begin()
        finally:
            self._claiming.discard(channel_id)
        self._by_channel[channel_id] = broadcast
        _broadcasts.set(len(self._by_channel))
        return broadcast

    async def _take_over(self, broadcast: "_Broadcast", lease: Lease, held: Held, leases: Leases) -> None:
        """Go on with what the channel had on, if its encoder is back in time."""
        if held.state == "ended" or leases.age_s(held) > self._resume_s or self.is_live(held.broadcast_id):
            return
        own, lease.broadcast_id = broadcast.id, held.broadcast_id
        await lease.begin()  # whoever has it learns of it, and lets go
        try:
            async with asyncio.timeout(TAKE_S_MAX):
                taken = await take(
                    self._node.archive,
                    held,
                    lives=leases.lives(held),
                    rewind_s=self._node.registry.rewind_s,
                    now=self._node.now(),
                )
        except (BaseError, OSError) as fault:
            log.warning("broadcast.not_taken", broadcast=held.broadcast_id, why=repr(fault)[:200])
            taken = None
        if taken is None:
            lease.broadcast_id = own
        else:
            broadcast.go_on(taken, told=held.state in ("interrupted", "released"))

    def _taken(self, broadcast: "_Broadcast") -> None:
        """Another node goes on with it."""
        broadcast.keep_from_resuming()
        self._leave(broadcast, broadcast.leave(taken=True))

    def drain(self) -> None:
        """Take nothing new, and let other nodes have what is on: their encoders are asked to go there, or go there when they are lost."""
        self._draining = True
        for broadcast in self._by_channel.values():
            broadcast.drain()

    def is_live(self, broadcast_id: str) -> bool:
        return any(broadcast.id == broadcast_id for broadcast in self._by_channel.values())

    def is_on(self, channel_id: str) -> bool:
        """Live, or interrupted and not given up."""
        return channel_id in self._by_channel

    def health(self) -> list[StreamHealth]:
        """Of every broadcast that has begun."""
        return [broadcast.health() for broadcast in self._by_channel.values() if broadcast.began]

    async def left(self, broadcast: "_Broadcast", reason: Reason) -> None:
        """The publisher is gone; a broken connection may come back."""
        # Who was asked to go elsewhere says farewell here.
        goes_on = reason == "disconnected" or (self._draining and self._node.leases is not None)
        if goes_on and broadcast.began and self._resume_s > 0:
            broadcast.interrupt()
            loop = asyncio.get_running_loop()
            broadcast.timer = loop.call_later(self._resume_s, self._give_up, broadcast)
        else:
            await asyncio.shield(self._end(broadcast, reason))

    def _give_up(self, broadcast: "_Broadcast") -> None:
        self._end(broadcast, "disconnected")

    def _end(self, broadcast: "_Broadcast", reason: Reason) -> asyncio.Task[None]:
        task = self._leave(broadcast, broadcast.end(reason))
        if (recorded := self._node.recorded) is not None:
            task.add_done_callback(lambda _: self._after(recorded(broadcast.id)))
        return task

    def _leave(self, broadcast: "_Broadcast", work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        if self._by_channel.get(broadcast.grant.channel_id) is broadcast:
            del self._by_channel[broadcast.grant.channel_id]
        _broadcasts.set(len(self._by_channel))
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task

    def _after(self, work: Awaitable[None]) -> None:
        """Beside everything else, and left undone when the node stops."""
        task = asyncio.ensure_future(work)
        self._afterwards.add(task)
        task.add_done_callback(self._afterwards.discard)

    async def close(self) -> None:
        """End what is on, and see the recordings closed. Where leases say so to others, what is on is left for them, or for the next start
        of this node, to go on with."""
        for broadcast in list(self._by_channel.values()):
            broadcast.keep_from_resuming()
            if self._node.leases is not None and self._resume_s > 0 and broadcast.began:
                self._leave(broadcast, broadcast.leave(taken=False))
            else:
                self._end(broadcast, "disconnected")
        if self._ending:
            await asyncio.wait(set(self._ending), timeout=STOP_S_MAX)
        for work in self._afterwards:
            work.cancel()
        await asyncio.gather(*self._afterwards, return_exceptions=True)


class _Publisher:
    """One connection's `TagSink`."""

    def __init__(self, broadcasts: Broadcasts, broadcast: "_Broadcast") -> None:
        self._broadcasts = broadcasts
        self._broadcast = broadcast
        self._demuxer = Demuxer(starts_at=broadcast.elapsed_ms)
        self._headers: tuple[Tag, ...] = ()
        self._came_at = asyncio.get_running_loop().time()

    def is_silent(self, silent_s: float) -> bool:
        return asyncio.get_running_loop().time() - self._came_at >= silent_s

    def begin_again(self) -> None:
        """It fell silent: what comes next stands where the broadcast's clock is then, whatever its own says."""
        self._demuxer = Demuxer(starts_at=self._broadcast.elapsed_ms)
        for tag in self._headers:
            self._demuxer.receive(tag)

    def tag(self, tag: Tag) -> None:
        if self._broadcast.publisher is not self:
            return
        self._came_at = asyncio.get_running_loop().time()
        for found in self._demuxer.receive(tag):
            match found:
                case Began():
                    self._headers = found.headers
                    self._broadcast.begin(found)
                case Frame():
                    self._broadcast.frame(found)

    async def drain(self) -> None:
        # Nothing to wait for: the packager is done when `tag` returns, and FFmpeg is never waited for.
        if self._broadcast.publisher is not self:
            raise BadMedia("Another encoder has taken over, for this one was silent.")
        if self._demuxer.refused is not None:
            raise BadMedia(f"This server cannot take {self._demuxer.refused}.")

    async def close(self, reason: Reason) -> None:
        if self._broadcast.publisher is self:
            self._broadcast.publisher = None
            await self._broadcasts.left(self._broadcast, reason)


class _Broadcast:
    def __init__(self, node: Node, grant: Grant, encoder: str, silent_s: float) -> None:
        self.id = str(node.new_id())
        self.grant = grant
        self.publisher: _Publisher | None = None
        self.lease: Lease | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._node = node
        self._encoder = encoder
        self._silent_s = silent_s
        self._live: LiveBroadcast | None = None
        self._recorder: Recorder | None = None
        self._source: SampleSink | None = None
        self._audio: SampleSink | None = None
        self._rungs: tuple[Rung, ...] = ()
        self._video: VideoTrack | None = None  # whose rungs have their room
        self._transcoder: Transcoder | None = None
        self._slate: Slate | None = None
        self._watching: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._told: set[str] = set()
        self._newest_ms = 0
        self._framed_at = 0.0
        self._last_frame_at = node.now()
        self._interruptions = 0
        self._taken: Taken | None = None
        self._draining = False
        self._vitals = Vitals(asyncio.get_running_loop().time, self._encoded_s)
        self._no_room: tuple[Rung, ...] = ()
        self._shed_rungs: tuple[Rung, ...] = ()
        self._log = log.bind(broadcast=self.id, channel=grant.channel)

    @property
    def began(self) -> bool:
        return self._live is not None

    @property
    def is_on_air(self) -> bool:
        """The encoder's media is what viewers see."""
        return self._source is not None

    def elapsed_ms(self) -> int:
        """The broadcast's clock now, past all it has seen; 0 before it began."""
        if self._live is not None:
            began_at = self._live.started_at
        elif self._taken is not None:
            began_at = self._taken.started.at
        else:
            return 0
        passed_s = (self._node.now() - began_at).total_seconds()
        shown_ms = self._slate.until_ms if self._slate is not None else 0
        return max(round(passed_s * 1000), self._newest_ms + 1, shown_ms + 1)

    def take(self, publisher: _Publisher) -> _Publisher:
        self.keep_from_resuming()
        self.publisher = publisher
        return publisher

    def keep_from_resuming(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def begin(self, began: Began) -> None:
        """Media is there, or its tracks have changed, or a publisher came back."""
        if began.encoder and self._encoder.startswith(FLASH):
            self._encoder = began.encoder
        live = self._live or self._start()
        if not self.is_on_air and self._told:
            self._report(Resumed, "resumed", self._node.now())
        self._stop_media()
        self._stands("live")
        wanted = rungs_for(began.video, top_height=self._node.top_height, ladder=self._node.ladder)
        rungs = self._rungs = self._node.room.admit(began.video, wanted)
        self._video = began.video
        self._no_room, self._shed_rungs = tuple(rung for rung in wanted if rung not in rungs), ()
        self._vitals.began(began)
        live.has_rungs = bool(rungs)
        source = Rendition(SOURCE, began.bandwidth, began.video, began.audio)
        self._source = live.add(source)
        self._framed_at = asyncio.get_running_loop().time()
        self._added(source)
        if rungs:
            self._transcoder = Transcoder(
                began,
                rungs,
                live,
                binary=self._node.binary,
                added=self._added,
                name=self.id,
                shed=lambda rung: self._shed(live, rung),
                encoder=self._node.encoder,
                segment_s=live.segment_s,
            )
        if began.video is not None and began.audio is not None:
            # For those who only listen, and for whom no picture comes through.
            only = Rendition(AUDIO, AUDIO_BANDWIDTH, None, began.audio)
            self._audio = live.add(only)
            self._added(only)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(live))
        self._log.info(
            "broadcast.media",
            codecs=source.codecs,
            rungs=[rung.name for rung in rungs],
            no_room_for=[rung.name for rung in self._no_room],
            encoder=self._encoder,
        )

    def frame(self, frame: Frame) -> None:
        self._newest_ms = max(self._newest_ms, frame.tag.timestamp_ms)
        self._framed_at = asyncio.get_running_loop().time()
        self._last_frame_at = self._node.now()
        self._vitals.frame(frame)
        if self._source is not None:
            self._source.push(frame.sample)
        if self._audio is not None and frame.sample.kind == "audio":
            self._audio.push(frame.sample)
        if self._transcoder is not None:
            self._transcoder.tag(frame.tag, key=frame.sample.key)

    def interrupt(self) -> None:
        """The encoder is gone, or silent: the open segment ends short. Nothing to tell where it was gone already."""
        if self.is_on_air:
            self._interruptions += 1
            self._report(Interrupted, "interrupted", self._last_frame_at)
            self._stop_media()
            self._stands("interrupted")

    def drain(self) -> None:
        self._draining = True
        self._stands("draining")

    def _stands(self, state: LeaseState) -> None:
        """For other nodes, which an encoder that is gone here may come to."""
        if self.lease is not None:
            self.lease.become("draining" if self._draining else state)

    def go_on(self, taken: Taken, *, told: bool) -> None:
        """It is one that another node had, or a former life of this one. `told`: that it was interrupted."""
        self._taken = taken
        self.id = taken.started.broadcast_id
        self._log = log.bind(broadcast=self.id, channel=self.grant.channel)
        self._told = {it.name for it in taken.past.found.renditions}
        self._newest_ms = math.ceil(taken.end_s * 1000)
        self._last_frame_at = taken.past.found.end_at
        # Whoever had it may have been lost with what it had to tell.
        self._node.reporter.report(taken.started)
        for line in taken.past.found.segments:
            self._node.reporter.report(fact_of(taken.past.found.recording, line))
        if not told:
            self._interruptions += 1
            self._report(Interrupted, "interrupted", self._last_frame_at)

    async def leave(self, *, taken: bool) -> None:
        """Another node goes on with it now, or somebody may soon: nothing has ended but what is shown here."""
        self.publisher = None
        if self._watching is not None:
            self._watching.cancel()
        if taken:
            self._stop_media()  # whoever has it now tells of the interruption
        else:
            self.interrupt()
        if self._closing:
            await asyncio.wait(set(self._closing))
        if self._live is not None and self._recorder is not None:
            self._node.registry.close(self._live)
            await self._recorder.hand_over(taken=taken)
        self._log.info("broadcast.left", taken=taken)
        if self.lease is not None:
            await self.lease.close("released")

    async def _watch(self, live: LiveBroadcast) -> None:
        """Sees that the encoder is silent, and has the slate shown; prepares it first."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(SLATES_AFTER_S)
        await self._loops(live)
        while True:
            await asyncio.sleep(WATCH_S)
            if loop.time() - self._framed_at < self._silent_s or self._slate is not None:
                continue
            if self.is_on_air:
                self._log.warning("broadcast.silent")
                self.interrupt()
                if self.publisher is not None:
                    self.publisher.begin_again()
            loops = await self._loops(live)
            # What FFmpeg still had is out before the slate takes the renditions over.
            if self._closing:
                await asyncio.wait(set(self._closing))
            if not self.is_on_air and loops and not live.ended:
                self._slate = Slate(live, loops, from_ms=self.elapsed_ms(), clock=loop.time)

    async def _loops(self, live: LiveBroadcast) -> dict[str, Loop]:
        slates = self._node.slates
        if slates is None:
            return {}
        made = {it.name: await slates.loop(shape_of(it.rendition)) for it in live.renditions}
        loops = {name: loop for name, loop in made.items() if loop is not None}
        return loops if live.leader is not None and live.leader.name in loops else {}

    async def end(self, reason: Reason) -> None:
        self.publisher = None
        was_on_air = self.is_on_air
        if self._watching is not None:
            self._watching.cancel()
        self._stop_media()
        if self._closing:
            await asyncio.wait(set(self._closing))
        if self.lease is not None:
            # What was taken over and never went on may yet be, by another try.
            await self.lease.close("released" if self._live is None and self._taken is not None else "ended")
        if self._live is None or self._recorder is None:
            return
        self._node.registry.close(self._live)
        # One that had been interrupted ended with the last frame that came, not when it was given up.
        ended_at = self._node.now() if was_on_air else self._last_frame_at
        self._node.reporter.report(ended(self.id, self.grant.channel_id, ended_at, reason))
        _ended.labels(reason).inc()
        self._log.info("broadcast.ended", reason=reason)
        await self._recorder.close(ended_at)

    def health(self) -> StreamHealth:
        """How it is doing now."""
        assert self._live is not None
        assert self._recorder is not None
        measured = self._vitals.measured()
        video, audio = self._vitals.video, self._vitals.audio
        silent = asyncio.get_running_loop().time() - self._framed_at >= SILENT_SHOWN_S
        state: State = "interrupted" if not self.is_on_air else "silent" if silent else "live"
        transcoder = self._transcoder
        found = StreamHealth(
            broadcast_id=self.id,
            channel_id=self.grant.channel_id,
            channel=self.grant.channel,
            node=self._node.name,
            state=state,
            encoder=self._encoder,
            video_codec=video.codec if video else None,
            audio_codec=audio.codec if audio else None,
            width=video.width if video else None,
            height=video.height if video else None,
            on_air_s=round((self._node.now() - self._live.started_at).total_seconds(), 1),
            bitrate=measured.bitrate,
            frame_rate=measured.frame_rate,
            nominal_frame_rate=round(video.frame_rate, 2) if video and video.frame_rate else None,
            key_frame_interval_s=measured.key_frame_interval_s,
            speed=measured.speed,
            late_frames=measured.late_frames,
            missing_frames=measured.missing_frames,
            interruptions=self._interruptions,
            transcoder_lag_s=round(transcoder.lag_s, 2) if transcoder else None,
            transcoder_speed=measured.encoded_speed,
            renditions=tuple(rung.name for rung in self._rungs),
            renditions_no_room=tuple(rung.name for rung in self._no_room),
            renditions_shed=tuple(rung.name for rung in self._shed_rungs),
            archive_lost=self._recorder.lost,
            archive_waiting_bytes=self._recorder.waiting_bytes,
            advice=(),
        )
        return found.model_copy(update={"advice": advice(found, measured)})

    def _encoded_s(self) -> float | None:
        return self._transcoder.given_s if self._transcoder is not None else None

    def _start(self) -> LiveBroadcast:
        taken = self._taken
        started = taken.started if taken is not None else self._tell_start()
        self._recorder = Recorder(
            self._node.archive,
            started,
            report=self._node.reporter.report,
            kept=self._node.reporter.kept,
            past=taken.past if taken is not None else None,
            holds=self.lease.holds if self.lease is not None else None,
        )
        self._live = self._node.registry.open(
            channel=self.grant.channel,
            channel_id=self.grant.channel_id,
            broadcast_id=self.id,
            started_at=started.at,
            keep=self._recorder,
            before=taken.before if taken is not None else None,
        )
        return self._live

    def _tell_start(self) -> Started:
        started = Started(
            fact_id=fact_id(self.id, "started"),
            broadcast_id=self.id,
            channel_id=self.grant.channel_id,
            at=self._node.now(),
            title=self.grant.title,
            category=self.grant.category,
            node=self._node.name,
            encoder=self._encoder,
        )
        self._node.reporter.report(started)
        return started

    def _stop_media(self) -> None:
        """What was fed comes out, in the background; the source's open segment ends now, and so does the slate."""
        if self._slate is not None:
            self._newest_ms = max(self._newest_ms, self._slate.until_ms)
            self._slate.close()
            self._slate = None
        if self._transcoder is not None:
            task = asyncio.create_task(self._transcoder.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            self._transcoder = None
        if self._source is not None:
            self._source.close()
            self._source = None
        if self._audio is not None:
            self._audio.close()
            self._audio = None
        self._node.room.release(self._video, self._rungs)
        self._rungs = ()

    def _shed(self, live: LiveBroadcast, rung: Rung) -> None:
        self._node.room.release(self._video, (rung,))
        self._rungs = tuple(it for it in self._rungs if it is not rung)
        self._shed_rungs += (rung,)
        live.withdraw(rung.name)

    def _added(self, rendition: Rendition) -> None:
        """Told once a name, however often it begins again."""
        if rendition.name in self._told:
            return
        self._told.add(rendition.name)
        video = rendition.video
        self._node.reporter.report(
            RenditionAdded(
                fact_id=fact_id(self.id, f"rendition:{rendition.name}"),
                broadcast_id=self.id,
                channel_id=self.grant.channel_id,
                at=self._node.now(),
                name=rendition.name,
                codecs=rendition.codecs,
                width=video.width if video else 0,
                height=video.height if video else 0,
                frame_rate=video.frame_rate if video else 0.0,
                bandwidth=rendition.bandwidth,
            )
        )

    def _report(self, kind: type[Interrupted] | type[Resumed], what: str, at: datetime) -> None:
        run = f"{self._taken.past.run}." if self._taken is not None else ""
        self._node.reporter.report(
            kind(
                fact_id=fact_id(self.id, f"{what}:{run}{self._interruptions}"),
                broadcast_id=self.id,
                channel_id=self.grant.channel_id,
                at=at,
            )
        )
