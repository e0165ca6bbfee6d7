"""A real Chromium for the pages, and a page that holds everything its browser complained about against the test."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

from tests.gateways.web.stand import World, serving

WAIT_S_MAX = 20
expect.set_options(timeout=WAIT_S_MAX * 1000)
DESKTOP = (1280, 800)
PHONE = (360, 740)

# Chromium reports violations of the content policy to the console too, but not all of them as errors.
_REPORT_VIOLATIONS = """
addEventListener('securitypolicyviolation', (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


@dataclass
class Complaints:
    """Errors of the console. `expected` are parts of those that a test provokes: the browser logs every failed request itself."""

    heard: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def listen(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.heard.append(f"{message.text} {message.location['url']}")

    @property
    def unexpected(self) -> list[str]:
        return [text for text in self.heard if not any(part in text for part in self.expected)]


async def until(page: Page, condition: str) -> None:
    """Wait in the page. Not `wait_for_function`, which would evaluate a string there: the content policy forbids that, rightly."""
    waiting = f"async () => {{ while (!({condition})) await new Promise((done) => setTimeout(done, 40)); }}"
    await asyncio.wait_for(page.evaluate(waiting), WAIT_S_MAX)


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    assert executable, "Chromium is missing: make test installs it, or says how to."
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=executable, args=["--autoplay-policy=no-user-gesture-required"]
        )
        yield launched
        await launched.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with serving(World()) as one:
        yield one


@pytest.fixture
def complaints() -> Complaints:
    return Complaints()


@pytest.fixture
def viewport() -> tuple[int, int]:
    return DESKTOP


@pytest.fixture
async def page(
    browser: Browser, world: World, complaints: Complaints, viewport: tuple[int, int]
) -> AsyncIterator[Page]:
    width, height = viewport
    context = await browser.new_context(base_url=world.url, viewport={"width": width, "height": height})
    await context.add_init_script(_REPORT_VIOLATIONS)
    opened = await context.new_page()
    opened.on("console", complaints.listen)
    opened.on("pageerror", lambda error: complaints.heard.append(str(error)))
    yield opened
    await context.close()
    assert complaints.unexpected == []


@pytest.fixture
def log_in(world: World, page: Page) -> Callable[..., object]:
    """The browser, as it is after `ada` logged in."""

    async def act(username: str = "ada", *, badges: tuple[str, ...] = ()) -> None:
        world.user, world.badges = username, list(badges)
        world.answers |= {
            "GET /api/v1/accounts/me": {"username": username, "account_id": "a-1", "roles": [], "channels": []},
            "POST /api/v1/chat-tickets": {"ticket": "one-use"},
        }
        await page.context.add_init_script(f"localStorage.setItem('tallylight.user', '{username}')")
        await page.context.add_init_script("localStorage.setItem('tallylight.until', Date.now() + 900000)")

    return act
