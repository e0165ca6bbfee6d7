"""Where segments begin: what the source decides, and how a rung keeps to it whatever its own frames look like."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from media.hls.cuts import HOLE_S_MIN, JOIN_WAIT_S_MAX, SEGMENT_S_MAX, Cut, Cuts, Follower, Leader


def led(keys_s: list[float], *, until_s: float, frame_s: float = 0.1) -> Cuts:
    cuts = Cuts()
    leader = Leader(cuts)
    for n in range(round(until_s / frame_s)):
        time_s = round(n * frame_s, 6)
        leader.at(time_s, key=any(abs(time_s - key) < frame_s / 2 for key in keys_s), tolerance_s=frame_s / 2)
    return cuts


def starts(cuts: Cuts) -> list[float]:
    return [cut.start_s for cut, _ in cuts.between(0, 1000)] + ([cuts.last.start_s] if cuts.last else [])


def test_the_source_cuts_at_the_first_key_frame_from_the_target_on_or_a_little_before() -> None:
    assert starts(led([0, 1, 2, 3, 4, 5], until_s=6)) == [0, 2, 4]
    assert starts(led([0, 1.7, 3.5, 5.2], until_s=6)) == [0, 1.7, 3.5, 5.2]
    assert starts(led([0, 1.5, 3.0, 4.5, 6.0], until_s=6.5)) == [0, 3.0, 6.0]


def test_without_a_key_frame_the_source_is_cut_after_the_longest_group_of_pictures_we_wait_for() -> None:
    first, second = starts(led([0], until_s=12))
    assert first == 0
    assert SEGMENT_S_MAX <= second < SEGMENT_S_MAX + 0.2


def test_a_source_that_comes_back_soon_goes_on_and_after_a_hole_begins_a_new_timeline() -> None:
    for hole_s, discontinuity in ((HOLE_S_MIN - 0.1, False), (HOLE_S_MIN + 0.1, True), (-1.0, True)):
        cuts = led([0, 2], until_s=3.05)
        again, back_s = Leader(cuts), cuts.decided_until_s + hole_s
        assert again.at(back_s, key=False, tolerance_s=0.05) is None
        cut = again.at(back_s, key=True, tolerance_s=0.05)
        assert cut is not None
        assert cut.number == 2
        assert cut.discontinuity is discontinuity


def test_a_rung_joins_at_a_cut_and_not_in_the_middle_of_a_segment() -> None:
    cuts = led([0, 2, 4], until_s=5)
    follower = Follower(cuts)
    assert follower.at(2.5, key=True, tolerance_s=0.05) is None
    assert follower.at(4.0, key=False, tolerance_s=0.05) is None
    assert follower.at(4.0, key=True, tolerance_s=0.05) == Cut(2, 4.0, discontinuity=False)
    assert follower.at(4.1, key=True, tolerance_s=0.05) is None


def test_a_rung_whose_key_frames_never_meet_a_cut_joins_all_the_same() -> None:
    cuts = led([n * 2.0 for n in range(6)], until_s=11)
    follower = Follower(cuts)
    joined = [time_s for n in range(9) if follower.at(time_s := 1.0 + n, key=n % 2 == 0, tolerance_s=0.0)]
    assert joined[0] > 1.0 + JOIN_WAIT_S_MAX


def test_a_rung_that_begins_again_never_reopens_a_segment_it_had() -> None:
    cuts = led([0, 2, 4], until_s=5)
    follower = Follower(cuts, after=2)
    assert follower.at(4.0, key=True, tolerance_s=0.05) is None
    cuts.add(6.0, discontinuity=False)
    assert follower.at(6.0, key=True, tolerance_s=0.05) == Cut(3, 6.0, discontinuity=False)


def test_a_rung_that_begins_again_goes_on_in_the_segment_that_is_open_from_where_it_had_come_to() -> None:
    cuts = led([0, 2, 4], until_s=5)
    follower = Follower(cuts, after=2, open_until_s=4.5)
    assert follower.at(4.0, key=True, tolerance_s=0.05) is None
    assert follower.at(4.5, key=False, tolerance_s=0.05) is None
    assert follower.at(4.6, key=True, tolerance_s=0.05) == Cut(2, 4.0, discontinuity=False)
    assert follower.at(4.7, key=True, tolerance_s=0.05) is None


def test_a_rung_that_begins_again_joins_in_the_middle_of_a_segment_it_missed_the_beginning_of() -> None:
    cuts = led([0, 2, 4], until_s=5)
    follower = Follower(cuts, after=1)
    assert follower.at(5.0, key=True, tolerance_s=0.05) == Cut(2, 4.0, discontinuity=False)


def test_on_a_clock_rungs_that_begin_again_cut_where_they_do_so_that_the_segment_is_no_longer_than_others() -> None:
    cuts = led([0, 2, 4], until_s=5)
    cuts.apart(2.0, 2.4)
    first, second = (Follower(cuts, after=2, open_until_s=5.5) for _ in range(2))
    for rung in (first, second):
        assert rung.at(5.5, key=True, tolerance_s=0.05) == Cut(3, 5.5, discontinuity=False)
        assert rung.at(5.8, key=True, tolerance_s=0.05) is None
    for rung in (first, second):
        assert rung.at(7.5, key=True, tolerance_s=0.05) == Cut(4, 7.5, discontinuity=False)


@given(
    keys=st.lists(st.floats(0, 30).map(lambda at: round(at, 1)), min_size=1, max_size=40),
    offset_s=st.floats(-0.04, 0.04),
    lost=st.sets(st.integers(0, 299)),
)
@settings(max_examples=100, deadline=None)
def test_a_rung_that_began_has_the_sources_cuts_whatever_frames_it_lost(
    keys: list[float], offset_s: float, lost: set[int]
) -> None:
    cuts = led(keys, until_s=30)
    follower = Follower(cuts)
    found: list[tuple[float, Cut]] = []
    for n in range(300):
        time_s = max(0.0, round(n * 0.1, 6) + offset_s)
        if n not in lost and (cut := follower.at(time_s, key=True, tolerance_s=0.05)):
            found.append((time_s, cut))
    assert all(a.number < b.number for (_, a), (_, b) in pairwise(found))
    assert all(cut.start_s - 0.05 <= time_s for time_s, cut in found)
    if not lost:
        assert [cut.start_s for _, cut in found] == starts(cuts)
