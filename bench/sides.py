"""The servers that `bench.glass_to_glass` watches, ours in several ways and its peers, each with a broadcast of the clock on air.

Each is entered for as long as it is watched, and yields where.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, TypeVar

import imageio_ffmpeg

from bench.clock import ClockSource
from bench.nginx import nginx
from bench.screen import obs_streaming
from bench.stack import Stack, free_ports
from bench.watching import Side, hls_page
from gateways.engines.process import listening
from gateways.folder import DataFolder

Way = Callable[[Path], AbstractAsyncContextManager[dict[str, Side]]]
T = TypeVar("T")

PLAIN: Final = "{lowLatencyMode: false}"
"""hls.js as it comes for players without low latency: three target durations behind the live edge (liveSyncDurationCount)."""
NODE_MEDIA_SERVER: Final = Path(sys.prefix) / "peers"
"""Where `make bench NAME=glass_to_glass` installs it."""
_NODE_MEDIA_SERVER_JS: Final = """
const NodeMediaServer = require('node-media-server');
global.version = ''; // 2.7.4 says this name, which it never declares, before its transmuxing begins
new NodeMediaServer({
  logType: 1,
  rtmp: { port: RTMP, chunk_size: 60000, gop_cache: true, ping: 30, ping_timeout: 60 },
  http: { port: HTTP, mediaroot: MEDIA, allow_origin: '*', api: false },
  trans: {
    ffmpeg: FFMPEG,
    tasks: [{ app: 'live', hls: true, hlsFlags: '[hls_time=2:hls_list_size=3:hls_flags=delete_segments]' }],
  },
}).run();
"""
"""As its documentation configures HLS."""


@asynccontextmanager
async def ours(folder: Path) -> AsyncIterator[dict[str, Side]]:
    """On the product's own page, over HTTP/2."""
    async with _on_air(folder) as stack:
        yield {"ours": _page_of(stack, stack.secure_url)}


@asynccontextmanager
async def from_obs(folder: Path) -> AsyncIterator[dict[str, Side]]:
    """The same with OBS as it comes (key frames every 8 s), capturing a screen that shows the clock."""
    async with _started(folder) as stack:
        channel = await asyncio.to_thread(stack.open_channel, "clock", title="Clock")
        async with _beside(obs_streaming(channel.publish_url)):
            yield {"obs": _page_of(stack, stack.secure_url)}


@asynccontextmanager
async def through_edge(folder: Path) -> AsyncIterator[dict[str, Side]]:
    """One broadcast, watched from the front that knows the media role, and from one that knows an edge before it (Caddy, then Varnish)."""
    async with _on_air(folder) as stack, _beside(_edge(stack)) as secure_url:
        yield {"direct": _page_of(stack, stack.secure_url), "edge": _page_of(stack, secure_url)}


def plain(segment_s: int) -> Way:
    """Players without low latency, and segments of so many seconds."""

    @asynccontextmanager
    async def way(folder: Path) -> AsyncIterator[dict[str, Side]]:
        async with _on_air(folder, key_s=float(segment_s), segment_s=segment_s) as stack:
            yield {f"plain_{segment_s}s": hls_page(stack.secure_url, "/live/clock/index.m3u8", PLAIN)}

    return way


@asynccontextmanager
async def nginx_rtmp(folder: Path) -> AsyncIterator[dict[str, Side]]:
    rtmp, http = free_ports(2)
    hls = folder / "hls"
    hls.mkdir(parents=True)
    live = f"server {{ listen 127.0.0.1:{rtmp}; application live {{ live on; hls on; hls_path {hls}; hls_fragment 2s; }} }}"
    server = f"server {{ listen 127.0.0.1:{http}; root {folder}; }}"
    with nginx(folder / "nginx", port=rtmp, rtmp=live, http=server):
        async with ClockSource(f"rtmp://127.0.0.1:{rtmp}/live/clock"):
            yield {"nginx_rtmp": hls_page(f"http://127.0.0.1:{http}", "/hls/clock.m3u8")}


@asynccontextmanager
async def node_media_server(folder: Path) -> AsyncIterator[dict[str, Side]]:
    rtmp, http = free_ports(2)
    folder.mkdir(parents=True)
    script = folder / "server.js"
    known = {"RTMP": rtmp, "HTTP": http, "MEDIA": str(folder / "media"), "FFMPEG": imageio_ffmpeg.get_ffmpeg_exe()}
    text = _NODE_MEDIA_SERVER_JS
    for name, value in known.items():
        text = text.replace(f" {name}", f" {json.dumps(value)}")
    script.write_text(text)
    environment = os.environ | {"NODE_PATH": str(NODE_MEDIA_SERVER / "node_modules")}
    node = shutil.which("node") or "node"
    with _process([node, str(script)], environment, port=http):
        async with ClockSource(f"rtmp://127.0.0.1:{rtmp}/live/clock"):
            yield {"node_media_server": hls_page(f"http://127.0.0.1:{http}", "/live/clock/index.m3u8")}


@asynccontextmanager
async def _started(folder: Path, **settings: object) -> AsyncIterator[Stack]:
    stack = Stack(folder, **settings)
    await asyncio.to_thread(stack.start)
    try:
        yield stack
    finally:
        await asyncio.to_thread(stack.stop)


@asynccontextmanager
async def _on_air(folder: Path, *, key_s: float = 2.0, **settings: object) -> AsyncIterator[Stack]:
    async with _started(folder, **settings) as stack:
        channel = await asyncio.to_thread(stack.open_channel, "clock", title="Clock")
        async with ClockSource(channel.publish_url, key_s=key_s):
            yield stack


def _page_of(stack: Stack, origin: str) -> Side:
    return Side(f"{origin}/clock", f"{stack.url}/live/clock/index.m3u8")


@contextmanager
def _edge(stack: Stack) -> Iterator[str]:
    """The product's own roles `edge` and `front` beside a running product: the front's secure address."""
    edge, http, https = free_ports(3)
    data = stack.folder / "data"
    running = DataFolder(data).running()
    assert running is not None
    caddy = json.loads((data / "front" / "caddy.json").read_text())
    routes = {
        json.dumps(it.get("match", [])): it["handle"][0] for it in caddy["apps"]["http"]["servers"]["http"]["routes"]
    }
    upstreams = {
        name: next(
            it["upstreams"][0]["dial"]
            for match, it in routes.items()
            if it["handler"] == "reverse_proxy" and where in match
        )
        for name, where in (("chat", "/ws/"), ("media", "/live/"), ("api", "[]"))
    }
    mine = {
        "DATA_DIR": stack.folder / "beside",
        "BOOTSTRAP_SERVERS": running.bootstrap_servers,
        "PLAYBACK_SECRET": DataFolder(data).secrets().playback_secret,
        "NODES": f"media-1={upstreams['media']}",
        "EDGE_PORT": edge,
        "HTTP_PORT": http,
        "HTTPS_PORT": https,
        "API_UPSTREAM": upstreams["api"],
        "CHAT_UPSTREAM": upstreams["chat"],
        "MEDIA_UPSTREAM": f"127.0.0.1:{edge}",
    }
    environment = stack.environment | {f"TALLYLIGHT_{name}": str(value) for name, value in mine.items()}
    with (
        _process([*stack.command(), "role", "edge"], environment, port=edge),
        _process([*stack.command(), "role", "front"], environment, port=https),
    ):
        yield f"https://localhost:{https}"


@contextmanager
def _process(command: list[str], environment: dict[str, str], *, port: int) -> Iterator[None]:
    """Runs, listening, until left."""
    process = subprocess.Popen(command, env=environment, stdout=sys.stderr)
    try:
        while not listening("127.0.0.1", port):
            if process.poll() is not None:
                raise RuntimeError(f"{command} ended with {process.returncode}")
        yield
    finally:
        process.terminate()
        process.wait(20)


@asynccontextmanager
async def _beside(manager: AbstractContextManager[T]) -> AsyncIterator[T]:
    """A manager that blocks, entered and left beside the loop."""
    entered = await asyncio.to_thread(manager.__enter__)
    try:
        yield entered
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)
