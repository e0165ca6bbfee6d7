"""The watch page in a real browser, beside its player and chat: what it says of the channel, and what a viewer may do."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from playwright.async_api import Page, expect

from tests.gateways.web.conftest import PHONE, Complaints
from tests.gateways.web.stand import NOW, World, problem

LogIn = Callable[..., Awaitable[None]]
PAST = [
    {
        "id": "b-2",
        "title": "Part 2",
        "started_at": NOW.isoformat(),
        "ended_at": NOW.isoformat(),
        "duration_s": 3725.0,
        "peak_viewers": 4,
        "total_views": 12,
        "vod_url": "/vod/b-2/index.m3u8",
    },
    {"id": "b-1", "title": "Lost", "started_at": NOW.isoformat(), "ended_at": NOW.isoformat(), "vod_url": None},
]


def channel(**more: object) -> dict[str, object]:
    return {
        "name": "orbit",
        "title": "Night sky",
        "category": "Science",
        "tags": ["english"],
        "follower_count": 3,
        "subscriber_count": 1,
        "is_live": False,
        "current_viewers": 0,
    } | more


@pytest.fixture(autouse=True)
def orbit(world: World) -> None:
    world.answers |= {
        "GET /api/v1/channels/orbit": channel(),
        "GET /api/v1/channels/orbit/broadcasts": {"items": PAST, "next": None},
    }


async def test_an_offline_channel_says_so_and_shows_what_can_be_watched(page: Page, world: World) -> None:
    await page.goto("/orbit")
    await expect(page.get_by_role("heading", name="Night sky")).to_be_visible()
    await expect(page.locator("#curtain-text")).to_have_text("orbit is offline")
    await expect(page.locator("#off-air")).to_be_visible()
    await expect(page.locator("#followers")).to_have_text("3 followers · 1 subscriber")
    await expect(page.locator("#past-list .tile")).to_have_count(1)
    await expect(page.locator("#past-list a")).to_have_attribute("href", "/videos/b-2")
    await expect(page.locator("#past-list .length")).to_have_text("1:02:05")


async def test_a_channel_that_nobody_opened_is_told_from_one_that_is_offline(
    page: Page, world: World, complaints: Complaints
) -> None:
    complaints.expected.append("404")
    del world.answers["GET /api/v1/channels/orbit"]
    await page.goto("/orbit")
    await expect(page.locator("#curtain-text")).to_have_text("There is no such channel")
    await expect(page.get_by_role("button", name="Follow")).to_be_hidden()


async def test_who_is_not_logged_in_is_asked_to_before_following(page: Page, world: World) -> None:
    world.answers["GET /api/v1/channels/live"] = {"items": [], "next": None}
    await page.goto("/orbit")
    await page.get_by_role("button", name="Follow").click()
    await page.wait_for_url("**/login?next=%2Forbit")
    assert world.asked_for("PUT", "/api/v1/channels/orbit/follow") == []


async def test_following_shows_at_once_and_reads_its_own_write(page: Page, world: World, log_in: LogIn) -> None:
    await log_in()
    followers = 3

    def follow(_: object) -> tuple[int, None]:
        nonlocal followers
        followers += 1
        return 204, None

    world.answers |= {
        "PUT /api/v1/channels/orbit/follow": follow,
        "GET /api/v1/channels/orbit": lambda _: channel(follower_count=followers, following=followers > 3),
    }
    world.sent_headers["PUT /api/v1/channels/orbit/follow"] = {"Tallylight-Position": "7:42"}
    await page.goto("/orbit")
    button = page.get_by_role("button", name="Follow")
    await button.click()
    await expect(page.locator("#followers")).to_have_text("4 followers · 1 subscriber")
    await expect(page.locator("#follow")).to_have_text("Following")
    await expect(page.locator("#follow")).to_have_attribute("aria-pressed", "true")
    last = [headers for path, headers in world.headers if path == "/api/v1/channels/orbit"][-1]
    assert last["tallylight-position"] == "7:42"


async def test_a_refused_follow_is_taken_back_and_explained(
    page: Page, world: World, log_in: LogIn, complaints: Complaints
) -> None:
    complaints.expected.append("409")
    await log_in()
    world.answers["PUT /api/v1/channels/orbit/follow"] = problem(409, "own_channel", "One does not follow oneself.")
    await page.goto("/orbit")
    await page.get_by_role("button", name="Follow").click()
    await expect(page.locator("#act-problem")).to_have_text("One does not follow oneself.")
    await expect(page.locator("#follow")).to_have_text("Follow")


async def test_a_subscription_is_bought_once_however_often_it_is_tried(
    page: Page, world: World, log_in: LogIn, complaints: Complaints
) -> None:
    complaints.expected.append("503")
    await log_in()
    path = "/api/v1/channels/orbit/subscriptions"
    world.answers[f"POST {path}"] = problem(503, "payment_unsettled", "The payment provider has not answered yet.")
    await page.goto("/orbit")
    await page.get_by_role("button", name="Subscribe").click()
    await expect(page.locator(".tier").first).to_have_text("Tier 1 $4.99")
    await page.get_by_label("Tier 2").check()
    buy = page.locator("#tiers").get_by_role("button", name="Subscribe")
    await buy.click()
    await expect(page.locator("#tiers .problem")).to_have_text("The payment provider has not answered yet.")
    bought = {"subscription_id": "s-1", "tier": 2, "expires_at": (NOW + timedelta(days=30)).isoformat()}

    def buy_it(_: object) -> object:
        world.answers["GET /api/v1/channels/orbit"] = channel(subscription=bought | {"cancelled": False})
        return 201, bought | {"id": "s-1"}

    world.answers[f"POST {path}"] = buy_it
    await buy.click()
    await expect(page.locator("#tiers")).to_be_hidden()
    await expect(page.locator("#subscribe")).to_have_text("Subscribed")
    assert world.asked_for("POST", path) == [{"tier": 2}, {"tier": 2}]
    keys = [headers["idempotency-key"] for where, headers in world.headers if where == path]
    assert len(keys) == 2
    assert len(set(keys)) == 1


async def test_a_subscription_is_cancelled_runs_on_and_once_it_has_run_out_can_be_bought_again(
    page: Page, world: World, log_in: LogIn
) -> None:
    await log_in()
    until = (NOW + timedelta(days=12)).isoformat()
    mine = {"subscription_id": "s-1", "tier": 3, "expires_at": until, "cancelled": False}
    world.answers["GET /api/v1/channels/orbit"] = channel(subscription=mine)

    def cancel(_: object) -> tuple[int, None]:
        world.answers["GET /api/v1/channels/orbit"] = channel(subscription=mine | {"cancelled": True})
        return 204, None

    world.answers["DELETE /api/v1/subscriptions/s-1"] = cancel
    await page.goto("/orbit")
    await page.get_by_role("button", name="Subscribed").click()
    own = page.locator("#own")
    await expect(own).to_contain_text("Tier 3 · runs until")
    await own.get_by_role("button", name="Cancel subscription").click()
    await expect(own).to_contain_text("Tier 3 · cancelled, runs until")
    await expect(own.get_by_role("button", name="Cancel subscription")).to_be_hidden()
    assert len(world.asked_for("DELETE", "/api/v1/subscriptions/s-1")) == 1
    await own.get_by_role("button", name="Close").click()
    world.answers["GET /api/v1/channels/orbit"] = channel(subscription=None)
    await page.reload()
    await page.get_by_role("button", name="Subscribe", exact=True).click()
    await expect(page.locator("#tiers")).to_be_visible()


async def test_the_owners_display_name_stands_beside_a_channel_that_is_called_otherwise(
    page: Page, world: World
) -> None:
    world.answers["GET /api/v1/channels/orbit"] = channel(owner_display_name="Ada <b>L</b>")
    await page.goto("/orbit")
    await expect(page.locator("#owner-name")).to_have_text("Ada <b>L</b>")


async def test_a_moderator_finds_the_way_to_the_moderation_page(page: Page, world: World, log_in: LogIn) -> None:
    await log_in(badges=("moderator",))
    await page.goto("/orbit")
    await expect(page.get_by_role("link", name="Moderation")).to_have_attribute("href", "/moderation/orbit")


@pytest.mark.parametrize("viewport", [PHONE, (320, 568), (1920, 1080)])
async def test_nothing_sticks_out_of_the_screen(page: Page, world: World, log_in: LogIn) -> None:
    await log_in(badges=("moderator",))
    long = "an_unusually_long_title_without_a_single_space_in_it_" * 3
    world.answers["GET /api/v1/channels/orbit"] = channel(title=long, tags=["english", "education", "astronomy"])
    await page.goto("/orbit")
    await expect(page.locator("#title")).to_have_text(long)
    width = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    await expect(page.locator("#chat-text")).to_be_visible()


async def test_what_is_on_for_subscribers_starts_as_soon_as_one_is(
    page: Page, world: World, log_in: LogIn, complaints: Complaints
) -> None:
    complaints.expected += ["403", "404"]
    await log_in()
    world.answers |= {
        "GET /api/v1/channels/orbit": channel(is_live=True, subscribers_only_playback=True, broadcast_id="b-9"),
        "POST /api/v1/channels/orbit/playback-token": problem(403, "subscription_required", "Only subscribers."),
        "POST /api/v1/channels/orbit/subscriptions": {"id": "s-1"},
    }
    await page.goto("/orbit")
    await expect(page.locator("#curtain-text")).to_have_text("For subscribers only")
    assert world.tokens == []
    world.answers["POST /api/v1/channels/orbit/playback-token"] = {"token": "t", "prefix": "/play/t", "expires_in": 60}
    await page.get_by_role("button", name="Subscribe").click()
    await page.locator("#tiers").get_by_role("button", name="Subscribe", exact=True).click()
    async with asyncio.timeout(20):
        while not world.tokens:  # noqa: ASYNC110 - the page tells nobody
            await asyncio.sleep(0.05)
    assert set(world.tokens) == {"t"}
