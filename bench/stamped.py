"""The media plane in a process of its own, as the media role puts it together, that notes when each frame passes each of its stages.

Nothing of it is another's but the notes: real RTMP in, real packager, FFmpeg, archive and origin. There is no event plane: every key may
publish, facts are dropped. Used by `bench.stages`.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from starlette.applications import Starlette

from bench.stack import free_ports
from gateways.health import Readiness
from gateways.serving import serve
from media import ffmpeg
from media.archive import Archive
from media.hls.live import LiveBroadcast, LiveRegistry
from media.origin import Origin
from media.pipeline import SOURCE, Broadcasts, Node, Reporter
from media.playback import Gate, Signer, TokenInAddress
from media.port import Fact, Grant
from media.rtmp.server import RtmpServer
from media.sample import Ingest, Rendition, Sample, SampleSink, Tag, TagSink

NODE: Final = "media-1"
SECRET: Final = "bench"
CHANNEL: Final = "clock"
STOP_S_MAX: Final = 20


@dataclass
class Stamps:
    """Unix seconds. Frames of pictures by their decode time, of each rendition; parts by their number."""

    read: dict[int, float] = field(default_factory=dict)
    """When the last bytes of a frame of the source came out of the socket."""
    demuxed: dict[str, dict[int, float]] = field(default_factory=dict)
    """When the packager was given it."""
    made: dict[str, dict[int, float]] = field(default_factory=dict)
    """When players could have the part."""


@dataclass(frozen=True, slots=True)
class Served:
    """`url` the origin's, `publish_url` the encoder's. `stamps` asks for what was noted."""

    url: str
    port: int
    publish_url: str
    _connection: Connection

    def stamps(self) -> Stamps:
        self._connection.send("stamps")
        found = self._connection.recv()
        assert isinstance(found, Stamps)
        return found


@contextmanager
def stamped(folder: Path) -> Iterator[Served]:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    rtmp, http = free_ports(2)
    process = context.Process(target=_main, args=(theirs, folder, rtmp, http))
    process.start()
    try:
        if not mine.poll(60) or mine.recv() != "ready":
            raise RuntimeError("the media plane did not start")
        yield Served(f"http://127.0.0.1:{http}", http, f"rtmp://127.0.0.1:{rtmp}/live/{CHANNEL}", mine)
    finally:
        mine.send("stop")
        process.join(STOP_S_MAX)
        if process.exitcode is None:
            process.kill()


def _main(connection: Connection, folder: Path, rtmp: int, http: int) -> None:
    asyncio.run(_serve(connection, folder, rtmp, http))


async def _serve(connection: Connection, folder: Path, rtmp_port: int, http_port: int) -> None:
    stamps = Stamps()
    registry = _Registry(stamps)
    gate = Gate(Signer(SECRET))
    origin = Origin(registry, gate=gate)
    reporter = Reporter(_dropped)
    node = Node(
        registry,
        Archive.open(str(folder), node=NODE),
        reporter,
        name=NODE,
        binary=ffmpeg.binary(),
        top_height=1080,
        now=lambda: datetime.now(UTC),
        new_id=uuid4,
    )
    broadcasts = Broadcasts(node, most=1)
    rtmp = _Rtmp(_Stamping(broadcasts, stamps), stamps)
    await rtmp.start("127.0.0.1", rtmp_port)
    readiness = Readiness("media")
    app = TokenInAddress(Starlette(routes=origin.routes()))
    serving = asyncio.create_task(serve(app, "127.0.0.1", http_port, readiness, stopping=origin.close))
    await readiness.wait()
    connection.send("ready")
    while await asyncio.to_thread(connection.recv) != "stop":
        connection.send(stamps)
    await rtmp.close()
    await broadcasts.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await reporter.close()


async def _dropped(_: Fact) -> bool:
    return True


class _Rtmp(RtmpServer):
    def __init__(self, ingest: "_Stamping", stamps: Stamps) -> None:
        super().__init__(self._everybody, ingest)
        self._ingest_stamping = ingest
        self._stamps = stamps

    async def _everybody(self, key: str, peer: str) -> Grant:
        return Grant(channel_id="c1", channel=CHANNEL)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        plain, ingest = reader.read, self._ingest_stamping

        async def read(n: int = -1) -> bytes:
            data = await plain(n)
            ingest.read_at = time.time()
            return data

        reader.read = read  # type: ignore[method-assign]
        await super()._accept(reader, writer)


class _Stamping:
    """The node's `Ingest`, and its one publisher's `TagSink`, before the pipeline's own."""

    def __init__(self, behind: Ingest, stamps: Stamps) -> None:
        self._behind = behind
        self._stamps = stamps
        self.read_at = 0.0

    async def open(self, grant: Grant, **about: Any) -> TagSink:
        sink = await self._behind.open(grant, **about)
        plain = sink.tag

        def tag(tag: Tag) -> None:
            pushed = self._stamps.demuxed.setdefault(SOURCE, {})
            before = len(pushed)
            plain(tag)
            # What this tag gave the packager came with the read before it.
            for dts in list(pushed)[before:]:
                self._stamps.read[dts] = self.read_at

        sink.tag = tag  # type: ignore[method-assign]
        return sink


class _Registry(LiveRegistry):
    def __init__(self, stamps: Stamps) -> None:
        super().__init__(epoch=f"{NODE}-a1", clock=time.monotonic)
        self._stamps = stamps

    def open(self, **about: Any) -> LiveBroadcast:
        broadcast = super().open(**about)
        plain, stamps = broadcast.add, self._stamps

        def add(rendition: Rendition, *, slate: bool = False) -> SampleSink:
            return _StampedSink(plain(rendition, slate=slate), stamps.demuxed.setdefault(rendition.name, {}))

        def changed() -> None:
            now = time.time()
            for live in broadcast.renditions:
                made = stamps.made.setdefault(live.name, {})
                for sequence in range(max(made, default=-1) + 1, live.window.next_sequence):
                    made[sequence] = now

        broadcast.add = add  # type: ignore[method-assign]
        broadcast.listeners.append(changed)
        return broadcast


class _StampedSink:
    def __init__(self, behind: SampleSink, demuxed: dict[int, float]) -> None:
        self._behind = behind
        self._demuxed = demuxed

    def push(self, sample: Sample) -> None:
        if sample.kind == "video":
            self._demuxed[sample.dts] = time.time()
        self._behind.push(sample)

    def close(self) -> None:
        self._behind.close()
