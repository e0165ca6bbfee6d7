"""Presence records: distinct viewers survive merging, windows, and whatever bytes arrive."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.presence import WINDOW_S, Malformed, Presence, Seen, Viewers, decode, encode

NOW = 1_800_000_000.0


def _people(first: int, last: int) -> list[str]:
    return [f"viewer-{number}" for number in range(first, last)]


def test_a_viewer_of_two_pods_counts_once() -> None:
    one, other = Presence("pod-1"), Presence("pod-2")
    one.seen("c1", _people(0, 60), NOW)
    other.seen("c1", _people(40, 100), NOW + 3)
    values = [value for pod in (one, other) for _, value in pod.due(NOW + WINDOW_S)]
    merged = Viewers(decode(value).sketch for value in values)
    assert merged.count == 100
    assert Viewers([merged.sketch()]).count == 100


def test_many_viewers_are_counted_within_a_few_percent() -> None:
    pod = Presence("pod")
    pod.seen("c1", _people(0, 50_000), NOW)
    ((_, value),) = pod.due(NOW + WINDOW_S)
    assert Viewers([decode(value).sketch]).count == pytest.approx(50_000, rel=0.05)


def test_one_record_a_channel_and_window_is_due_and_only_when_the_window_is_over() -> None:
    pod = Presence("pod")
    for second in range(WINDOW_S):
        for channel in ("c1", "c2"):
            pod.seen(channel, ["ann", f"bob-{second}"], NOW + second)
        assert list(pod.due(NOW + second)) == []
    due = dict(pod.due(NOW + WINDOW_S))
    assert due.keys() == {b"c1", b"c2"}
    assert decode(due[b"c1"]).window_s == int(NOW)
    assert Viewers([decode(due[b"c1"]).sketch]).count == 11
    assert list(pod.due(NOW + 2 * WINDOW_S)) == []


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 40), st.integers(0, 255))
def test_arbitrary_and_damaged_bytes_are_malformed_or_a_record_and_nothing_else(
    noise: bytes, at: int, byte: int
) -> None:
    pod = Presence("p")
    pod.seen("c", ["a", "b"], NOW)
    ((_, good),) = pod.due(NOW + WINDOW_S)
    damaged = good[:at] + bytes([byte]) + good[at + 1 :]
    for data in (noise, good[:at], damaged):
        try:
            assert isinstance(decode(data), Seen)
        except Malformed:
            continue
    assert decode(encode(decode(good))) == decode(good)
