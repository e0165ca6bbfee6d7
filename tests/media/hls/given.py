"""Samples for the packager's tests: patterns with known bytes, and real ones; and a sink that notes what a segmenter made."""

import functools
from dataclasses import dataclass, field

from media.fmp4.reader import Fmp4Reader, Tracks
from media.fmp4.writer import init_segment
from media.hls.cuts import Cut
from media.sample import AudioTrack, Rendition, Sample, VideoTrack
from tests.media.encoded import fragmented_mp4

AVC_CONFIG = b"\x01\x64\x00\x1f\xff"
AAC_CONFIG = b"\x11\x90"
VIDEO = VideoTrack("avc1.64001f", AVC_CONFIG, 640, 360, 30.0)
AUDIO = AudioTrack("mp4a.40.2", AAC_CONFIG, 48_000, 2)


def rendition(name: str = "source", *, video: VideoTrack | None = VIDEO, audio: AudioTrack | None = AUDIO) -> Rendition:
    return Rendition(name, 1_000_000, video, audio)


def frames(
    count: int, *, frame: int = 3000, gop: int = 60, start: int = 0, known: bool = True, cts: int = 0
) -> list[Sample]:
    """Video at a constant rate, a key frame every `gop`, each with bytes of its own."""
    return [
        Sample("video", start + n * frame, cts, frame if known else 0, n % gop == 0, b"v%d" % (start + n * frame))
        for n in range(count)
    ]


def sound(count: int, *, start: int = 0, frame: int = 1024) -> list[Sample]:
    return [Sample("audio", start + n * frame, 0, frame, True, b"a%d" % (start + n * frame)) for n in range(count)]


def interleaved(*tracks: list[Sample]) -> list[Sample]:
    """As a muxer orders them: by decode time."""
    return sorted(
        (sample for track in tracks for sample in track),
        key=lambda s: (s.dts / (90_000 if s.kind == "video" else 48_000), s.kind),
    )


@functools.cache
def real(
    *, seconds: int = 10, gop: int = 60, video: bool = True, audio: bool = True, b_frames: int = 0
) -> tuple[Rendition, tuple[Sample, ...]]:
    """What the pipeline reads from FFmpeg's pipe."""
    mp4 = fragmented_mp4(seconds=seconds, gop=gop, video=video, audio=audio, b_frames=b_frames)
    tracks, *samples = Fmp4Reader().receive(mp4)
    assert isinstance(tracks, Tracks)
    found = Rendition("source", 1_000_000, tracks.video, tracks.audio)
    return found, tuple(sample for sample in samples if isinstance(sample, Sample))


@dataclass
class MadePart:
    data: bytes
    duration_s: float
    independent: bool
    frames: int


@dataclass
class MadeSegment:
    cut: Cut
    start_s: float
    parts: list[MadePart] = field(default_factory=list)
    finished: bool = False

    @property
    def duration_s(self) -> float:
        return sum(part.duration_s for part in self.parts)


class Noted:
    """A `Parts` that keeps all it was given."""

    def __init__(self, of: Rendition) -> None:
        self.of = of
        self.segments: list[MadeSegment] = []

    def begin(self, cut: Cut, start_s: float, *, key: bool) -> None:
        assert not self.segments or self.segments[-1].finished
        self.segments.append(MadeSegment(cut, start_s))

    def part(self, data: bytes, duration_s: float, *, independent: bool, frames: int) -> None:
        assert not self.segments[-1].finished
        self.segments[-1].parts.append(MadePart(data, duration_s, independent, frames))

    def finish(self) -> None:
        self.segments[-1].finished = True

    def next_sequence(self) -> int:
        return len(self.parts)

    @property
    def parts(self) -> list[MadePart]:
        return [part for segment in self.segments for part in segment.parts]

    def samples(self, part: MadePart) -> list[Sample]:
        """What a player finds in a part."""
        _, *samples = Fmp4Reader().receive(init_segment(self.of.video, self.of.audio) + part.data)
        return [sample for sample in samples if isinstance(sample, Sample)]
