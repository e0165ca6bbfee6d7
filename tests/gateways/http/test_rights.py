"""Who may do what, as one table: everybody's answer to every act on a channel and on the books; and cookies that serve one site only."""

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from gateways.auth import ACCESS_COOKIE
from media.playback import TOKEN_S
from tests.gateways.http.conftest import Person, Stand, problem

WHO = ("nobody", "viewer", "moderator", "owner", "finance", "admin")


@dataclass
class Cast:
    """A channel and everybody around it."""

    stand: Stand
    channel: str
    people: dict[str, Person] = field(default_factory=dict)

    async def ask(self, who: str, method: str, path: str, body: Any) -> httpx.Response:
        url = path.format(channel=self.channel, victim=self.people["victim"].name)
        if who == "nobody":
            return await self.stand.client.request(method, f"/api/v1{url}", json=body)
        return await self.people[who].ask(method, url, body)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cast(stand: Stand) -> Cast:
    people = {who: await stand.register(who[:8]) for who in ("viewer", "moderator", "owner", "victim")}
    people |= {who: await stand.register(who, who) for who in ("finance", "admin")}
    channel = await people["owner"].open_channel()
    path = f"/channels/{channel}/moderators/{people['moderator'].name}"
    assert (await people["owner"].ask("PUT", path)).status_code == 204
    assert (await people["owner"].get(f"/channels/{channel}"))["title"] == ""
    return Cast(stand, channel, people)


EVERYBODY = frozenset(WHO)
LOGGED_IN = EVERYBODY - {"nobody"}
MODERATORS = frozenset({"moderator", "owner", "admin"})
OWNERS = frozenset({"owner", "admin"})
BOOKKEEPERS = frozenset({"finance", "admin"})

RIGHTS: list[tuple[str, str, Any, frozenset[str]]] = [
    ("GET", "/channels/{channel}", None, EVERYBODY),
    ("GET", "/channels/{channel}/chat", None, EVERYBODY),
    ("GET", "/channels/{channel}/broadcasts", None, EVERYBODY),
    ("GET", "/channels/live", None, EVERYBODY),
    ("GET", "/categories", None, EVERYBODY),
    ("GET", "/search?q=a", None, EVERYBODY),
    ("GET", "/ingests", None, EVERYBODY),
    ("GET", "/accounts/me", None, LOGGED_IN),
    ("PATCH", "/accounts/me", {"display_name": "Somebody"}, LOGGED_IN),
    ("GET", "/accounts/me/follows", None, LOGGED_IN),
    ("GET", "/accounts/me/subscriptions", None, LOGGED_IN),
    ("POST", "/chat-tickets", None, LOGGED_IN),
    ("PUT", "/channels/{channel}/follow", None, LOGGED_IN),
    ("DELETE", "/channels/{channel}/follow", None, LOGGED_IN),
    ("POST", "/channels/{channel}/bans", {"username": "{victim}", "duration_s": 60}, MODERATORS),
    ("DELETE", "/channels/{channel}/bans/{victim}", None, MODERATORS),
    ("PATCH", "/channels/{channel}/chat-mode", {"slow_s": 3}, MODERATORS),
    ("DELETE", "/channels/{channel}/chat", None, MODERATORS),
    ("GET", "/channels/{channel}/moderation-log", None, MODERATORS),
    ("GET", "/channels/{channel}/bans", None, MODERATORS),
    ("GET", "/channels/{channel}/moderators", None, MODERATORS),
    ("PATCH", "/channels/{channel}", {"title": "A title"}, OWNERS),
    ("POST", "/channels/{channel}/stream-key", None, OWNERS),
    ("GET", "/channels/{channel}/stream-health", None, OWNERS),
    ("PUT", "/channels/{channel}/moderators/{victim}", None, OWNERS),
    ("DELETE", "/channels/{channel}/moderators/{victim}", None, OWNERS),
    ("GET", "/finance/trial-balance", None, BOOKKEEPERS),
    ("GET", "/finance/accounts/income:platform_share/postings", None, BOOKKEEPERS),
]


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize(
    ("method", "path", "body", "may"), RIGHTS, ids=[f"{method} {path}" for method, path, *_ in RIGHTS]
)
async def test_each_act_is_open_to_whom_it_should_be(
    cast: Cast, who: str, method: str, path: str, body: Any, may: frozenset[str]
) -> None:
    if body and "username" in body:
        body = body | {"username": cast.people["victim"].name}
    answer = await cast.ask(who, method, path, body)
    if who in may:
        assert answer.status_code in (200, 201, 204), answer.text
    elif who == "nobody":
        problem(answer, 401, "unauthenticated")
    else:
        problem(answer, 403, "forbidden")


async def test_a_moderator_who_was_removed_may_nothing_more_at_once(cast: Cast, stand: Stand) -> None:
    mod = await stand.register("mod")
    path = f"/channels/{cast.channel}/moderators/{mod.name}"
    for method, status in (("PUT", 200), ("DELETE", 403)):
        assert (await cast.people["owner"].ask(method, path)).status_code == 204
        seen = await mod.ask("PATCH", f"/channels/{cast.channel}/chat-mode", {"slow_s": 2})
        assert seen.status_code == status, seen.text


async def test_a_subscription_is_ended_by_whose_it_is(cast: Cast, stand: Stand) -> None:
    bob = await stand.register("bob")
    bought = await bob.ask(
        "POST", f"/channels/{cast.channel}/subscriptions", {"tier": 1}, **{"Idempotency-Key": str(uuid4())}
    )
    path = f"/subscriptions/{bought.json()['id']}"
    cast.people["viewer"].position = bob.position
    problem(await cast.people["viewer"].ask("DELETE", path), 404, "subscription_not_found")
    for _ in range(2):
        assert (await bob.ask("DELETE", path)).status_code == 204
    left = (await bob.get(f"/channels/{cast.channel}"))["subscription"]
    assert left["cancelled"] is True, "it runs on to the end of its period"


async def test_a_closed_channel_gives_tokens_to_whom_it_is_for(cast: Cast, stand: Stand) -> None:
    owner, sub = cast.people["owner"], await stand.register("sub")
    shop = f"/channels/{cast.channel}/subscriptions"
    bought = await sub.ask("POST", shop, {"tier": 1}, **{"Idempotency-Key": str(uuid4())})
    assert bought.status_code == 201, bought.text
    path, body = f"/channels/{cast.channel}/playback-token", {"subscribers_only_playback": True}
    problem(await sub.ask("PATCH", f"/channels/{cast.channel}", body), 403, "forbidden")
    assert (await cast.ask("nobody", "POST", "/channels/{channel}/playback-token", None)).status_code == 200
    assert (await owner.ask("PATCH", f"/channels/{cast.channel}", body)).status_code == 204
    shown = await owner.get(f"/channels/{cast.channel}")
    assert (shown["subscribers_only_playback"], shown["title"]) == (True, "A title")
    channel_id = shown["channel_id"]
    assert {"channel_id": channel_id} in await stand.services.store.index_table("channels_closed")
    for person in (sub, owner, cast.people["moderator"], cast.people["admin"]):
        answer = await person.ask("POST", path)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Cache-Control"] == "no-store"
        token = answer.json()["token"]
        assert answer.json() == {"token": token, "prefix": f"/play/{token}", "expires_in": TOKEN_S}
        now_s = time.time()
        assert stand.api.playback.channel_of(token, now_s=now_s) == channel_id
        assert stand.api.playback.channel_of(token, now_s=now_s + TOKEN_S + 1) is None
        assert person.account_id in token
    for person in (cast.people["viewer"], cast.people["finance"]):
        problem(await person.ask("POST", path), 403, "subscription_required")
    problem(await cast.ask("nobody", "POST", "/channels/{channel}/playback-token", None), 401, "unauthenticated")
    assert (
        await owner.ask("PATCH", f"/channels/{cast.channel}", {"subscribers_only_playback": False})
    ).status_code == 204
    assert (await cast.people["viewer"].ask("POST", path)).status_code == 200
    assert {"channel_id": channel_id} not in await stand.services.store.index_table("channels_closed")


FROM_ELSEWHERE = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://test"},
]


@pytest.mark.parametrize("site", FROM_ELSEWHERE, ids=str)
async def test_another_site_may_not_act_with_a_cookie_but_a_bearer_token_is_no_cookie(
    cast: Cast, site: dict[str, str]
) -> None:
    viewer = cast.people["viewer"]
    cookie = {"Cookie": f"{ACCESS_COOKIE}={viewer.token}"} | site
    acts = [("PUT", "/channels/{channel}/follow"), ("DELETE", "/channels/{channel}/follow"), ("POST", "/chat-tickets")]
    for method, path in acts:
        url = f"/api/v1{path.format(channel=cast.channel)}"
        problem(await cast.stand.client.request(method, url, headers=cookie), 403, "cross_site")
    assert (await viewer.ask("PUT", f"/channels/{cast.channel}/follow", None, **site)).status_code == 204
    # Nor log somebody in or out.
    for method, path in (("POST", ""), ("POST", "/refresh"), ("DELETE", "/current")):
        body = {"username": viewer.name, "password": "x"} if (method, path) == ("POST", "") else None
        url = f"/api/v1/sessions{path}"
        problem(await cast.stand.client.request(method, url, json=body, headers=cookie), 403, "cross_site")


@pytest.mark.parametrize("site", [{"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://test"}, {}], ids=str)
async def test_our_own_pages_act_with_the_cookie(cast: Cast, site: dict[str, str]) -> None:
    cookie = {"Cookie": f"{ACCESS_COOKIE}={cast.people['viewer'].token}"} | site
    answer = await cast.stand.client.put(f"/api/v1/channels/{cast.channel}/follow", headers=cookie)
    assert answer.status_code == 204, answer.text


async def test_a_cookie_that_ran_out_is_nobody_to_a_reader_and_an_error_to_who_acts(cast: Cast) -> None:
    cookie = {"Cookie": f"{ACCESS_COOKIE}=expired"}
    url = f"/api/v1/channels/{cast.channel}"
    seen = await cast.stand.client.get(url, headers=cookie)
    assert seen.status_code == 200
    assert "following" not in seen.json()
    problem(await cast.stand.client.put(f"{url}/follow", headers=cookie), 401, "unauthenticated")
