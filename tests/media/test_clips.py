"""Clips of real broadcasts: the very frames between in and out, playable at once, one file to take home, and a life of their own."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import av
import httpx
import imageio_ffmpeg
import m3u8
import pytest
from starlette.applications import Starlette

from media import clips, ffmpeg, manifest
from media.archive import Archive
from media.clips import Clips, NothingThere, NotYet, cut, end_exactly
from media.deletion import destroy
from media.fmp4.shift import earlier, timescales
from media.vod import Vod
from tests.media.recorded import BROADCAST, NUMBERS, SEGMENT_S, Report, encoded, record, recorder, segment
from tests.media.stage import code, played, served
from tests.media.tags import tags
from tests.media.test_pipeline import ANN, Stand, push, until
from tests.media.test_pipeline import stand as stand

CLIP = "clip1"


@dataclass
class World:
    archive: Archive
    clips: Clips
    about: dict[str, tuple[str, float, float]] = field(default_factory=dict)
    url: str = ""
    client: httpx.AsyncClient = field(default_factory=httpx.AsyncClient)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    archive = Archive.open(str(tmp_path))
    known: dict[str, tuple[str, float, float]] = {}

    async def about(clip_id: str) -> tuple[str, float, float] | None:
        return known.get(clip_id)

    made = Clips(archive, about, ffmpeg.binary())
    app = Starlette(routes=[*made.routes(), *Vod(archive).routes()])
    async with served(app) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield World(archive, made, known, url, client)


def pictures(url: str) -> list[str]:
    """A hash of each picture that FFmpeg shows of it."""
    done = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-i", url, "-map", "0:v:0",
         "-fps_mode", "passthrough", "-f", "framemd5", "-"],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert not done.stderr
    return [line.split(",")[-1].strip() for line in done.stdout.decode().splitlines() if not line.startswith("#")]


def shown_at(url: str) -> list[float]:
    """When each picture is shown, in seconds."""
    with av.open(url) as opened:
        stream = opened.streams.video[0]
        return [frame.time for frame in opened.decode(stream)]


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize(("start_s", "end_s"), [(3.5, 7.2), (4.0, 6.0), (0.0, 1.0), (9.5, 12.0)])
async def test_the_download_has_the_very_frames_between_in_and_out(
    world: World, stand: Stand, b_frames: int, start_s: float, end_s: float
) -> None:
    stand.folder = world.archive.folder or stand.folder
    async with stand.node() as (broadcasts, _):
        sink = await broadcasts.open(ANN, encoder="", peer="")
        push(sink, tags(seconds=12, b_frames=b_frames))
        await sink.close("unpublished")
        await until(lambda: "recording" in stand.kinds())
    broadcast_id = stand.facts[0].broadcast_id
    world.about[CLIP] = (broadcast_id, start_s, end_s)
    answer = await world.client.get(f"/clips/{CLIP}/clip.mp4")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"] == f'attachment; filename="{CLIP}.mp4"'
    file = stand.folder / "clip.mp4"
    file.write_bytes(answer.content)
    whole = await asyncio.to_thread(pictures, f"{world.url}/vod/{broadcast_id}/source/index.m3u8")
    shown = await asyncio.to_thread(pictures, str(file))
    assert shown == whole[round(start_s * 30) : round(end_s * 30)]
    # Its beginning stands in its playlist; it touches no segment it does not need.
    playlist = m3u8.loads((await world.client.get(f"/clips/{CLIP}/source/index.m3u8")).text)
    first = int(max(0.0, start_s - clips.REORDER_S) // 2)
    assert playlist.start is not None
    assert playlist.start.time_offset == pytest.approx(start_s - 2 * first, abs=0.01)
    assert [it.uri for it in playlist.segments] == [
        f"{number}.m4s" for number in range(first, -(-int(end_s * 10) // 20))
    ]


async def test_a_clip_plays_in_every_rendition_with_the_bytes_of_the_recording(world: World) -> None:
    await record(world.archive, Report())
    world.about[CLIP] = (BROADCAST, 2.5, 5.0)
    master = m3u8.loads((await world.client.get(f"/clips/{CLIP}/index.m3u8")).text)
    assert [it.uri for it in master.playlists] == ["source/index.m3u8", "audio/index.m3u8"]
    for rendition in ("source", "audio"):
        for name in ("1.m4s", "2.m4s", "init-0.mp4"):
            kept = await world.client.get(f"/clips/{CLIP}/{rendition}/{name}")
            assert kept.content == (await world.client.get(f"/vod/{BROADCAST}/{rendition}/{name}")).content
        assert code(await world.client.get(f"/clips/{CLIP}/{rendition}/3.m4s")) == (404, "segment_not_found")
    frames, complaints = await played(f"{world.url}/clips/{CLIP}/index.m3u8", "0:v:0")
    assert (frames, complaints) == (120, b"")


async def test_a_clip_outlives_its_recording_also_when_nobody_had_seen_it_yet(world: World) -> None:
    await record(world.archive, Report())
    world.about |= {CLIP: (BROADCAST, 1.0, 3.0), "late": (BROADCAST, 1.0, 3.0), "never": (BROADCAST, 1.0, 3.0)}
    before = (await world.client.get(f"/clips/{CLIP}/clip.mp4")).content
    await world.clips.keep("late")
    await destroy(world.archive, BROADCAST)
    assert (await world.client.get(f"/clips/{CLIP}/clip.mp4")).content == before
    assert (await world.client.get("/clips/late/clip.mp4")).content == before
    assert (await played(f"{world.url}/clips/late/index.m3u8", "0:v:0"))[0] == 120
    assert code(await world.client.get("/clips/never/index.m3u8")) == (404, "recording_not_found")


async def test_a_clip_of_now_waits_for_the_segment_it_ends_in(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rendition, init, segments = encoded()
    report = Report()
    recording = recorder(world.archive, report)
    recording.rendition(rendition, init)
    recording.segment(segment("source", 0, segments[0]))
    await report.until(facts=1)
    with pytest.raises(NotYet):
        await cut(world.archive, CLIP, BROADCAST, 1.0, 3.5)
    world.about[CLIP] = (BROADCAST, 1.0, 3.5)
    asking = asyncio.create_task(world.client.get(f"/clips/{CLIP}/index.m3u8"))
    await asyncio.sleep(0.5)
    assert not asking.done()
    recording.segment(segment("source", 1, segments[1]))
    assert (await asking).status_code == 200
    monkeypatch.setattr(clips, "WAIT_S_MAX", 0.3)
    world.about["later"] = (BROADCAST, 1.0, 30.0)
    assert code(await world.client.get("/clips/later/index.m3u8")) == (404, "recording_not_found")
    await recording.close(report.facts[0].at)


async def test_many_who_ask_at_once_have_it_cut_and_written_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await record(world.archive, Report())
    world.about[CLIP] = (BROADCAST, 1.0, 3.0)
    written = []
    put = Archive.put

    async def counted(self: Archive, key: str, data: bytes) -> None:
        written.append(key)
        await put(self, key, data)

    monkeypatch.setattr(Archive, "put", counted)
    answers = await asyncio.gather(*(world.client.get(f"/clips/{CLIP}/clip.mp4") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert written == [f"clips/{CLIP}/clip.mp4"]


async def test_a_deleted_clip_is_gone_and_its_recording_is_not(world: World) -> None:
    await record(world.archive, Report())
    world.about[CLIP] = (BROADCAST, 1.0, 3.0)
    assert (await world.client.get(f"/clips/{CLIP}/clip.mp4")).status_code == 200
    del world.about[CLIP]
    await world.clips.destroy(CLIP)
    await world.clips.destroy(CLIP)
    for path in ("index.m3u8", "clip.mp4", "source/index.m3u8", "source/1.m4s"):
        assert (await world.client.get(f"/clips/{CLIP}/{path}")).status_code == 404, path
    for number in range(NUMBERS):
        assert (await world.client.get(f"/vod/{BROADCAST}/source/{number}.m4s")).status_code == 200


async def test_a_clip_over_an_interruption_plays_on_and_so_does_its_file(world: World) -> None:
    rendition, init, segments = encoded()
    report = Report()
    recording = recorder(world.archive, report)
    recording.rendition(rendition, init)
    recording.segment(segment("source", 0, segments[0], start_s=1.0))
    # Their bytes' time starts at 1 s.
    recording.segment(segment("source", 5, earlier(segments[1], -18.0, timescales(init)), start_s=21.0))
    await recording.close(report.facts[0].at if report.facts else recording._recording.started_at)
    found = await manifest.read(world.archive.store, BROADCAST)
    assert found is not None
    assert found.duration_s == 2 * SEGMENT_S
    world.about[CLIP] = (BROADCAST, 1.0, 3.0)
    playlist = m3u8.loads((await world.client.get(f"/clips/{CLIP}/source/index.m3u8")).text)
    assert [(it.uri, it.discontinuity) for it in playlist.segments] == [("0.m4s", False), ("5.m4s", True)]
    file = (world.archive.folder or Path()) / "a.mp4"
    file.write_bytes((await world.client.get(f"/clips/{CLIP}/clip.mp4")).content)
    both = (world.archive.folder or Path()) / "both.mp4"
    both.write_bytes(init + segments[0] + segments[1])
    whole = await asyncio.to_thread(pictures, str(both))
    assert await asyncio.to_thread(pictures, str(file)) == whole[30:90]
    times = await asyncio.to_thread(shown_at, str(file))
    assert max(after - before for before, after in pairwise(times)) < 0.05, "the time it was away is not in it"


async def test_a_clip_over_a_change_of_encoder_has_a_file_that_ends_there(world: World) -> None:
    rendition, init, segments = encoded()
    recording = recorder(world.archive, Report())
    recording.rendition(rendition, init)
    recording.segment(segment("source", 0, segments[0]))
    recording.rendition(rendition, init + b"\0\0\0\x08free")
    recording.segment(segment("source", 1, segments[1]))
    await recording.close(recording._recording.started_at)
    world.about[CLIP] = (BROADCAST, 1.0, 3.0)
    file = (world.archive.folder or Path()) / "a.mp4"
    file.write_bytes((await world.client.get(f"/clips/{CLIP}/clip.mp4")).content)
    assert len(await asyncio.to_thread(pictures, str(file))) == 30


async def test_a_clip_of_now_waits_for_the_long_segments_of_a_source_that_is_apart(world: World) -> None:
    (source, init, segments), (audio, audio_init, audio_segments) = encoded(), encoded(video=False)
    report = Report()
    recording = recorder(world.archive, report)
    recording.rendition(source, init)
    recording.rendition(audio, audio_init)
    for number in range(NUMBERS):
        recording.segment(segment("audio", number, audio_segments[number]))
        recording._newest["source"] = number  # as one that is apart says of nothing that it lacks
    await report.until(facts=NUMBERS)
    with pytest.raises(NotYet):
        await cut(world.archive, CLIP, BROADCAST, 1.0, 5.0)
    recording.segment(replace(segment("source", 0, b"".join(segments)), duration_s=8.0, apart=True))
    await report.until(facts=NUMBERS + 1)
    await cut(world.archive, CLIP, BROADCAST, 1.0, 5.0)
    made = await manifest.read(world.archive.store, CLIP, clips.ROOT)
    assert made is not None
    assert made.reaches_s("source") == 8.0
    await recording.close(recording._recording.started_at)


async def test_what_is_no_clip_is_said_so(world: World) -> None:
    await record(world.archive, Report())
    world.about |= {"gone": ("0190", 1.0, 2.0), "beyond": (BROADCAST, 100.0, 110.0)}
    for clip_id in ("none", "gone", "beyond", "..%2F..", "a" * 100):
        assert code(await world.client.get(f"/clips/{clip_id}/clip.mp4"))[0] == 404, clip_id
    with pytest.raises(NothingThere):
        await cut(world.archive, CLIP, BROADCAST, 100.0, 110.0)


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\0\x08free", b"\0\0\0\xff" + b"moov", b"\0\0\0\x01moov" + b"\xff" * 8 + b"x" * 20]
)
def test_bytes_that_are_no_movie_are_refused(data: bytes) -> None:
    with pytest.raises(RuntimeError):
        end_exactly(bytearray(data), 1.0)
