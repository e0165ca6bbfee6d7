"""A broadcast's FFmpeg, kept running: takes the tags of its source, gives the samples of its rungs to the packager.

One process a broadcast, in a session of its own and confined: what it does, eats or dies of is its broadcast's alone. It is started again
when it dies or stops giving, from the last key frame on. Tags it does not take in time are dropped up to a key frame, never waited for;
where it stays behind, it goes on with fewer rungs, the dearest given up first.
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

from media import ffmpeg, flv, isolation
from media.encoders import LIBX264, Encoder
from media.flv import Began
from media.fmp4.box import Fmp4Error
from media.fmp4.reader import Fmp4Reader, Tracks
from media.hls.cuts import SEGMENT_S
from media.ladder import Rung, cost, frame_rate
from media.sample import VIDEO_TIMESCALE, Packager, Rendition, Sample, SampleSink, Tag, TagType, VideoTrack

log = structlog.get_logger()

WAITING_BYTES_MAX: Final = 8 << 20
"""What FFmpeg has not taken yet; beyond it, tags are dropped until the next key frame."""
READ_BYTES: Final = 256 * 1024
START_S_MAX: Final = 10.0
"""FFmpeg that was fed and gave nothing for so long from its start is started again."""
SILENT_S_MAX: Final = 1.5
"""So one that had been giving; twice as long after each failure, for on a busy machine it may be slow rather than stuck."""
WATCH_S: Final = 0.25
LAG_S_MAX: Final = 3.0
"""So far behind its source for so long, it has too much to do."""
PAUSES_S: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_S: Final = 30.0
END_S_MAX: Final = 5.0
STDERR_LINES_MAX: Final = 20

_restarts = Counter("tallylight_transcoder_restarts_total", "FFmpeg processes started again", ["why"])
_running = Gauge("tallylight_transcoder_processes", "FFmpeg processes that run")
_dropped = Counter("tallylight_transcoder_tags_dropped_total", "Tags FFmpeg was too slow for")
_shed = Counter("tallylight_transcoder_rungs_shed_total", "Rungs given up because FFmpeg was too slow")


class Transcoder:
    """`added` is told of every rendition when its first bytes come, `shed` of every rung that is given up. Ends with `close`."""

    def __init__(
        self,
        began: Began,
        rungs: tuple[Rung, ...],
        packager: Packager,
        *,
        binary: Path,
        added: Callable[[Rendition], None],
        name: str,
        shed: Callable[[Rung], None] = lambda _: None,
        encoder: Encoder = LIBX264,
        segment_s: float = SEGMENT_S,
    ) -> None:
        assert began.video is not None
        self._video: VideoTrack = began.video
        self._began = began
        self._rungs = rungs
        self._packager = packager
        self._binary = binary
        self._added = added
        self._shed = shed
        self._encoder = encoder
        self._segment_s = segment_s
        self._log = log.bind(broadcast=name)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._waits_for_key = True
        self._since_key: list[bytes] = []  # for an FFmpeg that must begin again
        self._since_key_bytes = 0
        self._fed_ms = 0
        self._given_s = 0.0
        self._behind_since: float | None = None
        self._has_given = False
        self._failures = 0
        self._wanted = asyncio.Event()
        self._ending = False
        self._fed_at: float | None = None  # when it was first fed after it last gave something
        self._process: asyncio.subprocess.Process | None = None
        self._task = asyncio.create_task(self._keep_running())

    @property
    def pid(self) -> int | None:
        """Of the FFmpeg that runs now."""
        return self._process.pid if self._process is not None else None

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """Those that were not given up."""
        return self._rungs

    @property
    def lag_s(self) -> float:
        """How far what came out is behind what came in, in seconds of media."""
        return max(0.0, self._fed_ms / 1000 - self._given_s) if self._has_given else 0.0

    @property
    def given_s(self) -> float | None:
        """Up to where, on the broadcast's clock, pictures came out of the FFmpeg that runs; None before its first."""
        return self._given_s if self._has_given else None

    def tag(self, tag: Tag, *, key: bool) -> None:
        """A tag of the source, on the broadcast's clock. Never blocks."""
        key = key and tag.type == TagType.VIDEO
        if self._waits_for_key:
            if not key:
                _dropped.inc()
                return
            self._waits_for_key = False
        if self._waiting_bytes > WAITING_BYTES_MAX:
            self._waits_for_key = True
            _dropped.inc()
            return
        data = flv.tag_bytes(tag)
        self._remember(data, key=key)
        self._fed_ms = max(self._fed_ms, tag.timestamp_ms)
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        self._wanted.set()

    def _remember(self, data: bytes, *, key: bool) -> None:
        if key:
            self._since_key, self._since_key_bytes = [], 0
        if self._since_key_bytes <= WAITING_BYTES_MAX:
            self._since_key.append(data)
            self._since_key_bytes += len(data)

    async def close(self) -> None:
        """What it was given comes out first, for a bounded time."""
        self._ending = True
        self._wanted.set()
        _, late = await asyncio.wait({self._task}, timeout=END_S_MAX)
        if late:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_running(self) -> None:
        loop = asyncio.get_running_loop()
        while not (self._ending and not self._waiting) and self._rungs:
            began = loop.time()
            try:
                why = await self._run()
            except OSError as fault:
                why = f"cannot start: {fault}"
            if self._ending:
                return
            if why == "behind":
                self._give_up_dearest()
            self._failures = 1 if loop.time() - began > STEADY_S else self._failures + 1
            pause_s = PAUSES_S[min(self._failures, len(PAUSES_S)) - 1]
            _restarts.labels(why if why in ("silent", "behind") else "died").inc()
            self._log.warning("transcoder.restarts", why=why, pause_s=pause_s)
            await asyncio.sleep(pause_s)
            self._begin_again(behind=why == "behind")

    def _give_up_dearest(self) -> None:
        dearest = max(self._rungs, key=lambda rung: cost(self._video, rung))
        self._rungs = tuple(rung for rung in self._rungs if rung is not dearest)
        _shed.inc()
        self._log.warning("transcoder.sheds", rung=dearest.name, left=[rung.name for rung in self._rungs])
        self._shed(dearest)

    def _begin_again(self, *, behind: bool) -> None:
        """From the last key frame, all of which is still there; or from the next, where there is too much of it to catch up with."""
        whole = not behind and self._since_key_bytes <= WAITING_BYTES_MAX
        self._waiting = deque(self._since_key if whole else ())
        self._waiting_bytes = sum(map(len, self._waiting))
        self._waits_for_key = not self._waiting
        self._has_given = False
        self._behind_since = None

    async def _run(self) -> str:
        """One process, from start to end; why it ended."""
        pipes = [os.pipe() for _ in self._rungs]
        try:
            outputs = [(rung, write) for rung, (_, write) in zip(self._rungs, pipes, strict=True)]
            arguments = ffmpeg.command(
                self._binary,
                self._video,
                outputs,
                audio=self._began.audio,
                encoder=self._encoder,
                segment_s=self._segment_s,
            )
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
        group = isolation.confine(process.pid)
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
            isolation.release(group)

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
                return watching.result()
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

    async def _watch(self) -> str:
        """Returns once FFmpeg was fed and gave nothing for too long (`silent`), or has been too far behind for too long (`behind`)."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(WATCH_S)
            patience_s = min(START_S_MAX, SILENT_S_MAX * 2**self._failures) if self._has_given else START_S_MAX
            if self._fed_at is not None and loop.time() - self._fed_at > patience_s:
                return "silent"
            if self.lag_s <= LAG_S_MAX:
                self._behind_since = None
            elif self._behind_since is None:
                self._behind_since = loop.time()
            elif loop.time() - self._behind_since > LAG_S_MAX and not self._ending:
                return "behind"

    async def _read(self, rung: Rung, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        stream = asyncio.StreamReader(limit=READ_BYTES)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(descriptor, "rb", buffering=0)
        )
        reader = Fmp4Reader()
        sink: SampleSink | None = None
        scale = VIDEO_TIMESCALE
        try:
            while data := await stream.read(READ_BYTES):
                self._fed_at = None
                for found in reader.receive(data):
                    match found:
                        case Tracks():
                            rendition = self._rendition(rung, found)
                            scale = found.video.timescale if found.video is not None else scale
                            sink = self._packager.add(rendition)
                            self._added(rendition)
                        case Sample() if sink is not None:
                            if found.kind == "video":
                                self._given_s, self._has_given = found.dts / scale, True
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
            rate = frame_rate(self._video, rung)
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
