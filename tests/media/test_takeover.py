"""A broadcast that goes on at another node, or after a start of its own: one broadcast, one recording, and all of it can be rewound to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import httpx
import m3u8
import obstore
import pytest
from obstore.store import MemoryStore
from starlette.applications import Starlette

from media import lease, manifest
from media.archive import OPEN, Archive
from media.hls.live import LiveRegistry
from media.lease import Leases
from media.manifest import Manifest
from media.origin import Origin
from media.pipeline import Broadcasts
from media.port import Ended, SegmentsArchived
from media.recovery import recover
from media.vod import Vod
from tests.media.stage import played, served
from tests.media.tags import tags
from tests.media.test_lease import Cluster, now, standing_still
from tests.media.test_lease import cluster as cluster
from tests.media.test_pipeline import ANN, live_on, push, until

Nodes = list[tuple[Broadcasts, LiveRegistry]]


@pytest.fixture
def store() -> MemoryStore | None:
    return None


@pytest.fixture
async def nodes(cluster: Cluster, store: MemoryStore | None) -> AsyncIterator[Nodes]:
    cluster.store = store
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(cluster.node(name)) for name in ("media-1", "media-2")]


def archive_of(cluster: Cluster, node: str = "media-3") -> Archive:
    return cluster.archive(node)


async def recorded(cluster: Cluster, broadcast_id: str) -> Manifest:
    found = await manifest.read(archive_of(cluster).store, broadcast_id)
    assert found is not None
    return found


def kinds(cluster: Cluster) -> list[str]:
    """What was told, each fact once, as the event plane takes it."""
    once = {fact.fact_id: fact for fact in cluster.facts}
    return [fact.kind for fact in once.values() if fact.kind not in ("rendition", "segments")]


async def told(cluster: Cluster, number: int) -> None:
    await until(lambda: any(isinstance(it, SegmentsArchived) and it.number >= number for it in cluster.facts))


async def test_an_encoder_that_reconnects_to_another_node_goes_on_in_the_same_broadcast(
    nodes: Nodes, cluster: Cluster
) -> None:
    (one, first), (two, second) = nodes
    sink = await one.open(ANN, encoder="OBS", peer="")
    push(sink, tags(seconds=6))
    await sink.close("disconnected")
    old = live_on(first)
    again = await two.open(ANN, encoder="OBS", peer="")
    push(again, tags(seconds=6))
    live = live_on(second)
    assert live.broadcast_id == old.broadcast_id
    assert live.address != old.address
    assert live.started_at == old.started_at
    await until(lambda: old.ended)
    async with playing(cluster, second) as client:
        rewind = m3u8.loads((await client.get(f"/live/ann/{live.address}/source/dvr.m3u8")).text)
        assert [segment.discontinuity for segment in rewind.segments].index(True) == 3
        assert rewind.media_sequence in (0, None)
        uris = [segment.uri for segment in rewind.segments if segment.uri]
        assert uris[:3] == ["0.m4s", "1.m4s", "2.m4s"]
        for uri in uris:
            answer = await client.get(f"/live/ann/{live.address}/source/{uri}")
            assert (answer.status_code, bool(answer.content)) == (200, True), uri
        listed = m3u8.loads((await client.get(f"/live/ann/{live.address}/source/index.m3u8")).text)
        assert listed.media_sequence == 3
        assert listed.segments[0].discontinuity
    await again.close("unpublished")
    await until(lambda: kinds(cluster)[-1] == "recording")
    assert kinds(cluster) == ["started", "interrupted", "resumed", "ended", "recording"]
    found = await recorded(cluster, live.broadcast_id)
    assert (found.runs, found.ended_at is not None) == (1, True)
    assert [line.number for line in found.segments] == list(range(6))
    assert found.duration_s == pytest.approx(12.0, abs=0.2)
    assert len({fact.number for fact in cluster.facts if isinstance(fact, SegmentsArchived)}) == 6
    archive = archive_of(cluster)
    async with served(Starlette(routes=Vod(archive).routes())) as url:
        frames, complaints = await played(f"{url}/vod/{live.broadcast_id}/index.m3u8", "0:v")
    assert (frames, complaints) == (12 * 30, b"")
    assert not [it async for page in obstore.list(archive.store, OPEN) for it in page]


def playing(cluster: Cluster, registry: LiveRegistry) -> "_Playing":
    return _Playing(Origin(registry, past=Vod(archive_of(cluster)).object))


class _Playing:
    def __init__(self, origin: Origin) -> None:
        transport = httpx.ASGITransport(Starlette(routes=origin.routes()))
        self._client = httpx.AsyncClient(transport=transport, base_url="http://origin", timeout=20)

    async def __aenter__(self) -> httpx.AsyncClient:
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()


async def test_a_node_that_stood_still_is_taken_over_from_and_writes_nothing_more(
    nodes: Nodes, cluster: Cluster
) -> None:
    (one, first), (two, second) = nodes
    sink = await one.open(ANN, encoder="", peer="")
    push(sink, tags(seconds=6))
    await told(cluster, 1)
    standing_still(one)
    again = await two.open(ANN, encoder="", peer="")
    push(again, tags(seconds=6))
    live = live_on(second)
    # The first wakes up, its encoder has never been away.
    push(sink, [tag for tag in tags(seconds=12) if tag.timestamp_ms > 6_000])
    await until(lambda: live_on(first).ended)
    await again.close("unpublished")
    await until(lambda: kinds(cluster)[-1] == "recording")
    found = await recorded(cluster, live.broadcast_id)
    assert found.duration_s == pytest.approx(6.0 + 6.0, abs=2.1)
    for line in found.segments:
        for it in line.objects:
            data = bytes(await asyncio.to_thread((cluster.folder / it.key).read_bytes))
            assert len(data) == it.size
    assert kinds(cluster) == ["started", "interrupted", "resumed", "ended", "recording"]


async def test_a_node_that_is_stopped_and_starts_again_goes_on_with_what_it_had(cluster: Cluster) -> None:
    async with cluster.node("media-1") as (one, registry):
        sink = await one.open(ANN, encoder="", peer="")
        push(sink, tags(seconds=6))
        broadcast_id = live_on(registry).broadcast_id
    assert kinds(cluster) == ["started", "interrupted"]
    async with cluster.node("media-1") as (again, registry):
        sink = await again.open(ANN, encoder="", peer="")
        push(sink, tags(seconds=6))
        assert live_on(registry).broadcast_id == broadcast_id
        await sink.close("unpublished")
    assert kinds(cluster) == ["started", "interrupted", "resumed", "ended", "recording"]
    found = await recorded(cluster, broadcast_id)
    assert found.duration_s == pytest.approx(12.0, abs=0.2)


@pytest.mark.parametrize("store", [None, MemoryStore()], ids=["folder", "objects"])
async def test_a_broadcast_may_move_more_than_once(nodes: Nodes, cluster: Cluster, store: MemoryStore | None) -> None:
    for turn in range(4):
        broadcasts, _ = nodes[turn % 2]
        sink = await broadcasts.open(ANN, encoder="", peer="")
        push(sink, tags(seconds=4))
        await sink.close("disconnected" if turn < 3 else "unpublished")
    await until(lambda: kinds(cluster)[-1] == "recording")
    found = await recorded(cluster, live_on(nodes[1][1]).broadcast_id)
    assert found.runs == 3
    assert [line.number for line in found.segments] == list(range(8))
    assert kinds(cluster).count("ended") == kinds(cluster).count("started") == 1


async def test_rungs_and_a_source_that_cuts_apart_go_on_each_in_its_own_numbers(nodes: Nodes, cluster: Cluster) -> None:
    (one, first), (two, second) = nodes
    for broadcasts in (one, two):
        object.__setattr__(broadcasts._node, "top_height", 240)
    sink = await one.open(ANN, encoder="", peer="")
    push(sink, tags(seconds=16, gop=240))
    await until(lambda: (it := live_on(first).rendition("240p")) is not None and it.window.last_number >= 5)
    await sink.close("disconnected")
    again = await two.open(ANN, encoder="", peer="")
    push(again, tags(seconds=16, gop=240))
    live = live_on(second)
    assert live.is_apart("source")
    await until(lambda: (it := live.rendition("240p")) is not None and it.window.finished >= 5)
    await again.close("unpublished")
    await until(lambda: kinds(cluster)[-1] == "recording")
    found = await recorded(cluster, live.broadcast_id)
    own = [line for line in found.segments if line.apart == "source"]
    assert [line.number for line in own] == list(range(own[0].number, own[0].number + len(own)))
    assert sum(line.duration_s for line in found.of("source")) == pytest.approx(32.0, abs=0.3)
    assert len([line for line in found.segments if not line.apart]) >= 14


async def test_who_comes_too_late_begins_anew_and_what_was_lost_has_ended(cluster: Cluster) -> None:
    cluster.resume_s = 1.0
    async with cluster.node("media-1") as (one, registry):
        push(await one.open(ANN, encoder="", peer=""), tags(seconds=6))
        lost = live_on(registry).broadcast_id
    await asyncio.sleep(1.2)
    async with cluster.node("media-2") as (two, registry):
        sink = await two.open(ANN, encoder="", peer="")
        push(sink, tags(seconds=6))
        assert live_on(registry).broadcast_id != lost
        archive = archive_of(cluster, "media-2")
        leases = Leases(archive, run="other", now=now)
        later = now() + timedelta(hours=1)
        closed = await recover(
            archive, cluster.put, is_live=two.is_live, now=later, leases=leases, resume_s=cluster.resume_s
        )
        assert closed == [lost]
        await sink.close("unpublished")
    ends = [fact for fact in cluster.facts if isinstance(fact, Ended) and fact.broadcast_id == lost]
    assert [fact.reason for fact in ends] == ["node_lost"]
    assert (await recorded(cluster, lost)).ended_at == ends[0].at


async def test_what_a_lost_node_had_is_ended_by_others_when_nobody_comes_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(cluster, "media-2")
    leases = Leases(archive, run="2", now=now)

    async def look(resume_s: float) -> list[str]:
        return await recover(archive, cluster.put, is_live=lambda _: False, now=now(), leases=leases, resume_s=resume_s)

    async with cluster.node("media-1") as (one, registry):
        push(await one.open(ANN, encoder="", peer=""), tags(seconds=6))
        await told(cluster, 1)
        assert await look(0.0) == [], "it renews its lease"
        standing_still(one)
        await asyncio.sleep(lease.LEASE_S + 0.2)
        assert await look(60.0) == [], "its encoder may still come"
        assert await look(0.0) == [live_on(registry).broadcast_id]
        assert await look(0.0) == []
        one._by_channel.clear()  # nobody is there to say anything
    assert kinds(cluster)[-2:] == ["ended", "recording"]
    assert [fact.reason for fact in cluster.facts if isinstance(fact, Ended)] == ["node_lost"]


async def test_of_two_nodes_that_find_the_same_lost_broadcast_one_closes_it(cluster: Cluster) -> None:
    async with cluster.node("media-1") as (one, _):
        push(await one.open(ANN, encoder="", peer=""), tags(seconds=6))
    closed = await asyncio.gather(
        *(
            recover(
                archive_of(cluster, name),
                cluster.put,
                is_live=lambda _: False,
                now=now(),
                leases=Leases(archive_of(cluster, name), run=name, now=now),
                resume_s=0.0,
            )
            for name in ("media-2", "media-3")
        )
    )
    assert sorted(map(len, closed)) == [0, 1]


async def test_while_it_is_drained_a_node_takes_nothing_and_lets_what_is_on_go_elsewhere(
    nodes: Nodes, cluster: Cluster
) -> None:
    (one, first), (two, second) = nodes
    sink = await one.open(ANN, encoder="", peer="")
    push(sink, tags(seconds=6))
    one.drain()
    # The encoder was asked to reconnect: it comes to the second before it leaves the first.
    again = await two.open(ANN, encoder="", peer="")
    await until(lambda: live_on(first).ended)
    await sink.close("unpublished")
    push(again, tags(seconds=6))
    assert live_on(second).broadcast_id == live_on(first).broadcast_id
    await again.close("unpublished")
    await until(lambda: kinds(cluster)[-1] == "recording")
    assert kinds(cluster) == ["started", "interrupted", "resumed", "ended", "recording"]
