"""A page in a real Chromium that plays what the origin serves, by Shaka Player or hls.js, and tells how that goes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page
from starlette.applications import Starlette
from starlette.responses import FileResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from gateways.web import pages
from media.archive import Archive
from media.hls.live import LiveBroadcast, LiveRegistry
from media.origin import Origin
from media.pipeline import Broadcasts
from media.sample import Tag, TagSink
from media.slate import Slates
from media.vod import Vod
from tests.media.stage import served
from tests.media.test_pipeline import ANN, Stand, live_on, until
from tests.media.test_transcoder import pace

WAIT_S_MAX = 40.0
LOOK_S = 0.1
FILES = {
    "player.html": Path(__file__).with_name("player.html"),
    "shaka-player.js": Path(__file__).parents[2] / "vendor" / "shaka-player.js",
    "hls.mjs": Path(pages.__file__).parent / "vendor" / "hls.mjs",
}


class RealTime(Stand):
    """A stand whose clock is everybody's: players compare it with theirs."""

    def __getattribute__(self, name: str) -> object:
        return datetime.now(UTC) if name == "now" else super().__getattribute__(name)


def _page_routes() -> list[BaseRoute]:
    return [
        Route(f"/player/{name}", lambda _, path=path: FileResponse(path), methods=["GET"])
        for name, path in FILES.items()
    ]


@dataclass
class OnAir:
    """A broadcast whose encoder sends in real time."""

    url: str
    broadcasts: Broadcasts
    registry: LiveRegistry
    asked: list[str] = field(default_factory=list)
    sink: TagSink | None = None
    _pacing: asyncio.Task[None] | None = None

    @property
    def live(self) -> LiveBroadcast:
        return live_on(self.registry)

    async def encode(self, sent: tuple[Tag, ...]) -> None:
        """From now on, until `stop` or `end`, or there is no more."""
        self.sink = await self.broadcasts.open(ANN, encoder="", peer="")
        self._pacing = asyncio.create_task(pace(self.sink, sent, speed=1.0))
        await until(lambda: self.registry.on_channel("ann"))

    async def ready(self, *names: str) -> None:
        await until(lambda: {it.name for it in self.live.renditions if it.is_ready} >= set(names))

    async def stop(self) -> None:
        """The encoder's connection breaks."""
        await self._leave("disconnected")

    async def end(self) -> None:
        await self._leave("unpublished")

    async def _leave(self, reason: Any) -> None:
        pacing, sink = self._pacing, self.sink
        self._pacing = self.sink = None
        if pacing is not None:
            pacing.cancel()
            with suppress(asyncio.CancelledError):
                await pacing
        if sink is not None:
            await sink.close(reason)


@asynccontextmanager
async def on_air(folder: Path, *, slates: Slates | None = None) -> AsyncIterator[OnAir]:
    stand = RealTime(folder)
    archive = Archive.open(str(folder))
    vod = Vod(archive)
    async with stand.node(silent_s=0.5, slates=slates) as (broadcasts, registry):
        origin = Origin(registry, past=vod.object)
        app = Starlette(routes=[*origin.routes(), *vod.routes(), *_page_routes()])
        asked: list[str] = []

        async def noting(scope: Scope, receive: Receive, send: Send) -> None:
            asked.append(scope["path"] + ("?" + scope["query_string"].decode() if scope["query_string"] else ""))
            await app(scope, receive, send)

        async with served(noting) as url:
            one = OnAir(url, broadcasts, registry, asked)
            try:
                yield one
            finally:
                await one.end()
                origin.close()


@dataclass
class Watched:
    page: Page

    async def report(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.page.evaluate("report()")
        assert not found["errors"], found
        return found

    async def until(self, true: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The first report of which this holds; no error may come before it."""
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(WAIT_S_MAX):
                while not true(found := await self.report()):  # noqa: ASYNC110 - it is a page that we wait for
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise AssertionError(found) from None
        return found

    async def plays_on(self, seconds: float) -> dict[str, Any]:
        """From where it is, at the pace of the picture."""
        before = await self.report()
        return await self.until(
            lambda now: now["time"] >= before["time"] + seconds and now["frames"] > before["frames"] + 10 * seconds
        )


@asynccontextmanager
async def watching(browser: Browser, base: str, kind: str, path: str) -> AsyncIterator[Watched]:
    context = await browser.new_context()
    page = await context.new_page()
    try:
        await page.goto(f"{base}/player/player.html")
        await page.wait_for_function("window.ready")
        await page.evaluate("([kind, url]) => begin(kind, url)", [kind, base + path])
        await page.wait_for_function("window.on || seen.errors.length")
        assert not (errors := await page.evaluate("seen.errors")), errors
        yield Watched(page)
    finally:
        await context.close()
