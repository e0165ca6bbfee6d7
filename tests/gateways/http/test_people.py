"""What an account has and may change about itself, whom a channel has silenced and appointed, and roles given on the command line."""

import asyncio
import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from commands.accounts import EraseAccount
from commands.bus import handle
from commands.context import Actor, Call, Done
from domain.subscription import PERIOD_DAYS
from gateways import bootstrap
from gateways.cli import app
from gateways.media_events import StoreEventPlane
from media.port import Denied, Grant
from tests.gateways.http.conftest import PASSWORD, Person, Stand, problem


async def pages(person: Person, path: str) -> list[dict[str, Any]]:
    """A list to its end, one item a page."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        one = await person.get(f"{path}{'&' if '?' in path else '?'}limit=1{cursor}")
        found += one["items"]
        if one["next"] is None:
            return found
        assert len(one["items"]) == 1
        cursor = f"&cursor={one['next']}"


async def again(stand: Stand, person: Person) -> Person:
    """The same person after another log-in."""
    logged = await stand.client.post("/api/v1/sessions", json={"username": person.name, "password": PASSWORD})
    return replace(person, token=logged.json()["access_token"], position=None)


@contextmanager
def at(stand: Stand, moment: datetime) -> Iterator[None]:
    """The API with this clock."""
    stand.app.state.api = replace(stand.api, context=replace(stand.api.context, clock=lambda: moment))
    try:
        yield
    finally:
        stand.app.state.api = stand.api


async def test_a_display_name_is_changed_and_seen_at_once(stand: Stand) -> None:
    ann = await stand.register("ann")
    await ann.open_channel()
    assert (await ann.get("/accounts/me"))["display_name"] == ann.name
    assert (await ann.ask("PATCH", "/accounts/me", {"display_name": " Ann Łovelace ✨ "})).status_code == 204
    me = await ann.get("/accounts/me")
    assert (me["username"], me["display_name"]) == (ann.name, "Ann Łovelace ✨")
    seen = await ann.get(f"/channels/{ann.name}")
    assert (seen["owner"], seen["owner_display_name"]) == (ann.name, "Ann Łovelace ✨")
    assert (await ann.ask("DELETE", "/accounts/me")).status_code == 204
    stranger = replace(ann, token=(await stand.register("bob")).token)
    assert (await stranger.get(f"/channels/{ann.name}"))["owner_display_name"] is None


@pytest.mark.parametrize("name", ["", "   ", "x" * 41, "a\x00b", "a\nb", "\u202eevil", "\u200b", None, 7])
async def test_a_display_name_one_cannot_read_is_refused(stand: Stand, name: object) -> None:
    ann = await stand.register("ann")
    problem(await ann.ask("PATCH", "/accounts/me", {"display_name": name}), 422, "invalid")


async def test_what_one_follows_is_listed_newest_first(stand: Stand) -> None:
    bob, others = await stand.register("bob"), [await stand.register(f"c{number}") for number in range(3)]
    for other in others:
        await other.open_channel(title="On")
        assert (await bob.ask("PUT", f"/channels/{other.name}/follow")).status_code == 204
        await bob.get("/accounts/me/follows")
        assert (await other.get(f"/channels/{other.name}"))["title"] == "On"
    assert (await bob.ask("DELETE", f"/channels/{others[1].name}/follow")).status_code == 204
    followed = await pages(bob, "/accounts/me/follows")
    assert [one["channel"] for one in followed] == [others[2].name, others[0].name]
    assert followed[0] | {"since": None} == {
        "channel": others[2].name, "title": "On", "category": "", "is_live": False, "since": None,
    }  # fmt: skip


async def test_a_subscription_that_has_run_out_is_counted_no_more_and_can_be_bought_again(stand: Stand) -> None:
    ann, bob = await stand.register("ann"), await stand.register("bob")
    name = await ann.open_channel()
    path = f"/channels/{name}/subscriptions"

    async def buy(key: str) -> Any:
        bought = await bob.ask("POST", path, {"tier": 1}, **{"Idempotency-Key": key})
        assert bought.status_code == 201, bought.text
        return bought.json()

    async def standing() -> tuple[int, Any, list[Any]]:
        seen = await bob.get(f"/channels/{name}")
        return seen["subscriber_count"], seen["subscription"], await pages(bob, "/accounts/me/subscriptions")

    with at(stand, bootstrap.clock() - timedelta(days=PERIOD_DAYS)):
        first = await buy("first")
    assert await standing() == (0, None, [])
    second = await buy("second")
    assert second["id"] != first["id"]
    count, subscription, listed = await standing()
    assert (count, subscription["subscription_id"], subscription["tier"]) == (1, second["id"], 1)
    assert [(one["id"], one["channel"], one["cancelled"]) for one in listed] == [(second["id"], name, False)]
    assert (await bob.ask("DELETE", f"/subscriptions/{second['id']}")).status_code == 204
    assert (await standing())[2][0]["cancelled"] is True


async def test_bans_that_hold_and_moderators_are_listed_for_moderators(stand: Stand) -> None:
    ann, mod, eve, mal, kim = [await stand.register(name) for name in ("ann", "mod", "eve", "mal", "kim")]
    name = await ann.open_channel()
    for one in (mod, kim):
        assert (await ann.ask("PUT", f"/channels/{name}/moderators/{one.name}")).status_code == 204
    mod.position = ann.position
    assert [one["username"] for one in await pages(mod, f"/channels/{name}/moderators")] == [mod.name, kim.name]
    with at(stand, bootstrap.clock() - timedelta(seconds=120)):
        gone = {"username": kim.name, "duration_s": 60}
        assert (await ann.ask("DELETE", f"/channels/{name}/moderators/{kim.name}")).status_code == 204
        assert (await mod.ask("POST", f"/channels/{name}/bans", gone)).status_code == 201
    for body in (
        {"username": eve.name, "duration_s": 600, "reason": "spam"},
        {"username": mal.name},
    ):
        assert (await mod.ask("POST", f"/channels/{name}/bans", body)).status_code == 201
    banned = await pages(mod, f"/channels/{name}/bans")
    assert [(one["username"], one["moderator"], one["reason"], bool(one["until"])) for one in banned] == [
        (mal.name, mod.name, None, False),
        (eve.name, mod.name, "spam", True),
    ]
    assert (await mod.ask("DELETE", f"/channels/{name}/bans/{mal.name}")).status_code == 204
    assert [one["username"] for one in await pages(mod, f"/channels/{name}/bans")] == [eve.name]
    ann.position = mod.position
    assert [one["username"] for one in await pages(ann, f"/channels/{name}/moderators")] == [mod.name]


async def test_a_role_given_on_the_command_line_opens_the_books_and_taken_closes_them(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = stand.settings
    for variable, value in (
        ("DATA_DIR", str(told.data_dir)),
        ("DSN", told.dsn.get_secret_value()),
        ("KEYS_DSN", told.keys_dsn.get_secret_value()),
        ("MASTER_KEY", base64.urlsafe_b64encode(bytes(32)).decode()),
    ):
        monkeypatch.setenv(f"TALLYLIGHT_{variable}", value)

    async def admin(*arguments: str) -> Result:
        # In a thread: the commands bring an event loop of their own.
        return await asyncio.to_thread(CliRunner().invoke, app, ["admin", *arguments])

    carl = await stand.register("carl")
    problem(await carl.ask("GET", "/finance/trial-balance"), 403, "forbidden")
    granted = await admin("grant", carl.name, "finance")
    assert (granted.exit_code, "has the role finance" in granted.output) == (0, True), granted.output
    carl = await again(stand, carl)
    assert (await carl.get("/finance/trial-balance"))["balanced"] is True
    revoked = await admin("revoke", carl.name.upper(), "finance")
    assert (revoked.exit_code, "no more" in revoked.output) == (0, True), revoked.output
    problem(await (await again(stand, carl)).ask("GET", "/finance/trial-balance"), 403, "forbidden")
    for arguments, said in (
        (("grant", carl.name, "king"), "Roles are admin, finance."),
        (("grant", "nobody_here", "finance"), "no account"),
        (("revoke", "nobody_here", "finance"), "no account"),
    ):
        refused = await admin(*arguments)
        assert (refused.exit_code, said in refused.output) == (1, True), refused.output


async def test_an_erased_owners_stream_key_stops_working(stand: Stand) -> None:
    ann = await stand.register("ann")
    name = await ann.open_channel()
    key = (await ann.ask("POST", f"/channels/{name}/stream-key")).json()["stream_key"]

    plane = StoreEventPlane(stand.services.store, lambda channel_id, viewer: None, clock=bootstrap.clock)
    assert isinstance(await plane.authorise(key, peer="192.0.2.1"), Grant)
    root = Actor("root", "root", frozenset({"admin"}))
    assert isinstance(await handle(stand.api.context, Call(uuid4(), root), EraseAccount(ann.account_id)), Done)
    problem(await ann.ask("POST", f"/channels/{name}/stream-key"), 404, "channel_not_found")
    assert isinstance(await plane.authorise(key, peer="192.0.2.1"), Denied)
    gone = await stand.client.post("/api/v1/sessions", json={"username": ann.name, "password": PASSWORD})
    problem(gone, 401, "credentials_invalid")
