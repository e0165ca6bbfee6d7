"""What broadcasts cost, and that a node takes what it has room for: all rungs, fewer, none, and then no broadcast more."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.ladder import rungs_for
from media.pipeline import Broadcasts
from media.port import Grant
from media.room import INGEST, RUNGS_SHARE_MAX, Room, cost
from media.sample import NoRoom, TagSink, VideoTrack
from tests.media.tags import tags
from tests.media.test_pipeline import Stand, push, until
from tests.media.test_pipeline import stand as stand

CORES_PER_MEGAPIXEL = 0.0045
MEASURED = {
    (640, 360, 30): {"240p": 0.026, "160p": 0.013},
    (1280, 720, 30): {"480p": 0.097, "360p": 0.066},
    (1920, 1080, 30): {"720p30": 0.189, "480p": 0.142, "360p": 0.112},
    (1920, 1080, 60): {"720p60": 0.368, "720p30": 0.165, "480p": 0.105, "360p": 0.062},
}
"""Cores, as docs/benchmarks.md has them."""


def source(width: int, height: int, rate: float = 30.0) -> VideoTrack:
    return VideoTrack("avc1.64001f", b"", width, height, rate)


@pytest.mark.parametrize(("shape", "cores"), MEASURED.items())
def test_what_is_reckoned_for_a_rung_is_what_was_measured_or_a_little_more(
    shape: tuple[int, int, int], cores: dict[str, float]
) -> None:
    video = source(*shape)
    reckoned = {rung.name: CORES_PER_MEGAPIXEL * cost(video, rung) for rung in rungs_for(video, top_height=1080)}
    assert reckoned.keys() == cores.keys()
    assert all(0.7 * cores[name] <= reckoned[name] <= cores[name] + 0.06 for name in cores), reckoned


@given(
    st.floats(0, 2000),
    st.lists(st.tuples(st.integers(64, 4000), st.integers(64, 4000), st.floats(0, 120)), max_size=12),
)
def test_no_more_is_given_away_than_there_is_and_all_of_it_comes_back(
    capacity: float, shapes: list[tuple[int, int, float]]
) -> None:
    room, held, entered = Room(capacity), [], 0
    for shape in shapes:
        if not room.enter():
            assert room.taken + INGEST > capacity
            break
        entered += 1
        video = source(*shape)
        wanted = rungs_for(video, top_height=1080)
        admitted = room.admit(video, wanted)
        assert set(admitted.rungs) <= set(wanted)
        assert room.taken <= capacity
        if len(admitted.rungs) < len(wanted):
            left_out = [cost(video, rung) for rung in wanted if rung not in admitted.rungs]
            assert all(cost(video, rung) <= min(left_out) for rung in admitted.rungs), "the dearest goes first"
        held.append(admitted)
    for admitted in held:
        for rung in admitted.rungs[:1]:
            admitted.shed(rung)
        admitted.release()
        admitted.release()
    for _ in range(entered):
        room.leave()
    assert room.taken == pytest.approx(0, abs=1e-6)


async def on_air(broadcasts: Broadcasts, channel: str) -> TagSink:
    sink = await broadcasts.open(Grant(channel_id=channel, channel=channel), encoder="", peer="")
    push(sink, tags())
    return sink


async def test_a_node_that_fills_up_offers_no_rungs_and_then_refuses(stand: Stand) -> None:
    video = source(640, 360)
    endless, rungs = Room(math.inf), rungs_for(video, top_height=480)
    for whole in (rungs, rungs, rungs[-1:]):
        endless.admit(video, whole)
    room = Room(1.01 * endless.rungs / RUNGS_SHARE_MAX)
    async with stand.node(most=50, room=room) as (broadcasts, _):
        sinks: dict[str, TagSink] = {}
        offered = []
        while len(sinks) < 20:
            channel = f"c{len(sinks)}"
            try:
                sinks[channel] = await on_air(broadcasts, channel)
            except NoRoom:
                break
            offered.append({it.channel: len(it.renditions) for it in broadcasts.health()}[channel])
        assert offered[:2] == [2, 2]
        assert offered[-1] == 0, "the last have their source alone"
        assert offered == sorted(offered, reverse=True)
        assert len(sinks) < 20
        told = next(it for it in broadcasts.health() if it.channel == f"c{len(sinks) - 1}")
        assert told.renditions_no_room == ("240p", "160p")
        assert "renditions_no_room" in {it.code for it in told.advice}
        # Its room is its own while its encoder is away, and another's once it has ended.
        await sinks["c0"].close("disconnected")
        with pytest.raises(NoRoom):
            await on_air(broadcasts, "late")
        again = await on_air(broadcasts, "c0")
        await until(lambda: next(it for it in broadcasts.health() if it.channel == "c0").renditions == ("240p", "160p"))
        await again.close("unpublished")
        late = await on_air(broadcasts, "late")
        await late.close("unpublished")
        for channel in list(sinks)[1:]:
            await sinks[channel].close("unpublished")
    assert room.taken == pytest.approx(0, abs=1e-6)


def test_where_there_is_not_room_for_all_rungs_there_are_fewer() -> None:
    video = source(1920, 1080)
    wanted = rungs_for(video, top_height=1080)
    endless = Room(math.inf)
    endless.admit(video, wanted)
    room = Room(0.99 * endless.rungs / RUNGS_SHARE_MAX)
    assert [rung.name for rung in room.admit(video, wanted).rungs] == ["480p", "360p"]
