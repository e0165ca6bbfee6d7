"""Who is who over HTTP: passwords and their limits, cookies that other sites cannot use, refresh tokens, tickets, erasure."""

import asyncio
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI, Request

from gateways.auth import ACCESS_COOKIE, HASHES_WAITING_MAX, HASHING_MAX, REFRESH_COOKIE
from gateways.engines.process import free_port
from gateways.health import Readiness
from gateways.serving import serve
from tests.gateways.http.conftest import PASSWORD, Person, Stand, problem

SESSIONS = "/api/v1/sessions"


async def logged_in(stand: Stand, person: Person) -> dict[str, str]:
    answer = await stand.client.post(SESSIONS, json={"username": person.name, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    told: dict[str, str] = answer.json()
    return told


async def refreshed(stand: Stand, token: str) -> httpx.Response:
    return await stand.client.post(f"{SESSIONS}/refresh", json={"refresh_token": token})


async def test_wrong_passwords_are_told_apart_from_nothing_and_soon_from_nobody(stand: Stand) -> None:
    ann = await stand.register("ann")
    for username in (ann.name, f"nobody_{uuid4().hex[:6]}"):
        for _ in range(5 if username == ann.name else 1):
            wrong = await stand.client.post("/api/v1/sessions", json={"username": username, "password": "wrong"})
            if wrong.status_code == 429:
                break
            problem(wrong, 401, "credentials_invalid")
    right = await stand.client.post("/api/v1/sessions", json={"username": ann.name, "password": PASSWORD})
    assert problem(right, 429, "too_many_attempts")["wait_s"] > 0
    assert int(right.headers["Retry-After"]) > 0
    stand.api.logins._failed.clear()


async def log_in_from(stand: Stand, peer: str, username: str, password: str) -> httpx.Response:
    transport = httpx.ASGITransport(stand.app, client=(peer, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post(SESSIONS, json={"username": username, "password": password})


async def test_a_stranger_who_guesses_locks_nobody_out_but_himself(stand: Stand) -> None:
    ann = await stand.register("ann")
    for _ in range(5):
        problem(await log_in_from(stand, "198.51.100.7", ann.name, "wrong"), 401, "credentials_invalid")
    problem(await log_in_from(stand, "198.51.100.7", ann.name, "wrong"), 429, "too_many_attempts")
    assert (await log_in_from(stand, "198.51.100.8", ann.name, PASSWORD)).status_code == 200
    problem(await log_in_from(stand, "198.51.100.7", ann.name, PASSWORD), 429, "too_many_attempts")


async def test_who_tries_one_password_on_every_name_is_stopped(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = await stand.register("ann")
    monkeypatch.setattr(stand.api.logins_of_address, "_most", 3)
    for number in range(3):
        problem(await log_in_from(stand, "198.51.100.9", f"nobody_{number}", "wrong"), 401, "credentials_invalid")
    problem(await log_in_from(stand, "198.51.100.9", ann.name, PASSWORD), 429, "too_many_attempts")


async def test_a_browsers_session_is_cookies_that_scripts_and_other_sites_cannot_use(stand: Stand) -> None:
    ann = await stand.register("ann")
    headers = {"Sec-Fetch-Site": "same-origin"}
    logged = await stand.client.post(
        "/api/v1/sessions", json={"username": ann.name, "password": PASSWORD}, headers=headers
    )
    assert "refresh_token" not in logged.json()
    cookies = logged.headers.get_list("Set-Cookie")
    assert len(cookies) == 2
    assert all("HttpOnly" in one and "SameSite" in one for one in cookies)
    values = dict(one.split(";")[0].split("=", 1) for one in cookies)
    access = {"Cookie": f"{ACCESS_COOKIE}={values[ACCESS_COOKIE]}"}
    assert (await stand.client.get("/api/v1/accounts/me", headers=access)).status_code == 200
    for site in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        answer = await stand.client.post("/api/v1/chat-tickets", headers=access | site)
        problem(answer, 403, "cross_site")
    assert (await stand.client.post("/api/v1/chat-tickets", headers=access | headers)).status_code == 201
    kept = {"Cookie": f"{REFRESH_COOKIE}={values[REFRESH_COOKIE]}"} | headers
    assert (await stand.client.post("/api/v1/sessions/refresh", headers=kept)).status_code == 200
    assert (await stand.client.delete("/api/v1/sessions/current", headers=kept)).status_code == 204
    problem(await stand.client.post("/api/v1/sessions/refresh", headers=kept), 401, "session_ended")


async def test_a_refresh_token_used_again_ends_its_whole_family(stand: Stand) -> None:
    first = (await logged_in(stand, await stand.register("ann")))["refresh_token"]
    second = (await refreshed(stand, first)).json()["refresh_token"]
    assert second != first
    for token in (first, second):
        problem(await refreshed(stand, token), 401, "session_ended")


async def test_two_tabs_may_refresh_the_same_cookie_at_once_but_not_an_hour_later(stand: Stand) -> None:
    ann = await stand.register("ann")
    kept = {"Cookie": f"{REFRESH_COOKIE}={(await logged_in(stand, ann))['refresh_token']}"}
    tabs = await asyncio.gather(*(stand.client.post(f"{SESSIONS}/refresh", headers=kept) for _ in range(2)))
    assert [tab.status_code for tab in tabs] == [200, 200]
    await stand.services.pool.execute(
        "UPDATE sessions SET used_at = used_at - interval '1 hour' WHERE account_id = $1", ann.account_id
    )
    problem(await stand.client.post(f"{SESSIONS}/refresh", headers=kept), 401, "session_ended")
    problem(await refreshed(stand, tabs[0].json()["refresh_token"]), 401, "session_ended")


async def test_an_api_client_ends_its_session_with_its_access_token_and_no_other(stand: Stand) -> None:
    ann = await stand.register("ann")
    one, other = await logged_in(stand, ann), await logged_in(stand, ann)
    problem(await stand.client.delete(f"{SESSIONS}/current"), 401, "unauthenticated")
    for token in ("nonsense", "x" * 5000):
        bad = await stand.client.delete(f"{SESSIONS}/current", headers={"Authorization": f"Bearer {token}"})
        problem(bad, 401, "unauthenticated")
    bearer = {"Authorization": f"Bearer {one['access_token']}"}
    assert (await stand.client.delete(f"{SESSIONS}/current", headers=bearer)).status_code == 204
    problem(await refreshed(stand, one["refresh_token"]), 401, "session_ended")
    assert (await refreshed(stand, other["refresh_token"])).status_code == 200


async def test_an_expired_session_is_ended_and_forgotten(stand: Stand) -> None:
    ann = await stand.register("ann")
    token = (await logged_in(stand, ann))["refresh_token"]
    await stand.services.pool.execute("UPDATE sessions SET expires_at = now() WHERE account_id = $1", ann.account_id)
    problem(await refreshed(stand, token), 401, "session_ended")
    await stand.services.sessions.forget_expired()
    left = "SELECT count(*) FROM sessions WHERE account_id = $1"
    assert await stand.services.pool.fetchval(left, ann.account_id) == 0


async def test_an_erased_person_is_logged_out_everywhere(stand: Stand) -> None:
    ann = await stand.register("ann")
    token = (await logged_in(stand, ann))["refresh_token"]
    ticket = (await ann.ask("POST", "/chat-tickets")).json()["ticket"]
    assert (await ann.ask("DELETE", "/accounts/me")).status_code == 204
    problem(await refreshed(stand, token), 401, "session_ended")
    assert await stand.services.sessions.redeem(ticket) is None
    again = await stand.client.post(SESSIONS, json={"username": ann.name, "password": PASSWORD})
    problem(again, 401, "credentials_invalid")
    stand.api.logins._failed.clear()


async def test_of_many_guesses_at_once_no_more_than_the_bound_are_told_whether_they_were_right(stand: Stand) -> None:
    ann = await stand.register("ann")
    guesses = [*(f"wrong {number}" for number in range(30)), PASSWORD]
    answers = await asyncio.gather(
        *(stand.client.post(SESSIONS, json={"username": ann.name, "password": guess}) for guess in guesses)
    )
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {401, 429}
    assert statuses.count(401) <= 5 + HASHING_MAX
    stand.api.logins._failed.clear()


async def test_more_passwords_than_can_be_hashed_soon_are_told_to_come_back(stand: Stand) -> None:
    body = {"username": f"u_{uuid4().hex[:8]}", "password": PASSWORD}
    waiting, stand.api.passwords._here = stand.api.passwords._here, HASHING_MAX + HASHES_WAITING_MAX
    for path in (SESSIONS, "/api/v1/accounts"):
        busy = await stand.client.post(path, json=body)
        problem(busy, 503, "unavailable")
        assert "Retry-After" in busy.headers
    stand.api.passwords._here = waiting
    assert (await stand.client.post("/api/v1/accounts", json=body)).status_code == 201


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::2:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("unknown", "unknown", True),
    ],
)
async def test_registrations_are_limited_per_address_or_ipv6_network(
    stand: Stand, first: str, second: str, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.api.registrations._failed.clear()
    monkeypatch.setattr(stand.api.registrations, "_most", 1)
    answers = []
    for peer in (first, second):
        transport = httpx.ASGITransport(stand.app, client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            body = {"username": f"u_{uuid4().hex[:8]}", "password": PASSWORD}
            answers.append(await client.post("/api/v1/accounts", json=body))
    assert answers[0].status_code == 201, answers[0].text
    if same:
        assert problem(answers[1], 429, "too_many_attempts")["wait_s"] > 0
    else:
        assert answers[1].status_code == 201, answers[1].text
    stand.api.registrations._failed.clear()


@pytest.mark.parametrize(("trusted", "seen"), [("127.0.0.1", "203.0.113.7"), ("192.0.2.1", "127.0.0.1")])
async def test_the_address_is_the_one_the_front_names_and_nobody_elses_word(trusted: str, seen: str) -> None:
    app = FastAPI()

    @app.get("/")
    async def whoami(request: Request) -> str:
        return request.client.host if request.client else ""

    readiness = Readiness("test")
    port = free_port()
    serving = asyncio.create_task(serve(app, "127.0.0.1", port, readiness, trusted=trusted))
    await readiness.wait()
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/", headers={"X-Forwarded-For": "203.0.113.7"})
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert answer.json() == seen


@pytest.mark.parametrize("password", ["short", "x" * 257, "x" * 60_000], ids=["short", "long", "huge"])
async def test_a_password_has_8_to_256_characters(stand: Stand, password: str) -> None:
    body = {"username": f"u_{uuid4().hex[:8]}", "password": password}
    problem(await stand.client.post("/api/v1/accounts", json=body), 422, "invalid")
    if len(password) > 256:
        problem(await stand.client.post(SESSIONS, json=body), 422, "invalid")


@pytest.mark.parametrize("name", ["admin", "API", "static", "dashboard", "Videos", "webhooks", "finance"])
async def test_a_name_that_is_a_route_is_reserved(stand: Stand, name: str) -> None:
    answer = await stand.client.post("/api/v1/accounts", json={"username": name, "password": PASSWORD})
    problem(answer, 422, "name_reserved")
    ann = await stand.register("ann")
    problem(await ann.ask("POST", "/channels", {"name": name}), 422, "name_reserved")


async def test_one_idempotency_key_of_two_strangers_makes_two_accounts(stand: Stand) -> None:
    made = []
    for _ in range(2):
        body = {"username": f"u_{uuid4().hex[:8]}", "password": PASSWORD}
        for _ in range(2):
            answer = await stand.client.post("/api/v1/accounts", json=body, headers={"Idempotency-Key": "1"})
            assert answer.status_code == 201, answer.text
            made.append((answer.json()["username"], answer.json()["account_id"]))
    assert len(made) == 4
    assert len(set(made)) == len({account_id for _, account_id in made}) == 2


async def test_a_ticket_is_good_once(stand: Stand) -> None:
    ann = await stand.register("ann")
    ticket = (await ann.ask("POST", "/chat-tickets")).json()["ticket"]
    session = stand.api.tokens.session_of(ann.token)
    assert session is not None
    assert await stand.services.sessions.redeem(ticket) == (ann.account_id, ann.name, session)
    assert await stand.services.sessions.redeem(ticket) is None
