"""The shells and files as a client gets them, without a browser."""

import gzip
import re

import httpx
import pytest
from starlette.applications import Starlette

from gateways.web import pages


@pytest.fixture
def client() -> httpx.AsyncClient:
    transport = httpx.ASGITransport(Starlette(routes=list(pages.routes)))
    return httpx.AsyncClient(transport=transport, base_url="http://front")


ADDRESSES = [
    "/", "/login", "/register", "/dashboard", "/settings", "/finance", "/moderation/ada", "/videos/01981-abc", "/clips/7", "/ada",
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
async def test_every_page_forbids_inline_scripts_and_frames_and_is_asked_for_anew(
    client: httpx.AsyncClient, address: str
) -> None:
    answer = await client.get(address)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|javascript:|\sstyle=", answer.text)


@pytest.mark.parametrize("address", ADDRESSES)
async def test_every_file_a_page_names_is_there_and_may_be_kept_for_ever(
    client: httpx.AsyncClient, address: str
) -> None:
    named = set(re.findall(r'"(/static/[^"]+)"', (await client.get(address)).text))
    assert named
    for file in named:
        answer = await client.get(file)
        assert answer.status_code == 200, file
        assert "immutable" in answer.headers["cache-control"], file


@pytest.mark.parametrize("name", sorted(pages.FOLDERS["app"].files))
def test_every_module_imports_only_files_that_exist(name: str) -> None:
    text = pages.FOLDERS["app"].files[name].content.decode()
    for imported in re.findall(r"""(?:from|import) ['"]\./([^'"]+)['"]""", text):
        assert imported in pages.FOLDERS["app"].files


async def test_a_file_at_the_address_of_another_release_is_served_but_not_kept(client: httpx.AsyncClient) -> None:
    answer = await client.get("/static/app/0000000000000000/style.css")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"


async def test_a_file_is_compressed_for_whom_understands_it_and_unchanged_for_whom_has_it(
    client: httpx.AsyncClient,
) -> None:
    folder = pages.FOLDERS["vendor"]
    address = f"/static/vendor/{folder.digest}/hls.mjs"
    async with client.stream("GET", address, headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw) == folder.files["hls.mjs"].content
    again = await client.get(address, headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    "address",
    ["/a", "/ada-lovelace", "/metrics", "/x<script>", "/videos/a..b", "/moderation/a b", "/moderation/api"],
)
async def test_an_address_that_cannot_name_anything_is_not_found(client: httpx.AsyncClient, address: str) -> None:
    answer = await client.get(address)
    assert answer.status_code == 404
    assert "<script>" not in answer.text


@pytest.mark.parametrize(
    "address", ["/static/app/x/none.js", "/static/none/x/style.css", "/static/app/x/..%2fpages.py"]
)
async def test_a_file_that_is_not_ours_is_not_found(client: httpx.AsyncClient, address: str) -> None:
    assert (await client.get(address)).status_code == 404


async def test_a_channel_has_one_address_whatever_the_case_it_is_typed_in(client: httpx.AsyncClient) -> None:
    answer = await client.get("/Ada_99?x=1")
    assert answer.status_code == 308
    assert answer.headers["location"] == "/ada_99?x=1"


async def test_browsers_and_robots_find_what_they_ask_for(client: httpx.AsyncClient) -> None:
    assert (await client.get("/favicon.ico")).headers["content-type"] == "image/svg+xml"
    assert "Disallow: /api/" in (await client.get("/robots.txt")).text
