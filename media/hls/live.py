"""A broadcast as players see it while it lasts, and the register of broadcasts by channel. The pipeline fills it, the origin reads it.

`LiveBroadcast` is the media plane's `Packager`: the rendition added first leads, the others keep to its cuts, and one added again under
its name (a restarted rung, a source that came back) goes on in the same playlist. Knows nothing of HTTP, and never blocks.
"""

import gzip
import math
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Counter

from media.fmp4.writer import init_segment
from media.hls.cuts import SEGMENT_S, SEGMENT_S_MAX, Cut, Cuts, Follower, Guide, Leader
from media.hls.playlist import Report, Variant, master_playlist, media_playlist
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

_parts_made = Counter("tallylight_hls_parts", "Parts made, all renditions")
_segments_made = Counter("tallylight_hls_segments", "Segments finished, all renditions")
_gaps = Counter("tallylight_hls_gap_segments", "Segments that a rendition had to leave out")
_outran = Counter(
    "tallylight_hls_samples_ahead", "Samples of a rung taken while the source was too far behind to guide it"
)


class LiveRendition:
    """One line of the master playlist: its window, and the playlist's text, made once a change for all who ask."""

    def __init__(self, broadcast: "LiveBroadcast", rendition: Rendition) -> None:
        self.rendition = rendition
        self.broadcast = broadcast
        self.window = Window(on_change=self._changed)
        self.listeners: list[Callable[[], None]] = []
        self.part_target_s = PART_S
        self.sink: _Sink | None = None
        self.peak_bandwidth = 0
        self._bits = 0
        self._seconds = 0.0
        self._frame_rate = rendition.video.frame_rate if rendition.video else 0.0
        self._text = (-1, b"")
        self._gzipped = (-1, b"")

    @property
    def name(self) -> str:
        return self.rendition.name

    @property
    def is_ready(self) -> bool:
        """Players need one whole segment to begin: there is no playlist before it."""
        return self.window.finished > 0 or self.window.ended

    def playlist(self) -> str:
        return self.playlist_bytes().decode()

    def playlist_bytes(self) -> bytes:
        version, text = self._text
        if version != self.window.version:
            text = media_playlist(
                self.window,
                target_duration=self.broadcast.target_duration,
                part_target_s=self.part_target_s,
                reports=[*self._reports()],
            ).encode()
            self._text = (self.window.version, text)
        return text

    def playlist_gzipped(self) -> bytes:
        version, text = self._gzipped
        if version != self.window.version:
            text = gzip.compress(self.playlist_bytes(), mtime=0)
            self._gzipped = (self.window.version, text)
        return text

    def variant(self, base: str = "") -> Variant:
        """Bandwidths are what was measured, where that is more than what was promised."""
        average = round(self._bits / self._seconds) if self._seconds else 0
        bandwidth = max(self.rendition.bandwidth, self.peak_bandwidth, 1)
        return Variant(self.rendition, f"{base}{self.name}/index.m3u8", bandwidth, average, self._frame_rate)

    def measured(self, entry: Entry, frames: int) -> None:
        if entry.duration_s <= 0 or entry.data is None:
            return
        bits = 8 * len(entry.data)
        self._bits += bits
        self._seconds += entry.duration_s
        if entry.duration_s >= SEGMENT_S / 2:
            self.peak_bandwidth = max(self.peak_bandwidth, math.ceil(bits / entry.duration_s))
            if self.rendition.video is not None and not self._frame_rate:
                self._frame_rate = frames / entry.duration_s

    def _reports(self) -> Iterator[Report]:
        for other in self.broadcast.renditions:
            if other is not self and other.is_ready:
                number, parts = other.window.next
                if parts:
                    yield Report(f"../{other.name}/index.m3u8", number, parts - 1)
                else:
                    last = other.window.segment(number - 1)
                    yield Report(f"../{other.name}/index.m3u8", number - 1, len(last.parts) - 1 if last else None)

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
        keep: SegmentSink | None = None,
        segment_s: float = SEGMENT_S,
        part_s: float = PART_S,
    ) -> None:
        self.channel = channel
        self.channel_id = channel_id
        self.address = address
        self.started_at = started_at
        self.keep = keep
        self.cuts = Cuts()
        self.ended = False
        self.listeners: list[Callable[[], None]] = []
        """Called when any of its renditions changes, and at its end."""
        self.target_duration = math.floor(segment_s + 0.5)
        self.part_s = part_s
        self._segment_s = segment_s
        self._renditions: dict[str, LiveRendition] = {}
        self._leader: str | None = None
        self._leads = False

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

    def master(self, base: str = "") -> str:
        """`base` stands before each address in it."""
        return master_playlist(live.variant(base) for live in self.renditions)

    def add(self, rendition: Rendition) -> SampleSink:
        """Samples of a new rendition, or of one that begins again: the sink it had is closed."""
        if self.ended:
            raise ValueError("the broadcast is over")
        live = self._renditions.get(rendition.name)
        if live is None:
            if len(self._renditions) >= RENDITIONS_MAX:
                raise ValueError(f"more than {RENDITIONS_MAX} renditions")
            live = self._renditions[rendition.name] = LiveRendition(self, rendition)
            self._leader = self._leader or rendition.name
        elif live.sink is not None:
            live.sink.close()
        live.rendition = rendition
        init = init_segment(rendition.video, rendition.audio)
        if not live.window.inits or live.window.inits[-1] != init:
            live.window.inits.append(init)
            if self.keep is not None:
                self.keep.rendition(rendition, init)
        guide: Guide
        if rendition.name == self._leader:
            self._leads = True
            guide = Leader(self.cuts, segment_s=self._segment_s, every_sample_is_key=rendition.video is None)
        else:
            guide = Follower(self.cuts, after=live.window.last_number)
        live.sink = _Sink(self, live, guide, leads=rendition.name == self._leader)
        return live.sink

    def end(self) -> None:
        if self.ended:
            return
        self.source_closed()
        for live in self.renditions:
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

    def source_closed(self) -> None:
        self._leads = False
        self.source_moved()

    def guides(self, time_s: float) -> bool:
        """Whether it is settled where the source cuts, up to `time_s`."""
        return not self._leads or self.cuts.decided_until_s >= time_s

    def reaches(self, duration_s: float) -> None:
        """4.4.3.1: no segment's duration, rounded, exceeds the target duration, which must not change once players have seen it.

        It does change, once, where a source's key frames are suddenly further apart than its first were: decodable segments matter more.
        """
        seen = any(live.is_ready for live in self._renditions.values())
        needed = math.floor((SEGMENT_S_MAX if seen else duration_s) + 0.5)
        if duration_s < self.target_duration + 0.5 or needed <= self.target_duration:
            return
        self.target_duration = needed
        if seen:
            log.warning("hls.target_duration", channel=self.channel, raised_to=self.target_duration)


class _Sink:
    """One run of one rendition: samples go through the segmenter into the window. It is the segmenter's `Parts`, too."""

    def __init__(self, broadcast: LiveBroadcast, live: LiveRendition, guide: Guide, *, leads: bool) -> None:
        self._broadcast = broadcast
        self._live = live
        self._leads = leads
        self._init = len(live.window.inits) - 1
        self._segmenter = Segmenter(live.rendition, guide, self, part_s=broadcast.part_s)
        leading = live.rendition.video or live.rendition.audio
        assert leading is not None
        self._leading = "video" if live.rendition.video else "audio"
        self._scale = leading.timescale
        self._held: deque[Sample] = deque()
        self._closed = False
        self._frames = 0

    def push(self, sample: Sample) -> None:
        if self._closed:
            return
        if self._leads:
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
            if first.kind == self._leading and not self._broadcast.guides((first.dts + first.cts) / self._scale):
                return
            self._segmenter.push(self._held.popleft())

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        while self._held:
            self._segmenter.push(self._held.popleft())
        self._segmenter.close()
        self.finish()
        if self._leads:
            self._broadcast.source_closed()

    def next_sequence(self) -> int:
        return self._live.window.next_sequence

    def begin(self, cut: Cut, start_s: float) -> None:
        window = self._live.window
        self._live.part_target_s = max(self._segmenter.part_target_s, self._live.part_target_s if window.version else 0)
        if window.last_number >= 0 and cut.number > window.last_number + 1:
            for missed, duration_s in self._broadcast.cuts.between(window.last_number + 1, cut.number):
                entry = self._entry(missed, missed.start_s)
                entry.duration_s = duration_s
                window.gap(entry)
                _gaps.inc()
        window.begin(self._entry(cut, start_s))

    def _entry(self, cut: Cut, start_s: float) -> Entry:
        at = self._broadcast.started_at + timedelta(seconds=start_s)
        follows = self._live.window.last_number >= 0
        return Entry(cut.number, start_s, at, self._init, discontinuity=cut.discontinuity and follows)

    def part(self, data: bytes, duration_s: float, *, independent: bool, frames: int) -> None:
        self._frames += frames
        window = self._live.window
        assert window.open is not None
        self._broadcast.reaches(window.open.duration_s + duration_s)
        window.add(Part(window.next_sequence, duration_s, independent, data))
        _parts_made.inc()

    def finish(self) -> None:
        live = self._live
        entry = live.window.finish(self._broadcast.target_duration)
        if entry is None:
            return
        assert entry.data is not None
        _segments_made.inc()
        live.measured(entry, self._frames)
        self._frames = 0
        keep = self._broadcast.keep
        if keep is not None:
            keep.segment(
                Segment(
                    rendition=live.name,
                    number=entry.number,
                    start_s=entry.start_s,
                    duration_s=entry.duration_s,
                    program_date_time=entry.program_date_time,
                    data=entry.data,
                )
            )


class LiveRegistry:
    """The broadcasts of this node: the one that is live on a channel, and for a while those that ended. `clock` in seconds, monotonic."""

    def __init__(self, *, epoch: str, clock: Callable[[], float], retained_s: float = RETAINED_S) -> None:
        self.epoch = epoch
        self._clock = clock
        self._retained_s = retained_s
        self._by_channel: dict[str, LiveBroadcast] = {}
        self._by_address: dict[str, LiveBroadcast] = {}
        self._ended: deque[tuple[float, LiveBroadcast]] = deque()

    def open(
        self, *, channel: str, channel_id: str, broadcast_id: str, started_at: datetime, keep: SegmentSink | None = None
    ) -> LiveBroadcast:
        """The channel's new broadcast; whatever was live on it is closed."""
        self.sweep()
        before = self._by_channel.get(channel)
        if before is not None and not before.ended:
            self.close(before)
        broadcast = LiveBroadcast(
            channel=channel,
            channel_id=channel_id,
            address=f"{self.epoch}-{broadcast_id}",
            started_at=started_at,
            keep=keep,
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
