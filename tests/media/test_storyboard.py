"""Pictures of recordings: each thumbnail is of its moment, whatever the broadcast went through."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import imageio_ffmpeg
import pytest
from starlette.applications import Starlette

from media import ffmpeg, storyboard
from media.archive import Archive
from media.flv import Began, Demuxer
from media.hls.live import LiveBroadcast
from media.sample import Rendition, SampleSink
from media.storyboard import Storyboards, index
from media.vod import Vod
from tests.media.recorded import BROADCAST, NUMBERS, SEGMENT_S, START, Report, encoded, record, recorder, segment
from tests.media.stage import code
from tests.media.test_enhanced import sent


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.open(str(tmp_path))


@pytest.fixture
async def client(archive: Archive) -> AsyncIterator[httpx.AsyncClient]:
    vod = Vod(archive)
    app = Starlette(routes=[*Storyboards(archive, vod, ffmpeg.binary()).routes(), *vod.routes()])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://vod", timeout=60) as client:
        yield client


def gray(picture: bytes, crop: str, *, of: str = "image2pipe") -> bytes:
    """A part of a picture in 16 by 9 pixels of gray."""
    done = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", of, "-i", "pipe:0", "-frames:v", "1",
         "-vf", f"crop={crop},scale=16:9:flags=area,format=gray", "-f", "rawvideo", "pipe:1"],
        input=picture, capture_output=True, check=True, timeout=30,
    )  # fmt: skip
    return done.stdout


def apart(one: bytes, other: bytes) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


async def test_each_thumbnail_is_the_picture_of_its_moment(archive: Archive, client: httpx.AsyncClient) -> None:
    await record(archive, Report())
    path = f"/vod/{BROADCAST}/storyboard"
    answer = await client.get(f"{path}/index.vtt")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/vtt")
    cues = re.findall(r"00:00:(\d\d).000 --> 00:00:(\d\d).000\n(sprite-0.jpg)#xywh=(\d+),0,160,90", answer.text)
    assert [(int(begins), int(ends), int(x)) for begins, ends, _, x in cues] == [
        (number * SEGMENT_S, (number + 1) * SEGMENT_S, number * 160) for number in range(NUMBERS)
    ]
    sprite = await client.get(f"{path}/sprite-0.jpg")
    assert sprite.headers["content-type"] == "image/jpeg"
    _, init, segments = encoded()
    true = [await asyncio.to_thread(gray, init + data, "iw:ih:0:0", of="mp4") for data in segments]
    shown = [await asyncio.to_thread(gray, sprite.content, f"160:90:{number * 160}:0") for number in range(NUMBERS)]
    for number in range(NUMBERS):
        nearest = min(range(NUMBERS), key=lambda other: apart(shown[number], true[other]))
        assert nearest == number
    poster = await client.get(f"{path}/poster.jpg")
    assert poster.content[:2] == b"\xff\xd8"
    assert apart(await asyncio.to_thread(gray, poster.content, "iw:ih:0:0"), true[1]) < 5, "a third into it"


async def test_many_who_ask_have_it_made_once(
    archive: Archive, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record(archive, Report())
    made = []
    real = Storyboards._make

    async def counted(self: Storyboards, recording: object) -> None:
        made.append(recording)
        await real(self, recording)  # type: ignore[arg-type]

    monkeypatch.setattr(Storyboards, "_make", counted)
    asked = (
        client.get(f"/vod/{BROADCAST}/storyboard/{name}") for name in ("index.vtt", "poster.jpg", "sprite-0.jpg") * 4
    )
    assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
    assert len(made) == 1


async def test_segments_that_are_lost_are_left_out_and_encoders_may_have_changed(
    archive: Archive, client: httpx.AsyncClient
) -> None:
    rendition, init, segments = encoded()
    recording = recorder(archive, Report())
    recording.rendition(rendition, init)
    for number in (0, 1):
        recording.segment(segment("source", number, segments[number]))
    recording.rendition(rendition, init + b"\0\0\0\x08free")
    for number in (2, 3):
        recording.segment(segment("source", number, segments[number], start_s=number * 2 + 60.0))
    await recording.close(START)
    (archive.folder or Path()).joinpath(f"recordings/{BROADCAST}/source/1.m4s").unlink()
    answer = await client.get(f"/vod/{BROADCAST}/storyboard/index.vtt")
    assert answer.status_code == 200, answer.text
    assert re.findall(r"00:00:(\d\d).000 -->", answer.text) == ["00", "04", "06"]


async def test_what_has_no_picture_has_no_storyboard(archive: Archive, client: httpx.AsyncClient) -> None:
    rendition, init, segments = encoded(video=False)
    recording = recorder(archive, Report())
    recording.rendition(rendition, init)
    recording.segment(segment("audio", 0, segments[0]))
    await recording.close(START)
    assert code(await client.get(f"/vod/{BROADCAST}/storyboard/index.vtt")) == (404, "storyboard_not_found")
    assert code(await client.get("/vod/none/storyboard/index.vtt")) == (404, "recording_not_found")


@pytest.mark.parametrize("codec", ["hvc1", "av01"])
async def test_a_small_source_of_another_codec_has_its_pictures_too(
    archive: Archive, client: httpx.AsyncClient, codec: str
) -> None:
    recording = recorder(archive, Report())
    live = LiveBroadcast(channel="ann", channel_id="c1", address="e1-b1", started_at=START, keep=recording)
    demuxer = Demuxer()
    sink: SampleSink | None = None
    for tag in sent(codec, "opus"):
        for found in demuxer.receive(tag):
            if isinstance(found, Began):
                sink = live.add(Rendition("source", found.bandwidth, found.video, found.audio))
            elif sink is not None:
                sink.push(found.sample)
    live.end()
    await recording.close(START)
    answer = await client.get(f"/vod/{BROADCAST}/storyboard/index.vtt")
    assert answer.status_code == 200, answer.text
    assert answer.text.count("-->") == 2
    poster = await client.get(f"/vod/{BROADCAST}/storyboard/poster.jpg")
    assert poster.content[:2] == b"\xff\xd8"


async def test_none_is_made_while_the_broadcast_lasts(archive: Archive, client: httpx.AsyncClient) -> None:
    rendition, init, segments = encoded()
    report = Report()
    recording = recorder(archive, report)
    recording.rendition(rendition, init)
    recording.segment(segment("source", 0, segments[0]))
    await report.until(facts=1)
    assert code(await client.get(f"/vod/{BROADCAST}/storyboard/index.vtt")) == (404, "storyboard_not_found")
    await recording.close(START)


def test_three_hours_have_no_more_thumbnails_than_are_allowed_and_name_their_places() -> None:
    shown = [number * 18.0 for number in range(storyboard.THUMBS_MAX)]
    text = index(shown, 10_800.0, 90)
    assert "01:00:00.000 --> 01:00:18.000\nsprite-2.jpg#xywh=0,0,160,90" in text
    assert "00:03:36.000 --> 00:03:54.000\nsprite-0.jpg#xywh=320,90,160,90" in text
    assert text.count("-->") == storyboard.THUMBS_MAX
