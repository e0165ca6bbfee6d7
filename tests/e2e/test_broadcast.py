"""From an encoder to viewers' screens and into the books, and nothing lost when what carries the facts is killed on the way."""

import asyncio
import signal
import subprocess
from contextlib import AsyncExitStack
from typing import Any

import httpx
from playwright.async_api import Browser, Page, expect

from bench.stack import Channel, Stack
from tests.e2e.conftest import WAIT_S_MAX, encoder, eventually, kill, person
from tests.gateways.web.conftest import until

SAID = 8

# What stands on the screen, as a number that differs when a pixel does.
PICTURE = """() => {
  const video = document.querySelector('video'), canvas = document.createElement('canvas');
  canvas.width = 64; canvas.height = 36;
  const brush = canvas.getContext('2d');
  brush.drawImage(video, 0, 0, 64, 36);
  return brush.getImageData(0, 0, 64, 36).data.reduce((sum, value, at) => (sum * 31 + value * (at + 1)) % 1000000007, 7);
}"""


async def plays(page: Page) -> None:
    """The clock of the player goes on, and what it shows changes."""
    await until(page, "document.querySelector('video')?.currentTime > 0")
    before = await page.evaluate("document.querySelector('video').currentTime")
    pictures = {await page.evaluate(PICTURE)}
    await until(page, f"document.querySelector('video').currentTime > {before} + 1")
    pictures.add(await page.evaluate(PICTURE))
    assert len(pictures) == 2


async def say(page: Page, text: str) -> None:
    await page.locator("#chat-text").fill(text)
    await page.keyboard.press("Enter")


async def history(api: httpx.AsyncClient, channel: str) -> list[dict[str, Any]]:
    answer = await api.get(f"/api/v1/channels/{channel}/chat", params={"after": 0, "limit": 100})
    answer.raise_for_status()
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def test_the_whole_path_loses_nothing(stack: Stack, api: httpx.AsyncClient, browser: Browser) -> None:
    ann = await asyncio.to_thread(stack.open_channel, "ann", title="First light", category="Music")
    owner = {"Authorization": f"Bearer {ann.access_token}"}
    async with AsyncExitStack() as ending:
        bob = await ending.enter_async_context(person(browser, stack, "bob"))
        cat = await ending.enter_async_context(person(browser, stack, "cat"))
        encoding = await ending.enter_async_context(encoder(ann.publish_url))
        await is_listed(api)
        for page in (bob, cat):
            await page.goto("/ann")
            await plays(page)
        await talk(bob, cat)
        await subscribe(bob, api)
        await ban(cat, api, owner)
        await both_are_counted(api)
        await everything_said_outlives(stack, api, bob)
        encoding.send_signal(signal.SIGINT)
        await expect(bob.locator("#off-air")).to_be_visible()
        broadcast = await recorded(api)
        await replays(bob, broadcast)
    assert [item["text"] for item in await history(api, "ann")] == ["hello cat", *lines()]
    await the_books_balance(stack)
    log = await asyncio.to_thread(stack.run, "events", "show", f"broadcast-{broadcast['id']}")
    assert "BroadcastStarted" in log.stdout
    assert "RecordingPublished" in log.stdout


async def is_listed(api: httpx.AsyncClient) -> None:
    async def live() -> Any:
        return (await api.get("/api/v1/channels/live")).json()["items"]

    (item,) = await eventually(live, bool)
    assert (item["channel"], item["title"], item["category"]) == ("ann", "First light", "Music")
    assert item["playback_url"] == "/live/ann/index.m3u8"


async def talk(bob: Page, cat: Page) -> None:
    await say(bob, "hello cat")
    await expect(cat.locator("#chat-lines .text")).to_have_text(["hello cat"])
    await say(cat, "hello bob")
    for page in (bob, cat):
        await expect(page.locator("#chat-lines .text")).to_have_text(["hello cat", "hello bob"])


async def both_are_counted(api: httpx.AsyncClient) -> None:
    """Each watches and chats, and counts once."""

    async def viewers() -> Any:
        return [item["viewers"] for item in (await api.get("/api/v1/channels/live")).json()["items"]]

    await eventually(viewers, lambda counts: counts == [2])


async def subscribe(page: Page, api: httpx.AsyncClient) -> None:
    await page.get_by_role("button", name="Subscribe", exact=True).click()
    await page.locator("#tiers").get_by_role("button", name="Subscribe", exact=True).click()
    await expect(page.locator("#subscribe")).to_have_text("Subscribed")

    async def channel() -> Any:
        return (await api.get("/api/v1/channels/ann")).json()

    await eventually(channel, lambda found: found["subscriber_count"] == 1)


async def ban(page: Page, api: httpx.AsyncClient, owner: dict[str, str]) -> None:
    answer = await api.post("/api/v1/channels/ann/bans", json={"username": "cat", "reason": "noise"}, headers=owner)
    assert answer.is_success, answer.text
    await say(page, "you will not see this")
    await expect(page.locator("#chat-refused")).to_have_text("You are banned from this chat.")


def lines() -> list[str]:
    return [f"line {n}" for n in range(SAID)]


async def everything_said_outlives(stack: Stack, api: httpx.AsyncClient, page: Page) -> None:
    """The projector and the relay die while somebody talks and everybody watches."""
    for n, line in enumerate(lines()):
        await asyncio.sleep(1.05)  # the room admits one message a second
        await say(page, line)
        if n in (2, 5):
            await kill(stack, "projector", "relay")
        await expect(page.locator("#chat-lines .text").last).to_have_text(line)
    # Who subscribed is seen to have: from the first word after.
    await expect(page.locator("#chat-lines .line:has(.badge-subscriber) .text")).to_have_text(lines())
    # What the banned one said is hidden, and nothing else.
    await expect(page.locator("#chat-lines .text")).to_have_text(["hello cat", *lines()])
    await plays(page)
    await eventually(lambda: history(api, "ann"), lambda items: len(items) >= SAID + 1)


async def recorded(api: httpx.AsyncClient) -> dict[str, Any]:
    async def broadcasts() -> Any:
        return (await api.get("/api/v1/channels/ann/broadcasts")).json()["items"]

    (broadcast,) = await eventually(broadcasts, lambda items: items and items[0]["vod_url"])
    assert broadcast["ended_at"] is not None
    assert (await api.get(broadcast["vod_url"])).status_code == 200
    assert (await api.get("/api/v1/channels/live")).json()["items"] == []
    found: dict[str, Any] = broadcast
    return found


async def replays(page: Page, broadcast: dict[str, Any]) -> None:
    """To its end, with what was said at the time it was said."""
    await page.goto(f"/videos/{broadcast['id']}")
    await plays(page)
    length_s = await page.evaluate("document.querySelector('video').duration")
    assert abs(length_s - broadcast["duration_s"]) < 1.0
    await page.evaluate("document.querySelector('video').currentTime = document.querySelector('video').duration - 2")
    await until(page, "document.querySelector('video').ended")
    await expect(page.locator("#chat-lines .text").last).to_have_text(lines()[-1])


async def the_books_balance(stack: Stack) -> None:
    verified: subprocess.CompletedProcess[str] = await asyncio.to_thread(stack.run, "ledger", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert ", 0 differences" in verified.stdout
    assert not verified.stdout.startswith("0 postings")
    balance = await asyncio.to_thread(stack.run, "ledger", "trial-balance", "--as-of", "2100-01-01")
    assert balance.returncode == 0, balance.stdout + balance.stderr


async def test_a_wrong_key_and_a_key_that_is_on_air_are_told_so(stack: Stack, api: httpx.AsyncClient) -> None:
    channel: Channel = await asyncio.to_thread(stack.open_channel, "dora")
    async with encoder(f"rtmp://127.0.0.1:{stack.rtmp_port}/live/live_nobody") as stranger:
        assert await asyncio.wait_for(stranger.wait(), WAIT_S_MAX) != 0
    async with encoder(channel.publish_url) as first:
        await eventually(lambda: api.get("/live/dora/index.m3u8"), lambda answer: answer.status_code == 200)
        async with encoder(channel.publish_url) as second:
            assert await asyncio.wait_for(second.wait(), WAIT_S_MAX) != 0
        assert first.returncode is None
