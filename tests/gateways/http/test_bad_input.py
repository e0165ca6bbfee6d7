"""Whatever is sent, the answer is a problem by name: a table of the known ways, cursors made up, and generated requests to every path."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateways.errors import STATUS
from gateways.http.app import BODY_BYTES_MAX
from tests.gateways.http.conftest import Person, Stand, problem

BAD = [
    ("GET", "/api/v1/nowhere", None, {}, 404, "not_found"),
    ("PUT", "/api/v1/accounts", None, {}, 405, "method_not_allowed"),
    ("POST", "/api/v1/accounts", b"{", {}, 422, "invalid"),
    ("POST", "/api/v1/accounts", b"[1,2]", {}, 422, "invalid"),
    ("POST", "/api/v1/accounts", b'{"username":"abc","password":"short"}', {}, 422, "invalid"),
    ("POST", "/api/v1/accounts", b'{"username":"abc","password":"long enough","admin":true}', {}, 422, "invalid"),
    ("POST", "/api/v1/accounts", b'{"username":"a\\u0000b","password":"long enough"}', {}, 422, "name_invalid"),
    ("POST", "/api/v1/sessions", b'{"username":"a\\u0000b","password":"x"}', {}, 401, "credentials_invalid"),
    ("POST", "/api/v1/accounts", b" " * (BODY_BYTES_MAX + 1), {}, 413, "body_too_large"),
    ("GET", "/api/v1/search?q=" + "x" * 5000, None, {}, 413, "body_too_large"),
    ("GET", "/api/v1/search", None, {}, 422, "invalid"),
    ("GET", "/api/v1/channels/live?limit=0", None, {}, 422, "invalid"),
    ("GET", "/api/v1/channels/live?cursor=bogus", None, {}, 400, "cursor_invalid"),
    ("GET", "/api/v1/channels/live?cursor=WzEsMl0", None, {}, 400, "cursor_invalid"),
    ("GET", "/api/v1/channels/live", None, {"Tallylight-Position": "bogus"}, 400, "position_invalid"),
    ("GET", "/api/v1/channels/live", None, {"Tallylight-Position": "eyI5OSI6MX0"}, 400, "position_invalid"),
    ("GET", "/api/v1/channels/%00", None, {}, 404, "channel_not_found"),
    ("GET", "/api/v1/broadcasts/%00/chat", None, {}, 404, "broadcast_not_found"),
    ("GET", "/api/v1/accounts/me", None, {"Authorization": "Basic eDp5"}, 401, "unauthenticated"),
    ("POST", "/api/v1/sessions/refresh", None, {}, 401, "session_ended"),
    ("POST", "/api/v1/channels", b'{"name":"abc"}', {}, 401, "unauthenticated"),
    ("POST", "/api/v1/accounts", b"[" * 60_000, {}, 400, "bad_request"),
    ("POST", "/api/v1/accounts", b'{"username":' + b"9" * 5000 + b"}", {}, 400, "bad_request"),
    ("POST", "/api/v1/accounts", b'{"\\ud800":1}', {}, 422, "invalid"),
    ("POST", "/api/v1/accounts", b'{"username":"\\ud800","password":"long enough"}', {}, 422, "invalid"),
    ("POST", "/api/v1/accounts", b'{"' + b"k" * 60_000 + b'":1}', {}, 422, "invalid"),
    ("POST", "/api/v1/accounts", b"\xff\xfe", {}, 422, "invalid"),
    ("POST", "/api/v1/accounts", b"{}", {"Content-Type": "text/plain"}, 415, "media_type_unsupported"),
    ("POST", "/api/v1/accounts", b"{}", {"Content-Type": "application/xml"}, 415, "media_type_unsupported"),
    (
        "POST",
        "/api/v1/sessions",
        b"a=b",
        {"Content-Type": "application/x-www-form-urlencoded"},
        415,
        "media_type_unsupported",
    ),
    ("POST", "/api/v1/accounts", b"{}", {"Content-Length": "-1"}, 400, "bad_request"),
    ("POST", "/api/v1/accounts", b"{}", {"Content-Length": "9" * 5000}, 413, "body_too_large"),
    ("GET", "/api/v1/channels/live?cursor=WzEsIlx1MDAwMCJd", None, {}, 400, "cursor_invalid"),
    ("GET", "/api/v1/channels/live?cursor=" + "W" * 401, None, {}, 422, "invalid"),
    ("GET", "/api/v1/channels/live?cursor=%00", None, {}, 400, "cursor_invalid"),
    ("GET", "/api/v1/channels/live?category=%00", None, {}, 422, "invalid"),
    ("GET", "/api/v1/channels/live?limit=" + "9" * 400, None, {}, 422, "invalid"),
    ("GET", "/api/v1/channels/abc/chat?after=" + "9" * 40, None, {}, 422, "invalid"),
    ("GET", "/api/v1/channels/abc/chat?after=-1", None, {}, 422, "invalid"),
    ("GET", "/api/v1/broadcasts/abc/chat?from_offset=nan", None, {}, 422, "invalid"),
    ("GET", "/api/v1/broadcasts/abc/chat?to_offset=1e400", None, {}, 422, "invalid"),
    ("GET", "/api/v1/channels/no_such/broadcasts", None, {}, 404, "channel_not_found"),
    ("GET", "/api/v1/channels/live", None, {"Tallylight-Position": "e30"}, 400, "position_invalid"),
    ("GET", "/api/v1/channels/live", None, {"Tallylight-Position": "x" * 5000}, 400, "position_invalid"),
    ("GET", "/api/v1/accounts/me", None, {"Authorization": "Bearer " + "x" * 10_000}, 401, "unauthenticated"),
    ("POST", "/api/v1/chat-tickets", None, {"Cookie": 'tallylight_access=x; a="b'}, 401, "unauthenticated"),
    ("OPTIONS", "/api/v1/channels/live", None, {}, 405, "method_not_allowed"),
]


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "code"), BAD)
async def test_a_bad_request_is_answered_with_its_problem(
    stand: Stand, method: str, path: str, body: bytes | None, headers: dict[str, str], status: int, code: str
) -> None:
    typed = {"Content-Type": "application/json"} if body else {}
    answer = await stand.client.request(method, path, content=body, headers=typed | headers)
    problem(answer, status, code)
    stand.api.logins._failed.clear()


async def fuzzer(stand: Stand) -> Person:
    """Somebody with a channel and the finance role, whose fame is short."""
    if stand.fuzzer is None:
        stand.fuzzer = await stand.register("fuzz", "finance")
        await stand.fuzzer.open_channel()
    return stand.fuzzer


def cursor(values: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(values)).decode().rstrip("=")


MADE_UP: list[Any] = [
    None,
    {},
    [],
    [[]],
    [1, 2, 3, 4, 5],
    [-1],
    [2**62],
    [True],
    ["\x00"],
    [-1, "a"],
    [1, "\x00"],
    ["2026-01-01", "a"],
    ["0001-01-01T00:00:00+14:00", "a"],
    ["9999-12-31T23:59:59-14:00", "a"],
    ["2026-01-01T00:00:00Z", "\x00"],
    ["2026-01-01T00:00:00", 1, 1, 1],
    ["2026-01-01T00:00:00Z", 2**31, 1, 1],
    ["2026-01-01T00:00:00Z", 1, 2**62, 1],
    ["2026-01-01T00:00:00Z", 1, 1, 2**31],
    ["0001-01-01T00:00:00+14:00", 1, 1, 1],
]


@pytest.mark.parametrize("values", MADE_UP, ids=repr)
async def test_a_cursor_that_we_never_gave_is_refused_by_every_list(stand: Stand, values: Any) -> None:
    ann = await fuzzer(stand)
    for path in ("chat", "broadcasts", "moderation-log"):
        problem(await ann.ask("GET", f"/channels/{ann.name}/{path}?cursor={cursor(values)}"), 400, "cursor_invalid")
    for path in ("/channels/live", "/finance/accounts/x/postings"):
        problem(await ann.ask("GET", f"{path}?cursor={cursor(values)}"), 400, "cursor_invalid")


MOMENTS = ("2026-01-01T00:00:00", "0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00", "nan", "1e300", "9" * 99)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_time_without_an_offset_or_out_of_range_is_refused(stand: Stand, moment: str) -> None:
    ann = await fuzzer(stand)
    for field in ("as_of", "recorded_as_of"):
        problem(await ann.ask("GET", f"/finance/trial-balance?{field}={moment}"), 422, "invalid")


async def test_a_body_that_grows_beyond_its_bound_as_it_comes_is_cut_off(stand: Stand) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 4096

    headers = {"Content-Type": "application/json"}
    answer = await stand.client.post("/api/v1/accounts", content=endless(), headers=headers)
    problem(answer, 413, "body_too_large")


async def test_a_wrong_method_names_the_right_ones(stand: Stand) -> None:
    answer = await stand.client.put("/api/v1/sessions/current")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "DELETE"


async def test_whatever_is_to_be_done_is_refused_to_nobody(stand: Stand) -> None:
    free = {"/api/v1/accounts", "/api/v1/sessions", "/api/v1/sessions/refresh", "/webhooks/{provider}"}
    free |= {"/api/v1/channels/{name}/playback-token"}  # of channels that anybody may watch
    for path, methods in stand.app.openapi()["paths"].items():
        for method in methods.keys() - {"get"}:
            if path in free:
                continue
            url = path.replace("{", "").replace("}", "")
            body: dict[str, Any] | None = None if method in ("delete", "put") else {}
            answer = await stand.client.request(method.upper(), url, json=body)
            problem(answer, 401, "unauthenticated")


HOSTILE: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, -1, 2**31, 2**53 + 1, 2**63, 2**64, 10**400, 1e308, -0.0, "", " ", "\x00", "a\x00b", "x" * 3000, "\u202e",
     "\U0001f4a5", "%", "' OR 1=1", "../..", [], [[]], {}, {"": ""}, [None] * 20]
)  # fmt: skip
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
FITTING_TEXT = ("abc", "USD", "pm_ok", "Art", "correct horse", "a@b.example", "2026-01-01T00:00:00Z")


def fitting(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a schema of the document means, or nearly."""
    if "anyOf" in schema:
        return st.one_of([fitting(one) for one in schema["anyOf"]])
    match schema.get("type"):
        case "integer":
            return st.integers(schema.get("minimum", -(2**70)), schema.get("maximum", 2**70))
        case "number":
            return st.floats(schema.get("minimum"), schema.get("maximum"), allow_nan=False, allow_infinity=False)
        case "boolean":
            return st.booleans()
        case "array":
            return st.lists(st.sampled_from(FITTING_TEXT), max_size=3)
        case "null":
            return st.none()
        case _:
            return st.sampled_from(FITTING_TEXT) | st.text(max_size=150)


def bodies(document: dict[str, Any], operation: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Bodies of the described shape with values that fit or do not, and any JSON at all."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return st.none() | ANY_JSON
    schema = content["schema"]
    reference = schema.get("$ref") or next(one["$ref"] for one in schema["anyOf"] if "$ref" in one)
    shape = document["components"]["schemas"][reference.rsplit("/", 1)[1]]
    fields = {name: fitting(field) | HOSTILE for name, field in shape["properties"].items()}
    required = {name: fields.pop(name) for name in shape.get("required", ())}
    return st.fixed_dictionaries(required, optional=fields) | ANY_JSON


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
async def test_no_request_makes_the_api_stumble(stand: Stand, data: st.DataObject) -> None:
    document = stand.app.openapi()
    path = data.draw(st.sampled_from(sorted(document["paths"])))
    method = data.draw(st.sampled_from(sorted(document["paths"][path])))
    if (method, path) == ("delete", "/api/v1/accounts/me") or path.endswith("/feed"):
        return  # the one would end the fuzzer, the other never ends
    operation = document["paths"][path][method]
    ann = await fuzzer(stand)
    query, url = {}, path
    for parameter in operation.get("parameters", ()):
        drawn = data.draw(fitting(parameter["schema"]) | HOSTILE)
        if parameter["in"] == "path":
            part = data.draw(st.sampled_from([ann.name, str(drawn)[:200]])) or "x"
            url = url.replace(f"{{{parameter['name']}}}", quote(part, safe=""))
        elif parameter["in"] == "query" and (parameter.get("required") or data.draw(st.booleans())):
            query[parameter["name"]] = str(drawn)[:400]
    body = data.draw(bodies(document, operation))
    headers = {"Content-Type": "application/json", "Idempotency-Key": str(data.draw(st.integers(0, 2)))}
    if data.draw(st.integers(0, 9)):
        headers["Authorization"] = f"Bearer {ann.token}"
    content = None if body is None else json.dumps(body)
    answer = await stand.client.request(method.upper(), url, params=query, headers=headers, content=content)
    stand.api.registrations._failed.clear()
    stand.api.logins._failed.clear()
    assert answer.status_code < 500, (method, url, body, query, answer.text)
    if answer.status_code >= 400:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["code"] in STATUS
