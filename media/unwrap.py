"""Timestamps of 32 bits, as RTMP and FLV have them, made ones that go on."""


class Unwrap:
    """Milliseconds that wrap after 49.7 days, as ones that do not. Small steps back stay steps back."""

    def __init__(self) -> None:
        self._last: int | None = None

    def __call__(self, timestamp_ms: int) -> int:
        if self._last is None:
            self._last = timestamp_ms
        else:
            step = (timestamp_ms - self._last) & 0xFFFFFFFF
            self._last += step - (1 << 32) if step >= 1 << 31 else step
        return self._last
