"""Players we did not write, on a broadcast while it is live and when it is recorded: PyAV (FFmpeg's libraries) and streamlink."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import av
import pytest
from starlette.applications import Starlette
from streamlink.session.session import Streamlink

from media.archive import Archive
from media.origin import Origin
from media.vod import Vod
from tests.media.encoded import decode
from tests.media.stage import served
from tests.media.tags import tags
from tests.media.test_pipeline import ANN, Stand, live_on, push, until
from tests.media.test_transcoder import pace

SECONDS = 40
FRAMES = 75


@dataclass
class OnAir:
    """`end` has the encoder leave; what is recorded is whole then."""

    url: str
    stand: Stand
    broadcast_id: str
    end: Callable[[], Awaitable[None]]


@pytest.fixture
async def on_air(tmp_path: object) -> AsyncIterator[OnAir]:
    """A broadcast that goes on, with its rungs, from its second segment on."""
    stand = Stand(tmp_path)  # type: ignore[arg-type]
    archive = Archive.open(str(stand.folder))
    vod = Vod(archive)
    async with stand.node() as (broadcasts, registry):
        origin = Origin(registry, past=vod.object)
        async with served(Starlette(routes=[*origin.routes(), *vod.routes()])) as url:
            sink = await broadcasts.open(ANN, encoder="", peer="")
            sent = tags(seconds=SECONDS)
            push(sink, [it for it in sent if it.timestamp_ms < 6_000])
            live = live_on(registry)
            await until(lambda: {it.name for it in live.renditions if it.is_ready} >= {"source", "240p", "160p"})
            going = asyncio.create_task(pace(sink, [it for it in sent if it.timestamp_ms >= 6_000]))

            async def end() -> None:
                if going.cancel():
                    with suppress(asyncio.CancelledError):
                        await going
                    await sink.close("unpublished")

            yield OnAir(url, stand, live.broadcast_id, end)
            await end()
            origin.close()


def watched(url: str, frames: int, rendition: int = 0) -> tuple[int, list[float]]:
    """The height of the pictures and when each is shown, as FFmpeg's own libraries play it."""
    with av.open(url, timeout=20) as playing:
        stream = playing.streams.video[rendition]
        found, height = [], 0
        for picture in playing.decode(stream):
            height = picture.height
            assert picture.time is not None
            found.append(picture.time)
            if len(found) == frames:
                break
    return height, found


@pytest.mark.parametrize("path", ["/live/ann/index.m3u8", "/live/ann/dvr.m3u8"])
async def test_pyav_plays_what_is_live_and_what_can_be_rewound(on_air: OnAir, path: str) -> None:
    height, shown = await asyncio.to_thread(watched, f"{on_air.url}{path}", FRAMES)
    assert height == 360
    steps = [round(later - earlier, 3) for earlier, later in pairwise(shown)]
    assert len(shown) == FRAMES
    assert all(0.02 < step < 0.05 for step in steps), "no frame is lost, doubled or shown at another time"


async def test_pyav_plays_every_rung(on_air: OnAir) -> None:
    heights = {
        (await asyncio.to_thread(watched, f"{on_air.url}/live/ann/index.m3u8", 5, index))[0] for index in range(3)
    }
    assert heights == {360, 240, 160}


async def test_streamlink_finds_the_qualities_and_saves_what_plays(on_air: OnAir) -> None:
    def saved(quality: str) -> bytes:
        session = Streamlink()
        found = session.streams(f"{on_air.url}/live/ann/index.m3u8")
        assert {"360p", "240p", "160p", "best", "worst"} <= set(found)
        with found[quality].open() as reading:
            data = b""
            while len(data) < 700_000:
                chunk = reading.read(32_768)
                if not chunk:
                    break
                data += chunk
        return data

    count, _ = decode(await asyncio.to_thread(saved, "best"))
    assert count > 60
