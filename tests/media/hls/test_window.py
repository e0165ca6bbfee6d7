"""The window: what the playlist lists, what can still be fetched after it left, and that neither grows for ever."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.hls import window as of_window
from media.hls.window import PARTS_LISTED_TD, SEGMENTS_LISTED_MIN, WINDOW_S, Entry, Part, Window

AT = datetime(2026, 1, 2, tzinfo=UTC)
TD = 2


def window() -> Window:
    return Window(on_change=lambda: None)


def entry(number: int, *, discontinuity: bool = False) -> Entry:
    return Entry(number, 2.0 * number, AT, 0, discontinuity=discontinuity)


def fill(window: Window, numbers: range, *, duration_s: float = 2.0, size: int = 8, parts: int = 4) -> None:
    for number in numbers:
        window.begin(entry(number))
        for index in range(parts):
            data = bytes([number % 256, index]) * (size // 2)
            window.add(Part(window.next_sequence, duration_s / parts, index == 0, data))
        window.finish(TD)


def numbers(window: Window) -> list[int]:
    return [entry.number for entry in window.listed]


def test_a_finished_segment_is_its_parts_and_their_bytes_are_held_once() -> None:
    made = window()
    fill(made, range(1))
    segment = made.segment(0)
    assert segment is not None
    assert segment.data == b"".join(part.data for part in segment.parts)
    for part in segment.parts:
        found = made.part(part.sequence)
        assert found is part
        assert isinstance(part.data, memoryview)
        assert part.data.obj is segment.data


def test_what_comes_next_is_known_before_it_is_there() -> None:
    made = window()
    assert (made.next, made.next_sequence, made.last_number) == ((0, 0), 0, -1)
    made.begin(entry(0))
    assert made.next == (0, 0)
    made.add(Part(0, 0.25, True, b"x"))
    assert (made.next, made.next_sequence, made.finished) == ((0, 1), 1, 0)
    assert made.segment(0) is None
    made.finish(TD)
    assert (made.next, made.next_sequence, made.finished) == ((1, 0), 1, 1)
    assert made.finish(TD) is None


def test_what_left_the_playlist_can_be_fetched_for_as_long_again_and_then_no_more() -> None:
    made = window()
    fill(made, range(40))
    listed = numbers(made)
    assert listed == list(range(40 - int(WINDOW_S / 2), 40))
    unlisted = [number for number in range(40) if number not in listed and made.segment(number)]
    assert unlisted == list(range(listed[0] - int(WINDOW_S / 2), listed[0]))
    assert [sequence for sequence in range(160) if made.part(sequence)] == list(range(4 * unlisted[0], 160))


def test_long_segments_are_listed_for_three_target_durations() -> None:
    made = window()
    for number in range(20):
        made.begin(entry(number))
        made.add(Part(number, 10.0, True, b"x"))
        made.finish(10)
    assert sum(entry.duration_s for entry in made.listed) >= 3 * 10
    assert len(numbers(made)) == SEGMENTS_LISTED_MIN


def test_beyond_its_bytes_the_window_shrinks_but_not_below_what_players_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_window, "BYTES_MAX", 40_000)
    made = window()
    fill(made, range(30), size=2_000)  # 8,000 a segment
    assert numbers(made) == [25, 26, 27, 28, 29]
    assert made.segment(24) is None
    fill(made, range(30, 40), size=20_000)
    assert numbers(made) == [37, 38, 39]


def test_a_discontinuity_is_counted_when_its_segment_leaves_the_playlist() -> None:
    made = window()
    fill(made, range(2))
    made.begin(entry(2, discontinuity=True))
    made.add(Part(made.next_sequence, 2.0, True, b"x"))
    made.finish(TD)
    fill(made, range(3, 10))
    assert (2 in numbers(made), made.discontinuity_sequence) == (True, 0)
    fill(made, range(10, 11))
    assert (2 in numbers(made), made.discontinuity_sequence) == (False, 1)
    fill(made, range(11, 60))
    assert made.discontinuity_sequence == 1


def test_a_gap_is_listed_and_cannot_be_fetched() -> None:
    made = window()
    fill(made, range(2))
    missed = entry(2)
    missed.duration_s = 2.0
    made.gap(missed)
    fill(made, range(3, 4))
    assert numbers(made) == [0, 1, 2, 3]
    assert made.segment(2) is None
    assert made.finished == 4


def test_numbers_that_jump_begin_the_window_anew() -> None:
    made = window()
    fill(made, range(3))
    fill(made, range(500, 502))
    assert numbers(made) == [500, 501]
    assert made.segment(2) is None
    assert made.part(0) is None
    assert made.next_sequence == 20


def test_every_change_is_told_and_versioned() -> None:
    versions: list[int] = []
    made = Window(on_change=lambda: versions.append(made.version))
    fill(made, range(2), parts=3)
    made.end()
    assert versions == list(range(1, 10))
    assert made.ended


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["segment", "segment", "segment", "gap", "jump"]), st.floats(0.1, 2.4), st.booleans()
        ),
        max_size=80,
    )
)
@settings(max_examples=200, deadline=None)
def test_whatever_comes_the_window_is_gapless_bounded_and_long_enough(events: list[tuple[str, float, bool]]) -> None:
    made, number, begun, removed_before = window(), 0, 0.0, 0
    for kind, duration_s, discontinuity in events:
        if kind == "jump":
            number, begun = number + 7, 0.0
        next_entry = entry(number, discontinuity=discontinuity)
        if kind == "gap":
            next_entry.duration_s = duration_s
            made.gap(next_entry)
        else:
            made.begin(next_entry)
            made.add(Part(made.next_sequence, duration_s, True, b"x"))
            made.finish(TD)
        number, begun = number + 1, begun + duration_s
        listed = list(made.listed)
        assert [it.number for it in listed] == list(range(listed[0].number, number))
        assert sum(it.duration_s for it in listed) >= min(begun, PARTS_LISTED_TD * TD) - 1e-6
        assert made.discontinuity_sequence >= removed_before
        removed_before = made.discontinuity_sequence
        if kind == "segment":
            longest_s = 2.4
            assert sum(it.duration_s for it in listed) < WINDOW_S + SEGMENTS_LISTED_MIN * longest_s
            assert sum(it.duration_s for it in made._entries) < 2 * (WINDOW_S + SEGMENTS_LISTED_MIN * longest_s)
