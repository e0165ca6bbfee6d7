"""The watch page's player in a real browser, by HTTP/2 in TLS through Caddy and Varnish, while an edge goes away and comes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.async_api import Browser, Page, Response

from media.playback import TOKEN_S
from tests.gateways.edge.conftest import SIGNER, fronted, places, requests_of, two_edges, varnish
from tests.gateways.web.conftest import browser, until
from tests.gateways.web.stand import World, serving
from tests.gateways.web.test_watch import channel
from tests.media.stage import Stage
from tests.media.tags import tags
from tests.media.test_pipeline import ANN, Stand

__all__ = ["browser"]

SECONDS = 60
WATCHED_S = 5.0


@asynccontextmanager
async def on_air(stage: Stage, folder: Path) -> AsyncIterator[None]:
    """A real broadcast at the pace of time, into the registry of the stage's origin."""
    stand = Stand(folder)
    async with stand.node(registry=stage.registry, top_height=0) as (broadcasts, _):
        sink = await broadcasts.open(ANN, encoder="", peer="")

        async def send() -> None:
            loop = asyncio.get_running_loop()
            began = loop.time()
            for tag in await asyncio.to_thread(tags, seconds=SECONDS, size="320x180"):
                await asyncio.sleep(max(0.0, began + tag.timestamp_ms / 1000 - loop.time()))
                sink.tag(tag)

        sending = asyncio.create_task(send())
        try:
            yield
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def test_a_player_plays_on_and_does_not_begin_anew_when_its_edge_is_restarted(
    nodes: dict[str, Stage], browser: Browser, tmp_path: Path
) -> None:
    for stage in nodes.values():
        stage.gate.closed = frozenset({"c1"})  # a subscriber's player, so that all of the way is gone
    token = SIGNER.issue("c1", "a1", until_s=2e10)
    world = World()
    world.answers |= {
        "GET /api/v1/channels/ann": channel(name="ann", is_live=True, subscribers_only_playback=True),
        "GET /api/v1/channels/ann/broadcasts": {"items": [], "next": None},
        "POST /api/v1/channels/ann/playback-token": {"token": token, "prefix": f"/play/{token}", "expires_in": TOKEN_S},
    }
    answers: list[tuple[str, int]] = []

    def heard(response: Response) -> None:
        answers.append((urlsplit(response.url).path, response.status))

    with two_edges(nodes) as edges:
        async with (
            serving(world),
            on_air(nodes["media-2"], tmp_path / "node"),
            fronted(edges, tmp_path, api=urlsplit(world.url).netloc) as url,
        ):
            context = await browser.new_context(base_url=url, ignore_https_errors=True)
            page = await context.new_page()
            page.on("response", heard)
            await page.goto("/ann")
            await until(page, "document.querySelector('video').currentTime > 2")
            await page.evaluate(
                "window.stalls = 0; document.querySelector('video').addEventListener('waiting', () => { stalls += 1; })"
            )
            its, other = sorted(edges, key=requests_of, reverse=True)
            before = requests_of(other)
            answers.clear()
            its.process.terminate()
            await asyncio.to_thread(its.process.wait, 10)
            assert await advanced_s(page) > WATCHED_S - 1.5
            assert requests_of(other) > before + 5
            with varnish(places(nodes), port=int(its.url.rpartition(":")[2])):
                assert await advanced_s(page) > WATCHED_S - 1.5
            loaded = "performance.getEntriesByType('resource').filter((it) => it.name.includes('/live/'))"
            protocols = await page.evaluate(f"{loaded}.map((it) => it.nextHopProtocol).filter(Boolean)")
            stalls = await page.evaluate("stalls")
            await context.close()
    assert set(protocols) == {"h2"}
    assert stalls <= 1, "it plays 0.75 s behind: a moment without an edge may show once, and never more"
    media = [(path, status) for path, status in answers if "/live/" in path]
    assert len(media) > 40
    assert {status for _, status in media} == {200}
    assert not [path for path, _ in media if path.endswith("/live/ann/index.m3u8")], "it began anew"


async def advanced_s(page: Page) -> float:
    """How far the picture has come while it was watched."""
    now = "document.querySelector('video').currentTime"
    began: float = await page.evaluate(now)
    await asyncio.sleep(WATCHED_S)
    ended: float = await page.evaluate(now)
    return ended - began
