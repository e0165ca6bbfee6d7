"""Chromium as a viewer: joins a broadcast that shows the clock of `bench.clock`, and tells how old what it shows is, and what went wrong.

Used by the benchmarks that measure up to the screen.
"""

import asyncio
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from playwright.async_api import Browser, Page, Route, async_playwright

from bench.clock import READ_JS
from bench.common import percentile, say

SETTLE_S: Final = 6.0
SAMPLE_S: Final = 0.2
START_S_MAX: Final = 60.0
FROZEN_S: Final = 0.5
"""A clock that stands still for so long is a stall, whatever the player says of it."""
WEB: Final = Path(__file__).parent.parent / "gateways" / "web"

_LOOK: Final = f"""() => {{
  const video = document.querySelector('video');
  if (!video || !video.videoWidth) return null;
  const shown = ({READ_JS})(video);
  return shown === null ? null : [shown, Date.now() - shown];
}}"""
_QUALITY: Final = """() => {
  const found = document.querySelector('video').getVideoPlaybackQuality();
  return { dropped: found.droppedVideoFrames, frames: found.totalVideoFrames, waits: window.waits ?? 0 };
}"""
_COUNT_WAITS: Final = """addEventListener('waiting', () => { window.waits = (window.waits ?? 0) + 1; }, true);"""
_HLS_PAGE: Final = """<!doctype html><video muted autoplay playsinline width=640></video><script type="module">
import Hls from './hls.mjs';
const hls = new Hls({options});
hls.loadSource('{playlist}');
hls.attachMedia(document.querySelector('video'));
</script>"""


@dataclass
class Watched:
    """Latencies in seconds, a list a join; and over all of them what a viewer would have complained about."""

    joins: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0
    unread: int = 0
    frames: int = 0
    dropped: int = 0
    waits: int = 0
    freezes: int = 0
    frozen_s: float = 0.0

    def told(self) -> dict[str, Any]:
        samples = [sample for join in self.joins for sample in join]
        return {
            "median_s": round(statistics.median(samples), 3),
            "p95_s": round(percentile(samples, 0.95), 3),
            "min_s": round(min(samples), 3),
            "max_s": round(max(samples), 3),
            "median_s_by_join": [round(statistics.median(join), 3) for join in self.joins],
            "samples": len(samples),
            "unread": self.unread,
            "seconds": round(self.seconds, 1),
            "frames": self.frames,
            "dropped_frames": self.dropped,
            "waits": self.waits,
            "freezes": self.freezes,
            "frozen_s": round(self.frozen_s, 1),
        }


@dataclass(frozen=True, slots=True)
class Side:
    """Where to watch, where its playlist is, and pages that are not the server's own, by address."""

    url: str
    playlist: str
    pages: Mapping[str, bytes] = field(default_factory=dict)


def hls_page(origin: str, playlist: str, options: str = "{}") -> Side:
    """A page with hls.js and nothing else, on the server's own origin."""
    page = _HLS_PAGE.replace("{playlist}", playlist).replace("{options}", options)
    pages = {
        f"{origin}/bench/watch.html": page.encode(),
        f"{origin}/bench/hls.mjs": (WEB / "vendor" / "hls.mjs").read_bytes(),
    }
    return Side(f"{origin}/bench/watch.html", f"{origin}{playlist}", pages)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=executable, args=["--autoplay-policy=no-user-gesture-required"]
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def joined(browser: Browser, side: Side) -> AsyncIterator[Page]:
    """A page that shows the clock."""
    context = await browser.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 760})
    try:
        page = await context.new_page()
        await page.add_init_script(_COUNT_WAITS)
        if side.pages:

            async def given(route: Route) -> None:
                path = urlsplit(route.request.url).path
                kind = "text/html" if path.endswith(".html") else "text/javascript"
                await route.fulfill(body=side.pages[route.request.url], content_type=kind)

            await page.route(lambda url: url in side.pages, given)
        await page.goto(side.url)
        async with asyncio.timeout(START_S_MAX):
            while await page.evaluate(_LOOK) is None:  # noqa: ASYNC110 - the page tells nobody
                await asyncio.sleep(0.1)
        yield page
    finally:
        await context.close()


async def join(browser: Browser, side: Side, watched: Watched, seconds: float) -> None:
    """One viewer more: what it sees from `SETTLE_S` after its join, for so long."""
    async with joined(browser, side) as page:
        await asyncio.sleep(SETTLE_S)
        before = await page.evaluate(_QUALITY)
        latencies: list[float] = []
        began = time.monotonic()
        last, moved, frozen = None, began, False
        while (now := time.monotonic()) < began + seconds:
            found = await page.evaluate(_LOOK)
            if found is None:
                watched.unread += 1
            else:
                shown, age_ms = found
                latencies.append(age_ms / 1000)
                if shown != last:
                    watched.frozen_s += now - moved if frozen else 0.0
                    last, moved, frozen = shown, now, False
                elif not frozen and now - moved > FROZEN_S:
                    frozen = True
                    watched.freezes += 1
            await asyncio.sleep(SAMPLE_S)
        watched.frozen_s += time.monotonic() - moved if frozen else 0.0
        after = await page.evaluate(_QUALITY)
    watched.seconds += time.monotonic() - began
    watched.frames += after["frames"] - before["frames"]
    watched.dropped += after["dropped"] - before["dropped"]
    watched.waits += after["waits"] - before["waits"]
    watched.joins.append(latencies)
    say(f"  join {len(watched.joins)}: median {statistics.median(latencies):.2f} s, {len(latencies)} samples")


async def joins(
    browser: Browser, sides: Mapping[str, Side], *, count: int, seconds: float, segment_s: float
) -> dict[str, Watched]:
    """Viewers, one after the other, of each side in turn, each round a share of a segment later than the one before."""
    found = {name: Watched() for name in sides}
    started = time.monotonic()
    for number in range(count):
        for name, side in sides.items():
            phase = number * segment_s / count
            await asyncio.sleep((phase - (time.monotonic() - started)) % segment_s)
            await join(browser, side, found[name], seconds)
    return found


async def answers(url: str) -> None:
    """Until the address is there."""
    async with httpx.AsyncClient(verify=False) as client, asyncio.timeout(START_S_MAX):
        while True:
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.2)
