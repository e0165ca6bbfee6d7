"""Segments of another length than usual, through everything that makes some: the source, its rungs, a clock, the slate, the archive."""

from pathlib import Path

import pytest

from media import ffmpeg, manifest, pipeline
from media.archive import Archive
from media.hls.live import LiveRendition
from media.slate import Slates
from tests.media.tags import tags
from tests.media.test_pipeline import ANN, live_on, until
from tests.media.test_reconnects import OnTime
from tests.media.test_transcoder import pace


def whole(live: LiveRendition, *, slate: bool = False) -> list[float]:
    """Durations of the segments before the last, which ends when the media does."""
    found = [entry.duration_s for entry in live.window.rewindable if entry.finished and entry.slate is slate]
    return [round(it, 1) for it in found[:-1]]


@pytest.mark.parametrize(("segment_s", "gop"), [(1.0, 30), (1.0, 250), (3.0, 30)])
async def test_everything_that_makes_segments_makes_them_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segment_s: float, gop: int
) -> None:
    monkeypatch.setattr(pipeline, "SLATES_AFTER_S", 0.0)
    stand = OnTime(tmp_path)
    slates = Slates(ffmpeg.binary(), loop_s=segment_s)
    async with stand.node(silent_s=0.4, slates=slates, segment_s=segment_s) as (broadcasts, registry):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        await pace(sink, tags(seconds=12, gop=gop))
        live = live_on(registry)
        await until(lambda: len(live.renditions) == 4)
        await sink.close("disconnected")
        rung = live.rendition("240p")
        assert rung is not None
        await until(lambda: len(whole(rung, slate=True)) >= 1)
        await broadcasts.close()
        for it in live.renditions:
            source_apart = it.name == "source" and gop == 250
            assert it.target_duration == (10 if source_apart else segment_s)
            assert f"TARGETDURATION:{it.target_duration}\n" in it.playlist()
            if not source_apart:
                # Where the source has a key frame, its rungs have one too, and the clock begins anew with it.
                assert sum(length == segment_s for length in whole(it)) >= len(whole(it)) - 2, it.name
                assert it.independent
            assert set(whole(it, slate=True)) == {segment_s}
    recording = await manifest.read(Archive.open(str(tmp_path)).store, stand.facts[0].broadcast_id)
    assert recording is not None
    assert round(recording.segments[0].duration_s, 1) == segment_s
