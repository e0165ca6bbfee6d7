"""Stream health as Prometheus reads it: one line a broadcast and figure, gone when the broadcast is. Registered by the media role."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from media.health import StreamHealth

LABELS: Final = ("channel", "broadcast_id")
GAUGES: Final = {
    "bitrate": "bit/s that arrive from the encoder",
    "frame_rate": "Frames a second that arrive",
    "key_frame_interval_s": "Seconds between key frames",
    "speed": "Seconds of media that arrive a second",
    "transcoder_lag_s": "Seconds the renditions are behind the source",
    "transcoder_speed": "Seconds of media encoded a second",
    "archive_waiting_bytes": "Bytes of the recording that wait to be kept",
}
COUNTERS: Final = {
    "late_frames": "Frames that came late",
    "missing_frames": "Frames the encoder left out",
    "interruptions": "Times the encoder went away",
    "archive_lost": "Objects of the recording that were given up",
}


class StreamMetrics(Collector):
    """Read when Prometheus asks: figures of broadcasts that are over need no clearing away."""

    def __init__(self, health: Callable[[], Sequence[StreamHealth]]) -> None:
        self._health = health

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        found = self._health()
        for name, text in GAUGES.items():
            family = GaugeMetricFamily(f"tallylight_stream_{name}", text, labels=LABELS)
            for one in found:
                if (value := getattr(one, name)) is not None:
                    family.add_metric((one.channel, one.broadcast_id), value)
            yield family
        for name, text in COUNTERS.items():
            counter = CounterMetricFamily(f"tallylight_stream_{name}", text, labels=LABELS)
            for one in found:
                counter.add_metric((one.channel, one.broadcast_id), getattr(one, name))
            yield counter
