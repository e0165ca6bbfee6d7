"""One rendition's samples become parts: a moof and mdat as soon as the samples are in. `live` feeds it and puts the parts in a window.

The leading track (video, or audio where there is none) sets the boundaries: a part ends at the last frame boundary within the part
target. Audio beside video goes into the part in which it starts. Decode times are gapless by construction: a frame whose time is
taken stands a little earlier or later and its composition offset makes up for it, so that it is shown when it should be.
Never raises for what a publisher sent, and holds no more than the lags below.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client import Counter

from media.fmp4.writer import Run, media_fragment
from media.hls.cuts import Cut, Guide
from media.sample import Rendition, Sample

PART_S: Final = 0.25
PART_SHARE_MIN: Final = 0.85  # "at least 85% of the Part Target Duration" (4.4.4.9)
AUDIO_LAG_S_MAX: Final = 0.5
"""A part waits for its audio until video is so far ahead."""
AUDIO_AWAY_S: Final = 1.0
"""Audio that has not come for so long is not waited for."""
VIDEO_LAG_S_MAX: Final = 1.0
"""Where video is so far behind audio, parts hold audio alone."""
AUDIO_AHEAD_S_MAX: Final = 15.0
"""Audio that jumped further than this does not drag the parts along: the jump is its own."""
AUDIO_QUEUE_MAX: Final = 1024
AUDIO_QUEUE_BYTES_MAX: Final = 8 << 20
PART_BYTES_MAX: Final = 16 << 20
"""A part that has so much is complete, however little time is in it: timestamps that hardly advance must not make it grow."""
HOLE_S_MIN: Final = 2.0
"""Nothing in any track for so long: players get a discontinuity, not a frame that stands still."""
BACKWARDS_S_MAX: Final = 1.0
AUDIO_DRIFT_S_MAX: Final = 0.010
"""Further from its own time no sound is written: clocks drift, frames are lost, and RTMP rounds to 1 ms."""
AAC_FRAME: Final = 1024

_dropped = Counter("tallylight_hls_samples_dropped", "Samples no part has", ["why"])
_dropped_early = _dropped.labels("before_the_first_key_frame")
_dropped_backwards = _dropped.labels("time_ran_backwards")
_dropped_overflow = _dropped.labels("audio_queue_full")


class Parts(Protocol):
    """Takes what the segmenter finished, in order: `begin`, parts, `finish`, and again. After `finish` there may be no more."""

    def begin(self, cut: Cut, start_s: float, *, key: bool) -> None:
        """Segment `cut.number` begins with a frame shown at `start_s`, a key frame or not."""
        ...

    def part(self, data: bytes, duration_s: float, *, independent: bool, frames: int) -> None:
        """`frames` of the leading track are in it."""
        ...

    def finish(self) -> None: ...

    def next_sequence(self) -> int:
        """A number for the next part that no part of the rendition had before."""
        ...


@dataclass(slots=True)
class _Part:
    run: Run
    start: int
    end: int
    begins: tuple[Cut, float, bool] | None


class _Finish:
    """In the queue of parts: the segment ends here."""


_FINISH: Final = _Finish()


def part_target_s(frame_s: float, part_s: float = PART_S) -> float:
    """The part target for frames of this length: `part_s`, or longer where no number of whole frames comes near enough to it."""
    if frame_s <= 0:
        return part_s
    frames = math.floor(part_s / frame_s + 1e-6)
    if frames * frame_s >= PART_SHARE_MIN * part_s + 0.001 or frames * frame_s == part_s:
        return part_s
    # One millisecond more: encoders' timestamps are often rounded to it.
    return (math.ceil(math.ceil(part_s / frame_s - 1e-6) * frame_s * 1000 - 1e-6) + 1) / 1000


class Segmenter:
    def __init__(self, rendition: Rendition, guide: Guide, parts: Parts, *, part_s: float = PART_S) -> None:
        leading = rendition.video or rendition.audio
        assert leading is not None
        self._is_video = rendition.video is not None
        self._scale = leading.timescale
        self._audio = _AudioQueue(rendition.audio.timescale) if rendition.video and rendition.audio else None
        self._guide = guide
        self._parts = parts
        frame_rate = rendition.video.frame_rate if rendition.video else 0.0
        self._frame = round(self._scale / frame_rate) if frame_rate > 0 else 0
        """Ticks of the last frame, which the next will probably have too."""
        self._part_s = part_s
        self.part_target_s = part_target_s(1 / frame_rate if frame_rate > 0 else 0.0, part_s)
        self._target = int(self.part_target_s * self._scale)
        self._cut: Cut | None = None
        self._open: _Part | None = None
        self._end = 0  # where the written timeline of the leading track stands
        self._due = 0  # where the last frame's own timestamps said that the next begins
        self._tail: Sample | None = None  # a frame of unknown duration, not yet written
        self._in_hole = False
        self._begins: tuple[Cut, float, bool] | None = None
        self._queue: deque[_Part | _Finish] = deque()

    def push(self, sample: Sample) -> None:
        if (sample.kind == "video") == self._is_video:
            self._lead(sample)
        elif self._audio is not None and sample.kind == "audio":
            self._audio.push(sample, began=self._cut is not None)
            self._go_on_without_video(self._audio, VIDEO_LAG_S_MAX)
        self._flush()

    def close(self) -> None:
        """No more samples come: everything that is waiting goes out, and the open segment ends."""
        self._write_tail(self._due if self._tail is None else self._tail.dts + self._guessed_frame())
        if self._cut is not None:
            if self._audio is not None and self._audio.end_s is not None:
                self._go_on_without_video(self._audio, 0.0)
                rest = int(self._audio.end_s * self._scale) - self._end
                if self._audio.first_s < math.inf and 0 < rest < self._target:
                    self._rest(self._end + rest)
            self._close_part()
            self._queue.append(_FINISH)
            self._cut = None
        while self._queue:
            self._emit(self._queue.popleft())

    def _lead(self, sample: Sample) -> None:
        if self._cut is None and not self._in_hole and self._frame == 0 and sample.duration:
            self._frame = sample.duration
            self.part_target_s = part_target_s(sample.duration / self._scale, self._part_s)
            self._target = int(self.part_target_s * self._scale)
        if self._cut is not None:
            if sample.dts < self._due - BACKWARDS_S_MAX * self._scale:
                _dropped_backwards.inc()
                return
            if self._is_hole(sample.dts):
                self._in_hole = True
            else:
                self._write_tail(sample.dts)
                self._settle(sample.dts)
        if self._in_hole and not sample.key:
            _dropped_early.inc()
            return
        shown_s = (sample.dts + sample.cts) / self._scale
        key = sample.key or not self._is_video
        tolerance_s = self._guessed_frame() / 2 / self._scale
        cut = self._guide.at(shown_s, key=key, tolerance_s=tolerance_s, hole=self._in_hole)
        if cut is not None:
            self._begin(cut, shown_s, sample.dts, key=key)
        elif self._cut is None or self._in_hole:
            _dropped_early.inc()
            return
        if sample.duration > 0:
            self._append(sample, sample.duration)
        else:
            self._tail = sample
            self._due = sample.dts

    def _is_hole(self, dts: int) -> bool:
        """Nothing in any track for long: a frame that stands still would be no answer."""
        if self._in_hole or dts - self._due <= HOLE_S_MIN * self._scale:
            return self._in_hole
        return self._audio is None or self._audio.is_silent(self._due / self._scale, dts / self._scale)

    def _begin(self, cut: Cut, shown_s: float, dts: int, *, key: bool) -> None:
        first = self._cut is None
        if not first:
            self._write_tail(self._due)
            self._close_part()
            self._queue.append(_FINISH)
        if first or cut.discontinuity or self._in_hole:
            self._end = max(dts, 0)
        self._in_hole = False
        self._cut = cut
        # What a rung's frame says and what the cut says differ by rounding alone: let all renditions name the same time.
        near = abs(shown_s - cut.start_s) < self._guessed_frame() / self._scale
        self._begins = (cut, cut.start_s if near else shown_s, key)

    def _guessed_frame(self) -> int:
        return self._frame or self._scale // 30

    def _write_tail(self, end: int) -> None:
        """The frame of unknown duration lasts until `end`."""
        if self._tail is not None:
            tail, self._tail = self._tail, None
            self._append(tail, max(end - tail.dts, 1) if end > tail.dts else self._guessed_frame())

    def _settle(self, dts: int) -> None:
        """The next frame's timestamp, not the last one's duration, says how long the last frame lasts."""
        part = self._open
        if part is None or not part.run or dts == part.run.end:
            return
        room = part.start + self._target - part.run.end
        part.run.stretch(min(dts - part.run.end, room))
        self._end = part.end = part.run.end
        if part.end - part.start >= self._target:
            self._close_part()

    def _append(self, sample: Sample, duration: int) -> None:
        self._frame = duration
        self._due = end = sample.dts + duration
        enough = PART_SHARE_MIN * self._target
        part = self._open
        if part is not None and (
            (end - part.start > self._target and part.end - part.start >= enough)
            or part.run.size + len(sample.data) > PART_BYTES_MAX
        ):
            self._close_part()
            part = None
        if part is None:
            part = self._open_part()
        full = part.start + self._target
        written = part.run.end
        fitted = min(max(end - written, 1), full - written)
        part.run.append(fitted, sample.cts + sample.dts - written, sample.key, sample.data)
        self._end = part.end = part.run.end
        # Low latency first: where one more frame like this would be too much, the part is complete now.
        if part.end >= full or (part.end - part.start >= enough and part.end + duration > full):
            self._close_part()

    def _open_part(self) -> _Part:
        begins, self._begins = self._begins, None
        self._open = _Part(Run(is_video=self._is_video, dts=self._end), self._end, self._end, begins)
        return self._open

    def _close_part(self) -> None:
        part, self._open = self._open, None
        if part is not None and part.end > part.start:
            self._queue.append(part)

    def _go_on_without_video(self, audio: "_AudioQueue", lag_s: float) -> None:
        """Low frame rates and lost video: what is certain to have no frame any more holds audio alone."""
        while self._cut is not None and not self._in_hole and audio.end_s is not None:
            self._flush()
            start = self._open.start if self._open is not None else self._end
            end = start + self._target
            ahead_s = audio.end_s - end / self._scale
            if not lag_s <= ahead_s <= AUDIO_AHEAD_S_MAX or (self._tail and self._tail.dts >= end):
                return
            if audio.first_s == math.inf or audio.is_silent(self._due / self._scale, audio.end_s):
                return
            self._write_tail(end)
            if self._end >= end:
                continue
            if audio.first_s >= end / self._scale:
                self._close_part()
                self._end = int(audio.first_s * self._scale)
                continue
            self._close_at(end)
            cut = self._guide.at(end / self._scale, key=False, tolerance_s=0.0)
            if cut is not None:
                self._begin(cut, end / self._scale, end, key=False)

    def _rest(self, end: int) -> None:
        """The audio that sounds on after the last frame."""
        if self._open is not None and end - self._open.start > self._target:
            self._close_part()
        self._close_at(end)

    def _close_at(self, end: int) -> None:
        part = self._open or self._open_part()
        if part.run:
            part.run.stretch(end - part.run.end)
        self._end = part.end = end
        self._close_part()

    def _flush(self) -> None:
        queue = self._queue
        while queue:
            first = queue[0]
            if isinstance(first, _Part) and not self._has_its_audio(first.end / self._scale):
                return
            self._emit(queue.popleft())

    def _has_its_audio(self, end_s: float) -> bool:
        if self._audio is None:
            return True
        audio_end_s = self._audio.end_s
        if audio_end_s is not None and (audio_end_s >= end_s or audio_end_s < end_s - AUDIO_AWAY_S):
            return True
        return self._due / self._scale - end_s > AUDIO_LAG_S_MAX

    def _emit(self, part: _Part | _Finish) -> None:
        if isinstance(part, _Finish):
            self._parts.finish()
            return
        if part.begins is not None:
            cut, start_s, key = part.begins
            self._parts.begin(cut, start_s, key=key)
        runs = [part.run] if part.run else []
        if self._audio is not None:
            audio = self._audio.take(part.start / self._scale, part.end / self._scale)
            if audio is not None:
                runs.append(audio)
        # 4.4.4.9: INDEPENDENT where "the Partial Segment contains an independent frame".
        independent = part.run.has_key or (not self._is_video and bool(part.run))
        data = media_fragment(self._parts.next_sequence() + 1, runs)
        self._parts.part(data, (part.end - part.start) / self._scale, independent=independent, frames=len(part.run))


class _AudioQueue:
    """Audio beside video, until the part in which it starts goes out. Gapless like the video, unless sound is really missing."""

    def __init__(self, scale: int) -> None:
        self._scale = scale
        self._samples: deque[Sample] = deque()
        self._bytes = 0
        self._written: int | None = None
        self._silence = (0.0, 0.0)
        self._drift_max = AUDIO_DRIFT_S_MAX * scale
        self.end_s: float | None = None

    @property
    def first_s(self) -> float:
        """Where the first sample that is still here starts."""
        return self._samples[0].dts / self._scale if self._samples else math.inf

    def is_silent(self, start_s: float, end_s: float) -> bool:
        """Whether so much of that time is without a sample that it counts as a hole."""
        since_s = -math.inf if self.end_s is None else self.end_s
        last = min(self._silence[1], end_s) - max(self._silence[0], start_s)
        return max(last, end_s - max(since_s, start_s)) >= HOLE_S_MIN

    def push(self, sample: Sample, *, began: bool) -> None:
        self._samples.append(sample)
        self._bytes += len(sample.data)
        start_s = sample.dts / self._scale
        if self.end_s is not None and start_s - self.end_s >= HOLE_S_MIN:
            self._silence = (self.end_s, start_s)
        self.end_s = (sample.dts + (sample.duration or AAC_FRAME)) / self._scale
        while len(self._samples) > AUDIO_QUEUE_MAX or self._bytes > AUDIO_QUEUE_BYTES_MAX:
            (_dropped_overflow if began else _dropped_early).inc()
            self._pop()

    def _pop(self) -> Sample:
        sample = self._samples.popleft()
        self._bytes -= len(sample.data)
        return sample

    def take(self, start_s: float, end_s: float) -> Run | None:
        """The samples that start before `end_s`, as one run."""
        run: Run | None = None
        while self._samples and self._samples[0].dts < end_s * self._scale:
            sample = self._pop()
            duration = min(sample.duration or AAC_FRAME, self._scale)
            if self._written is None and sample.dts < start_s * self._scale:
                _dropped_early.inc()
                continue
            at = sample.dts if self._written is None else self._written
            late = sample.dts - at
            if late < -duration - self._drift_max:
                _dropped_backwards.inc()
                continue
            if abs(late) > self._drift_max and run is not None:
                # The one before makes up for it: it lasts as long as its own time and this one's say.
                run.stretch(min(late, self._scale))
                at = run.end
            if late > self._drift_max:
                at = sample.dts
            if run is None:
                run = Run(is_video=False, dts=at)
            run.append(duration, 0, True, sample.data)
            self._written = run.end
        return run
