"""Origins of real packagers, and real Varnish before them."""

import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gateways.edge import vcl
from gateways.engines.process import free_port, listening
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


@pytest.fixture
async def nodes() -> AsyncIterator[dict[str, Stage]]:
    async with origins() as found:
        yield found


@pytest.fixture
async def edge(nodes: dict[str, Stage]) -> AsyncIterator[Edge]:
    with varnish(places(nodes)) as one:
        yield one
