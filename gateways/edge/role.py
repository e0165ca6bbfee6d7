"""The role `edge`: varnishd before the media nodes, kept running, and its viewers told to topic `presence`. Run by `gateways.roles`.

As a user of its own, please: it asks for no privileges and drops none.
"""

import asyncio
import signal
from typing import Final

import structlog

from gateways.edge import vcl
from gateways.edge.viewers import watching
from gateways.engines.process import EngineFailed, listening
from gateways.health import Readiness
from gateways.presence_sender import PresenceSender
from gateways.settings import EdgeSettings, SettingsInvalid
from media.playback import Signer

log = structlog.get_logger()

START_S_MAX: Final = 30.0
STOP_S_MAX: Final = 5.0
LOOK_S: Final = 0.05


async def run_edge(settings: EdgeSettings, readiness: Readiness) -> None:
    try:
        nodes = vcl.read_nodes(settings.nodes)
    except vcl.NodesInvalid as fault:
        raise SettingsInvalid(f"TALLYLIGHT_NODES: {fault}") from None
    signer = Signer(settings.playback_secret.get_secret_value())
    config = vcl.prepare(nodes, settings.data_dir / "edge" / settings.edge, signer)
    arguments = vcl.command(
        config, host=settings.host, port=settings.edge_port, storage_mib=settings.edge_storage_mib, nodes=len(nodes)
    )
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    complaints = asyncio.create_task(_tail(process.stderr))
    presence = PresenceSender(settings.edge, settings.bootstrap_servers)
    tasks: list[asyncio.Task[None]] = []
    try:
        async with asyncio.timeout(START_S_MAX):
            while not listening(settings.host, settings.edge_port):
                if process.returncode is not None:
                    raise EngineFailed(f"varnishd ended with {process.returncode}: {await complaints}")
                await asyncio.sleep(LOOK_S)
        log.info("edge.listens", port=settings.edge_port, nodes=list(nodes))
        readiness.ready()
        tasks = [asyncio.create_task(part) for part in (presence.run(), watching(config, presence.seen))]
        await process.wait()
        raise EngineFailed(f"varnishd ended with {process.returncode}: {await complaints}")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_S_MAX):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        complaints.cancel()


async def _tail(stream: asyncio.StreamReader) -> str:
    """The end of what it said, read all the while so that it never blocks on us."""
    said = b""
    while chunk := await stream.read(4096):
        said = (said + chunk)[-2000:]
    return said.decode(errors="replace").strip()
