"""The broadcaster's, the moderators' and finance's pages in a real browser."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from playwright.async_api import Dialog, Page, expect
from starlette.responses import Response

from tests.gateways.web.conftest import DESKTOP, PHONE, Complaints
from tests.gateways.web.stand import NOW, World, problem

LogIn = Callable[..., Awaitable[None]]
ADA = {
    "name": "ada",
    "owner": "ada",
    "title": "Compilers",
    "category": "Software",
    "tags": ["english"],
    "chat_mode": {},
    "follower_count": 9,
    "subscriber_count": 2,
    "is_live": True,
    "current_viewers": 41,
    "started_at": NOW.isoformat(),
}


@pytest.fixture(autouse=True)
def nothing_yet(world: World) -> None:
    world.answers |= {
        "GET /api/v1/categories": {"items": [{"name": "Software"}], "next": None},
        "GET /api/v1/channels/ada/broadcasts": {"items": [], "next": None},
        "GET /api/v1/channels/ada/stream-health/feed": health(None),
    }


def health(*said: Any) -> Response:
    """A feed that ends after these: the browser asks again after some seconds."""
    events = b"".join(b"event: health\ndata: " + json.dumps(one).encode() + b"\n\n" for one in said)
    return Response(events, media_type="text/event-stream")


HEALTH = {
    "state": "live", "encoder": "obs-output module (libobs version 30.2.3)", "video_codec": "avc1.64001f",
    "audio_codec": "mp4a.40.2", "width": 1920, "height": 1080, "bitrate": 5_912_000, "frame_rate": 59.9,
    "nominal_frame_rate": 60.0, "key_frame_interval_s": 8.33, "late_frames": 0, "missing_frames": 3, "transcoder_lag_s": 0.42,
    "renditions": ["720p60", "480p"],
    "advice": [{"code": "key_frames_far_apart", "text": "Key frames every 8 s: set 2 s."}],
}  # fmt: skip


async def test_the_broadcaster_sees_how_the_stream_is_and_what_to_do_about_it(
    page: Page, world: World, log_in: LogIn
) -> None:
    await log_in()
    world.answers |= {
        "GET /api/v1/accounts/me": {"username": "ada", "account_id": "a-1", "roles": [], "channels": [{"name": "ada"}]},
        "GET /api/v1/channels/ada": ADA,
        "GET /api/v1/channels/ada/stream-health/feed": health(*[HEALTH | {"bitrate": 5_000_000 + n} for n in range(9)]),
    }
    await page.goto("/dashboard")
    await expect(page.locator("#stream-advice li")).to_have_text("Key frames every 8 s: set 2 s.")
    facts = page.locator("#stream-facts")
    await expect(facts).to_contain_text("every 8.33 s")
    await expect(facts).to_contain_text("1920×1080, 59.9 of 60 frames/s")
    await expect(facts).to_contain_text("720p60, 480p, 0.4 s behind")
    points = await page.locator("#stream-trace polyline").get_attribute("points")
    assert len((points or "").split()) == 9
    world.answers["GET /api/v1/channels/ada/stream-health/feed"] = health(HEALTH | {"advice": []})
    await expect(page.locator("#stream-advice li")).to_have_text("All is well.")
    world.answers["GET /api/v1/channels/ada/stream-health/feed"] = health(None)
    await expect(page.locator("#stream")).to_be_hidden()


async def test_a_newcomer_opens_a_channel_and_gets_a_key_and_an_address_for_obs(
    page: Page, world: World, log_in: LogIn
) -> None:
    await log_in()

    def open_channel(_: object) -> object:
        world.answers["GET /api/v1/channels/ada"] = ADA
        return 201, {"name": "ada"}

    world.answers |= {
        "POST /api/v1/channels": open_channel,
        "POST /api/v1/channels/ada/stream-key": {
            "stream_key": "live_secret",
            "rtmp_url": "rtmp://localhost:1935/live",
            "srt_url": "srt://localhost:8890",
        },
    }
    await page.goto("/dashboard")
    await expect(page.get_by_label("Channel name")).to_have_value("ada")
    await page.get_by_label("Title").first.fill("Compilers")
    await page.get_by_role("button", name="Open channel").click()
    await expect(page.locator("#state-viewers")).to_have_text("41 viewers")
    await page.get_by_role("button", name="Get a stream key").click()
    await expect(page.locator("#rtmp")).to_have_text("rtmp://localhost:1935/live")
    key = page.locator("#key-value")
    await expect(key).to_have_value("live_secret")
    await expect(key).to_have_attribute("type", "password")
    await page.locator("#key-reveal").click()
    await expect(key).to_have_attribute("type", "text")
    assert world.asked_for("POST", "/api/v1/channels") == [{"name": "ada", "title": "Compilers", "category": ""}]


async def test_a_recording_is_hidden_shown_and_deleted(page: Page, world: World, log_in: LogIn) -> None:
    await log_in()
    shown = {
        "id": "b-1",
        "title": "Night sky",
        "started_at": NOW.isoformat(),
        "ended_at": NOW.isoformat(),
        "duration_s": 60.0,
    }
    shown |= {"published": True, "vod_url": "/vod/b-1/index.m3u8", "total_views": 1}
    listed = [shown]

    def patch(_: object) -> tuple[int, None]:
        listed[0] = shown | {"published": False, "vod_url": None}
        return 204, None

    def delete(_: object) -> tuple[int, None]:
        listed.clear()
        return 204, None

    world.answers |= {
        "GET /api/v1/accounts/me": {"username": "ada", "account_id": "a-1", "roles": [], "channels": [{"name": "ada"}]},
        "GET /api/v1/channels/ada": ADA,
        "GET /api/v1/channels/ada/broadcasts": lambda _: {"items": listed, "next": None},
        "PATCH /api/v1/broadcasts/b-1": patch,
        "DELETE /api/v1/broadcasts/b-1": delete,
    }
    await page.goto("/dashboard")
    await page.get_by_role("button", name="Hide").click()
    await expect(page.get_by_text("Hidden", exact=True)).to_be_visible()
    assert world.asked_for("PATCH", "/api/v1/broadcasts/b-1") == [{"published": False}]
    await expect(page.get_by_role("button", name="Show")).to_be_visible()
    page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
    await page.get_by_role("button", name="Delete").click()
    await expect(page.locator("#past")).to_be_hidden()
    assert len(world.asked_for("DELETE", "/api/v1/broadcasts/b-1")) == 1


async def test_a_name_that_is_taken_is_told(page: Page, world: World, log_in: LogIn, complaints: Complaints) -> None:
    complaints.expected.append("409")
    await log_in()
    world.answers["POST /api/v1/channels"] = problem(409, "name_taken", "This name is taken.")
    await page.goto("/dashboard")
    await page.get_by_role("button", name="Open channel").click()
    await expect(page.get_by_role("alert")).to_have_text("This name is taken.")


async def test_the_channel_is_described_anew(page: Page, world: World, log_in: LogIn) -> None:
    await log_in()
    world.answers |= {
        "GET /api/v1/accounts/me": {"username": "ada", "account_id": "a-1", "roles": [], "channels": [{"name": "ada"}]},
        "GET /api/v1/channels/ada": ADA,
        "PATCH /api/v1/channels/ada": (204, None),
    }
    await page.goto("/dashboard")
    title = page.locator("#edit-title")
    await expect(title).to_have_value("Compilers")
    await title.fill("Parsers")
    await page.get_by_label("Tags").fill("english, education ,")
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator("#edit-done")).to_have_text("Saved.")
    assert world.asked_for("PATCH", "/api/v1/channels/ada") == [
        {
            "title": "Parsers",
            "category": "Software",
            "tags": ["english", "education"],
            "subscribers_only_playback": False,
        }
    ]


async def test_a_channel_is_closed_to_all_but_its_subscribers(page: Page, world: World, log_in: LogIn) -> None:
    await log_in()
    world.answers |= {
        "GET /api/v1/accounts/me": {"username": "ada", "account_id": "a-1", "roles": [], "channels": [{"name": "ada"}]},
        "GET /api/v1/channels/ada": ADA,
        "PATCH /api/v1/channels/ada": (204, None),
    }
    await page.goto("/dashboard")
    box = page.get_by_label("Only subscribers can watch")
    await expect(page.locator("#edit-title")).to_have_value("Compilers")
    await expect(box).not_to_be_checked()
    await box.check()
    world.answers["GET /api/v1/channels/ada"] = ADA | {"subscribers_only_playback": True}
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator("#edit-done")).to_have_text("Saved.")
    (asked,) = world.asked_for("PATCH", "/api/v1/channels/ada")
    assert asked["subscribers_only_playback"] is True
    await page.reload()
    await expect(box).to_be_checked()


@pytest.mark.parametrize("address", ["/dashboard", "/moderation/ada", "/finance", "/settings"])
async def test_pages_of_a_role_ask_to_log_in_first(page: Page, world: World, address: str) -> None:
    await page.goto(address)
    await page.wait_for_url("**/login?next=*")


async def test_bans_are_seen_and_lifted_and_the_log_is_read(page: Page, world: World, log_in: LogIn) -> None:
    await log_in()
    log: list[dict[str, object]] = [
        {"at": NOW.isoformat(), "action": "ban", "moderator": "ada", "target": "eve", "reason": "spam"},
        {"at": NOW.isoformat(), "action": "timeout", "moderator": "ada", "target": "mal", "duration_s": 600},
    ]

    def lift(_: object) -> tuple[int, None]:
        log.insert(0, {"at": NOW.isoformat(), "action": "unban", "moderator": "ada", "target": "eve"})
        bans.pop(0)
        return 204, None

    until = (NOW + timedelta(minutes=10)).isoformat()
    bans: list[dict[str, object]] = [
        {"username": "eve", "moderator": "ada", "reason": "spam", "at": NOW.isoformat(), "until": None},
        {"username": "mal", "moderator": "kim", "reason": None, "at": NOW.isoformat(), "until": until},
    ]

    mode = {"slow_s": 0, "followers_only_min": 7, "subscribers_only": False, "emote_only": True, "unique": False}
    world.answers |= {
        "GET /api/v1/channels/ada": ADA | {"chat_mode": mode},
        "GET /api/v1/channels/ada/moderation-log": lambda _: {"items": log, "next": None},
        "GET /api/v1/channels/ada/bans": lambda _: {"items": bans, "next": None},
        "GET /api/v1/channels/ada/moderators": {"items": [], "next": None},
        "DELETE /api/v1/channels/ada/bans/eve": lift,
        "POST /api/v1/channels/ada/bans": (201, {}),
        "PATCH /api/v1/channels/ada/chat-mode": {},
    }
    await page.goto("/moderation/ada")
    rows = page.locator("#log tr")
    await expect(rows).to_have_count(2)
    await expect(rows.nth(1)).to_contain_text("for 10 min")
    silenced = page.locator("#bans li")
    await expect(silenced.first).to_contain_text("until lifted · by ada · “spam”")
    await page.get_by_role("button", name="Lift eve").click()
    await expect(silenced).to_have_count(1)
    await expect(silenced).to_contain_text("mal")
    await expect(rows.first).to_contain_text("lifted the ban of")
    ban = page.locator("#ban")
    await ban.get_by_label("User name").fill("mal")
    await ban.get_by_label("For").select_option("Until lifted")
    await ban.get_by_role("button", name="Silence").click()
    await expect(ban.get_by_label("User name")).to_have_value("")
    assert world.asked_for("POST", "/api/v1/channels/ada/bans") == [{"username": "mal"}]
    await expect(page.get_by_label("Emotes only")).to_be_checked()
    await page.get_by_label("Slow mode").select_option("10 s")
    await page.get_by_label("Subscribers only").check()
    await page.get_by_role("button", name="Set modes").click()
    await expect(page.get_by_role("button", name="Set modes")).to_be_enabled()
    assert world.asked_for("PATCH", "/api/v1/channels/ada/chat-mode") == [
        {
            "slow_s": 10,
            "followers_only_min": 7,
            "subscribers_only": True,
            "emote_only": True,
            "unique": False,
        }
    ]


async def test_the_chat_is_cleared_only_by_who_means_it(page: Page, world: World, log_in: LogIn) -> None:
    await log_in()
    log: list[dict[str, object]] = []

    def cleared(_: object) -> tuple[int, None]:
        log.insert(0, {"at": NOW.isoformat(), "action": "clear", "moderator": "ada"})
        return 204, None

    world.answers |= {
        "GET /api/v1/channels/ada": ADA | {"chat_mode": {}},
        "GET /api/v1/channels/ada/moderation-log": lambda _: {"items": log, "next": None},
        "GET /api/v1/channels/ada/bans": {"items": [], "next": None},
        "GET /api/v1/channels/ada/moderators": {"items": [], "next": None},
        "DELETE /api/v1/channels/ada/chat": cleared,
    }
    answers = [False, True]

    async def answer(dialog: Dialog) -> None:
        await (dialog.accept() if answers.pop(0) else dialog.dismiss())

    page.on("dialog", answer)
    await page.goto("/moderation/ada")
    await expect(page.locator("#log-none")).to_be_visible()
    button = page.get_by_role("button", name="Clear chat")
    await button.click()
    await expect(button).to_be_enabled()
    assert world.asked_for("DELETE", "/api/v1/channels/ada/chat") == []
    await button.click()
    await expect(page.locator("#log tr")).to_contain_text(["ada"])
    await expect(page.locator("#log tr")).to_contain_text(["cleared the chat"])
    assert world.asked_for("DELETE", "/api/v1/channels/ada/chat") == [None]


async def test_moderators_are_appointed_and_removed(page: Page, world: World, log_in: LogIn) -> None:
    await log_in()
    moderators: list[dict[str, str]] = []

    def appoint(_: object) -> tuple[int, None]:
        moderators.append({"username": "kim", "since": NOW.isoformat()})
        return 204, None

    def remove(_: object) -> tuple[int, None]:
        moderators.clear()
        return 204, None

    nothing: dict[str, object] = {"items": [], "next": None}
    world.answers |= {
        "GET /api/v1/channels/ada": ADA,
        "GET /api/v1/channels/ada/moderation-log": nothing,
        "GET /api/v1/channels/ada/bans": nothing,
        "GET /api/v1/channels/ada/moderators": lambda _: {"items": moderators, "next": None},
        "PUT /api/v1/channels/ada/moderators/kim": appoint,
        "DELETE /api/v1/channels/ada/moderators/kim": remove,
    }
    await page.goto("/moderation/ada")
    await expect(page.locator("#moderators-none")).to_be_visible()
    form = page.locator("#appoint")
    await form.get_by_label("User name").fill("kim")
    await form.get_by_role("button", name="Appoint").click()
    await expect(page.locator("#moderators li")).to_contain_text("kim")
    await page.get_by_role("button", name="Remove kim").click()
    await expect(page.locator("#moderators-none")).to_be_visible()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
async def test_every_field_of_the_moderation_page_is_there_on_a_phone_too(
    page: Page, world: World, log_in: LogIn, viewport: tuple[int, int]
) -> None:
    await log_in()
    nothing: dict[str, object] = {"items": [], "next": None}
    entry = {"at": NOW.isoformat(), "action": "ban", "moderator": "ada", "target": "a_rather_long_user_name_25"}
    world.answers |= {
        "GET /api/v1/channels/ada": ADA,
        "GET /api/v1/channels/ada/moderation-log": {"items": [entry], "next": None},
        "GET /api/v1/channels/ada/bans": nothing,
        "GET /api/v1/channels/ada/moderators": nothing,
    }
    await page.goto("/moderation/ada")
    await expect(page.locator("#log tr")).to_have_count(1)
    for label in ("Slow mode", "Followers only", "Subscribers only", "Reason", "For"):
        await expect(page.get_by_label(label).first).to_be_visible()
    width = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]


async def test_the_trial_balance_adds_up_each_currency(page: Page, world: World, log_in: LogIn) -> None:
    await log_in()
    items = [
        {"account": "provider:sandbox", "currency": "USD", "debit_minor": 499, "credit_minor": 0},
        {"account": "creator:c-1", "currency": "USD", "debit_minor": 0, "credit_minor": 250},
        {"account": "deferred:c-1", "currency": "USD", "debit_minor": 0, "credit_minor": 249},
    ]
    world.answers["GET /api/v1/finance/trial-balance"] = {"items": items, "next": None}
    await page.goto("/finance")
    await expect(page.locator("#balance tr")).to_have_count(3)
    await expect(page.locator("#totals .amount")).to_have_text(["$4.99", "$4.99"])


async def test_who_is_not_of_finance_is_told_so(
    page: Page, world: World, log_in: LogIn, complaints: Complaints
) -> None:
    complaints.expected.append("403")
    await log_in()
    world.answers["GET /api/v1/finance/trial-balance"] = problem(403, "forbidden", "You may not do this.")
    await page.goto("/finance")
    await expect(page.get_by_role("alert")).to_have_text("You may not do this.")
