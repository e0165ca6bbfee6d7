"""The directory in a real browser: who is live, by category, and the search."""

import pytest
from playwright.async_api import Page, expect

from tests.gateways.web.conftest import Complaints
from tests.gateways.web.stand import NOW, World, problem


def on_air(channel: str, title: str, category: str = "Science", viewers: int = 5) -> dict[str, object]:
    return {
        "channel": channel,
        "title": title,
        "category": category,
        "started_at": NOW.isoformat(),
        "viewers": viewers,
        "playback_url": f"/live/{channel}/index.m3u8",
    }


@pytest.fixture(autouse=True)
def categories(world: World) -> None:
    world.answers["GET /api/v1/categories"] = {"items": [{"name": "Science"}, {"name": "Food & Drink"}], "next": None}


async def test_every_live_channel_is_a_link_with_what_it_shows(page: Page, world: World) -> None:
    items = [on_air("orbit", "Night <b>sky</b>", viewers=25431), on_air("lathe", "", viewers=1)]
    world.answers["GET /api/v1/channels/live"] = {"items": items, "next": None}
    await page.goto("/")
    first, second = page.locator("#live .tile").first, page.locator("#live .tile").nth(1)
    await expect(first.locator("a")).to_have_attribute("href", "/orbit")
    await expect(first.locator(".title")).to_have_text("Night <b>sky</b>")
    await expect(first.locator(".viewers")).to_have_text("25.4K viewers")
    await expect(second.locator(".title")).to_have_text("Untitled broadcast")
    await expect(second.locator(".viewers")).to_have_text("1 viewer")


async def test_a_category_narrows_the_list_on_the_server(page: Page, world: World) -> None:
    world.answers["GET /api/v1/channels/live"] = lambda request: {
        "items": [on_air("kitchen", "Sourdough", "Food & Drink")]
        if request.query_params.get("category") == "Food & Drink"
        else [on_air("orbit", "Night sky"), on_air("kitchen", "Sourdough", "Food & Drink")],
        "next": None,
    }
    await page.goto("/")
    await expect(page.locator("#live .tile")).to_have_count(2)
    await page.get_by_role("link", name="Food & Drink", exact=True).click()
    await expect(page.locator("#live .tile")).to_have_count(1)
    await expect(page.locator("#categories [aria-current]")).to_have_text("Food & Drink")


async def test_more_channels_come_when_they_are_asked_for(page: Page, world: World) -> None:
    world.answers["GET /api/v1/channels/live"] = lambda request: (
        {"items": [on_air("lathe", "B")], "next": None}
        if request.query_params.get("cursor") == "c1"
        else {"items": [on_air("orbit", "A")], "next": "c1"}
    )
    await page.goto("/")
    await page.get_by_role("button", name="Show more").click()
    await expect(page.locator("#live .title")).to_have_text(["A", "B"])
    await expect(page.locator("#live-more")).to_be_hidden()


async def test_nobody_live_and_a_server_that_is_away_are_both_said(
    page: Page, world: World, complaints: Complaints
) -> None:
    world.answers["GET /api/v1/channels/live"] = {"items": [], "next": None}
    await page.goto("/")
    await expect(page.locator("#live-none")).to_be_visible()
    complaints.expected.append("503")
    world.answers["GET /api/v1/channels/live"] = problem(503, "unavailable", "The directory is away for a moment.")
    await page.reload()
    await expect(page.get_by_role("alert")).to_have_text("The directory is away for a moment.")


async def test_the_search_in_the_header_finds_channels(page: Page, world: World) -> None:
    found = [{"name": "orbit", "title": "Night sky", "is_live": True, "follower_count": 7}]
    world.answers |= {
        "GET /api/v1/channels/live": {"items": [], "next": None},
        "GET /api/v1/search": lambda request: {
            "items": found if request.query_params["q"] == "night & sky" else [],
            "next": None,
        },
    }
    await page.goto("/login")
    await page.get_by_role("searchbox").fill("night & sky")
    await page.keyboard.press("Enter")
    await expect(page.locator("#found-list a")).to_have_attribute("href", "/orbit")
    await expect(page.locator("#found-list .on-air")).to_be_visible()
