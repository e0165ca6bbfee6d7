"""Two nodes and one archive: a channel is on at one of them, whichever its encoder reached last."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from obstore.store import MemoryStore

from media import ffmpeg, lease
from media.archive import Archive
from media.hls.live import LiveRegistry
from media.lease import Held, Lease, Leases
from media.pipeline import Broadcasts, Node, Reporter
from media.port import Fact
from media.sample import AlreadyPublishing
from tests.media.tags import tags
from tests.media.test_pipeline import ANN, BOB, live_on, push, until


@dataclass
class Cluster:
    """Nodes of one archive. Their clock is the machine's."""

    folder: Path
    facts: list[Fact] = field(default_factory=list)
    resume_s: float = 30.0
    runs: int = 0
    store: MemoryStore | None = None
    """In place of the folder."""

    def archive(self, node: str) -> Archive:
        return Archive.open(str(self.folder), node=node) if self.store is None else Archive(self.store, None, node)

    async def put(self, fact: Fact) -> bool:
        self.facts.append(fact)
        return True

    @asynccontextmanager
    async def node(self, name: str) -> AsyncIterator[tuple[Broadcasts, LiveRegistry]]:
        self.runs += 1
        archive = self.archive(name)
        registry = LiveRegistry(epoch=f"{name}-{self.runs:x}", clock=time.monotonic, rewind_s=7200.0)
        reporter = Reporter(self.put)
        node = Node(
            registry,
            archive,
            reporter,
            name=name,
            binary=ffmpeg.binary(),
            top_height=0,
            now=now,
            new_id=uuid4,
            leases=Leases(archive, run=str(self.runs), now=now),
        )
        broadcasts = Broadcasts(node, most=5, resume_s=self.resume_s)
        try:
            yield broadcasts, registry
        finally:
            await broadcasts.close()
            await reporter.close()


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(lease, "RENEW_S", 0.1)
    monkeypatch.setattr(lease, "LEASE_S", 3.0)
    monkeypatch.setattr(lease, "LOOK_S", 0.02)
    return Cluster(tmp_path)


@pytest.fixture
async def nodes(cluster: Cluster) -> AsyncIterator[list[tuple[Broadcasts, LiveRegistry]]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(cluster.node(name)) for name in ("media-1", "media-2")]


async def test_a_second_publisher_is_refused_at_another_node_too(nodes: list[tuple[Broadcasts, LiveRegistry]]) -> None:
    (one, _), (two, elsewhere) = nodes
    first = await one.open(ANN, encoder="", peer="")
    push(first, tags())
    with pytest.raises(AlreadyPublishing):
        await two.open(ANN, encoder="", peer="")
    assert elsewhere.on_channel("ann") is None
    other = await two.open(BOB, encoder="", peer="")
    await other.close("unpublished")
    await first.close("unpublished")
    await asyncio.wait_for(opened(two), 5)


async def opened(broadcasts: Broadcasts) -> None:
    """Once the node that had the channel has said that it is over."""
    sink = await broadcasts.open(ANN, encoder="", peer="")
    await sink.close("unpublished")


async def test_an_encoder_that_comes_to_another_node_is_shown_there_and_no_more_at_the_first(
    nodes: list[tuple[Broadcasts, LiveRegistry]], cluster: Cluster
) -> None:
    (one, first), (two, second) = nodes
    sink = await one.open(ANN, encoder="", peer="")
    push(sink, tags())
    await sink.close("disconnected")
    again = await two.open(ANN, encoder="", peer="")
    push(again, tags())
    await until(lambda: live_on(first).ended)
    assert not live_on(second).ended
    assert not one.is_on("c1")
    await again.close("unpublished")


async def test_a_node_that_is_lost_keeps_nobody_out_for_long(cluster: Cluster) -> None:
    async with cluster.node("media-1") as (one, _), cluster.node("media-2") as (two, registry):
        push(await one.open(ANN, encoder="", peer=""), tags())
        standing_still(one)
        began = time.monotonic()
        sink = await two.open(ANN, encoder="", peer="")
        assert time.monotonic() - began < 6.0
        push(sink, tags())
        assert not live_on(registry).ended
        await sink.close("unpublished")


def standing_still(broadcasts: Broadcasts) -> None:
    """As a process does that was killed, or stopped: nothing is renewed."""
    for broadcast in broadcasts._by_channel.values():
        assert broadcast.lease is not None
        assert broadcast.lease._task is not None
        broadcast.lease._task.cancel()


async def test_a_node_that_starts_again_is_not_kept_out_by_its_former_life(cluster: Cluster) -> None:
    async with cluster.node("media-1") as (before, _):
        push(await before.open(ANN, encoder="", peer=""), tags())
        async with cluster.node("media-1") as (again, _):
            sink = await asyncio.wait_for(again.open(ANN, encoder="", peer=""), 2.5)
            await sink.close("unpublished")


async def test_of_two_that_claim_a_channel_at_once_one_has_it(cluster: Cluster) -> None:
    archives = [Archive(MemoryStore(), None, name) for name in ("a", "b")]
    archives[1] = Archive(archives[0].store, None, "b")
    lost: list[str] = []
    both = [Leases(archive, run="1", now=now) for archive in archives]
    claims = await asyncio.gather(*(leases.claim("c1") for leases in both))
    assert [claim.term for claim in claims] == [1, 1]
    held = [
        Lease(leases, "c1", name, 1, lost=lambda name=name: lost.append(name))  # type: ignore[misc]
        for leases, name in zip(both, "ab", strict=True)
    ]
    await asyncio.gather(*(it.begin() for it in held))
    await until(lambda: lost)
    await asyncio.sleep(0.5)
    assert lost == ["b"]
    # It learned of it in time: what it has it may still store, whoever won waits for that.
    assert [await it.holds() for it in held] == [True, True]
    for it in held:
        await it.close("ended")
    found = await both[1].read("c1")
    assert found is not None
    assert (found.broadcast_id, found.state) == ("a", "ended")


async def test_who_stood_still_asks_before_it_stores_anything(cluster: Cluster) -> None:
    store = MemoryStore()
    one, two = (Leases(Archive(store, None, name), run="1", now=now) for name in ("a", "b"))
    lost: list[int] = []
    held = Lease(one, "c1", "b1", 1, lost=lambda: lost.append(1))
    await held.begin()
    assert held._task is not None
    held._task.cancel()
    await asyncio.sleep(3.1)
    claim = await two.claim("c1")
    assert (claim.term, claim.before and claim.before.broadcast_id) == (2, "b1")
    await two.write("c1", "b1", claim.term, "live")
    assert not await held.holds()
    assert lost == [1]


async def test_an_archive_that_is_away_keeps_nobody_off_the_air(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> Awaitable[object]:
        raise OSError("away")

    monkeypatch.setattr("obstore.get_async", away)
    monkeypatch.setattr("obstore.put_async", away)
    leases = Leases(Archive(MemoryStore(), None, "a"), run="1", now=now)
    assert await leases.read("c1") is None
    claim = await leases.claim("c1")
    held = Lease(leases, "c1", "b1", claim.term, lost=lambda: None)
    await held.begin()
    assert await held.holds()
    await held.close("ended")


@pytest.mark.parametrize(
    ("state", "age_s", "run", "lives"),
    [("live", 0, "2", True), ("live", 8, "2", False), ("released", 0, "2", False), ("interrupted", 0, "2", True)],
)
async def test_a_lease_lives_while_it_is_renewed(state: lease.State, age_s: float, run: str, lives: bool) -> None:
    leases = Leases(Archive(MemoryStore(), None, "a"), run="1", now=now)
    held = Held(node="b", run=run, broadcast_id="b1", term=1, state=state, at=now() - timedelta(seconds=age_s))
    assert leases.lives(held) is lives
    assert not leases.lives(held.model_copy(update={"node": "a"})), "a former life of ours"
