"""Players of the web that we did not write, in a real Chromium: Shaka Player and hls.js; live, rewound, over what goes wrong, recorded."""

from pathlib import Path

import pytest
from playwright.async_api import Browser

from media import ffmpeg, pipeline
from media.slate import Slates
from tests.gateways.web.conftest import browser
from tests.media.hls.browser import on_air, watching
from tests.media.tags import tags

__all__ = ["browser"]

SECONDS = 60
LATENCY_S_MAX = 4.0
"""A busy machine's; without low latency it would be three segments, 6 s, and more."""
BRIGHT, DARK = 80, 45
"""FFmpeg's test picture, and the slate."""


@pytest.mark.parametrize("kind", ["shaka", "hls"])
async def test_it_is_played_live_part_by_part_rewound_and_then_recorded(
    browser: Browser, tmp_path: Path, kind: str
) -> None:
    async with on_air(tmp_path) as air:
        await air.encode(tags(seconds=SECONDS))
        await air.ready("source", "240p", "160p")
        live = air.live
        async with watching(browser, air.url, kind, "/live/ann/index.m3u8") as watched:
            await watched.until(lambda now: now["frames"] > 30)
            report = await watched.plays_on(4)
            assert 0 < report["latency"] < LATENCY_S_MAX, report
            assert {360, 240, 160} <= set(report["levels"])
            assert sum("/part-" in path for path in air.asked) > 10, "it plays parts"
        async with watching(browser, air.url, kind, "/live/ann/dvr.m3u8") as watched:
            report = await watched.until(lambda now: now["frames"] > 0 and now["seekable"][1] > 8)
            first_s = report["seekable"][0]
            await watched.page.evaluate(f"seek({first_s + 0.5})")
            await watched.until(lambda now: now["time"] < first_s + 3 and now["frames"] > report["frames"])
            report = await watched.plays_on(2)
            assert report["time"] < first_s + 5, "what was at the beginning"
        await air.end()
        async with watching(browser, air.url, kind, f"/vod/{live.broadcast_id}/index.m3u8") as watched:
            report = await watched.until(lambda now: now["frames"] > 5)
            spans = [entry.duration_s for entry in live.renditions[0].window.rewindable]
            assert report["duration"] == pytest.approx(sum(spans), abs=0.5)
            await watched.page.evaluate(f"seek({report['duration'] - 3})")
            await watched.until(lambda now: now["ended"])


# Shaka Player 5.2 at low latency hands the part it was hinted at to the decoder of what went before, and that fails.
@pytest.mark.parametrize(
    ("kind", "latency_s_max"), [("hls", LATENCY_S_MAX + 2), pytest.param("plain", 12.0, marks=pytest.mark.full)]
)
async def test_it_goes_on_over_a_slate_and_the_encoders_return_without_being_loaded_again(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, latency_s_max: float
) -> None:
    monkeypatch.setattr(pipeline, "SLATES_AFTER_S", 0.0)
    async with on_air(tmp_path, slates=Slates(ffmpeg.binary())) as air:
        await air.encode(tags(seconds=SECONDS))
        await air.ready("source", "240p", "160p")
        async with watching(browser, air.url, kind, "/live/ann/index.m3u8") as watched:
            await watched.until(lambda now: now["frames"] > 30 and now["brightness"][-1] > BRIGHT)
            await air.stop()
            await watched.until(lambda now: now["brightness"][-1] < DARK)
            await watched.plays_on(2)
            await air.encode(tags(seconds=SECONDS))
            await watched.until(lambda now: now["brightness"][-1] > BRIGHT)
            report = await watched.plays_on(3)
            assert report["emptied"] == 0, "the element keeps what it plays"
            assert report["latency"] < latency_s_max, report


@pytest.mark.parametrize("kind", [pytest.param("shaka", marks=pytest.mark.full), "hls"])
async def test_a_source_whose_segments_are_its_own_is_played_beside_its_rungs(
    browser: Browser, tmp_path: Path, kind: str
) -> None:
    async with on_air(tmp_path) as air:
        await air.encode(tags(seconds=SECONDS, gop=150))
        await air.ready("source", "240p", "160p")
        assert air.live.is_apart("source")
        async with watching(browser, air.url, kind, "/live/ann/index.m3u8") as watched:
            for height in (240, 360, 160):
                await watched.page.evaluate(f"on.choose({height})")
                await watched.until(lambda now: now["height"] == height)  # noqa: B023
                await watched.plays_on(3)
