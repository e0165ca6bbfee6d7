"""The API as its clients use it: accounts, sessions, channels, moderation, money, one's own writes, and every bad request a problem."""

import ast
import asyncio
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import jwt
import pytest

from domain.chat import MessagePosted
from eventstore.port import Appended, ChatPost
from gateways.errors import STATUS
from tests.gateways.http.conftest import PASSWORD, Person, Stand, problem

ROOT = Path(__file__).parents[3]


def test_every_refusal_in_the_source_has_its_status() -> None:
    codes = set()
    for folder in ("domain", "commands"):
        for file in (ROOT / folder).glob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and node.func.id in ("Refusal", "Problem")
                ):
                    for leaf in ast.walk(node.args[0]):
                        if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str):
                            codes.add(leaf.value)
    assert "name_taken" in codes
    assert "rate_limited" in STATUS
    assert codes <= set(STATUS)


async def test_registering_logging_in_and_being_somebody(stand: Stand) -> None:
    ann = await stand.register("ann")
    me = await ann.get("/accounts/me")
    assert (me["username"], me["roles"], me["channels"]) == (ann.name, [], [])
    taken = await stand.client.post("/api/v1/accounts", json={"username": ann.name.upper(), "password": PASSWORD})
    problem(taken, 409, "name_taken")
    problem(await stand.client.get("/api/v1/accounts/me"), 401, "unauthenticated")
    forged = jwt.encode(
        {"sub": ann.account_id, "name": "root", "roles": ["admin"], "iss": "tallylight", "exp": 2**33}, "x" * 32
    )
    for token in ("nonsense", forged, jwt.encode({"sub": "x"}, "", "none")):
        answer = await stand.client.get("/api/v1/accounts/me", headers={"Authorization": f"Bearer {token}"})
        problem(answer, 401, "unauthenticated")


async def test_a_channel_is_opened_described_followed_found_and_seen_at_once_by_who_did_it(stand: Stand) -> None:
    ann, bob = await stand.register("ann"), await stand.register("bob")
    name = await ann.open_channel(title="Painting", category="Art")
    seen = await ann.get(f"/channels/{name}")
    assert (seen["title"], seen["category"], seen["owner"], seen["is_live"]) == ("Painting", "Art", ann.name, False)
    assert (await ann.ask("PATCH", f"/channels/{name}", {"title": "Oil", "tags": ["slow"]})).status_code == 204
    seen = await ann.get(f"/channels/{name}")
    assert (seen["title"], seen["category"], seen["tags"]) == ("Oil", "Art", ["slow"])
    for _ in range(2):
        assert (await bob.ask("PUT", f"/channels/{name}/follow")).status_code == 204
    seen = await bob.get(f"/channels/{name}")
    assert (seen["follower_count"], seen["following"]) == (1, True)
    assert (await bob.ask("DELETE", f"/channels/{name}/follow")).status_code == 204
    assert (await bob.get(f"/channels/{name}"))["follower_count"] == 0
    assert name in [item["channel"] for item in (await ann.get(f"/search?q={name[:8]}"))["items"]]
    assert {"name": "Art"} in (await ann.get("/categories"))["items"]
    assert (await ann.get("/channels/live"))["items"] == []
    assert (await ann.get(f"/channels/{name}/broadcasts")) == {"items": [], "next": None}
    problem(await bob.ask("PATCH", f"/channels/{name}", {"title": "Mine"}), 403, "forbidden")
    problem(await bob.ask("GET", "/channels/no_such_channel"), 404, "channel_not_found")


async def test_a_stream_key_is_told_once_and_the_same_request_is_told_so(stand: Stand) -> None:
    ann = await stand.register("ann")
    name = await ann.open_channel()
    path = f"/channels/{name}/stream-key"
    keys = []
    for wanted in ("one", "two"):
        keys.append((await ann.ask("POST", path, None, **{"Idempotency-Key": wanted})).json()["stream_key"])
        for _ in range(2):
            again = await ann.ask("POST", path, None, **{"Idempotency-Key": "one"})
            problem(again, 409, "stream_key_told")
    (row,) = await stand.services.pool.fetch("SELECT key_hash FROM stream_keys WHERE channel = $1", name)
    assert row["key_hash"] == sha256(keys[1].encode()).hexdigest()


async def test_moderation_over_the_api_stands_in_the_log_and_in_admission(stand: Stand) -> None:
    ann, mod, eve = [await stand.register(name) for name in ("ann", "mod", "eve")]
    name = await ann.open_channel()
    channel_id = (await ann.get(f"/channels/{name}"))["channel_id"]
    assert (await ann.ask("PUT", f"/channels/{name}/moderators/{mod.name}")).status_code == 204

    async def say(text: str, who: Person = eve) -> object:
        event = MessagePosted(
            channel_id=channel_id, message_id=text, author_id=who.account_id, username=who.name, text=text
        )
        return await stand.services.store.post_message(
            ChatPost(uuid4(), channel_id, who.account_id, event, text.encode())
        )

    assert isinstance(await say("m1"), Appended)
    assert (await mod.ask("DELETE", f"/channels/{name}/chat/m1")).status_code == 204
    banned = await mod.ask("POST", f"/channels/{name}/bans", {"username": eve.name, "duration_s": 60, "reason": "spam"})
    assert banned.status_code == 201
    assert banned.json()["until"]
    refused = await say("m2")
    assert getattr(refused, "reason", None) == "timed_out"
    assert (await mod.get(f"/channels/{name}/chat"))["items"] == []
    log = (await mod.get(f"/channels/{name}/moderation-log"))["items"]
    assert [(entry["action"], entry["moderator"], entry["target"]) for entry in log][:2] == [
        ("timeout", mod.name, eve.name),
        ("delete", mod.name, eve.name),
    ]
    assert (await mod.ask("DELETE", f"/channels/{name}/bans/{eve.name}")).status_code == 204
    mode = await mod.ask("PATCH", f"/channels/{name}/chat-mode", {"slow_s": 30})
    assert mode.json()["slow_s"] == 30
    assert isinstance(await say("m3", ann), Appended)
    assert (await mod.ask("DELETE", f"/channels/{name}/chat")).status_code == 204
    assert (await mod.get(f"/channels/{name}/chat"))["items"] == []
    log = (await mod.get(f"/channels/{name}/moderation-log"))["items"]
    assert [(entry["action"], entry["moderator"]) for entry in log] == [
        ("clear", mod.name),
        ("mode", mod.name),
        ("unban", mod.name),
        ("timeout", mod.name),
        ("delete", mod.name),
        ("mod", ann.name),
    ]
    problem(await eve.ask("GET", f"/channels/{name}/moderation-log"), 403, "forbidden")
    problem(await mod.ask("POST", f"/channels/{name}/bans", {"username": ann.name}), 403, "cannot_ban_owner")
    problem(await mod.ask("POST", f"/channels/{name}/bans", {"username": "nobody_at_all"}), 404, "account_not_found")


async def test_a_subscription_is_charged_once_and_the_books_balance(stand: Stand) -> None:
    ann, bob = await stand.register("ann"), await stand.register("bob")
    carl = await stand.register("carl", "finance")
    name = await ann.open_channel()
    path = f"/channels/{name}/subscriptions"
    problem(await bob.ask("POST", path, {"tier": 1}), 400, "idempotency_key_required")
    once = {"Idempotency-Key": "purchase-1"}
    answers = await asyncio.gather(*(bob.ask("POST", path, {"tier": 2}, **once) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {201}, [answer.text for answer in answers]
    assert len({answer.json()["id"] for answer in answers}) == 1
    problem(await bob.ask("POST", path, {"tier": 2}, **{"Idempotency-Key": "purchase-2"}), 409, "already_subscribed")
    declined = await carl.ask("POST", path, {"tier": 1, "payment_method": "pm_declined"}, **once)
    problem(declined, 402, "payment_declined")
    seen = await bob.get(f"/channels/{name}")
    assert seen["subscriber_count"] == 1
    assert seen["subscription"]["tier"] == 2
    carl.position = bob.position
    books = await carl.get("/finance/trial-balance")
    assert books["balanced"]
    (total,) = books["totals"].values()
    assert total["debit_minor"] == total["credit_minor"] > 0
    assert sum(item["balance_minor"] for item in books["items"]) == 0
    clearing = next(item for item in books["items"] if "clearing" in item["account"])
    lines = await carl.get(f"/finance/accounts/{clearing['account']}/postings")
    assert sum(line["amount_minor"] for line in lines["items"]) == clearing["balance_minor"]
    problem(await bob.ask("GET", "/finance/trial-balance"), 403, "forbidden")
    assert (await bob.ask("DELETE", f"/subscriptions/{seen['subscription']['subscription_id']}")).status_code == 204
    assert (await bob.get(f"/channels/{name}"))["subscription"]["cancelled"] is True


async def test_lists_go_on_where_their_cursor_says(stand: Stand) -> None:
    ann, carl = await stand.register("ann"), await stand.register("carl", "finance")
    name = await ann.open_channel()
    for number in range(3):
        bob = await stand.register(f"b{number}")
        answer = await bob.ask("POST", f"/channels/{name}/subscriptions", {"tier": 1}, **{"Idempotency-Key": "k"})
        carl.position = answer.headers["Tallylight-Position"]
    account = next(
        item["account"]
        for item in (await carl.get("/finance/trial-balance"))["items"]
        if "creator_payable" in item["account"]
    )
    seen, cursor = [], ""
    while True:
        listed = await carl.get(f"/finance/accounts/{account}/postings?limit=1{cursor}")
        seen += listed["items"]
        if listed["next"] is None:
            break
        cursor = f"&cursor={listed['next']}"
    whole = await carl.get(f"/finance/accounts/{account}/postings")
    assert seen == whole["items"]


async def test_categories_and_finds_go_on_where_their_cursor_says(stand: Stand) -> None:
    ann = await stand.register("ann")
    word = f"w{uuid4().hex[:10]}"
    for number in range(4):
        carl = await stand.register(f"carl{number}")
        await carl.open_channel(title=f"{word} {number}", category=f"{word} {number}")
        ann.position = carl.position
        if number == 2:
            assert (await ann.ask("PUT", f"/channels/{carl.name}/follow")).status_code == 204
        await ann.get("/categories")
        await ann.get(f"/search?q={word}")
    for path, field in ((f"/search?q={word}", "title"), ("/categories?", "name")):
        found, cursor = [], ""
        while True:
            listed = await ann.get(f"{path}&limit=2{cursor}")
            found += [item[field] for item in listed["items"]]
            if listed["next"] is None:
                break
            cursor = f"&cursor={listed['next']}"
        mine = [title for title in found if title.startswith(word)]
        assert sorted(mine) == [f"{word} {number}" for number in range(4)]
        assert len(found) == len(set(found))
        assert mine[0] == (f"{word} 2" if field == "title" else f"{word} 0"), "what is followed is found first"


@pytest.mark.parametrize(
    ("break_it", "mend_it"),
    [
        ("ALTER SCHEMA p_categories RENAME TO gone", "ALTER SCHEMA gone RENAME TO p_categories"),
        ("ALTER TABLE p_categories.categories RENAME TO gone", "ALTER TABLE p_categories.gone RENAME TO categories"),
        (
            "ALTER TABLE p_categories.categories RENAME COLUMN name TO gone",
            "ALTER TABLE p_categories.categories RENAME COLUMN gone TO name",
        ),
    ],
)
async def test_a_read_model_that_is_missing_or_of_an_older_release_is_away_for_a_moment(
    stand: Stand, break_it: str, mend_it: str
) -> None:
    await stand.services.pool.execute(break_it)
    try:
        answer = await stand.client.get("/api/v1/categories")
    finally:
        await stand.services.pool.execute(mend_it)
    problem(answer, 503, "unavailable")
    assert "Retry-After" in answer.headers
    assert (await stand.client.get("/api/v1/categories")).status_code == 200


async def test_a_store_that_is_away_is_said_to_be(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    from eventstore.errors import StoreUnavailable

    async def away(*_: object) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(type(stand.services.store), "index_row", away)
    answer = await stand.client.get("/api/v1/channels/anything")
    problem(answer, 503, "unavailable")
    assert "Retry-After" in answer.headers


async def test_pages_and_descriptions_are_served_and_an_unknown_page_is_a_page(stand: Stand) -> None:
    for path in ("/", "/login", "/some_channel", "/openapi.json", "/docs", "/asyncapi.json", "/healthz", "/readyz"):
        answer = await stand.client.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    unknown = await stand.client.get("/no/such/page", headers={"Accept": "text/html"})
    assert unknown.status_code == 404
    assert "text/html" in unknown.headers["Content-Type"]
