"""Which rungs a source gets."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.ladder import LADDER, LadderInvalid, frame_rate, read_ladder, rungs_for, size
from media.sample import VideoTrack


def source(width: int, height: int, rate: float = 30.0) -> VideoTrack:
    return VideoTrack("avc1.64001f", b"", width, height, rate)


def names(video: VideoTrack | None, top: int = 1080) -> list[str]:
    return [rung.name for rung in rungs_for(video, top_height=top)]


def test_each_source_gets_what_is_below_it_in_size_and_frame_rate() -> None:
    assert names(source(2560, 1440, 60)) == ["1080p60", "720p60", "720p30", "480p", "360p"]
    assert names(source(1920, 1080, 60)) == ["720p60", "720p30", "480p", "360p"]
    assert names(source(1920, 1080, 30)) == ["720p30", "480p", "360p"]
    assert names(source(1280, 720, 30)) == ["480p", "360p"]
    assert names(source(1080, 1920, 30)) == ["720p30", "480p", "360p"], "portrait"
    assert names(source(640, 480, 25)) == ["360p", "240p"], "4:3, and one of the small ones"
    assert names(source(640, 360, 30)) == ["240p", "160p"]
    assert names(source(320, 240, 30)) == ["160p"]
    assert names(source(160, 120)) == []
    assert names(None) == []
    assert names(source(1920, 1080), top=480) == ["480p", "360p"]


@given(st.integers(100, 4000), st.integers(100, 4000), st.floats(1, 120) | st.just(0.0))
def test_no_rung_is_above_its_source_and_each_is_even_and_in_proportion(width: int, height: int, rate: float) -> None:
    video = source(width, height, rate)
    for rung in rungs_for(video, top_height=4320):
        wide, high = size(video, rung)
        assert wide % 2 == high % 2 == 0
        assert wide < width
        assert high < height
        assert abs(wide / high - width / height) <= 0.02 * width / height + 2 / high
        assert frame_rate(video, rung) <= rate


def test_sixty_frames_a_second_are_halved_where_the_rung_has_thirty() -> None:
    video = source(1920, 1080, 60)
    assert [frame_rate(video, rung) for rung in rungs_for(video, top_height=1080)] == [60, 30, 30, 30]


def test_an_operators_own_table_is_read_and_a_bad_one_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "ladder.json"
    path.write_text(json.dumps([rung.model_dump() for rung in LADDER[2:4]]))
    assert read_ladder(path) == LADDER[2:4]
    for bad in ("", "{}", '[{"name": "x"}]', json.dumps([LADDER[0].model_dump()] * 2)):
        path.write_text(bad)
        with pytest.raises(LadderInvalid, match=r"ladder\.json"):
            read_ladder(path)
    with pytest.raises(LadderInvalid):
        read_ladder(tmp_path / "none.json")
