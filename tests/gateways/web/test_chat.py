"""The chat panel in a real browser: order, safety, moderation, refusals, and coming back."""

from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Page, expect

from gateways.chat import frames
from tests.gateways.web.conftest import Complaints
from tests.gateways.web.stand import World, item, problem

LogIn = Callable[..., Awaitable[None]]
CHANNEL = {
    "name": "orbit",
    "title": "Night sky",
    "category": "Science",
    "tags": [],
    "follower_count": 3,
    "subscriber_count": 1,
    "is_live": False,
    "current_viewers": 0,
}


@pytest.fixture(autouse=True)
def offline_channel(world: World) -> None:
    """Chat does not wait for a picture."""
    world.answers |= {
        "GET /api/v1/channels/orbit": CHANNEL,
        "GET /api/v1/channels/orbit/broadcasts": {"items": [], "next": None},
    }


async def enter(page: Page, world: World) -> dict[str, str]:
    await page.goto("/orbit")
    return await world.joined.get()


async def test_messages_stand_in_the_order_they_were_sent_with_their_badges(page: Page, world: World) -> None:
    world.history.extend([item(1, "ken", "first", badges=["subscriber"]), item(2, "grace", "second")])
    await enter(page, world)
    await world.say(frames.messages([item(3, "ken", "third"), item(4, "ada", "fourth", badges=["broadcaster"])]))
    await world.say(frames.messages([item(5, "ken", "fifth", reply_to="m2")]))
    await expect(page.locator("#chat-lines .text")).to_have_text(["first", "second", "third", "fourth", "fifth"])
    await expect(page.locator("[data-id=m1] .badge")).to_have_attribute("aria-label", "Subscriber")
    await expect(page.locator("[data-id=m4] .badge")).to_have_attribute("aria-label", "Broadcaster")
    await expect(page.locator("[data-id=m5] .quote")).to_have_text("↪ grace: second")


async def test_markup_in_a_message_or_a_name_stays_text(page: Page, world: World) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    world.history.append(item(1, "<b>eve</b>", evil))
    await enter(page, world)
    await expect(page.locator("#chat-lines .text")).to_have_text(evil)
    await expect(page.locator("#chat-lines .user")).to_have_text("<b>eve</b>")
    assert await page.locator("#chat-lines img, #chat-lines script, #chat-lines b").count() == 0
    assert "owned" not in await page.title()


async def test_what_a_moderator_removes_vanishes(page: Page, world: World) -> None:
    world.history.extend(item(n, "eve" if n % 2 else "ken", f"text {n}") for n in range(1, 7))
    await enter(page, world)
    lines = page.locator("#chat-lines .text")
    await expect(lines).to_have_count(6)
    await world.say({"type": "deleted", "position": 7, "id": "m2", "by": "ada"})
    await expect(lines).to_have_text(["text 1", "text 3", "text 4", "text 5", "text 6"])
    await world.say({"type": "banned", "position": 8, "user": "eve", "by": "ada"})
    await expect(lines).to_have_text(["text 4", "text 6"])
    await expect(page.locator(".notice-line")).to_have_text("eve was banned by ada.")
    until = "2026-01-01T00:00:00Z"
    await world.say(
        {"type": "timeout", "position": 9, "user": "ken", "until": until, "duration_s": 600, "by": "ada"},
        frames.messages([item(10, "grace", "still here")]),
    )
    await expect(lines).to_have_text(["still here"])
    await world.say(frames.messages([item(11, "zoe", "hello")]), frames.erased("grace"))
    await expect(lines).to_have_text(["hello"])
    await world.say({"type": "cleared", "position": 12, "by": "ada"})
    await expect(lines).to_have_count(0)


async def test_who_is_not_logged_in_reads_and_is_offered_to_log_in(page: Page, world: World) -> None:
    await enter(page, world)
    await expect(page.locator("#chat-login")).to_be_visible()
    await expect(page.locator("#chat-form")).to_be_hidden()
    assert world.asked_for("GET", "/api/v1/accounts/me") == []


async def test_a_message_is_sent_once_and_a_refusal_gives_it_back_with_a_countdown(
    page: Page, world: World, log_in: LogIn
) -> None:
    await log_in()
    assert await enter(page, world) == {"ticket": "one-use"}
    box = page.get_by_label("Message", exact=True)
    await box.fill("hello, world")
    await box.press("Enter")
    sent = await world.received.get()
    assert (sent["type"], sent["text"]) == ("message", "hello, world")
    await expect(box).to_have_value("")
    await world.say(frames.refused(nonce=sent["nonce"], reason="slow_mode", wait_s=90))
    await expect(box).to_have_value("hello, world")
    await expect(page.locator("#chat-refused")).to_contain_text("Slow mode is on. Wait 1 min")
    await box.press("Enter")
    again = await world.received.get()
    assert again["nonce"] != sent["nonce"]
    await world.say(frames.accepted(nonce=again["nonce"], message_id="m9", position=9))
    await expect(page.locator("#chat-refused")).to_be_hidden()


async def test_a_lost_connection_comes_back_after_the_last_message_and_sends_again_what_was_unanswered(
    page: Page, world: World, log_in: LogIn, complaints: Complaints
) -> None:
    complaints.expected.append("WebSocket connection")
    await log_in()
    world.history.extend([item(1, "ken", "one"), item(2, "ken", "two")])
    await enter(page, world)
    await expect(page.locator("#chat-lines .text")).to_have_count(2)
    await page.get_by_label("Message", exact=True).fill("did this arrive?")
    await page.keyboard.press("Enter")
    sent = await world.received.get()
    world.history.append(item(3, "ken", "three"))
    await world.drop()
    assert await world.joined.get() == {"after": "2", "ticket": "one-use"}
    assert len(set(world.viewers)) == 1, "however often it comes back, it is one viewer"
    assert await world.received.get() == sent
    await expect(page.locator("#chat-lines .text")).to_have_text(["one", "two", "three"])
    await expect(page.locator("#chat-connection")).to_be_hidden()


async def test_a_connection_closed_for_good_stays_closed(page: Page, world: World) -> None:
    await enter(page, world)
    await world.drop(4100)
    await expect(page.locator("#chat-connection")).to_contain_text("closed this connection")
    assert world.joined.empty()


async def test_the_screen_holds_a_bounded_number_of_lines(page: Page, world: World) -> None:
    await enter(page, world)
    for start in range(1, 901, 100):
        await world.say(frames.messages([item(n, "ken", f"text {n}") for n in range(start, start + 100)]))
    await expect(page.locator("#chat-lines .text").last).to_have_text("text 900")
    assert await page.locator("#chat-lines > li").count() == 300
    await expect(page.locator("#chat-lines .text").first).to_have_text("text 601")


async def test_reading_back_is_not_disturbed_by_new_messages(page: Page, world: World) -> None:
    world.history.extend(item(n, "ken", f"text {n}") for n in range(1, 101))
    await enter(page, world)
    lines = page.locator("#chat-lines")
    await expect(page.locator("#chat-lines .text").last).to_be_in_viewport()
    await lines.evaluate("list => { list.scrollTop = 0; }")
    await expect(page.locator("#chat-lines .text").first).to_be_in_viewport()
    await world.say(frames.messages([item(101, "ken", "news")]))
    more = page.get_by_role("button", name="New messages")
    await expect(more).to_be_visible()
    await expect(page.locator("#chat-lines .text").first).to_be_in_viewport()
    await more.click()
    await expect(page.get_by_text("news", exact=True)).to_be_in_viewport()
    await expect(more).to_be_hidden()


async def test_a_moderator_deletes_times_out_and_bans_from_a_line(page: Page, world: World, log_in: LogIn) -> None:
    await log_in(badges=("moderator",))
    world.history.append(item(1, "eve", "buy now"))
    world.answers |= {
        "DELETE /api/v1/channels/orbit/chat/m1": (204, None),
        "POST /api/v1/channels/orbit/bans": (201, {}),
    }
    await enter(page, world)
    line = page.locator("[data-id=m1]")
    await line.hover()
    await line.get_by_role("button", name="Delete message: eve").click()
    await line.hover()
    await line.get_by_role("button", name="Moderate: eve").click()
    await page.get_by_role("button", name="Time out for 10 min").click()
    await line.hover()
    await line.get_by_role("button", name="Moderate: eve").click()
    await page.get_by_role("button", name="Ban", exact=True).click()
    await expect(page.locator("#chat-menu")).to_be_hidden()
    await page.wait_for_load_state("networkidle")
    assert world.asked_for("DELETE", "/api/v1/channels/orbit/chat/m1") == [None]
    assert world.asked_for("POST", "/api/v1/channels/orbit/bans") == [
        {"username": "eve", "duration_s": 600},
        {"username": "eve"},
    ]


async def test_a_moderator_is_told_why_an_act_was_refused(
    page: Page, world: World, log_in: LogIn, complaints: Complaints
) -> None:
    complaints.expected.append("403")
    await log_in(badges=("moderator",))
    world.history.append(item(1, "eve", "buy now"))
    world.answers["DELETE /api/v1/channels/orbit/chat/m1"] = problem(403, "forbidden", "You no longer moderate here.")
    await enter(page, world)
    await page.locator("[data-id=m1]").hover()
    await page.get_by_role("button", name="Delete message: eve").click()
    await expect(page.locator("#chat-refused")).to_have_text("You no longer moderate here.")


async def test_a_viewer_gets_no_moderator_tools(page: Page, world: World, log_in: LogIn) -> None:
    await log_in()
    world.history.append(item(1, "eve", "hello"))
    await enter(page, world)
    await page.locator("[data-id=m1]").hover()
    await expect(page.get_by_role("button", name="Reply: eve")).to_be_visible()
    assert await page.get_by_role("button", name="Delete message: eve").count() == 0


async def test_the_modes_of_a_room_are_shown(page: Page, world: World) -> None:
    await enter(page, world)
    mode = {"slow_s": 30, "followers_only_min": 0, "subscribers_only": False, "emote_only": True, "unique": False}
    await world.say({"type": "mode", "mode": mode})
    await expect(page.locator("#chat-mode li")).to_have_text(["Slow: 30 s", "Followers only", "Emotes only"])
