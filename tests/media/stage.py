"""A live origin behind a real server, and a broadcast whose frames the test lets come one by one."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count

import httpx
import imageio_ffmpeg
import m3u8
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from gateways.serving import bound
from media.hls.live import LiveBroadcast, LiveRegistry, LiveRendition
from media.origin import Origin
from media.playback import Gate, Signer, TokenInAddress
from media.sample import Rendition, Sample, SampleSink
from tests.media.hls.given import frames, rendition

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WAIT_S_MAX = 30.0
PARTS_A_SEGMENT = 9
"""At 30 frames/s: eight parts of seven frames, and one of four."""


@dataclass
class Stage:
    registry: LiveRegistry
    origin: Origin
    client: httpx.AsyncClient
    url: str
    seen: list[tuple[str, str]]
    clock: list[float]
    gate: Gate
    asked: Counter[str] = field(default_factory=Counter)
    """How often the origin was asked for each address."""

    def open(self, channel: str = "ann", broadcast_id: str = "b1") -> LiveBroadcast:
        return self.registry.open(channel=channel, channel_id="c1", broadcast_id=broadcast_id, started_at=START)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S_MAX):
            while not true():  # noqa: ASYNC110 - the origin tells nobody of who asks
                await asyncio.sleep(0.002)

    async def held(self, number: int) -> None:
        """Until so many requests wait."""
        await self.until(lambda: self.origin.held == number)

    async def reloaded(self, *, held: int | None = None) -> None:
        """Until a player asked for a playlist again, and so many requests wait."""
        before = len(self.seen)
        await self.until(lambda: len(self.seen) > before and held in (None, self.origin.held))

    async def get(self, path: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> httpx.Response:
        return await self.client.request(method, path, headers=headers)

    def asking(self, path: str) -> asyncio.Task[httpx.Response]:
        return asyncio.create_task(self.get(path))


@dataclass
class Encoder:
    """One rendition's samples, in order, as many at a time as the test says."""

    broadcast: LiveBroadcast
    of: Rendition = field(default_factory=lambda: rendition(audio=None))
    samples: Iterable[Sample] | None = None
    sink: SampleSink = field(init=False)
    _left: Iterator[Sample] = field(init=False)

    def __post_init__(self) -> None:
        self.sink = self.broadcast.add(self.of)
        self._left = iter(self.samples) if self.samples is not None else _endless()

    @property
    def live(self) -> LiveRendition:
        found = self.broadcast.rendition(self.of.name)
        assert found is not None
        return found

    @property
    def path(self) -> str:
        return f"/live/{self.broadcast.channel}/{self.broadcast.address}/{self.of.name}"

    def push(self, number: int) -> None:
        for _, sample in zip(range(number), self._left, strict=False):
            self.sink.push(sample)

    def rest(self) -> None:
        for sample in self._left:
            self.sink.push(sample)

    def until(self, number: int, part: int) -> None:
        """Frames come until this part is the next one to be made."""
        assert self.live.window.next <= (number, part)
        while self.live.window.next < (number, part):
            self.push(1)


def _endless() -> Iterator[Sample]:
    for group in count():
        yield from frames(60, start=group * 60 * 3000)


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=5))
    with bound("127.0.0.1", 0) as listening:
        serving = asyncio.create_task(server.serve([listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def staged(
    *, held_max: int = 1000, first_segment_s_max: float = 6.0, epoch: str = "e1", signer: Signer | None = None
) -> AsyncIterator[Stage]:
    seen: list[tuple[str, str]] = []
    clock = [0.0]
    gate = Gate(signer or Signer("secret"))
    registry = LiveRegistry(epoch=epoch, clock=lambda: clock[0])
    origin = Origin(
        registry,
        watching=lambda channel_id, viewer: seen.append((channel_id, viewer)),
        held_max=held_max,
        first_segment_s_max=first_segment_s_max,
        gate=gate,
    )
    limits = httpx.Limits(max_connections=None)
    asked: Counter[str] = Counter()
    app = TokenInAddress(Starlette(routes=origin.routes()))

    async def counting(scope: Scope, receive: Receive, send: Send) -> None:
        query = scope.get("query_string", b"").decode()
        asked[scope["path"] + (f"?{query}" if query else "")] += 1
        await app(scope, receive, send)

    async with (
        served(counting) as url,
        httpx.AsyncClient(base_url=url, timeout=WAIT_S_MAX, limits=limits) as client,
    ):
        yield Stage(registry, origin, client, url, seen, clock, gate, asked)
        origin.close()


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["access-control-allow-origin"] == "*"
    return answer.status_code, answer.json()["code"]


def hint(answer: httpx.Response) -> str:
    """The address of the part that comes next, as a playlist says."""
    assert answer.status_code == 200, answer.text
    return str(m3u8.loads(answer.text).preload_hint.uri)


async def played(url: str, stream: str, *options: str) -> tuple[int, bytes]:
    """How many frames FFmpeg decodes of a playlist, and everything that it complains about."""
    process = await asyncio.create_subprocess_exec(
        imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-loglevel", "warning", *options, "-i", url,
        "-map", stream, "-fps_mode", "passthrough", "-enc_time_base:v", "1:90000", "-progress", "pipe:1", "-f", "null", "-",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, complaints = await asyncio.wait_for(process.communicate(), 60)
    frames = [int(line[6:]) for line in out.splitlines() if line.startswith(b"frame=")]
    return frames[-1] if frames else 0, complaints
