"""The API's description in a real browser, from the running product and nowhere else."""

from urllib.parse import urlsplit

from playwright.async_api import Browser, expect

from bench.stack import Stack


async def test_the_description_is_readable_and_comes_from_this_host_alone(browser: Browser, stack: Stack) -> None:
    context = await browser.new_context(base_url=stack.url)
    page = await context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto("/docs")
    await expect(page.get_by_text("/api/v1/channels/live", exact=True)).to_be_visible()
    assert {urlsplit(url).netloc for url in asked if not url.startswith("data:")} == {f"localhost:{stack.http_port}"}
    await context.close()
