"""Which rungs a source gets."""

import json
from dataclasses import replace
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
    assert names(source(1280, 720, 60)) == ["720p30", "480p", "360p"], "of its size with half the frames"
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
        assert wide < width or (wide == width and frame_rate(video, rung) < rate)
        assert high < height or (high == height and frame_rate(video, rung) < rate)
        assert abs(wide / high - width / height) <= 0.02 * width / height + 2 / high
        assert frame_rate(video, rung) <= rate


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (30, {30.0: 30}),
        (50, {60.0: 50, 30.0: 25}),
        (60, {60.0: 60, 30.0: 30}),
        (72, {60.0: 36, 30.0: 24}),
        (75, {60.0: 37.5, 30.0: 25}),
        (90, {60.0: 45, 30.0: 30}),
        (120, {60.0: 60, 30.0: 30}),
        (144, {60.0: 48, 30.0: 28.8}),
    ],
)
def test_no_rung_has_more_frames_than_its_line_says_and_each_an_even_share_of_the_sources(
    rate: float, expected: dict[float, float]
) -> None:
    video = source(2560, 1440, rate)
    found = {rung.frame_rate_max: frame_rate(video, rung) for rung in rungs_for(video, top_height=1080)}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("codec", ["hvc1.1.6.L93.B0", "av01.0.08M.08"])
def test_a_source_that_not_everybody_can_play_has_a_rung_of_its_own_size(codec: str) -> None:
    def of(width: int, height: int, rate: float = 30.0, top: int = 1080) -> list[tuple[str, tuple[int, int]]]:
        video = replace(source(width, height, rate), codec=codec)
        return [(rung.name, size(video, rung)) for rung in rungs_for(video, top_height=top)]

    assert of(1920, 1080, 60)[:2] == [("1080p60", (1920, 1080)), ("720p60", (1280, 720))]
    assert of(1920, 1080)[:2] == [("1080p30", (1920, 1080)), ("720p30", (1280, 720))]
    assert of(1600, 900, 60)[0] == ("900p60", (1600, 900))
    assert of(1280, 720)[0] == ("720p30", (1280, 720))
    assert of(720, 1280)[0] == ("720p30", (720, 1280))
    assert of(854, 481)[0] == ("480p", (852, 480))
    assert of(1920, 1080, top=720)[0] == ("720p30", (1280, 720)), "the operator's limit holds"
    assert [name for name, _ in of(426, 240)] == ["240p", "160p"]


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
