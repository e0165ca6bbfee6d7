"""One running product for all of these tests, encoders that publish to it, and browsers that watch."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

import httpx
import imageio_ffmpeg
import pytest
from playwright.async_api import Browser, BrowserContext, Page

from bench.stack import Stack
from tests.gateways.web.conftest import browser

__all__ = ["browser"]

T = TypeVar("T")
PASSWORD = "correct horse battery"
STOP_S_MAX = 10.0
WAIT_S_MAX = 30.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture
async def api(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.url, timeout=20) as client:
        yield client


@asynccontextmanager
async def encoder(publish_url: str, *, key_s: int = 2) -> AsyncIterator[asyncio.subprocess.Process]:
    """A broadcaster's encoder; it ends in order, as one does who presses "stop"."""
    process = await asyncio.create_subprocess_exec(
        imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-loglevel", "error", "-re",
        "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=30", "-f", "lavfi", "-i", "sine=sample_rate=48000",
        "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p", "-g", str(30 * key_s),
        "-b:v", "800k", "-c:a", "aac", "-f", "flv", publish_url,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            await asyncio.wait_for(process.wait(), STOP_S_MAX)


@asynccontextmanager
async def person(browser: Browser, stack: Stack, name: str) -> AsyncIterator[Page]:
    """Somebody with a browser of their own, who has just created an account in it."""
    context: BrowserContext = await browser.new_context(
        base_url=stack.secure_url, ignore_https_errors=True, viewport={"width": 1280, "height": 800}
    )
    page = await context.new_page()
    await page.goto("/register")
    await page.get_by_label("User name").fill(name)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Create account").click()
    await page.wait_for_url("**/")
    try:
        yield page
    finally:
        await context.close()


async def eventually(ask: Callable[[], Awaitable[T]], true: Callable[[T], object]) -> T:
    async with asyncio.timeout(WAIT_S_MAX):
        while not true(answer := await ask()):  # noqa: ASYNC110 - it is another process that we wait for
            await asyncio.sleep(0.1)
    return answer


async def kill(stack: Stack, *roles: str) -> None:
    """kill -9, and others in their place."""
    killed = {role: stack.role(role).pid for role in roles}
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(WAIT_S_MAX):
        for role, pid in killed.items():
            while not _runs_anew(stack, role, pid):  # noqa: ASYNC110 - it is another process that we wait for
                await asyncio.sleep(0.1)


def _runs_anew(stack: Stack, role: str, killed: int) -> bool:
    try:
        return stack.role(role).pid != killed
    except LookupError:
        return False
