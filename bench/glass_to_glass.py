"""Seconds from the lens to the screen: ours against Debian's nginx-rtmp module with hls.js as it comes, on one machine in one run.

A clock is drawn into the picture, pushed by RTMP, and read back off what Chromium shows; how old it is, is the latency. Players stay where
their join lands, so joins are spread over a segment. Ours is watched on its own watch page over the front's HTTP/2; the peer, with segments
of 2 s like ours, by hls.js with its default settings. Samples begin `SETTLE_S` after a join.
"""

import argparse
import asyncio
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from playwright.async_api import Browser, Page, async_playwright

from bench.clock import READ_JS, ClockSource
from bench.common import machine, percentile, report, say
from bench.stack import Stack, free_ports

SEGMENT_S: Final = 2.0
SETTLE_S: Final = 6.0
SAMPLE_S: Final = 0.2
START_S_MAX: Final = 40.0
VENDOR: Final = Path(__file__).parent.parent / "gateways" / "web" / "vendor"

_LOOK: Final = f"""() => {{
  const video = document.querySelector('video');
  if (!video || !video.videoWidth) return null;
  const shown = ({READ_JS})(video);
  return shown === null ? null : Date.now() - shown;
}}"""
_QUALITY: Final = """() => {
  const found = document.querySelector('video').getVideoPlaybackQuality();
  return { dropped: found.droppedVideoFrames, frames: found.totalVideoFrames, waits: window.waits ?? 0 };
}"""
_COUNT_WAITS: Final = """addEventListener('waiting', () => { window.waits = (window.waits ?? 0) + 1; }, true);"""

_NGINX: Final = """
load_module {modules}/ngx_rtmp_module.so;
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log warn; {user}
events {{}}
rtmp {{ server {{ listen 127.0.0.1:{rtmp};
  application live {{ live on; hls on; hls_path {folder}/hls; hls_fragment 2s; }} }} }}
http {{
  access_log off; types {{ text/html html; text/javascript mjs; application/vnd.apple.mpegurl m3u8; video/mp2t ts; }}
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{http}; root {folder}; }}
}}
"""
_PEER_PAGE: Final = """<!doctype html><video muted autoplay playsinline width=640></video><script type="module">
import Hls from '/hls.mjs';
const hls = new Hls();
hls.loadSource('/hls/clock.m3u8');
hls.attachMedia(document.querySelector('video'));
</script>"""


@dataclass
class Watched:
    """Latencies in seconds, a list a join."""

    joins: list[list[float]] = field(default_factory=list)
    unread: int = 0
    dropped: int = 0
    waits: int = 0

    @property
    def all(self) -> list[float]:
        return [sample for join in self.joins for sample in join]

    def told(self) -> dict[str, Any]:
        samples = self.all
        return {
            "median_s": round(statistics.median(samples), 3),
            "p95_s": round(percentile(samples, 0.95), 3),
            "min_s": round(min(samples), 3),
            "max_s": round(max(samples), 3),
            "median_s_by_join": [round(statistics.median(join), 3) for join in self.joins],
            "samples": len(samples),
            "unread": self.unread,
            "dropped_frames": self.dropped,
            "waits": self.waits,
        }


async def watch(browser: Browser, url: str, joins: int, seconds: float) -> Watched:
    """Join so often, each a share of a segment later than the one before."""
    watched = Watched()
    started = time.monotonic()
    for join in range(joins):
        phase = join * SEGMENT_S / joins
        await asyncio.sleep((phase - (time.monotonic() - started)) % SEGMENT_S)
        context = await browser.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 760})
        page = await context.new_page()
        await page.add_init_script(_COUNT_WAITS)
        await page.goto(url)
        await plays(page)
        await asyncio.sleep(SETTLE_S)
        before = await page.evaluate(_QUALITY)
        latencies: list[float] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            age_ms = await page.evaluate(_LOOK)
            if age_ms is None:
                watched.unread += 1
            else:
                latencies.append(age_ms / 1000)
            await asyncio.sleep(SAMPLE_S)
        after = await page.evaluate(_QUALITY)
        watched.dropped += after["dropped"] - before["dropped"]
        watched.waits += after["waits"] - before["waits"]
        watched.joins.append(latencies)
        say(f"  join {join + 1}: median {statistics.median(latencies):.2f} s, {len(latencies)} samples")
        await context.close()
    return watched


async def plays(page: Page) -> None:
    async with asyncio.timeout(START_S_MAX):
        while await page.evaluate(_LOOK) is None:  # noqa: ASYNC110 - the page tells nobody
            await asyncio.sleep(0.1)


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


@asynccontextmanager
async def ours(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """Where to watch, and the master playlist."""
    stack = Stack(folder)
    await asyncio.to_thread(stack.start)
    try:
        channel = await asyncio.to_thread(stack.open_channel, "clock", title="Clock")
        async with ClockSource(channel.publish_url):
            yield f"{stack.secure_url}/clock", f"{stack.url}/live/clock/index.m3u8"
    finally:
        await asyncio.to_thread(stack.stop)


@asynccontextmanager
async def peer(folder: Path) -> AsyncIterator[tuple[str, str]]:
    rtmp, http = free_ports(2)
    (folder / "hls").mkdir(parents=True)
    (folder / "hls.mjs").write_bytes((VENDOR / "hls.mjs").read_bytes())
    (folder / "index.html").write_text(_PEER_PAGE)
    modules = Path("/usr/lib/nginx/modules")
    user = "user root;" if Path("/proc/self").owner() == "root" else ""
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, rtmp=rtmp, http=http, modules=modules, user=user))
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin") or "nginx"
    process = subprocess.Popen([nginx, "-p", str(folder), "-c", str(config)])  # noqa: ASYNC220 - it returns at once
    try:
        async with ClockSource(f"rtmp://127.0.0.1:{rtmp}/live/clock"):
            yield f"http://127.0.0.1:{http}/index.html", f"http://127.0.0.1:{http}/hls/clock.m3u8"
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


async def run(joins: int, seconds: float) -> None:
    on = machine()
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    found: dict[str, Watched] = {}
    sides: dict[str, Callable[[Path], Any]] = {"ours": ours, "peer": peer}
    with tempfile.TemporaryDirectory(prefix="tallylight-bench-", dir="/var/tmp") as folder:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=executable, args=["--autoplay-policy=no-user-gesture-required"]
            )
            for name, side in sides.items():
                say(f"{name}:")
                async with side(Path(folder) / name) as (page, playlist):
                    await answers(playlist)
                    await asyncio.sleep(
                        3 * SEGMENT_S
                    )  # what a viewer finds is a broadcast that has been on for a while
                    found[name] = await watch(browser, page, joins, seconds)
            await browser.close()
    mine, theirs = found["ours"].told(), found["peer"].told()
    report(
        "glass_to_glass",
        figure=mine["median_s"],
        unit="s",
        peer="nginx-rtmp, HLS segments of 2 s, hls.js with default settings",
        peer_figure=theirs["median_s"],
        ratio=theirs["median_s"] / mine["median_s"],
        detail={
            "p95_s": mine["p95_s"],
            "ours": mine,
            "peer": theirs,
            "joins": joins,
            "limits": "encoder, transcoder, server and browser share this machine's cores",
        },
        on=on,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--joins", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10.0)
    asyncio.run(run(**vars(parser.parse_args())))
