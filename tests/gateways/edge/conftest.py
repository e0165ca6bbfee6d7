"""Origins of real packagers, and real Varnish before them."""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gateways import front
from gateways.edge import vcl
from gateways.engines.process import free_port, listening
from gateways.launch import start
from gateways.settings import FrontSettings
from media.playback import Signer
from tests.media.stage import Stage, staged

NODES = ("media-1", "media-2")
SIGNER = Signer("a-secret-of-the-tests")


@asynccontextmanager
async def origins() -> AsyncIterator[dict[str, Stage]]:
    async with staged(epoch="media-1-a1", signer=SIGNER) as one, staged(epoch="media-2-b2", signer=SIGNER) as two:
        yield dict(zip(NODES, (one, two), strict=True))


def places(nodes: Mapping[str, Stage]) -> dict[str, tuple[str, int]]:
    return {name: ("127.0.0.1", httpx.URL(stage.url).port or 0) for name, stage in nodes.items()}


@dataclass
class Edge:
    url: str
    config: Path
    process: "subprocess.Popen[bytes]"


@contextmanager
def varnish(nodes: Mapping[str, tuple[str, int]], *, port: int | None = None) -> Iterator[Edge]:
    folder = Path(tempfile.mkdtemp(prefix="edge"))
    config = vcl.prepare(nodes, folder, SIGNER)
    port = port or free_port()
    arguments = vcl.command(config, host="127.0.0.1", port=port, storage_mib=64, nodes=len(nodes))
    log = (folder / "log").open("wb")
    process = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT)
    try:
        while not listening("127.0.0.1", port):
            assert process.poll() is None, (folder / "log").read_text()
        yield Edge(f"http://127.0.0.1:{port}", config, process)
    finally:
        process.terminate()
        process.wait(10)
        log.close()
        shutil.rmtree(folder)


@contextmanager
def two_edges(nodes: Mapping[str, Stage]) -> Iterator[list[Edge]]:
    with varnish(places(nodes)) as one, varnish(places(nodes)) as two:
        yield [one, two]


def requests_of(edge: Edge) -> int:
    """How many clients' requests it has answered, or is holding."""
    stat = [vcl.tool("varnishstat"), "-n", str(vcl.working(edge.config)), "-1", "-f", "MAIN.client_req"]
    said = subprocess.run(stat, capture_output=True, check=True, text=True, timeout=10)
    return int(said.stdout.split()[1])


@asynccontextmanager
async def fronted(edges: Sequence[Edge], folder: Path, *, api: str = "127.0.0.1:1") -> AsyncIterator[str]:
    """The real Caddy before them, in TLS; its address."""
    port = free_port()
    settings = FrontSettings(
        data_dir=folder,
        http_port=free_port(),
        https_port=port,
        api_upstream=api,
        chat_upstream=api,
        media_upstream=",".join(edge.url.removeprefix("http://") for edge in edges),
    )
    config = front.prepare(settings, folder / "front")
    caddy = start("front", front.command(config), lambda *_: None, environment=front.environment(folder / "front"))
    try:
        url = f"https://localhost:{port}"
        async with asyncio.timeout(30), httpx.AsyncClient(verify=False) as client:
            # It listens before it has its certificate.
            while not await _answers(client, f"{url}/live/nobody/index.m3u8"):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        yield url
    finally:
        caddy.signal(15)
        await caddy.wait()


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).status_code == 404
    except httpx.TransportError:
        return False


@pytest.fixture
async def nodes() -> AsyncIterator[dict[str, Stage]]:
    async with origins() as found:
        yield found


@pytest.fixture
async def edge(nodes: dict[str, Stage]) -> AsyncIterator[Edge]:
    with varnish(places(nodes)) as one:
        yield one
