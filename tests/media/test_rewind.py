"""Live broadcasts that are rewound: the playlist goes back two hours, and its bytes are the archive's, which are the live ones."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import httpx
import m3u8
from starlette.applications import Starlette

from media.archive import Archive, Recorder
from media.hls.live import LiveRegistry
from media.origin import Origin
from media.vod import Vod
from tests.media.hls.given import real
from tests.media.recorded import at_once, begun
from tests.media.stage import Encoder, played, served

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


async def test_a_live_broadcast_is_rewound_to_its_beginning_with_the_archives_bytes(tmp_path: Path) -> None:
    archive = Archive.open(str(tmp_path))
    recorder = Recorder(archive, begun("b1"), report=lambda _: True, kept=at_once)
    registry = LiveRegistry(epoch="e1", clock=lambda: 0.0, rewind_s=7200.0)
    origin = Origin(registry, past=Vod(archive).object)
    broadcast = registry.open(channel="ann", channel_id="c1", broadcast_id="b1", started_at=START, keep=recorder)
    encoder = Encoder(broadcast)
    encoder.until(3, 0)
    live_bytes = [encoder.live.window.segment(number) for number in range(3)]
    kept = [it.data for it in live_bytes if it is not None]
    encoder.until(40, 3)
    await asyncio.wait_for(recorder._queue.join(), 30)
    assert len(list(encoder.live.window.rewindable)) == 41
    assert encoder.live.window.segment(0) is None, "its bytes are in memory no more"
    async with served(Starlette(routes=origin.routes())) as url, httpx.AsyncClient(base_url=url) as client:
        master = m3u8.loads((await client.get("/live/ann/dvr.m3u8")).text)
        path = f"/live/ann/{master.playlists[0].uri}"
        assert path.endswith("/source/dvr.m3u8")
        playlist = m3u8.loads((await client.get(path)).text)
        assert playlist.media_sequence == 0
        assert len(playlist.segments) == 41, "the one that is open is there with its parts"
        assert playlist.part_inf
        folder = path.rpartition("/")[0]
        for number in range(3):
            assert (await client.get(f"{folder}/{number}.m4s")).content == kept[number]
        ranged = await client.get(f"{folder}/0.m4s", headers={"Range": "bytes=2-5"})
        assert (ranged.status_code, ranged.content) == (206, (kept[0] or b"")[2:6])
        update = m3u8.loads((await client.get(f"{path}?_HLS_skip=YES&_HLS_msn=40&_HLS_part=1")).text)
        assert update.skip.skipped_segments > 30
        registry.close(broadcast)
        assert (await client.get(path)).text.endswith("#EXT-X-ENDLIST\n")
        await recorder.close(START)


async def test_two_hours_are_kept_and_no_more(tmp_path: Path) -> None:
    registry = LiveRegistry(epoch="e1", clock=lambda: 0.0, rewind_s=60.0)
    archive = Archive.open(str(tmp_path))
    recorder = Recorder(archive, begun("b1"), report=lambda _: True, kept=at_once)
    broadcast = registry.open(channel="ann", channel_id="c1", broadcast_id="b1", started_at=START, keep=recorder)
    encoder = Encoder(broadcast)
    encoder.until(100, 0)
    numbers = [entry.number for entry in encoder.live.window.rewindable if entry.finished]
    assert numbers == list(range(70, 100))
    assert not encoder.live.window.is_rewindable(69)
    assert encoder.live.window.is_rewindable(70)
    registry.close(broadcast)
    await recorder.close(START)


async def test_real_frames_play_from_the_beginning_of_what_can_be_rewound_to(tmp_path: Path) -> None:
    of, samples = real(seconds=10)
    archive = Archive.open(str(tmp_path))
    recorder = Recorder(archive, begun("b1"), report=lambda _: True, kept=at_once)
    registry = LiveRegistry(epoch="e1", clock=lambda: 0.0, rewind_s=7200.0)
    origin = Origin(registry, past=Vod(archive).object)
    broadcast = registry.open(channel="ann", channel_id="c1", broadcast_id="b1", started_at=START, keep=recorder)
    Encoder(broadcast, of, samples).rest()
    registry.close(broadcast)
    await recorder.close(START)
    async with served(Starlette(routes=origin.routes())) as url:
        count, complaints = await played(f"{url}/live/ann/dvr.m3u8", "0:v:0")
    assert count == 300
    assert not complaints
