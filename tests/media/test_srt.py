"""SRT from a real caller, the wheel's FFmpeg, through the real libsrt to a broadcast."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import imageio_ffmpeg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media import ffmpeg, srt
from media.flv import FlvReader, file_header, tag_bytes
from media.hls.live import LiveRegistry
from media.pipeline import Broadcasts
from media.port import Denied, Grant
from media.sample import Tag, TagType
from media.srt import SrtServer, SrtUnavailable, library, stream_key
from tests.media.tags import tags
from tests.media.test_pipeline import ANN, BOB, Stand, until
from tests.media.test_pipeline import stand as stand

KEYS = {"secret-ann": ANN, "secret-bob": BOB}
PASSPHRASE = "a long enough phrase"


@dataclass
class Caller:
    process: asyncio.subprocess.Process

    async def end(self) -> int:
        """How it ended, by itself or by us."""
        if self.process.returncode is None:
            self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), 20)


@dataclass
class Served:
    port: int
    server: SrtServer
    broadcasts: Broadcasts
    registry: LiveRegistry
    callers: list[Caller] = field(default_factory=list)

    async def call(self, stream_id: str, **options: str) -> Caller:
        """An encoder that sends until it is ended."""
        query = "&".join(f"{name}={value}" for name, value in {"streamid": stream_id, **options}.items())
        process = await asyncio.create_subprocess_exec(
            imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-re",
            "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=30", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000",
            "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "30", "-pix_fmt", "yuv420p", "-threads", "1",
            "-c:a", "aac", "-f", "mpegts", f"srt://127.0.0.1:{self.port}?{query}",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        caller = Caller(process)
        self.callers.append(caller)
        return caller


@asynccontextmanager
async def serving(stand: Stand, *, passphrase: str = "") -> AsyncIterator[Served]:
    async def authorise(key: str, peer: str) -> Grant | Denied:
        assert peer == "127.0.0.1"
        return KEYS.get(key, Denied(reason="unknown"))

    async with stand.node(resume_s=5.0) as (broadcasts, registry):
        server = SrtServer(authorise, broadcasts, binary=ffmpeg.binary(), passphrase=passphrase)
        served = Served(server.start("127.0.0.1", 0), server, broadcasts, registry)
        try:
            yield served
        finally:
            for caller in served.callers:
                await caller.end()
            await server.close()


async def test_an_encoder_publishes_over_srt_and_may_come_back(stand: Stand) -> None:
    async with serving(stand) as served:
        caller = await served.call("publish:secret-ann")
        await until(lambda: (live := served.registry.on_channel("ann")) is not None and live.has_begun)
        live = served.registry.on_channel("ann")
        assert live is not None
        await until(lambda: {it.name for it in live.renditions if it.is_ready} >= {"source", "240p", "audio"})
        assert live.renditions[0].rendition.codecs.startswith("avc1")
        (health,) = served.broadcasts.health()
        assert (health.encoder, health.width, health.audio_codec) == ("SRT", 640, "mp4a.40.2")
        await caller.end()
        await until(lambda: "interrupted" in stand.kinds())
        await served.call("#!::r=live/secret-ann,m=publish")
        await until(lambda: "resumed" in stand.kinds())
        assert not live.ended
    assert stand.kinds().count("started") == 1


async def test_a_wrong_key_a_taken_channel_and_one_who_wants_to_watch_are_turned_away(stand: Stand) -> None:
    async with serving(stand) as served:
        await served.call("secret-ann")
        await until(lambda: (live := served.registry.on_channel("ann")) is not None and live.has_begun)
        others = [
            await served.call(it) for it in ("secret-eve", "publish:secret-ann", "#!::r=secret-bob,m=request", "")
        ]
        for caller in others:
            async with asyncio.timeout(20):
                await caller.process.wait()
            assert caller.process.returncode != 0
        assert [it.channel for it in served.broadcasts.health()] == ["ann"]
        assert set(stand.kinds("c2")) == set()


async def test_with_a_passphrase_only_who_knows_it_comes_in(stand: Stand) -> None:
    async with serving(stand, passphrase=PASSPHRASE) as served:
        wrong = await served.call("secret-bob", passphrase="another one altogether")
        async with asyncio.timeout(20):
            assert await wrong.process.wait() != 0
        await served.call("secret-ann", passphrase=PASSPHRASE.replace(" ", "%20"))
        await until(lambda: (live := served.registry.on_channel("ann")) is not None and live.has_begun)
        assert served.registry.on_channel("bob") is None


async def test_two_publish_side_by_side_and_the_end_of_the_server_ends_both(stand: Stand) -> None:
    async with serving(stand) as served:
        for key in ("secret-ann", "secret-bob"):
            await served.call(key)
        await until(lambda: len(served.broadcasts.health()) == 2)
        before = len(os.listdir("/proc/self/fd"))
    assert len(os.listdir("/proc/self/fd")) < before
    assert {"ended"} <= set(stand.kinds()) & set(stand.kinds("c2"))


async def test_while_it_is_drained_who_is_on_goes_on_and_nobody_else_comes_in(stand: Stand) -> None:
    async with serving(stand) as served:
        await served.call("secret-ann")
        await until(lambda: (live := served.registry.on_channel("ann")) is not None and live.has_begun)
        served.server.drain()
        other = await served.call("secret-bob")
        async with asyncio.timeout(20):
            assert await other.process.wait() != 0
        assert set(stand.kinds("c2")) == set()
        (live,) = served.registry.broadcasts
        before = live.renditions[0].window.next_sequence
        await until(lambda: live.renditions[0].window.next_sequence > before + 4)


@pytest.mark.parametrize(
    ("stream_id", "key"),
    [("k", "k"), ("publish:k", "k"), ("#!::r=k", "k"), ("#!::u=me,r=live/k,m=publish", "k"), ("#!::m=request,r=k", ""), ("#!::", ""),
     ("", ""), ("publish:", "")],
)  # fmt: skip
def test_the_key_stands_where_callers_put_it(stream_id: str, key: str) -> None:
    assert stream_key(stream_id) == key


@settings(max_examples=50, deadline=None)
@given(step=st.integers(1, 5000))
def test_flv_is_read_however_it_comes(step: int) -> None:
    sent = list(tags(seconds=1))
    sent.append(Tag(TagType.AUDIO, 2**24 + 5, b"\xaf\x01x"))
    data = file_header(video=True, audio=True) + b"".join(map(tag_bytes, sent))
    reader = FlvReader()
    found = [tag for at in range(0, len(data), step) for tag in reader.receive(data[at : at + step])]
    assert found == sent


def test_without_libsrt_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(srt, "NAMES", ("libsrt-that-is-not-there.so.9",))
    with pytest.raises(SrtUnavailable, match="apt-get install"):
        library()


def test_a_passphrase_that_libsrt_would_not_take_is_refused() -> None:
    with pytest.raises(ValueError, match="10 to 79"):
        SrtServer(None, None, binary=ffmpeg.binary(), passphrase="short")  # type: ignore[arg-type]
