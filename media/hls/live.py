"""A broadcast as players see it while it lasts, and the register of broadcasts by channel. The pipeline fills it, the origin reads it.

`LiveBroadcast` is the media plane's `Packager`: the rendition added first leads, the others keep to its cuts, and one added again under
its name (a restarted rung, a source that came back) goes on in the same playlist. Knows nothing of HTTP, and never blocks.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Counter

from media.codecs import union, x264_group
from media.fmp4.writer import init_segment
from media.hls.before import Before
from media.hls.cuts import LIMIT_S, SEGMENT_S, SEGMENT_S_MAX, Cut, Cuts, Follower, Guide, Leader
from media.hls.playlist import Report, Text, Variant, master_playlist, media_playlist
from media.hls.segmenter import PART_S, Segmenter
from media.hls.window import Entry, Part, Window
from media.sample import Rendition, Sample, SampleSink, Segment, SegmentSink

log = structlog.get_logger(__name__)

RENDITIONS_MAX: Final = 12
HELD_SAMPLES_MAX: Final = 4_000
"""A rung ahead of the source waits with so many samples; then it goes on without knowing where the source cuts."""
RETAINED_S: Final = 60.0
"""An ended broadcast stays so long, that players see its end."""
BROADCASTS_MAX: Final = 1_000
CLOCK_WAIT_S_MAX: Final = 3.0
"""So long sound alone waits to learn where the rungs cut that have pictures; then it goes on without them."""
GAP_S_MIN: Final = 0.05
"""Less than this at its end, and a segment lacks nothing."""

_parts_made = Counter("tallylight_hls_parts", "Parts made, all renditions")
_segments_made = Counter("tallylight_hls_segments", "Segments finished, all renditions")
_gaps = Counter("tallylight_hls_gap_segments", "Segments that a rendition had to leave out")
_too_long = Counter("tallylight_hls_segments_too_long", "Segments longer than their playlist's target duration allows")
_outran = Counter(
    "tallylight_hls_samples_ahead", "Samples of a rung taken while the source was too far behind to guide it"
)


@dataclass(slots=True)
class Line:
    """What renditions that cut together have in common. `target_duration` in seconds; once `declared` it never changes."""

    cuts: Cuts
    target_duration: int
    declared: bool = False

    @property
    def limit_s(self) -> float:
        """How long a segment may be."""
        return min(SEGMENT_S_MAX, self.target_duration + LIMIT_S) if self.declared else SEGMENT_S_MAX


class LiveRendition:
    """One line of the master playlist: its window, and the playlist's text, made once a change for all who ask."""

    def __init__(self, broadcast: "LiveBroadcast", rendition: Rendition) -> None:
        self.rendition = rendition
        self.broadcast = broadcast
        self.window = Window(on_change=self._changed, rewind_s=broadcast.rewind_s)
        self.listeners: list[Callable[[], None]] = []
        self.part_target_s = PART_S
        self.sink: _Sink | None = None
        self.withdrawn = False
        """No longer made; who plays it sees gaps, and whoever comes is not offered it."""
        self.peak_bandwidth = 0
        self.codecs: list[str] = []
        """Of each initialisation segment."""
        self.independent = True
        """Every segment began with a key frame."""
        self.frames = 0
        """Of the leading track, in the open segment."""
        self._bits = 0
        self._seconds = 0.0
        self._frame_rate = rendition.video.frame_rate if rendition.video else 0.0
        self._texts: dict[tuple[bool, bool], Text] = {}

    @property
    def name(self) -> str:
        return self.rendition.name

    @property
    def is_ready(self) -> bool:
        """Players need one whole segment to begin: there is no playlist before it."""
        return self.window.finished > 0 or self.window.ended

    @property
    def target_duration(self) -> int:
        return self.broadcast.line(self.name).target_duration

    def playlist(self) -> str:
        return self.text().plain.decode()

    def text(self, *, rewind: bool = False, skip: bool = False) -> "Text":
        """The playlist as it stands, made once a change for all who ask."""
        made = self._texts.get((rewind, skip))
        if made is None or made.version != str(self.window.version):
            plain = media_playlist(
                self.window,
                target_duration=self.target_duration,
                part_target_s=self.part_target_s,
                reports=[*self._reports("dvr.m3u8" if rewind else "index.m3u8")],
                rewind=rewind,
                skip=skip,
                independent=self.independent,
            ).encode()
            made = self._texts[rewind, skip] = Text(plain, str(self.window.version))
        return made

    def variant(self, base: str = "", file: str = "index.m3u8") -> Variant:
        """Bandwidths are what was measured, where that is more than what was promised. Codecs are those of all that is listed: a slate's,
        and what the encoder sent before it sent something else (4.4.6.2)."""
        listed = self.window.listed if file == "index.m3u8" else self.window.rewindable
        codecs = union(self.rendition.codecs, *(self.codecs[it.init] for it in listed if not it.gap))
        average = round(self._bits / self._seconds) if self._seconds else 0
        bandwidth = max(self.rendition.bandwidth, self.peak_bandwidth, 1)
        return Variant(self.rendition, f"{base}{self.name}/{file}", bandwidth, average, self._frame_rate, codecs)

    def measured(self, entry: Entry, frames: int) -> None:
        if entry.duration_s <= 0 or entry.data is None:
            return
        bits = 8 * len(entry.data)
        self._bits += bits
        self._seconds += entry.duration_s
        if entry.duration_s >= self.broadcast.segment_s / 2:
            self.peak_bandwidth = max(self.peak_bandwidth, math.ceil(bits / entry.duration_s))
            if self.rendition.video is not None and not self._frame_rate:
                self._frame_rate = frames / entry.duration_s

    @property
    def is_away(self) -> bool:
        return self.sink is None or self.sink.closed

    def entry(self, cut: Cut, start_s: float, *, init: int, slate: bool = False) -> Entry:
        at = self.broadcast.started_at + timedelta(seconds=start_s)
        return Entry(
            cut.number, start_s, at, init, discontinuity=cut.discontinuity and self.window.last_number >= 0, slate=slate
        )

    def lacks(self, number: int) -> None:
        """What is missing before segment `number` begins: the rest of the one that is open, and those between."""
        window, cuts = self.window, self.broadcast.line(self.name).cuts
        entry = window.open
        if entry is not None and entry.number < number:
            for _, duration_s in cuts.between(entry.number, entry.number + 1):
                self._lacks_rest(duration_s - entry.duration_s)
            self.finish()
        for missed, duration_s in cuts.between(window.last_number + 1, number):
            gap = self.entry(missed, missed.start_s, init=len(window.inits) - 1)
            gap.duration_s = duration_s
            window.gap(gap)
            _gaps.inc()

    def cut_short(self) -> None:
        """The source has stopped while this rung was away: its open segment lasts as long as the source's last."""
        entry, leader = self.window.open, self.broadcast.leader
        if entry is None or leader is None:
            return
        last = leader.window.segment(entry.number)
        if last is not None and not self.broadcast.is_apart(leader.name):
            self._lacks_rest(last.duration_s - entry.duration_s)
        self.finish()

    def _lacks_rest(self, rest_s: float) -> None:
        # 4.4.4.9: GAP "is REQUIRED for Partial Segments that are not available", and their segment is not, either.
        if rest_s < GAP_S_MIN:
            return
        count = math.ceil(rest_s / self.part_target_s - 1e-6)
        for _ in range(count):
            self.window.add(Part(self.window.next_sequence, rest_s / count, False, b"", gap=True))

    def finish(self) -> None:
        """The open segment, if there is one, is complete: it is measured, and kept."""
        if self.window.open is not None:
            line, duration_s = self.broadcast.line(self.name), self.window.open.duration_s
            self.broadcast.reaches(line, duration_s)
            if duration_s >= line.target_duration + 0.5:
                _too_long.inc()
                log.error(
                    "hls.segment_too_long", channel=self.broadcast.channel, rendition=self.name, duration_s=duration_s
                )
        entry = self.window.finish(self.target_duration)
        if entry is None:
            return
        self.broadcast.line(self.name).declared = True
        assert entry.data is not None
        _segments_made.inc()
        if entry.gap:
            _gaps.inc()
        elif not entry.slate:
            self.measured(entry, self.frames)
        self.frames = 0
        there_s = sum(part.duration_s for part in entry.parts if not part.gap)
        keep = self.broadcast.keep
        if keep is not None and entry.data:
            # Of a segment that lacks parts, too: what viewers were shown is in the recording.
            keep.segment(
                Segment(
                    rendition=self.name,
                    number=entry.number,
                    start_s=entry.start_s,
                    duration_s=there_s if entry.gap else entry.duration_s,
                    program_date_time=entry.program_date_time,
                    data=entry.data,
                    slate=entry.slate,
                    apart=self.broadcast.is_apart(self.name),
                    discontinuity=entry.discontinuity,
                )
            )

    def _reports(self, file: str) -> Iterator[Report]:
        for other in self.broadcast.renditions:
            if other is not self and other.is_ready:
                number, parts = other.window.next
                if parts:
                    yield Report(f"../{other.name}/{file}", number, parts - 1)
                else:
                    last = other.window.parts_of(number - 1)
                    yield Report(f"../{other.name}/{file}", number - 1, last - 1 if last else None)

    def _changed(self) -> None:
        for listener in (*self.listeners, *self.broadcast.listeners):
            listener()


class LiveBroadcast:
    """`address` stands in every media address of it: node epoch and broadcast, so that no address ever means other bytes."""

    def __init__(
        self,
        *,
        channel: str,
        channel_id: str,
        address: str,
        started_at: datetime,
        broadcast_id: str = "",
        keep: SegmentSink | None = None,
        segment_s: float = SEGMENT_S,
        part_s: float = PART_S,
        rewind_s: float = 0.0,
        before: Before | None = None,
    ) -> None:
        self.channel = channel
        self.channel_id = channel_id
        self.broadcast_id = broadcast_id
        self.address = address
        self.started_at = started_at
        self.keep = keep
        self.ended = False
        self.listeners: list[Callable[[], None]] = []
        """Called when any of its renditions changes, and at its end."""
        self.part_s = part_s
        self.rewind_s = rewind_s
        self.has_rungs = False
        """Rungs are made, which cut on a clock where the source cannot cut often enough."""
        self.segment_s = segment_s
        self._common = Line(Cuts(), math.floor(segment_s + 0.5))
        self._apart: Line | None = None
        """The source's own, where it does not cut as the rungs do."""
        self._renditions: dict[str, LiveRendition] = {}
        self._leader: str | None = None
        self.leads = False
        """Whether the source is there to say where segments begin."""
        self._before = before
        if before is not None:
            self._restore(before)

    def _restore(self, before: Before) -> None:
        """Numbers go on where another node, or a former life of this one, stopped."""
        self._common.cuts.restore(before.cuts)
        self.reaches(self._common, before.longest_s)
        if before.apart:
            self._part().restore(before.apart)

    @property
    def renditions(self) -> list[LiveRendition]:
        return list(self._renditions.values())

    def rendition(self, name: str) -> LiveRendition | None:
        return self._renditions.get(name)

    @property
    def leader(self) -> LiveRendition | None:
        return self._renditions[self._leader] if self._leader is not None else None

    @property
    def has_begun(self) -> bool:
        """Whether there is anything to see."""
        return any(live.window.finished > 0 for live in self._renditions.values())

    @property
    def target_duration(self) -> int:
        """The longest of its renditions', in seconds."""
        return max(line.target_duration for line in (self._common, self._apart) if line is not None)

    def line(self, name: str) -> Line:
        """With which others the rendition cuts."""
        return self._apart if self._apart is not None and name == self._leader else self._common

    @property
    def is_clocked(self) -> bool:
        """Whether the rungs cut on a clock, for the source cuts elsewhere."""
        return self._apart is not None

    def is_apart(self, name: str) -> bool:
        """Whether its segments are numbered for itself alone."""
        return self._apart is not None and name == self._leader

    def master(self, base: str = "", file: str = "index.m3u8") -> str:
        """`base` stands before each address in it. What can be played at once stands first, for players begin with that."""
        offered = [live for live in self.renditions if not live.withdrawn]
        ready_first = sorted(offered, key=lambda live: not live.is_ready)
        independent = all(live.independent for live in offered)
        return master_playlist((live.variant(base, file) for live in ready_first), independent=independent)

    def add(self, rendition: Rendition, *, slate: bool = False) -> SampleSink:
        """Samples of a new rendition, or of one that begins again: the sink it had is closed. `slate`: not of the encoder."""
        if self.ended:
            raise ValueError("the broadcast is over")
        live = self._renditions.get(rendition.name)
        if live is None:
            if len(self._renditions) >= RENDITIONS_MAX:
                raise ValueError(f"more than {RENDITIONS_MAX} renditions")
            live = self._renditions[rendition.name] = LiveRendition(self, rendition)
            self._leader = self._leader or rendition.name
            if self._before is not None and rendition.name in self._before.renditions:
                former = self._before.renditions[rendition.name]
                live.window.inits.extend(former.inits)
                live.codecs.extend(former.codecs for _ in former.inits)
                live.window.restore(former.entries)
        elif live.sink is not None:
            live.sink.close()
        if not slate:
            live.rendition, live.withdrawn = rendition, False
        init = init_segment(rendition.video, rendition.audio)
        if live.sink is None or live.window.inits[-1] != init:
            live.window.inits.append(init)
            live.codecs.append(rendition.codecs)
            if self.keep is not None:
                self.keep.rendition(rendition, init, slate=slate)
        leads = rendition.name == self._leader
        live.sink = _Sink(self, live, rendition, self._guide(live, rendition, leads=leads), leads=leads, slate=slate)
        return live.sink

    def withdraw(self, name: str) -> None:
        """The rendition is not made any more, until it is added again."""
        live = self._renditions.get(name)
        if live is not None:
            live.withdrawn = True

    def _guide(self, live: LiveRendition, rendition: Rendition, *, leads: bool) -> Guide:
        if not leads:
            return Follower(
                self._common.cuts, after=live.window.last_number, may_cut=lambda: self._may_cut_on_clock(rendition)
            )
        self.leads = True
        may_part = self._apart is None and rendition.video is not None and self.has_rungs
        return Leader(
            self.line(rendition.name).cuts,
            segment_s=self.segment_s,
            every_sample_is_key=rendition.video is None,
            # 4.4.4.3: other tracks, or the same ones encoded anew, are another timeline.
            anew=live.window.last_number >= 0,
            apart=self._part if may_part else None,
            limit_s=lambda: self.line(rendition.name).limit_s,
            declare=lambda longest_s: self.reaches(self.line(rendition.name), longest_s),
        )

    def _part(self) -> Cuts:
        """The source's key frames are too far apart: from its open segment on it has cuts of its own, below a target that is declared
        beforehand. Where players have its playlist, that is the one they know, and it will be cut without key frames."""
        common, source = self._common, self.leader
        known = source is not None and source.is_ready
        target_duration = common.target_duration if known else math.floor(SEGMENT_S_MAX + 0.5)
        self._apart = Line(
            common.cuts.apart(self.segment_s, common.target_duration + LIMIT_S), target_duration, declared=True
        )
        log.info("hls.source_apart", channel=self.channel, target_duration=self._apart.target_duration)
        return self._apart.cuts

    def end(self) -> None:
        if self.ended:
            return
        for live in sorted(self.renditions, key=lambda live: live.name != self._leader):
            if live.sink is not None:
                live.sink.close()
        self.ended = True
        for live in self.renditions:
            live.window.end()
        for listener in tuple(self.listeners):
            listener()

    def source_moved(self) -> None:
        """Rungs that were ahead of the source learn of its cuts."""
        for live in self.renditions:
            if live.sink is not None:
                live.sink.release()

    def source_cut(self, cut: Cut) -> None:
        """A segment of the source began: what rungs lack that are away is settled, so that their viewers need not wait to learn of it."""
        if self._apart is not None:
            return
        for live in self.renditions:
            if live.name != self._leader and live.is_away and live.window.last_number >= 0:
                live.lacks(cut.number)

    def source_closed(self) -> None:
        self.leads = False
        self.source_moved()
        for live in self.renditions:
            if live.name != self._leader and live.is_away:
                live.cut_short()

    def guides(self, rendition: Rendition, time_s: float) -> bool:
        """Whether it is settled where this rung cuts, up to `time_s`."""
        cuts = self._common.cuts
        if not self.leads or (cuts.clock_s > 0 and self._may_cut_on_clock(rendition)):
            return True
        return cuts.decided_until_s >= time_s

    def _may_cut_on_clock(self, rendition: Rendition) -> bool:
        """Sound keeps to the rungs that have key frames to cut at, while any are made."""
        if rendition.video is not None or not self.has_rungs:
            return True
        rungs = [it for it in self._renditions.values() if it.rendition.video is not None and it.name != self._leader]
        return bool(rungs) and all(it.withdrawn for it in rungs)

    def reaches(self, line: Line, duration_s: float) -> None:
        """4.4.3.1: no segment's duration, rounded, exceeds the target duration, which must not change once players have seen it."""
        if duration_s < line.target_duration + 0.5:
            return
        if not line.declared:
            line.target_duration = math.floor(duration_s + 0.5)


class _Sink:
    """One run of one rendition: samples go through the segmenter into the window. It is the segmenter's `Parts`, too."""

    def __init__(
        self,
        broadcast: LiveBroadcast,
        live: LiveRendition,
        rendition: Rendition,
        guide: Guide,
        *,
        leads: bool,
        slate: bool,
    ) -> None:
        self._broadcast = broadcast
        self._live = live
        self._leads = leads
        self._slate = slate
        self._init = len(live.window.inits) - 1
        self._guide = guide
        self._rendition = rendition
        self._segmenter = Segmenter(rendition, guide, self, part_s=broadcast.part_s)
        leading = rendition.video or rendition.audio
        assert leading is not None
        self._leading = "video" if rendition.video else "audio"
        self._scale = leading.timescale
        self._held: deque[Sample] = deque()
        self._knows_group = False
        self.closed = False

    def push(self, sample: Sample) -> None:
        if self.closed:
            return
        if self._leads:
            self._learn(sample)
            self._segmenter.push(sample)
            if sample.kind == self._leading:
                self._broadcast.source_moved()
            return
        self._held.append(sample)
        self.release()
        if len(self._held) > HELD_SAMPLES_MAX:
            _outran.inc()
            self._segmenter.push(self._held.popleft())

    def release(self) -> None:
        while self._held:
            first = self._held[0]
            if first.kind == self._leading and not self._is_guided(first):
                return
            self._segmenter.push(self._held.popleft())

    def _is_guided(self, first: Sample) -> bool:
        if self._broadcast.guides(self._rendition, (first.dts + first.cts) / self._scale):
            return True
        waited_s = (self._held[-1].dts - first.dts) / self._scale
        return self._rendition.video is None and self._broadcast.is_clocked and waited_s > CLOCK_WAIT_S_MAX

    def _learn(self, sample: Sample) -> None:
        """x264 says in its first key frame how far apart they will be."""
        video = self._rendition.video
        if self._knows_group or video is None or not (sample.kind == "video" and sample.key):
            return
        self._knows_group = True
        frames = x264_group(sample.data)
        if frames and video.frame_rate:
            self._guide.expects(min(frames / video.frame_rate, SEGMENT_S_MAX))

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        while self._held:
            self._segmenter.push(self._held.popleft())
        self._segmenter.close()
        if self._leads:
            self._live.finish()
            self._broadcast.source_closed()
        elif not self._broadcast.leads:
            self._live.finish()
        # Else a rung that is lost while its source goes on: its open segment is settled when the source's next begins.

    def next_sequence(self) -> int:
        return self._live.window.next_sequence

    def begin(self, cut: Cut, start_s: float, *, key: bool) -> None:
        live = self._live
        window = live.window
        live.independent = live.independent and key
        live.part_target_s = max(self._segmenter.part_target_s, live.part_target_s if window.version else 0)
        if self._leads:
            self._broadcast.source_cut(cut)
        if window.last_number >= 0:
            live.lacks(cut.number)
        window.begin(live.entry(cut, start_s, init=self._init, slate=self._slate))

    def part(self, data: bytes, duration_s: float, *, independent: bool, frames: int) -> None:
        self._live.frames += frames
        window = self._live.window
        assert window.open is not None
        reached_s = window.open.duration_s + duration_s
        if reached_s > self._guide.undecided_s:
            self._broadcast.reaches(self._broadcast.line(self._live.name), reached_s)
        window.add(Part(window.next_sequence, duration_s, independent, data))
        _parts_made.inc()

    def finish(self) -> None:
        if not self._leads and self.closed and self._broadcast.leads:
            return
        self._live.finish()


class LiveRegistry:
    """The broadcasts of this node: the one that is live on a channel, and for a while those that ended. `clock` in seconds, monotonic."""

    def __init__(
        self,
        *,
        epoch: str,
        clock: Callable[[], float],
        retained_s: float = RETAINED_S,
        rewind_s: float = 0.0,
        segment_s: float = SEGMENT_S,
    ) -> None:
        """`rewind_s`: how far a live broadcast can be rewound, where an archive keeps it. `segment_s`: how long segments should be."""
        self.epoch = epoch
        self.segment_s = segment_s
        self.rewind_s = rewind_s
        self._clock = clock
        self._retained_s = retained_s
        self._by_channel: dict[str, LiveBroadcast] = {}
        self._by_address: dict[str, LiveBroadcast] = {}
        self._ended: deque[tuple[float, LiveBroadcast]] = deque()

    def open(
        self,
        *,
        channel: str,
        channel_id: str,
        broadcast_id: str,
        started_at: datetime,
        keep: SegmentSink | None = None,
        before: Before | None = None,
    ) -> LiveBroadcast:
        """The channel's new broadcast, or one taken over with what it had `before`; whatever was live on it is closed."""
        self.sweep()
        last = self._by_channel.get(channel)
        if last is not None and not last.ended:
            self.close(last)
        broadcast = LiveBroadcast(
            channel=channel,
            channel_id=channel_id,
            broadcast_id=broadcast_id,
            address=f"{self.epoch}-{broadcast_id}",
            started_at=started_at,
            keep=keep,
            segment_s=self.segment_s,
            rewind_s=self.rewind_s if keep is not None else 0.0,
            before=before,
        )
        self._by_channel[channel] = self._by_address[broadcast.address] = broadcast
        return broadcast

    def close(self, broadcast: LiveBroadcast) -> None:
        """End it, if it has not ended; it stays for players to see its end."""
        broadcast.end()
        if all(broadcast is not ended for _, ended in self._ended):
            self._ended.append((self._clock(), broadcast))
        self.sweep()

    def on_channel(self, channel: str) -> LiveBroadcast | None:
        """What is live on the channel, or was until just now."""
        self.sweep()
        return self._by_channel.get(channel)

    def at(self, channel: str, address: str) -> LiveBroadcast | None:
        self.sweep()
        broadcast = self._by_address.get(address)
        return broadcast if broadcast is not None and broadcast.channel == channel else None

    @property
    def broadcasts(self) -> list[LiveBroadcast]:
        return list(self._by_address.values())

    def sweep(self) -> None:
        """Forget what ended long ago. Called on every opening and look-up; memory is bounded in between by the maximum."""
        due = self._clock() - self._retained_s
        while self._ended and (self._ended[0][0] <= due or len(self._ended) > BROADCASTS_MAX):
            _, broadcast = self._ended.popleft()
            self._by_address.pop(broadcast.address, None)
            if self._by_channel.get(broadcast.channel) is broadcast:
                del self._by_channel[broadcast.channel]
