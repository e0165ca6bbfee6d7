"""A person's own page in a real browser: the name others see, what is followed and paid for, and leaving for good."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.gateways.web.conftest import DESKTOP, PHONE, Complaints
from tests.gateways.web.stand import NOW, World, problem

LogIn = Callable[..., Awaitable[None]]
UNTIL = (NOW + timedelta(days=12)).isoformat()


@pytest.fixture
def mine(world: World) -> dict[str, list[dict[str, Any]]]:
    """What is listed: a page of it a time, as the API does."""
    since = NOW.isoformat()
    listed: dict[str, list[dict[str, Any]]] = {
        "follows": [
            {"channel": "orbit", "title": "Night sky", "category": "", "is_live": True, "since": since},
            {"channel": "potter", "title": "", "category": "", "is_live": False, "since": since},
        ],
        "subscriptions": [
            {"id": "s-1", "channel": "orbit", "tier": 2, "started_at": since, "expires_at": UNTIL, "cancelled": False},
        ],
    }

    def page_of(kind: str) -> Callable[[Any], Any]:
        def answer(request: Any) -> Any:
            at = int(request.query_params.get("cursor", 0))
            following = str(at + 1) if at + 1 < len(listed[kind]) else None
            return {"items": listed[kind][at : at + 1], "next": following}

        return answer

    world.answers["GET /api/v1/categories"] = {"items": [], "next": None}
    world.answers |= {f"GET /api/v1/accounts/me/{kind}": page_of(kind) for kind in listed}
    return listed


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
async def test_the_name_others_see_is_changed(
    page: Page, world: World, log_in: LogIn, mine: object, viewport: tuple[int, int]
) -> None:
    await log_in()
    world.answers["PATCH /api/v1/accounts/me"] = (204, None)
    await page.goto("/dashboard")
    await page.get_by_title("Your account").click()
    name = page.get_by_label("Display name")
    await expect(name).to_have_value("ada")
    await name.fill(" Ada L ")
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator("#name-done")).to_have_text("Saved.")
    await expect(page.locator("#account .who")).to_have_text("Ada L")
    assert world.asked_for("PATCH", "/api/v1/accounts/me") == [{"display_name": "Ada L"}]
    width = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]


async def test_what_is_followed_is_listed_page_by_page_and_left(
    page: Page, world: World, log_in: LogIn, mine: dict[str, list[dict[str, Any]]]
) -> None:
    await log_in()

    def unfollow(_: object) -> tuple[int, None]:
        mine["follows"].pop(0)
        return 204, None

    world.answers["DELETE /api/v1/channels/orbit/follow"] = unfollow
    await page.goto("/settings")
    rows = page.locator("#follows li")
    await expect(rows).to_contain_text(["orbit"])
    await expect(rows.first).to_contain_text("Live")
    await page.locator("#follows-more").click()
    await expect(rows).to_contain_text(["orbit", "potter"])
    await expect(page.locator("#follows-more")).to_be_hidden()
    await page.get_by_role("button", name="Unfollow orbit").click()
    await expect(rows).to_contain_text(["potter"])


async def test_a_subscription_is_cancelled(
    page: Page, world: World, log_in: LogIn, mine: dict[str, list[dict[str, Any]]], complaints: Complaints
) -> None:
    complaints.expected.append("503")
    await log_in()
    world.answers["DELETE /api/v1/subscriptions/s-1"] = problem(503, "unavailable", "Away for a moment.")
    await page.goto("/settings")
    await page.get_by_role("button", name="Cancel orbit").click()
    await expect(page.locator("#subscriptions-problem")).to_have_text("Away for a moment.")

    def cancel(_: object) -> tuple[int, None]:
        mine["subscriptions"][0]["cancelled"] = True
        return 204, None

    world.answers["DELETE /api/v1/subscriptions/s-1"] = cancel
    await page.get_by_role("button", name="Cancel orbit").click()
    await expect(page.locator("#subscriptions li")).to_contain_text("Tier 2 · cancelled, runs until")
    await expect(page.get_by_role("button", name="Cancel orbit")).to_have_count(0)


async def test_an_account_is_erased_by_who_types_its_name(
    page: Page, world: World, log_in: LogIn, mine: object
) -> None:
    await log_in()
    world.answers |= {
        "DELETE /api/v1/accounts/me": (204, None),
        "GET /api/v1/channels/live": {"items": [], "next": None},
    }
    await page.goto("/settings")
    erase = page.locator("#erase")
    await erase.get_by_label("Type your user name").fill("bob")
    await erase.get_by_role("button", name="Erase my account").click()
    await expect(erase.get_by_role("alert")).to_have_text("Type ada to be sure.")
    assert world.asked_for("DELETE", "/api/v1/accounts/me") == []
    await erase.get_by_label("Type your user name").fill(" Ada ")
    await erase.get_by_role("button", name="Erase my account").click()
    await page.wait_for_url(f"{world.url}/")
    assert len(world.asked_for("DELETE", "/api/v1/accounts/me")) == 1
