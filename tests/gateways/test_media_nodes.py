"""Two media roles, each a process of its own, over one store and one archive, with real Varnish before them and FFmpeg as the encoder."""

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import httpx
import m3u8
import pytest
from pydantic import SecretStr

from domain.broadcast import BroadcastEnded, BroadcastInterrupted, BroadcastResumed, BroadcastStarted
from domain.channel import ChannelOpened, StreamKeyRotated
from domain.event import Event
from eventstore.port import Append, IndexWrite, StreamWrite
from gateways import bootstrap
from gateways.engines.process import free_port
from gateways.settings import Stored
from media import manifest
from media.archive import Archive
from media.manifest import Manifest
from tests.e2e.conftest import encoder
from tests.gateways.edge.conftest import Edge, varnish

RUN = [sys.executable, "-c", "import sys; from gateways.roles import run; sys.exit(run('media'))"]
WAIT_S_MAX = 60.0
RESUME_S = 12


@dataclass
class Nodes:
    folder: Path
    settings: dict[str, str]
    services: bootstrap.Services
    ports: dict[str, dict[str, int]] = field(default_factory=dict)
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("media-1", "media-2"):
            self.ports[name] = {kind: free_port() for kind in ("media", "rtmp", "health")}

    async def start(self, name: str) -> None:
        ports = self.ports[name]
        environment = {
            "PATH": os.environ["PATH"],
            **self.settings,
            "TALLYLIGHT_NODE": name,
            "TALLYLIGHT_DATA_DIR": str(self.folder / name),
            "TALLYLIGHT_MEDIA_PORT": str(ports["media"]),
            "TALLYLIGHT_RTMP_PORT": str(ports["rtmp"]),
            "TALLYLIGHT_HEALTH_PORT": str(ports["health"]),
        }
        self._spawn(name, environment)
        async with httpx.AsyncClient() as client:

            async def ready() -> bool:
                assert self.processes[name].poll() is None, (self.folder / f"{name}.log").read_text()[-3000:]
                try:
                    return (await client.get(f"http://127.0.0.1:{ports['health']}/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(ready)

    def _spawn(self, name: str, environment: dict[str, str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(RUN, env=environment, stdout=log, stderr=log)

    def places(self) -> dict[str, tuple[str, int]]:
        return {name: ("127.0.0.1", ports["media"]) for name, ports in self.ports.items()}

    def publish(self, node: str, channel: str) -> str:
        return f"rtmp://127.0.0.1:{self.ports[node]['rtmp']}/live/key-{channel}"

    async def channel(self, name: str) -> None:
        key_hash = sha256(f"key-{name}".encode()).hexdigest()
        events: list[Event] = [
            ChannelOpened(channel_id=name, name=name, owner_id="a1", title="On"),
            StreamKeyRotated(channel_id=name, key_hash=key_hash),
        ]
        row = IndexWrite("stream_keys", {"key_hash": key_hash}, {"channel_id": name, "channel": name, "owner_id": "a1"})
        await self.services.store.append(Append(uuid4(), [StreamWrite(f"channel-{name}", name, events, 0)], [row]))

    async def told(self, broadcast_id: str) -> list[Event]:
        kinds = (BroadcastStarted, BroadcastInterrupted, BroadcastResumed, BroadcastEnded)
        found = await self.services.store.read_stream(f"broadcast-{broadcast_id}")
        return [recorded.event for recorded in found if isinstance(recorded.event, kinds)]

    async def recorded(self, broadcast_id: str) -> Manifest | None:
        return await manifest.read(Archive.open(str(self.folder / "archive")).store, broadcast_id)


async def eventually(true: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while not await true():  # noqa: ASYNC110 - they are other processes that we wait for
            await asyncio.sleep(0.1)


@pytest.fixture
async def nodes(database: str, keys_database: str, tmp_path: Path) -> AsyncIterator[Nodes]:
    key = base64.urlsafe_b64encode(bytes(32)).decode()
    stored = Stored(
        data_dir=tmp_path, dsn=SecretStr(database), keys_dsn=SecretStr(keys_database), master_key=SecretStr(key)
    )
    settings = {
        "TALLYLIGHT_DSN": database,
        "TALLYLIGHT_KEYS_DSN": keys_database,
        "TALLYLIGHT_MASTER_KEY": key,
        "TALLYLIGHT_PLAYBACK_SECRET": "secret",
        "TALLYLIGHT_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "TALLYLIGHT_ARCHIVE_URL": str(tmp_path / "archive"),
        "TALLYLIGHT_RUNG_HEIGHT_MAX": "0",
        "TALLYLIGHT_RESUME_S": str(RESUME_S),
        "TALLYLIGHT_LOG_FORMAT": "json",
    }
    async with bootstrap.services(stored) as services:
        found = Nodes(tmp_path, settings, services)
        try:
            await asyncio.gather(*(found.start(name) for name in found.ports))
            yield found
        finally:
            for process in found.processes.values():
                process.terminate()
            for process in found.processes.values():
                process.wait(20)


@pytest.fixture
def edge(nodes: Nodes) -> Iterator[Edge]:
    with varnish(nodes.places()) as one:
        yield one


@asynccontextmanager
async def watching(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=edge.url, timeout=30) as client:
        yield client


async def shown(client: httpx.AsyncClient, channel: str) -> tuple[str, str, int]:
    """The node and the broadcast that the edge shows, and the last segment of its source."""
    master = await client.get(f"/live/{channel}/index.m3u8")
    if master.status_code != 200:
        return "", "", -1
    uri = next(it.uri for it in m3u8.loads(master.text).playlists if "/source/" in it.uri)
    address = uri.partition("/")[0]
    playlist = m3u8.loads((await client.get(f"/live/{channel}/{uri}")).text)
    node, _, rest = address.partition("-")
    return f"{node}-{rest[0]}", rest.split("-", 2)[2], (playlist.media_sequence or 0) + len(playlist.segments) - 1


async def test_a_killed_nodes_broadcast_goes_on_at_the_node_its_encoder_comes_to(nodes: Nodes, edge: Edge) -> None:
    await nodes.channel("ann")
    async with watching(edge) as client:

        async def on(node: str, last: int) -> bool:
            found = await shown(client, "ann")
            return found[0] == node and found[2] >= last

        async with encoder(nodes.publish("media-1", "ann")) as encoding:
            await eventually(lambda: on("media-1", 2))
            _, broadcast_id, last = await shown(client, "ann")
            # The same key at the other node: refused while the first is on.
            async with encoder(nodes.publish("media-2", "ann")) as second:
                assert await asyncio.wait_for(second.wait(), 30) != 0
            assert (await shown(client, "ann"))[0] == "media-1"
            nodes.processes["media-1"].kill()
            assert await asyncio.wait_for(encoding.wait(), 30) != 0
        async with encoder(nodes.publish("media-2", "ann")):
            await eventually(lambda: on("media-2", last + 2))
            node, goes_on, _ = await shown(client, "ann")
            assert (node, goes_on) == ("media-2", broadcast_id)
            master = m3u8.loads((await client.get("/live/ann/dvr.m3u8")).text)
            uri = next(it.uri for it in master.playlists if "/source/" in it.uri)
            rewind = m3u8.loads((await client.get(f"/live/ann/{uri}")).text)
            assert rewind.segments[0].uri == "0.m4s"
            assert sum(segment.discontinuity for segment in rewind.segments) == 1
            first = await client.get(f"/live/ann/{uri.rpartition('/')[0]}/0.m4s")
            assert (first.status_code, first.content[4:8]) == (200, b"moof")

        async def over() -> bool:
            return any(isinstance(event, BroadcastEnded) for event in await nodes.told(broadcast_id))

        await eventually(over)
    kinds = [type(event) for event in await nodes.told(broadcast_id)]
    assert kinds == [BroadcastStarted, BroadcastInterrupted, BroadcastResumed, BroadcastEnded]
    found = await nodes.recorded(broadcast_id)
    assert found is not None
    assert found.runs == 1
    assert [line.number for line in found.segments] == list(range(len(found.segments)))
    # The node that was killed comes back: what was its is another's now, and has ended.
    await nodes.start("media-1")
    assert [type(event) for event in await nodes.told(broadcast_id)] == kinds


async def test_what_a_node_took_along_for_good_is_ended_by_the_others(nodes: Nodes, edge: Edge) -> None:
    await nodes.channel("bob")
    async with watching(edge) as client:

        async def begun() -> bool:
            return (await shown(client, "bob"))[2] >= 1

        async with encoder(nodes.publish("media-1", "bob")) as encoding:
            await eventually(begun)
            _, broadcast_id, _ = await shown(client, "bob")
            nodes.processes["media-1"].kill()
            await asyncio.wait_for(encoding.wait(), 30)

        async def over() -> bool:
            found = await nodes.recorded(broadcast_id)
            told = await nodes.told(broadcast_id)
            return found is not None and found.ended_at is not None and isinstance(told[-1], BroadcastEnded)

        await eventually(over)
        (ended,) = [event for event in await nodes.told(broadcast_id) if isinstance(event, BroadcastEnded)]
        assert ended.reason == "node_lost"
        assert (await client.get(f"/vod/{broadcast_id}/index.m3u8")).status_code == 200


async def test_a_role_that_is_stopped_and_started_goes_on_and_a_drained_one_refuses(nodes: Nodes, edge: Edge) -> None:
    await nodes.channel("eve")
    async with watching(edge) as client:

        async def on(node: str, last: int) -> bool:
            found = await shown(client, "eve")
            return found[0] == node and found[2] >= last

        async with encoder(nodes.publish("media-1", "eve")) as encoding:
            await eventually(lambda: on("media-1", 1))
            _, broadcast_id, last = await shown(client, "eve")
            nodes.processes["media-1"].send_signal(signal.SIGTERM)
            await asyncio.to_thread(nodes.processes["media-1"].wait, 20)
            await asyncio.wait_for(encoding.wait(), 30)
        await nodes.start("media-1")
        async with encoder(nodes.publish("media-1", "eve")):
            await eventually(lambda: on("media-1", last + 1))
            _, goes_on, last = await shown(client, "eve")
            assert goes_on == broadcast_id
            nodes.processes["media-1"].send_signal(signal.SIGUSR1)
            # FFmpeg does not know how to go elsewhere. Another takes its place there, and this one has gone.
            async with encoder(nodes.publish("media-2", "eve")):
                await eventually(lambda: on("media-2", last + 1))
                assert (await shown(client, "eve"))[1] == broadcast_id
                async with encoder(nodes.publish("media-1", "eve")) as refused:
                    assert await asyncio.wait_for(refused.wait(), 30) != 0

        async def over() -> bool:
            return any(isinstance(event, BroadcastEnded) for event in await nodes.told(broadcast_id))

        await eventually(over)
    kinds = [type(event) for event in await nodes.told(broadcast_id)]
    assert (kinds.count(BroadcastStarted), kinds.count(BroadcastEnded)) == (1, 1)
    found = await nodes.recorded(broadcast_id)
    assert found is not None
    assert found.runs == 2
