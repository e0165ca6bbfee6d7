"""How a broadcast's stream is doing, and what its broadcaster could do about it. Fed by the pipeline frame by frame, read by who asks.

`Vitals` keeps the last `WINDOW_S` seconds in bins of one, whatever comes: constant memory and a few additions a frame. `advice` is
plain words for whoever sits before the encoder. No I/O; the clock is given.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from media.flv import Began, Frame
from media.sample import AudioTrack, VideoTrack

WINDOW_S: Final = 10
KEY_INTERVALS: Final = 5
LATE_S: Final = 0.5
"""A frame that comes so much later than the earliest ones did for their time is late: viewers' buffers are about that long."""
MISSING_FROM: Final = 1.5
"""A gap of so many frame durations means that frames are missing."""
JUMP_S: Final = 5.0
"""A step of the encoder's clock so wide is another time, not so many missing frames."""
KEYS_APART_S: Final = 4.0
KEYS_WISHED_S: Final = 2
SLOW, FAST = 0.93, 1.15
LOST_SHARE: Final = 0.01
LATE_SHARE: Final = 0.05
LAG_S: Final = 3.0
BITRATE_ALONE: Final = 8_000_000
"""So much, in bit/s, is more than many viewers' lines carry, where nothing smaller is offered."""
WAITING_BYTES: Final = 64 << 20
NO_MEDIA: Final = (
    "Nothing comes from the encoder, and viewers see a slate: check its connection, or start again with the same key."
)
PLAYED_EVERYWHERE: Final = ("avc1", "mp4a")

State = Literal["live", "silent", "interrupted"]


class Advice(BaseModel):
    """`code` for programs, `text` for people."""

    model_config = ConfigDict(frozen=True)
    code: str
    text: str


class StreamHealth(BaseModel):
    """What is so now. Rates are over the last ten seconds; None where nothing can be said (yet).

    `bitrate` in bit/s as it arrives; `speed` in seconds of media a second; `late_frames` and `missing_frames` since the broadcast began.
    `transcoder_lag_s` how far the renditions are behind the source; `transcoder_speed` seconds of media encoded a second.
    """

    model_config = ConfigDict(frozen=True)
    broadcast_id: str
    channel_id: str
    channel: str
    node: str
    state: State
    encoder: str
    video_codec: str | None
    audio_codec: str | None
    width: int | None
    height: int | None
    on_air_s: float
    bitrate: int
    frame_rate: float
    nominal_frame_rate: float | None
    key_frame_interval_s: float | None
    speed: float | None
    late_frames: int
    missing_frames: int
    interruptions: int
    transcoder_lag_s: float | None
    transcoder_speed: float | None
    renditions: tuple[str, ...]
    renditions_no_room: tuple[str, ...]
    renditions_shed: tuple[str, ...]
    archive_lost: int
    archive_waiting_bytes: int
    advice: tuple[Advice, ...]


@dataclass(slots=True)
class _Bin:
    """A second: when it began, and what came in it. `media_s` and `encoded_s` as they stood at its beginning."""

    at: float
    media_s: float
    encoded_s: float | None
    bytes: int = 0
    frames: int = 0
    late: int = 0
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """Of the last seconds, but for the two counts."""

    bitrate: int
    frame_rate: float
    key_frame_interval_s: float | None
    speed: float | None
    encoded_speed: float | None
    late_share: float
    missing_share: float
    late_frames: int
    missing_frames: int


class Vitals:
    """One broadcast's. `encoded` tells how many seconds of media the transcoder has given, None when there is none."""

    def __init__(self, clock: Callable[[], float], encoded: Callable[[], float | None]) -> None:
        self._clock = clock
        self._encoded = encoded
        self.late_frames = 0
        self.missing_frames = 0
        self.video: VideoTrack | None = None
        self.audio: AudioTrack | None = None
        self._begin()

    def began(self, began: Began) -> None:
        """Tracks are there, or others, or again: what was measured of the ones before says nothing of these."""
        self.video, self.audio = began.video, began.audio
        self._begin()

    def _begin(self) -> None:
        self._bins: deque[_Bin] = deque(maxlen=WINDOW_S + 1)
        self._keys: deque[float] = deque(maxlen=KEY_INTERVALS + 1)
        self._last_s: float | None = None
        self._newest_s = 0.0
        self._earliest: float | None = None

    def frame(self, frame: Frame) -> None:
        now = self._clock()
        at_s = frame.tag.timestamp_ms / 1000
        self._newest_s = max(self._newest_s, at_s)
        if not self._bins or now - self._bins[-1].at >= 1:
            self._bins.append(_Bin(now, self._newest_s, self._encoded()))
        current = self._bins[-1]
        current.bytes += len(frame.tag.data)
        if self.video is not None and frame.sample.kind == "audio":
            return
        current.frames += 1
        lateness = now - at_s
        # The earliest there was is the measure; it creeps up with the minutes, for an encoder's clock is not ours.
        self._earliest = lateness if self._earliest is None else min(self._earliest + 1e-5, lateness)
        if lateness - self._earliest > LATE_S:
            current.late += 1
            self.late_frames += 1
        if frame.sample.kind == "video":
            self._picture(frame, at_s, current)

    def _picture(self, frame: Frame, at_s: float, current: _Bin) -> None:
        if frame.sample.key:
            self._keys.append(at_s)
        if self._last_s is not None and self.video is not None and self.video.frame_rate:
            frames = (at_s - self._last_s) * self.video.frame_rate
            if MISSING_FROM < frames < JUMP_S * self.video.frame_rate:
                current.missing += round(frames) - 1
                self.missing_frames += round(frames) - 1
        self._last_s = at_s

    def measured(self) -> Measured:
        now = self._clock()
        bins = [second for second in self._bins if now - second.at <= WINDOW_S]
        frames, missing = sum(second.frames for second in bins), sum(second.missing for second in bins)
        # One's first second says little: an encoder begins with what it had in hand.
        passed_s = now - bins[0].at if bins else 0.0
        rated = passed_s >= 1
        encoded = self._encoded()
        encoded_from = next(((second.at, second.encoded_s) for second in bins if second.encoded_s), None)
        steps = [later - earlier for earlier, later in zip(self._keys, list(self._keys)[1:], strict=False)]
        since_key_s = self._newest_s - self._keys[-1] if self._keys else 0.0
        interval_s = max(median(steps), since_key_s) if steps else (since_key_s if since_key_s > KEYS_APART_S else None)
        return Measured(
            bitrate=round(8 * sum(second.bytes for second in bins) / passed_s) if rated else 0,
            frame_rate=round(frames / passed_s, 1) if rated and self.video is not None else 0.0,
            key_frame_interval_s=round(interval_s, 2) if interval_s is not None else None,
            speed=round((self._newest_s - bins[0].media_s) / passed_s, 2) if passed_s >= 3 else None,
            encoded_speed=round((encoded - encoded_from[1]) / (now - encoded_from[0]), 2)
            if encoded and encoded_from and encoded_from[1] and now - encoded_from[0] >= 3
            else None,
            late_share=sum(second.late for second in bins) / frames if frames else 0.0,
            missing_share=missing / (frames + missing) if frames else 0.0,
            late_frames=self.late_frames,
            missing_frames=self.missing_frames,
        )


def advice(it: StreamHealth, measured: Measured) -> tuple[Advice, ...]:
    """What to change, the gravest first; empty when all is well."""
    if it.state != "live":
        return (Advice(code="no_media", text=NO_MEDIA),)
    found = [*_connection(it, measured), *_encoder(it, measured), *_server(it)]
    return tuple(Advice(code=code, text=text) for code, text in found)


def _connection(it: StreamHealth, measured: Measured) -> Iterator[tuple[str, str]]:
    if it.speed is not None and it.speed < SLOW:
        text = f"Only {it.speed:.0%} of real time arrives, and viewers stall: lower the bitrate, or use a wire rather than Wi-Fi."
        yield "slower_than_real_time", text
    elif measured.late_share > LATE_SHARE:
        text = f"{measured.late_share:.0%} of the frames come more than {LATE_S:g} s late: the connection stutters; lower the bitrate."
        yield "frames_late", text
    if it.speed is not None and it.speed > FAST:
        text = f"Media arrives {it.speed:.1f} times faster than it is shown: send it in real time (FFmpeg: -re before the input)."
        yield "faster_than_real_time", text
    if it.bitrate > BITRATE_ALONE and not it.renditions:
        most = BITRATE_ALONE // 1_000_000
        text = f"{it.bitrate / 1e6:.1f} Mb/s, and no smaller rendition: many viewers' lines are too slow; stay below {most} Mb/s."
        yield "bitrate_high", text


def _encoder(it: StreamHealth, measured: Measured) -> Iterator[tuple[str, str]]:
    key_s = it.key_frame_interval_s
    if key_s is not None and key_s > KEYS_APART_S:
        text = f"Key frames every {key_s:.0f} s, so viewers join slowly: set {KEYS_WISHED_S} s in OBS under Output → Keyframe Interval."
        yield "key_frames_far_apart", text
    if measured.missing_share > LOST_SHARE:
        share = f"{measured.missing_share:.0%}"
        text = f"{share} of the frames are missing, for the encoder cannot keep up: use a faster preset, a smaller picture or fewer frames."
        yield "frames_missing", text
    for codec in filter(None, (it.video_codec, it.audio_codec)):
        if not codec.startswith(PLAYED_EVERYWHERE):
            rest = "those that do not get the H.264 renditions" if it.renditions else "those that do not see nothing"
            yield "codec_not_everywhere", f"Not every browser plays {codec}; {rest}."
    if it.video_codec is None:
        yield "no_video", "There is sound but no picture."
    if it.audio_codec is None:
        yield "no_audio", "There is a picture but no sound: check the encoder's audio tracks."


def _server(it: StreamHealth) -> Iterator[tuple[str, str]]:
    if it.renditions_shed:
        text = f"This server was too slow for {', '.join(it.renditions_shed)}: given up until the stream begins anew."
        yield "renditions_shed", text
    if it.renditions_no_room:
        yield (
            "renditions_no_room",
            f"This server has no room for {', '.join(it.renditions_no_room)}; viewers get the others.",
        )
    if it.transcoder_lag_s is not None and it.transcoder_lag_s > LAG_S:
        yield (
            "transcoder_behind",
            f"The renditions are {it.transcoder_lag_s:.0f} s behind the source: this server is busy.",
        )
    if it.archive_lost:
        yield (
            "archive_fails",
            f"The recording lacks {it.archive_lost} pieces that could not be kept: tell whoever runs this server.",
        )
    elif it.archive_waiting_bytes > WAITING_BYTES:
        text = f"{it.archive_waiting_bytes >> 20} MiB of the recording wait to be kept: tell whoever runs this server."
        yield "archive_slow", text
