"""The edge as the real Varnish: one fetch for all who ask, held requests shared, two nodes, nothing stale, nothing but media."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from gateways import front
from gateways.edge import vcl, viewers
from gateways.edge.role import run_edge
from gateways.engines.process import EngineFailed, free_port, listening
from gateways.health import Readiness
from gateways.settings import EdgeSettings, SettingsInvalid
from media.playback import Signer
from tests.gateways.edge.conftest import SIGNER, Edge, fronted, places, requests_of, two_edges, varnish
from tests.media.stage import Encoder, Stage, hint

WAITERS = 50

Nodes = dict[str, Stage]


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=edge.url, timeout=30, limits=httpx.Limits(max_connections=None)) as one:
        yield one


async def test_whoever_asks_for_a_channel_finds_the_node_that_has_it(nodes: Nodes, client: httpx.AsyncClient) -> None:
    for number, (name, stage) in enumerate(nodes.items()):
        encoder = Encoder(stage.open(channel=f"on{number}", broadcast_id=f"b{number}"))
        encoder.until(2, 1)
        master = await client.get(f"/live/on{number}/index.m3u8")
        assert master.status_code == 200, master.text
        assert f"{name}-" in master.text
        for path in ("index.m3u8", "init-0.mp4", "1.m4s", "part-3.m4s"):
            found = await client.get(f"{encoder.path}/{path}")
            assert found.status_code == 200, path
            direct = await stage.get(f"{encoder.path}/{path}")
            assert found.content == direct.content
            assert found.headers["cache-control"] == direct.headers["cache-control"]
            assert found.headers["access-control-allow-origin"] == "*"
            assert "tallylight-channel" not in found.headers
    assert (await client.get("/live/nobody/index.m3u8")).status_code == 404


async def test_an_object_is_fetched_once_however_many_ask(nodes: Nodes, client: httpx.AsyncClient) -> None:
    stage = nodes["media-2"]
    encoder = Encoder(stage.open())
    encoder.until(3, 0)
    paths = [f"{encoder.path}/{name}" for name in ("init-0.mp4", "1.m4s", "2.m4s", "part-20.m4s")]
    answers = await asyncio.gather(*(client.get(path) for path in paths for _ in range(25)))
    assert {answer.status_code for answer in answers} == {200}
    assert [stage.asked[path] for path in paths] == [1, 1, 1, 1]
    # Another query, a range or a head are the same object.
    again = [client.get(paths[1], params={"v": "2"}), client.head(paths[1])]
    part = await client.get(paths[1], headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, answers[25].content[5:10])
    assert [answer.status_code for answer in await asyncio.gather(*again)] == [200, 200]
    assert stage.asked[paths[1]] == 1


async def test_a_blocking_reload_and_a_hinted_part_are_held_once_and_shared_by_all(
    nodes: Nodes, client: httpx.AsyncClient
) -> None:
    stage = nodes["media-1"]
    encoder = Encoder(stage.open())
    encoder.until(2, 3)
    uri = hint(await client.get(f"{encoder.path}/index.m3u8"))
    number, part = encoder.live.window.next
    reload = f"{encoder.path}/index.m3u8?_HLS_msn={number}&_HLS_part={part}"
    asking = [
        asyncio.create_task(client.get(path)) for path in (reload, f"{encoder.path}/{uri}") for _ in range(WAITERS)
    ]
    await stage.held(2)
    await asyncio.sleep(0.3)  # everybody is on the waiting list
    assert not any(task.done() for task in asking)
    encoder.until(number, part + 1)
    answers = await asyncio.gather(*asking)
    assert {answer.status_code for answer in answers} == {200}
    assert (
        len({answer.content for answer in answers[:WAITERS]})
        == len({answer.content for answer in answers[WAITERS:]})
        == 1
    )
    assert uri in answers[0].text
    assert (stage.asked[reload], stage.asked[f"{encoder.path}/{uri}"]) == (1, 1)


async def test_no_answer_to_a_directive_is_older_than_what_it_asks_for(nodes: Nodes, client: httpx.AsyncClient) -> None:
    encoder = Encoder(nodes["media-1"].open())
    encoder.until(2, 0)
    for _ in range(30):
        number, part = encoder.live.window.next
        asking = asyncio.create_task(client.get(f"{encoder.path}/index.m3u8?_HLS_part={part}&x=1&_HLS_msn={number}"))
        await nodes["media-1"].held(1)
        wanted = encoder.live.window.next_sequence
        encoder.until(*((number, part + 1) if part < 8 else (number + 1, 0)))
        answer = await asking
        assert f"part-{wanted}.m4s" in answer.text, answer.text
    bad = await client.get(f"{encoder.path}/index.m3u8?_HLS_msn=x")
    assert (bad.status_code, bad.json()["code"]) == (400, "directive_invalid")


async def test_a_playlist_without_directives_is_soon_asked_for_anew(nodes: Nodes, client: httpx.AsyncClient) -> None:
    encoder = Encoder(nodes["media-1"].open())
    encoder.until(2, 0)
    before = await client.get(f"{encoder.path}/index.m3u8")
    encoder.until(3, 0)
    async with asyncio.timeout(5):
        while (await client.get(f"{encoder.path}/index.m3u8")).text == before.text:  # noqa: ASYNC110 - a cache tells nobody
            await asyncio.sleep(0.1)
    assert nodes["media-1"].asked[f"{encoder.path}/index.m3u8"] <= 4


async def test_a_part_that_is_not_there_yet_is_there_when_it_is(nodes: Nodes, client: httpx.AsyncClient) -> None:
    encoder = Encoder(nodes["media-1"].open())
    encoder.until(2, 0)
    ahead = f"{encoder.path}/part-{encoder.live.window.next_sequence + 2}.m4s"
    assert (await client.get(ahead)).status_code == 404
    encoder.until(2, 5)
    async with asyncio.timeout(5):
        while (await client.get(ahead)).status_code != 200:  # noqa: ASYNC110 - a cache tells nobody
            await asyncio.sleep(0.02)


async def test_a_node_that_is_lost_takes_its_own_broadcasts_only(
    client: httpx.AsyncClient, nodes: Nodes, edge: Edge
) -> None:
    encoder = Encoder(nodes["media-2"].open(channel="bob"))
    encoder.until(2, 0)
    with varnish(places(nodes) | {"media-1": ("127.0.0.1", free_port())}) as half:
        async with httpx.AsyncClient(base_url=half.url) as asking:
            master = await asking.get("/live/bob/index.m3u8")
            assert master.status_code == 200, "the node that is gone is tried and passed over"
            assert (await asking.get(f"{encoder.path}/1.m4s")).status_code == 200
            gone = await asking.get("/live/ann/media-1-a1-b1/source/1.m4s")
            assert (gone.status_code, gone.json()["code"]) == (503, "unavailable")
            assert gone.headers["access-control-allow-origin"] == "*"


async def test_a_channel_is_shown_from_the_node_where_it_is_live_not_from_one_that_it_left(
    nodes: Nodes, client: httpx.AsyncClient
) -> None:
    async def shown() -> str:
        for stage in nodes.values():
            stage.clock[0] += 0.001
        await asyncio.sleep(1.1)  # so long an edge keeps what it heard of each node
        answer = await client.get("/live/ann/index.m3u8")
        assert "tallylight-standing" not in answer.headers
        return next((name for name in nodes if f"{name}-" in answer.text), str(answer.status_code))

    one = Encoder(nodes["media-1"].open())
    one.until(3, 2)
    assert await shown() == "media-1"
    one.sink.close()  # the encoder is gone from the first node, which waits for it,
    assert await shown() == "media-1"
    two = Encoder(nodes["media-2"].open(broadcast_id="b2"))
    two.until(2, 0)  # and has come to the second
    assert await shown() == "media-2"
    nodes["media-1"].registry.close(one.broadcast)
    assert await shown() == "media-2"
    two.sink.close()
    assert await shown() == "media-2", "an interrupted broadcast may go on, an ended one never"
    nodes["media-2"].registry.close(two.broadcast)
    assert await shown() == "media-1", "both have ended"
    for stage in nodes.values():
        stage.clock[0] += 3600
    assert await shown() == "404"
    # Whoever knows an address of the old one still sees its end: hence the retention, which is over now.
    assert (await client.get(f"{one.path}/index.m3u8")).status_code == 404


async def test_what_is_not_media_is_refused_here(client: httpx.AsyncClient, nodes: Nodes) -> None:
    asked = set(nodes["media-1"].asked)
    for method, path, status in (
        ("GET", "/", 404),
        ("GET", "/api/v1/accounts/me", 404),
        ("GET", "/live", 404),
        ("POST", "/live/ann/index.m3u8", 405),
        ("PURGE", "/live/ann/index.m3u8", 405),
    ):
        answer = await client.request(method, path)
        assert answer.status_code == status, path
        assert answer.headers["access-control-allow-origin"] == "*"
    preflight = await client.options("/live/ann/index.m3u8", headers={"Origin": "https://elsewhere.example"})
    assert (preflight.status_code, preflight.headers["access-control-allow-methods"]) == (204, "GET, HEAD, OPTIONS")
    assert {path for path in nodes["media-1"].asked if path not in asked} <= {vcl.PROBE_PATH}


async def test_viewers_are_counted_though_the_origin_sees_one_request(
    nodes: Nodes, client: httpx.AsyncClient, edge: Edge
) -> None:
    encoder = Encoder(nodes["media-1"].open())
    encoder.until(2, 0)
    seen: list[tuple[str, str]] = []
    reading = asyncio.create_task(
        viewers.watching(edge.config, lambda channel_id, viewer: seen.append((channel_id, viewer)))
    )
    try:
        path = f"{encoder.path}/index.m3u8"
        async with asyncio.timeout(20):
            while not seen:  # varnishncsa has found the log
                await client.get(path, headers={"Tallylight-Viewer": "first-of-all"})
                await asyncio.sleep(0.05)
        headers = [{"X-Forwarded-For": f"192.0.2.1, 10.0.0.{number}", "User-Agent": "VLC"} for number in range(5)]
        headers += [{"Tallylight-Viewer": f"player-{number:04d}"} for number in range(5)]
        await asyncio.gather(*(client.get(path, headers=each) for each in headers))
        await client.get(f"{encoder.path}/1.m4s", headers={"Tallylight-Viewer": "media-counts-not"})
        expected = {f"10.0.0.{number}|VLC" for number in range(5)} | {f"player-{number:04d}" for number in range(5)}
        async with asyncio.timeout(20):
            while not expected <= {viewer for _, viewer in seen}:  # noqa: ASYNC110 - a cache tells nobody
                await asyncio.sleep(0.02)
        assert {viewer for _, viewer in seen} == expected | {"first-of-all"}
        assert {channel_id for channel_id, _ in seen} == {"c1"}
        # What reached the origin is one of the same, and so counted once.
        assert {viewer for _, viewer in nodes["media-1"].seen} <= expected | {"first-of-all"}
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


@pytest.mark.parametrize("held_s", [0.2, front.RESTART_S_MAX + 0.5])
async def test_an_edge_goes_with_a_held_reload_open_and_the_player_never_learns_of_it(
    nodes: Nodes, tmp_path: Path, held_s: float
) -> None:
    """Caddy in TLS, two Varnish, two origins. One client stays with one edge: that is the one that goes, and comes back."""
    encoder = Encoder(nodes["media-1"].open())
    encoder.until(2, 0)
    with two_edges(nodes) as edges:
        async with fronted(edges, tmp_path) as url, httpx.AsyncClient(base_url=url, timeout=30, verify=False) as player:
            statuses = await _played(player, encoder, nodes, 3)
            its, other = await whose(edges, 6)
            assert requests_of(other) == 0
            number, part = encoder.live.window.next
            asking = asyncio.create_task(player.get(asking_path(encoder, number, part)))
            await nodes["media-1"].held(1)
            await asyncio.sleep(held_s)  # longer than a restart may take: it counts from when the edge is gone
            its.process.terminate()
            await asyncio.to_thread(its.process.wait, 10)
            await nodes["media-1"].until(lambda: nodes["media-1"].asked[asking_path(encoder, number, part)] >= 2)
            encoder.until(*((number, part + 1) if part < 8 else (number + 1, 0)))
            statuses.append((await asking).status_code)
            statuses += await _played(player, encoder, nodes, 3)
            assert (await whose([other], 7)) == [other]
            with varnish(places(nodes), port=int(its.url.rpartition(":")[2])) as again:
                async with asyncio.timeout(30):
                    while not requests_of(again):
                        statuses += await _played(player, encoder, nodes, 1)
                        await asyncio.sleep(0.2)  # Varnish counts when it has nothing else to do
    assert set(statuses) == {200}


async def whose(edges: list[Edge], requests: int) -> list[Edge]:
    """The one that has had so many requests first. Varnish counts when it has nothing else to do."""
    async with asyncio.timeout(20):
        while max(map(requests_of, edges)) < requests:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.1)
    return sorted(edges, key=requests_of, reverse=True)


def asking_path(encoder: Encoder, number: int, part: int) -> str:
    return f"{encoder.path}/index.m3u8?_HLS_msn={number}&_HLS_part={part}"


async def _played(player: httpx.AsyncClient, encoder: Encoder, nodes: Nodes, parts: int) -> list[int]:
    found = []
    for _ in range(parts):
        number, part = encoder.live.window.next
        asking = asyncio.create_task(player.get(asking_path(encoder, number, part)))
        await nodes["media-1"].held(1)
        encoder.until(*((number, part + 1) if part < 8 else (number + 1, 0)))
        found.append((await asking).status_code)
        found.append((await player.get(f"{encoder.path}/part-{encoder.live.window.next_sequence - 1}.m4s")).status_code)
    return found


@pytest.mark.parametrize(
    "text",
    ["", "media-1", "media-1=", "media-1=host", "media-1=host:0x1", "a b=host:1", "a=h:1,a=h:2", 'a=h":1', "a=h:1/x"],
)
def test_a_list_of_nodes_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(vcl.NodesInvalid):
        vcl.read_nodes(text)


async def test_the_role_runs_varnish_counts_viewers_and_ends_with_it(nodes: Nodes, tmp_path: Path) -> None:
    encoder = Encoder(nodes["media-2"].open())
    encoder.until(2, 0)
    port = free_port()
    places_said = ",".join(f"{name}={host}:{at}" for name, (host, at) in places(nodes).items())
    settings = EdgeSettings(
        data_dir=tmp_path,
        edge_port=port,
        edge_storage_mib=32,
        nodes=places_said,
        bootstrap_servers="127.0.0.1:1",
        playback_secret=SecretStr("a-secret-of-the-tests"),
    )
    readiness = Readiness("edge")
    role = asyncio.create_task(run_edge(settings, readiness))
    await asyncio.wait({role, asyncio.create_task(readiness.wait())}, return_when=asyncio.FIRST_COMPLETED)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get(f"{encoder.path}/index.m3u8")).status_code == 200
    role.cancel()
    await asyncio.gather(role, return_exceptions=True)
    assert role.cancelled()
    assert not listening("127.0.0.1", port)
    taken = await run_failing(settings.model_copy(update={"edge_port": httpx.URL(nodes["media-1"].url).port}))
    assert "ended with" in str(taken)
    assert "name=host:port" in str(await run_failing(settings.model_copy(update={"nodes": ""})))


async def run_failing(settings: EdgeSettings) -> BaseException:
    try:
        await run_edge(settings, Readiness("edge"))
    except (EngineFailed, SettingsInvalid) as fault:
        return fault
    raise AssertionError("it runs")


def test_without_varnish_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineFailed, match="apt-get install varnish"):
        vcl.tool("varnish-that-is-not-there")


async def test_what_is_for_subscribers_is_kept_once_and_given_to_those_who_have_a_token(
    nodes: Nodes, client: httpx.AsyncClient
) -> None:
    stage = nodes["media-2"]
    encoder = Encoder(stage.open())
    encoder.until(3, 0)
    for each in nodes.values():
        each.gate.closed = frozenset({"c1"})
    now_s = time.time()
    good = [SIGNER.issue("c1", f"a{number}", until_s=now_s + 60) for number in range(20)]
    foreign = SIGNER.issue("c2", "a1", until_s=now_s + 60)
    bad = [
        SIGNER.issue("c1", "a1", until_s=now_s - 1),
        Signer("x").issue("c1", "a1", until_s=now_s + 60),
        "x",
        good[0][:-1] + "g",
    ]
    paths = [
        "/live/ann/index.m3u8",
        f"{encoder.path}/index.m3u8",
        f"{encoder.path}/1.m4s",
        f"{encoder.path}/init-0.mp4",
    ]
    for path in paths:
        refused = await client.get(path)
        assert (refused.status_code, refused.json()["code"]) == (401, "token_required"), path
        assert refused.headers["access-control-allow-origin"] == "*"
        answers = await asyncio.gather(*(client.get(f"/play/{token}{path}") for token in good))
        assert {answer.status_code for answer in answers} == {200}, path
        assert len({answer.content for answer in answers}) == 1
        assert answers[0].headers["cache-control"].startswith("private"), path
        assert not {"tallylight-closed", "tallylight-edge"} & set(answers[0].headers)
        for token in bad:
            refused = await client.get(f"/play/{token}{path}")
            assert (refused.status_code, refused.json()["code"]) == (401, "token_invalid"), (path, token)
            assert refused.headers["cache-control"] == "no-store"
        refused = await client.get(f"/play/{foreign}{path}", headers={"Tallylight-Opens": "c1"})
        assert (refused.status_code, refused.json()["code"]) == (403, "token_foreign"), path
        # A refusal is one client's, never the object's.
        assert (await client.get(f"/play/{good[0]}{path}")).status_code == 200
        assert stage.asked[path] == 1, path
    assert (
        await client.get(paths[2], headers={"Tallylight-Opens": "c1", "Tallylight-Edge": SIGNER.edge})
    ).status_code == 401


async def test_a_held_reload_is_one_request_whoever_waits_with_which_token(
    nodes: Nodes, client: httpx.AsyncClient
) -> None:
    stage = nodes["media-1"]
    encoder = Encoder(stage.open())
    encoder.until(2, 3)
    stage.gate.closed = frozenset({"c1"})
    number, part = encoder.live.window.next
    reload = f"{encoder.path}/index.m3u8?_HLS_msn={number}&_HLS_part={part}"
    tokens = [f"/play/{SIGNER.issue('c1', f'a{each}', until_s=time.time() + 60)}" for each in range(5)]
    # The first who asks has none.
    asking = [asyncio.create_task(client.get(reload))]
    await stage.held(1)
    asking += [asyncio.create_task(client.get(f"{token}{reload}")) for token in tokens]
    await asyncio.sleep(0.3)  # everybody is on the waiting list
    encoder.until(number, part + 1)
    answers = await asyncio.gather(*asking)
    assert [answer.status_code for answer in answers] == [401, 200, 200, 200, 200, 200]
    assert stage.asked[reload] == 1
