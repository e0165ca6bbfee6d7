"""What the live origin gives beside playlists: parts and segments, refusals, room for those who wait; and whatever else one may ask."""

import gc
import weakref
from collections.abc import AsyncIterator
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from media.origin import Directives, directives
from tests.media.stage import PARTS_A_SEGMENT, Encoder, Stage, code, hint, staged


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        yield stage


# -- parts and segments -----------------------------------------------------------------------------------------------


async def test_the_part_that_was_hinted_at_is_held_until_it_is_there(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(2, PARTS_A_SEGMENT - 1)
    for number, part in ((3, 0), (3, 1)):  # the last part of its segment, then the first of the next
        uri = hint(await stage.get(f"{encoder.path}/index.m3u8"))
        asked = stage.asking(f"{encoder.path}/{uri}")
        await stage.held(1)
        encoder.until(number, part)
        answer = await asked
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert (await stage.get(f"{encoder.path}/{uri}")).content == answer.content


async def test_a_segment_is_its_parts_and_never_changes(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(2, 0)
    parts = [await stage.get(f"{encoder.path}/part-{PARTS_A_SEGMENT + n}.m4s") for n in range(PARTS_A_SEGMENT)]
    segment = await stage.get(f"{encoder.path}/1.m4s")
    assert segment.content == b"".join(part.content for part in parts)
    init = await stage.get(f"{encoder.path}/init-0.mp4")
    assert init.content == encoder.live.window.inits[0]
    for answer in (*parts, segment, init):
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-type"] == "video/mp4"
        assert answer.headers["access-control-allow-origin"] == "*"


async def test_a_range_and_the_head_of_a_segment_can_be_had(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(2, 0)
    for path in (f"{encoder.path}/1.m4s", f"{encoder.path}/part-3.m4s"):
        whole = await stage.get(path)
        some = await stage.get(path, headers={"Range": "bytes=10-19"})
        assert (some.status_code, some.content) == (206, whole.content[10:20])
        assert some.headers["content-range"] == f"bytes 10-19/{len(whole.content)}"
        head = await stage.get(path, method="HEAD")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.content))
        beyond = await stage.get(path, headers={"Range": "bytes=99999999-"})
        assert code(beyond) == (416, "range_invalid")
        assert beyond.headers["content-range"] == f"bytes */{len(whole.content)}"


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("2.m4s", "no-store"),  # not finished
        ("3.m4s", "no-store"),
        ("part-22.m4s", "no-store"),
        ("init-1.mp4", "no-store"),
        ("init-0.m4s", "public, max-age=2"),
        ("part-0.mp4", "public, max-age=2"),
        ("01.m4s", "public, max-age=2"),
        ("part-%D9%A3.m4s", "public, max-age=2"),
        ("..%2f..%2fetc%2fpasswd", None),
        ("x", "public, max-age=2"),
    ],
)
async def test_what_is_not_there_is_not_found_and_kept_by_caches_only_where_it_never_will_be(
    stage: Stage, name: str, kept: str | None
) -> None:
    encoder = Encoder(stage.open())
    encoder.until(2, 3)
    answer = await stage.get(f"{encoder.path}/{name}")
    assert code(answer) == (404, "media_not_found" if kept else "not_found")
    assert answer.headers["cache-control"] == (kept or "no-store")


async def test_a_rendition_that_may_still_come_is_not_found_for_this_once(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(1, 0)
    for name in ("index.m3u8", "0.m4s"):
        answer = await stage.get(f"/live/ann/{encoder.broadcast.address}/480p/{name}")
        assert code(answer) == (404, "rendition_not_found")
        assert answer.headers["cache-control"] == "no-store"
    assert code(await stage.get(f"/live/bob/{encoder.broadcast.address}/source/0.m4s")) == (404, "broadcast_not_found")


async def test_other_methods_and_addresses_get_typed_answers(stage: Stage) -> None:
    assert code(await stage.get("/live/ann/b/c/d/e")) == (404, "not_found")
    for method in ("POST", "PUT", "DELETE", "PROPFIND"):
        refused = await stage.get("/live/ann/index.m3u8", method=method)
        assert code(refused) == (405, "method_not_allowed")
        assert refused.headers["allow"] == "GET, HEAD, OPTIONS"
    allowed = await stage.get("/live/ann/e1-b1/source/0.m4s", method="OPTIONS", headers={"Origin": "https://a.example"})
    assert allowed.status_code == 204
    assert allowed.headers["access-control-allow-origin"] == "*"
    assert "Range" in allowed.headers["access-control-allow-headers"]


# -- viewers ----------------------------------------------------------------------------------------------------------


async def test_each_playlist_request_tells_who_is_watching_which_channel(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(1, 0)
    path = f"{encoder.path}/index.m3u8"
    front = {"User-Agent": "a browser"}
    await stage.get(path, headers=front | {"X-Forwarded-For": "203.0.113.9, 192.0.2.1"})
    await stage.get(path, headers=front | {"X-Forwarded-For": "192.0.2.1"})
    await stage.get(path, headers=front | {"X-Forwarded-For": "192.0.2.2"})
    await stage.get(path, headers={"User-Agent": "another"})
    await stage.get(path, headers={"Tallylight-Viewer": "a-player-of-ours"})
    await stage.get("/live/ann/index.m3u8")
    assert [channel for channel, _ in stage.seen] == ["c1"] * 5
    viewers = [viewer for _, viewer in stage.seen]
    assert viewers[0] == viewers[1] == "192.0.2.1|a browser"
    assert viewers[2:] == ["192.0.2.2|a browser", "127.0.0.1|another", "a-player-of-ours"]


async def test_no_more_than_the_maximum_may_wait_and_who_leaves_makes_room() -> None:
    async with staged(held_max=2) as stage:
        encoder = Encoder(stage.open())
        encoder.until(1, 3)
        path = f"{encoder.path}/index.m3u8?_HLS_msn=1&_HLS_part=3"
        waiting = [stage.asking(path) for _ in range(2)]
        await stage.held(2)
        for refused in (path, f"{encoder.path}/part-{PARTS_A_SEGMENT + 3}.m4s"):
            answer = await stage.get(refused)
            assert code(answer) == (503, "too_many_waiting")
            assert answer.headers["retry-after"] == "1"
        assert (await stage.get(f"{encoder.path}/index.m3u8")).status_code == 200
        waiting[0].cancel()
        await stage.held(1)
        third = stage.asking(path)
        await stage.held(2)
        encoder.until(1, 4)
        assert [(await asked).status_code for asked in (waiting[1], third)] == [200, 200]


async def test_a_stop_answers_all_who_wait_and_lets_nobody_wait_any_more(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(1, 3)
    path = f"{encoder.path}/index.m3u8?_HLS_msn=1&_HLS_part=3"
    asked = [stage.asking(path), stage.asking(f"{encoder.path}/part-{PARTS_A_SEGMENT + 3}.m4s")]
    await stage.held(2)
    stage.origin.close()
    assert [code(await waiting) for waiting in asked] == [(503, "stopping")] * 2
    assert code(await stage.get(path)) == (503, "stopping")


async def test_hundreds_of_viewers_of_a_rendition_share_one_listener_and_one_text(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(1, 3)
    asked = [stage.asking(f"{encoder.path}/index.m3u8?_HLS_msn=1&_HLS_part=3") for _ in range(150)]
    await stage.held(150)
    assert len(encoder.live.listeners) == 1
    encoder.until(1, 4)
    assert len({(await waiting).content for waiting in asked}) == 1
    assert encoder.live.text() is encoder.live.text()


async def test_nothing_of_a_broadcast_is_kept_alive_when_it_is_over(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(1, 3)
    asked = stage.asking(f"{encoder.path}/index.m3u8?_HLS_msn=1&_HLS_part=3")
    await stage.held(1)
    stage.registry.close(encoder.broadcast)
    await asked
    await stage.held(0)
    kept = weakref.ref(encoder.live.window)
    del encoder
    stage.clock[0] += 61
    assert code(await stage.get("/live/ann/index.m3u8")) == (404, "not_live")
    gc.collect()
    assert kept() is None


# -- whatever is asked --

_VALUES = st.one_of(st.integers(-3, 20).map(str), st.integers().map(str), st.text(max_size=12))
_QUERIES = st.lists(
    st.tuples(st.one_of(st.sampled_from(["_HLS_msn", "_HLS_part", "_HLS_skip"]), st.text(max_size=5)), _VALUES),
    max_size=4,
)


@given(query=_QUERIES)
@settings(max_examples=300, deadline=None)
def test_directives_are_numbers_or_refused(query: list[tuple[str, str]]) -> None:
    found = directives(QueryParams(query))
    numbers = [value for name, value in query if name == "_HLS_msn"]
    if isinstance(found, Directives):
        assert (found.number is None) == (not numbers)
        assert found.number is None or found.number == int(numbers[0]) >= 0
        assert found.part is None or found.part >= 0
    else:
        assert found


_NAMES = st.one_of(
    st.just("index.m3u8"),
    st.from_regex(r"(part-|init-)?[0-9]{1,14}\.(m4s|mp4)", fullmatch=True),
    st.text(max_size=20),
)


@pytest.fixture
async def busy() -> AsyncIterator[tuple[Stage, Encoder]]:
    async with staged(held_max=0) as stage:  # whoever would wait is answered at once
        encoder = Encoder(stage.open())
        encoder.until(2, 3)
        yield stage, encoder


@given(query=_QUERIES, name=_NAMES, asked=st.text(alphabet="bytes=-,0123456789", max_size=20))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_query_and_no_path_is_answered_with_a_fault_or_not_at_all(
    busy: tuple[Stage, Encoder], query: list[tuple[str, str]], name: str, asked: str
) -> None:
    stage, encoder = busy
    path = f"{encoder.path}/{quote(name)}?{urlencode(query)}"
    answer = await stage.get(path, headers={"Range": asked})
    assert answer.status_code in (200, 206, 400, 404, 416, 503)
    if answer.status_code >= 400:
        code(answer)
