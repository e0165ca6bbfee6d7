"""Logging in and creating an account in a real browser."""

from playwright.async_api import Page, expect

from tests.gateways.web.conftest import Complaints
from tests.gateways.web.stand import World, problem

SESSION = {"access_token": "t", "token_type": "bearer", "expires_in": 900, "username": "ada"}
EMPTY: dict[str, object] = {"items": [], "next": None}


def opened(world: World) -> None:
    world.answers |= {
        "GET /api/v1/channels/live": EMPTY,
        "GET /api/v1/categories": EMPTY,
        "GET /api/v1/accounts/me": {"username": "ada", "account_id": "a-1", "roles": [], "channels": []},
        "POST /api/v1/sessions": SESSION,
        "POST /api/v1/accounts": (201, {"username": "ada"}),
        "DELETE /api/v1/sessions/current": (204, None),
    }


async def test_a_person_registers_is_logged_in_and_goes_where_they_wanted(page: Page, world: World) -> None:
    opened(world)
    await page.goto("/register?next=/%3Fcategory=Music")
    await page.get_by_label("User name").fill("ada")
    await page.get_by_label("Password").fill("correct horse")
    await page.get_by_role("button", name="Create account").click()
    await page.wait_for_url("**/?category=Music")
    await expect(page.locator("#account .who")).to_have_text("ada")
    assert world.asked_for("POST", "/api/v1/accounts") == [{"username": "ada", "password": "correct horse"}]
    assert world.asked_for("POST", "/api/v1/sessions") == [{"username": "ada", "password": "correct horse"}]


async def test_an_e_mail_address_is_sent_only_when_given(page: Page, world: World) -> None:
    opened(world)
    await page.goto("/register")
    await page.get_by_label("User name").fill("ada")
    await page.get_by_label("Password").fill("correct horse")
    await page.get_by_label("E-mail").fill("ada@example.org")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/")
    (body,) = world.asked_for("POST", "/api/v1/accounts")
    assert body["email"] == "ada@example.org"


async def test_the_servers_refusal_is_shown_and_can_be_corrected(
    page: Page, world: World, complaints: Complaints
) -> None:
    opened(world)
    complaints.expected.append("409")
    world.answers["POST /api/v1/accounts"] = problem(409, "name_taken", "This name is taken.")
    await page.goto("/register")
    await page.get_by_label("User name").fill("ada")
    await page.get_by_label("Password").fill("correct horse")
    await page.get_by_role("button", name="Create account").click()
    await expect(page.get_by_role("alert")).to_have_text("This name is taken.")
    world.answers["POST /api/v1/accounts"] = (201, {})
    await page.get_by_label("User name").fill("ada_2")
    await page.get_by_role("button", name="Create account").click()
    await page.wait_for_url("**/")


async def test_wrong_credentials_are_told_and_nothing_is_remembered(
    page: Page, world: World, complaints: Complaints
) -> None:
    opened(world)
    complaints.expected.append("401")
    world.answers["POST /api/v1/sessions"] = problem(401, "credentials_invalid", "User name or password is wrong.")
    await page.goto("/login")
    await page.get_by_label("User name").fill("ada")
    await page.get_by_label("Password").fill("wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_have_text("User name or password is wrong.")
    assert await page.evaluate("localStorage.length") == 0
    assert world.asked_for("POST", "/api/v1/sessions/refresh") == []


async def test_an_empty_field_asks_nobody(page: Page, world: World) -> None:
    await page.goto("/login")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("alert")).to_contain_text("User name:")
    assert world.asked == []


async def test_nobody_is_sent_to_another_site_after_logging_in(page: Page, world: World) -> None:
    opened(world)
    await page.goto("/login?next=//elsewhere.example/x")
    await page.get_by_label("User name").fill("ada")
    await page.get_by_label("Password").fill("correct horse")
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{world.url}/")


async def test_logging_out_ends_the_session_here_and_there(page: Page, world: World) -> None:
    opened(world)
    world.answers["POST /api/v1/sessions/refresh"] = SESSION
    await page.goto("/login")
    await page.evaluate("localStorage.setItem('tallylight.user', 'ada')")
    await page.goto("/")
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_role("link", name="Log in")).to_be_visible()
    assert len(world.asked_for("DELETE", "/api/v1/sessions/current")) == 1


async def test_an_expired_session_is_renewed_once_before_anything_is_asked(page: Page, world: World) -> None:
    opened(world)
    world.answers["POST /api/v1/sessions/refresh"] = SESSION
    await page.goto("/login")
    await page.evaluate("localStorage.setItem('tallylight.user', 'ada')")
    await page.goto("/")
    await expect(page.locator("#account .who")).to_have_text("ada")
    await page.wait_for_load_state("networkidle")
    asked = [path for _, path, _ in world.asked]
    assert asked.count("/api/v1/sessions/refresh") == 1
    assert asked[0] == "/api/v1/sessions/refresh"


async def test_a_session_that_the_server_forgot_is_renewed_and_the_request_repeated(
    page: Page, world: World, complaints: Complaints
) -> None:
    opened(world)
    complaints.expected.append("401")
    renewed = False

    def me(_: object) -> object:
        return {"username": "ada", "channels": []} if renewed else problem(401, "unauthenticated", "Log in first.")

    def renew(_: object) -> object:
        nonlocal renewed
        renewed = True
        return SESSION

    world.answers |= {"GET /api/v1/accounts/me": me, "POST /api/v1/sessions/refresh": renew}
    await page.goto("/login")
    await page.evaluate("localStorage.setItem('tallylight.user', 'ada')")
    await page.evaluate("localStorage.setItem('tallylight.until', Date.now() + 900000)")
    await page.goto("/")
    await expect(page.locator("#account .who")).to_have_text("ada")
    assert len(world.asked_for("POST", "/api/v1/sessions/refresh")) == 1


async def test_a_session_that_cannot_be_renewed_is_forgotten(page: Page, world: World, complaints: Complaints) -> None:
    opened(world)
    complaints.expected.append("401")
    expired = problem(401, "token_expired", "Log in again.")
    world.answers |= {"GET /api/v1/accounts/me": expired, "POST /api/v1/sessions/refresh": expired}
    await page.goto("/login")
    await page.evaluate("localStorage.setItem('tallylight.user', 'ada')")
    await page.goto("/")
    await expect(page.get_by_role("link", name="Log in")).to_be_visible()
    assert await page.evaluate("localStorage.getItem('tallylight.user')") is None
