"""A recording with its chat in a real browser: it plays, and the chat keeps in step with the playhead wherever it goes."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from playwright.async_api import Page, expect
from starlette.requests import Request
from starlette.responses import Response

from tests.gateways.web.conftest import Complaints, until
from tests.gateways.web.media import recording
from tests.gateways.web.stand import NOW, World, item, problem

LogIn = Callable[..., Awaitable[None]]
CHAT = [item(n, "ken", f"at {at:g}", offset=at) for n, at in enumerate((0.2, 1.0, 30.0, 59.5, 61.0, 100.0, 140.0), 1)]

VTT = "WEBVTT\n\n00:00:00.000 --> 00:01:00.000\nStars\n\n00:01:00.000 --> 00:02:30.000\nMoon\n"


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    recording(folder / "b-1")
    return folder


@pytest.fixture(autouse=True)
def broadcast(world: World, recorded: Path) -> None:
    def chat(request: Request) -> dict[str, object]:
        first, end = (float(request.query_params[name]) for name in ("from_offset", "to_offset"))
        return {"items": [one for one in CHAT if first <= one["offset"] < end], "next": None}

    world.media = recorded
    world.answers |= {
        "GET /api/v1/broadcasts/b-1": {
            "id": "b-1",
            "channel": "orbit",
            "title": "Night sky",
            "category": "Science",
            "started_at": NOW.isoformat(),
            "total_views": 2,
            "vod_url": "/vod/b-1/index.m3u8",
        },
        "GET /api/v1/broadcasts/b-1/chat": chat,
        "GET /api/v1/broadcasts/b-1/chapters.vtt": Response(VTT, media_type="text/vtt"),
    }


async def seek(page: Page, to: float) -> None:
    await page.evaluate("to => { document.querySelector('video').currentTime = to; }", to)


async def pause(page: Page) -> None:
    await page.evaluate("document.querySelector('video').pause()")


async def test_a_recording_plays_with_its_title_and_its_chat(page: Page, world: World) -> None:
    await page.goto("/videos/b-1")
    await expect(page.get_by_role("heading", name="Night sky")).to_be_visible()
    await until(page, "document.querySelector('video').currentTime > 1.2")
    await expect(page.locator("#curtain")).to_be_hidden()
    await expect(page.locator("#chat-lines .text")).to_have_text(["at 0.2", "at 1"])
    await expect(page.locator("#chat-lines .at")).to_have_text(["0:00", "0:01"])
    assert await page.evaluate("document.querySelector('video').videoHeight") == 108


async def test_the_chat_follows_a_seek_forwards_and_back(page: Page, world: World) -> None:
    await page.goto("/videos/b-1")
    await until(page, "document.querySelector('video').currentTime > 0.3")
    await pause(page)
    lines = page.locator("#chat-lines .text")
    await seek(page, 105)
    await expect(lines).to_have_text(["at 0.2", "at 1", "at 30", "at 59.5", "at 61", "at 100"])
    await seek(page, 40)
    await expect(lines).to_have_text(["at 0.2", "at 1", "at 30"])
    await seek(page, 142)
    await expect(lines).to_have_text(["at 61", "at 100", "at 140"])


async def test_the_chat_runs_on_over_the_border_of_two_requests(page: Page, world: World) -> None:
    await page.goto("/videos/b-1?t=59")
    lines = page.locator("#chat-lines .text")
    await expect(lines).to_have_text(["at 0.2", "at 1", "at 30", "at 59.5", "at 61"])
    chunks = [headers for path, headers in world.headers if path == "/api/v1/broadcasts/b-1/chat"]
    assert len(chunks) <= 3


async def test_a_recording_that_is_gone_is_told(page: Page, world: World, complaints: Complaints) -> None:
    complaints.expected.append("404")
    await page.goto("/videos/b-2")
    await expect(page.locator("#curtain-text")).to_have_text("There is no such recording")


async def test_a_recording_plays_on_after_its_origin_was_away(
    page: Page, world: World, recorded: Path, complaints: Complaints
) -> None:
    complaints.expected.append("404")
    world.media = None
    await page.goto("/videos/b-1")
    await expect(page.locator("#curtain-text")).to_contain_text("Trying again")
    world.media = recorded
    await until(page, "document.querySelector('video').currentTime > 0.5")
    await expect(page.locator("#curtain")).to_be_hidden()


async def test_a_clip_plays_alone(page: Page, world: World, recorded: Path) -> None:
    world.answers["GET /api/v1/clips/c-1"] = {
        "id": "c-1",
        "channel": "orbit",
        "title": "The moment",
        "created_at": NOW.isoformat(),
        "playback_url": "/vod/b-1/index.m3u8",
    }
    await page.goto("/clips/c-1")
    await expect(page.get_by_role("heading", name="The moment")).to_be_visible()
    await until(page, "document.querySelector('video').currentTime > 0.3")


async def test_a_clip_is_taken_to_the_frame_and_played(page: Page, world: World, log_in: LogIn) -> None:
    await log_in()
    world.answers |= {
        "POST /api/v1/broadcasts/b-1/clips": (201, {"id": "k1"}),
        "GET /api/v1/clips/k1": {
            "id": "k1", "broadcast_id": "b-1", "channel": "orbit", "title": "A shooting star", "created_at": NOW.isoformat(),
            "start_s": 1.0, "duration_s": 1.5, "playback_url": "/vod/b-1/index.m3u8", "download_url": "/clips/k1/clip.mp4",
        },
    }  # fmt: skip
    await page.goto("/videos/b-1?t=50")
    await until(page, "document.querySelector('#video').currentTime > 50")
    assert await page.locator("#video track").count() == 1, "its chapters"
    await page.get_by_role("button", name="Clip").click()
    await expect(page.locator("#clip-length")).to_have_text("30.00 s")
    ends = float(await page.locator("#clip-out").input_value())
    assert 64 < ends < 70
    await page.get_by_role("button", name="Ends a frame later").click()
    await page.get_by_role("button", name="Begins a frame earlier").click()
    await expect(page.locator("#clip-length")).to_have_text("30.07 s")
    await page.locator("#clip-in").evaluate("(it) => { it.value = 40; it.dispatchEvent(new Event('input')); }")
    await until(page, "Math.abs(document.querySelector('#clip-video').currentTime - 40) < 0.1")
    await page.get_by_label("Title").fill("A shooting star")
    await page.get_by_role("button", name="Take the clip").click()
    await page.wait_for_url("**/clips/k1")
    (asked,) = world.asked_for("POST", "/api/v1/broadcasts/b-1/clips")
    assert asked == {"start_s": pytest.approx(40), "end_s": pytest.approx(ends + 1 / 30), "title": "A shooting star"}
    await expect(page.get_by_role("heading", name="A shooting star")).to_be_visible()
    await expect(page.get_by_role("link", name="Download")).to_have_attribute("href", "/clips/k1/clip.mp4")
    await expect(page.get_by_role("link", name="Whole broadcast")).to_have_attribute("href", "/videos/b-1?t=1")
    # It stops where it ends and stands at its beginning again.
    await until(page, "document.querySelector('#video').currentTime > 0.5")
    await until(page, "document.querySelector('#video').paused && document.querySelector('#video').currentTime < 0.5")


def for_subscribers(world: World) -> None:
    world.answers["GET /api/v1/broadcasts/b-1"] |= {"subscribers_only": True}


async def test_a_subscriber_plays_on_by_ever_fresh_tokens(page: Page, world: World, log_in: LogIn) -> None:
    await log_in()
    for_subscribers(world)
    issued: list[str] = []

    def token(request: Request) -> dict[str, object]:
        issued.append(f"token-{len(issued)}")
        world.ended |= set(issued[:-2])  # good for as long again as until its renewal
        return {"token": issued[-1], "prefix": f"/play/{issued[-1]}", "expires_in": 2}

    world.answers["POST /api/v1/channels/orbit/playback-token"] = token
    await page.goto("/videos/b-1")
    await until(page, "document.querySelector('video').currentTime > 1.2")
    await pause(page)
    await until(page, "performance.now() > 4500")
    await seek(page, 120)  # what it has not loaded yet, long after its first token
    await page.evaluate("document.querySelector('video').play()")
    await until(page, "document.querySelector('video').currentTime > 120.5")
    assert len(issued) > 2
    assert set(world.tokens) > {"token-0"}, "the playlist's addresses were of the first"


async def test_who_does_not_subscribe_is_told_and_gets_no_picture(
    page: Page, world: World, log_in: LogIn, complaints: Complaints
) -> None:
    complaints.expected.append("403")
    await log_in()
    for_subscribers(world)
    refusal = problem(403, "subscription_required", "Only subscribers of this channel may play it.")
    world.answers["POST /api/v1/channels/orbit/playback-token"] = refusal
    await page.goto("/videos/b-1")
    await expect(page.locator("#curtain-text")).to_have_text("For subscribers only")
    assert world.tokens == []
