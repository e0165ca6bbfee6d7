"""Fragments moved in time: the same samples, earlier; and nothing of what another wrote is touched."""

import pytest

from media.fmp4.box import Fmp4Error, box
from media.fmp4.reader import Fmp4Reader
from media.fmp4.shift import earlier, timescales
from media.fmp4.writer import Run, init_segment, media_fragment
from media.sample import Sample
from tests.media.hls.given import AUDIO, VIDEO


def fragment(at_s: float) -> bytes:
    runs = []
    for is_video, scale in ((True, 90_000), (False, 48_000)):
        run = Run(is_video=is_video, dts=round(at_s * scale))
        run.append(1024, 0, True, b"sample")
        runs.append(run)
    return media_fragment(1, runs)


def test_every_track_is_earlier_by_the_same_time_and_nothing_else_is_another() -> None:
    init = init_segment(VIDEO, AUDIO)
    moved = earlier(fragment(20.0) + fragment(21.0), 18.5, timescales(init))
    assert moved == fragment(1.5) + fragment(2.5)
    _, *samples = Fmp4Reader().receive(init + moved)
    assert [it.dts for it in samples if isinstance(it, Sample)] == [135_000, 72_000, 225_000, 120_000]


@pytest.mark.parametrize(
    "data", [b"\0\0\0", box(b"moof", box(b"traf", box(b"tfhd", bytes(8)), box(b"tfdt", bytes(8))))]
)
def test_what_is_no_fragment_of_ours_is_refused(data: bytes) -> None:
    with pytest.raises(Fmp4Error):
        earlier(data, 1.0, {1: 90_000})
