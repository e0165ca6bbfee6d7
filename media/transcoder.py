"""A broadcast's FFmpeg, kept running: takes the tags of its source, gives the samples of its rungs to the packager.

One process a broadcast, niced, in a session of its own: what it does, eats or dies of is its broadcast's alone. It is started again
when it dies or stops giving, from the next key frame on. Tags it does not take in time are dropped up to a key frame, never waited for.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge

from media import ffmpeg, flv
from media.flv import Began
from media.fmp4.box import Fmp4Error
from media.fmp4.reader import Fmp4Reader, Tracks
from media.ladder import Rung, halves
from media.sample import Packager, Rendition, Sample, SampleSink, Tag, TagType, VideoTrack

log = structlog.get_logger()

WAITING_BYTES_MAX: Final = 8 << 20
"""What FFmpeg has not taken yet; beyond it, tags are dropped until the next key frame."""
READ_BYTES: Final = 256 * 1024
SILENT_S_MAX: Final = 10.0
"""FFmpeg that was fed and gave nothing for so long is started again."""
PAUSES_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_S: Final = 30.0
END_S_MAX: Final = 5.0
STDERR_LINES_MAX: Final = 20
NICENESS: Final = 5

_restarts = Counter("tallylight_transcoder_restarts_total", "FFmpeg processes started again", ["why"])
_running = Gauge("tallylight_transcoder_processes", "FFmpeg processes that run")
_dropped = Counter("tallylight_transcoder_tags_dropped_total", "Tags FFmpeg was too slow for")


class Transcoder:
    """`added` is told of every rendition when its first bytes come. Ends with `close`."""

    def __init__(
        self,
        began: Began,
        rungs: tuple[Rung, ...],
        packager: Packager,
        *,
        binary: Path,
        added: Callable[[Rendition], None],
        name: str,
    ) -> None:
        assert began.video is not None
        self._video: VideoTrack = began.video
        self._began = began
        self._rungs = rungs
        self._packager = packager
        self._binary = binary
        self._added = added
        self._log = log.bind(broadcast=name)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._waits_for_key = True
        self._wanted = asyncio.Event()
        self._ending = False
        self._fed_at: float | None = None  # when it was first fed after it last gave something
        self._process: asyncio.subprocess.Process | None = None
        self._task = asyncio.create_task(self._keep_running())

    @property
    def pid(self) -> int | None:
        """Of the FFmpeg that runs now."""
        return self._process.pid if self._process is not None else None

    def tag(self, tag: Tag, *, key: bool) -> None:
        """A tag of the source, on the broadcast's clock. Never blocks."""
        if self._waits_for_key:
            if not (key and tag.type == TagType.VIDEO):
                _dropped.inc()
                return
            self._waits_for_key = False
        if self._waiting_bytes > WAITING_BYTES_MAX:
            self._waits_for_key = True
            _dropped.inc()
            return
        data = flv.tag_bytes(tag)
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        self._wanted.set()

    async def close(self) -> None:
        """What it was given comes out first, for a bounded time."""
        self._ending = True
        self._wanted.set()
        _, late = await asyncio.wait({self._task}, timeout=END_S_MAX)
        if late:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_running(self) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while not (self._ending and not self._waiting):
            began = loop.time()
            try:
                why = await self._run()
            except OSError as fault:
                why = f"cannot start: {fault}"
            if self._ending:
                return
            failures = 0 if loop.time() - began > STEADY_S else failures + 1
            pause_s = PAUSES_S[min(failures, len(PAUSES_S)) - 1] if failures else 0.0
            _restarts.labels("silent" if why == "silent" else "died").inc()
            self._log.warning("transcoder.restarts", why=why, pause_s=pause_s)
            await asyncio.sleep(pause_s)
            self._forget_waiting()

    def _forget_waiting(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0
        self._waits_for_key = True

    async def _run(self) -> str:
        """One process, from start to end; why it ended."""
        pipes = [os.pipe() for _ in self._rungs]
        try:
            outputs = [(rung, write) for rung, (_, write) in zip(self._rungs, pipes, strict=True)]
            arguments = ffmpeg.command(self._binary, self._video, outputs, audio=self._began.audio is not None)
            process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=[write for _, write in outputs],
                start_new_session=True,
            )
        except BaseException:
            for read, _ in pipes:
                os.close(read)
            raise
        finally:
            for _, write in pipes:
                os.close(write)
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        self._process = process
        _running.inc()
        try:
            return await self._serve(process, [read for read, _ in pipes])
        finally:
            _running.dec()
            self._process = None
            if process.returncode is None:
                process.kill()
            await asyncio.shield(process.wait())

    async def _serve(self, process: asyncio.subprocess.Process, outputs: list[int]) -> str:
        self._fed_at = None
        feeding = asyncio.create_task(self._feed(process))
        watching = asyncio.create_task(self._watch())
        reading = [
            asyncio.create_task(self._read(rung, descriptor))
            for rung, descriptor in zip(self._rungs, outputs, strict=True)
        ]
        complaining = asyncio.create_task(self._complaints(process))
        everything: asyncio.Future[list[None]] = asyncio.gather(*reading)
        waited: set[asyncio.Future[Any]] = {watching, everything}
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                return "silent"
            fault = everything.exception()
            if fault is not None:
                return f"unreadable: {fault}"
            code = await process.wait()
            return f"ended with {code}: {' | '.join(await complaining)[-500:]}"
        finally:
            tasks = [feeding, watching, complaining, *reading]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, everything, return_exceptions=True)

    async def _feed(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        loop = asyncio.get_running_loop()
        header = flv.file_header(video=True, audio=self._began.audio is not None)
        with suppress(ConnectionError):
            process.stdin.write(header + b"".join(flv.tag_bytes(tag) for tag in self._began.headers))
            while True:
                while self._waiting:
                    data = self._waiting.popleft()
                    self._waiting_bytes -= len(data)
                    process.stdin.write(data)
                    self._fed_at = self._fed_at or loop.time()
                    await process.stdin.drain()
                if self._ending:
                    break
                self._wanted.clear()
                await self._wanted.wait()
        process.stdin.close()

    async def _watch(self) -> None:
        """Returns once FFmpeg was fed and gave nothing for too long."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1.0)
            if self._fed_at is not None and loop.time() - self._fed_at > SILENT_S_MAX:
                return

    async def _read(self, rung: Rung, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        stream = asyncio.StreamReader(limit=READ_BYTES)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(descriptor, "rb", buffering=0)
        )
        reader = Fmp4Reader()
        sink: SampleSink | None = None
        try:
            while data := await stream.read(READ_BYTES):
                self._fed_at = None
                for found in reader.receive(data):
                    match found:
                        case Tracks():
                            rendition = self._rendition(rung, found)
                            sink = self._packager.add(rendition)
                            self._added(rendition)
                        case Sample() if sink is not None:
                            sink.push(found)
        except Fmp4Error as fault:
            raise RuntimeError(f"{rung.name}: {fault}") from fault
        finally:
            if sink is not None:
                sink.close()
            transport.close()

    def _rendition(self, rung: Rung, tracks: Tracks) -> Rendition:
        video = tracks.video
        if video is not None:
            rate = self._video.frame_rate / (2 if halves(self._video) else 1)
            video = VideoTrack(video.codec, video.config, video.width, video.height, rate, video.timescale)
        return Rendition(rung.name, rung.video_kbps * 1250 + 128_000, video, tracks.audio)

    async def _complaints(self, process: asyncio.subprocess.Process) -> list[str]:
        """The last lines it said on standard error."""
        assert process.stderr is not None
        lines: deque[str] = deque(maxlen=STDERR_LINES_MAX)
        with suppress(ValueError):
            async for line in process.stderr:
                lines.append(line.decode(errors="replace").strip())
        return list(lines)
