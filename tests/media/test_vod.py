"""The VOD over HTTP, judged by an HLS parser, by FFmpeg as its player, and by clients that ask for what is not there."""

import hashlib
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import m3u8
import pytest
from obstore.store import S3Store
from starlette.applications import Starlette

from media import manifest
from media.archive import Archive
from media.hls.agreement import Agreement
from media.sample import Rendition
from media.vod import Vod, routes
from tests.media.encoded import FRAMES_A_SECOND, HEIGHT, WIDTH
from tests.media.recorded import (
    BROADCAST,
    NUMBERS,
    SECONDS,
    SEGMENT_S,
    START,
    Report,
    encoded,
    record,
    recorder,
    segment,
)
from tests.media.stage import played, served


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.open(str(tmp_path))


@pytest.fixture
async def client(archive: Archive) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(Starlette(routes=routes(archive)))
    async with httpx.AsyncClient(transport=transport, base_url="http://vod") as client:
        yield client


@pytest.fixture
async def address(archive: Archive) -> AsyncIterator[str]:
    """A real server, for players that are processes."""
    async with served(Starlette(routes=routes(archive))) as address:
        yield address


async def test_ffmpeg_plays_a_recording_to_its_end(archive: Archive, address: str) -> None:
    await record(archive, Report())
    frames, complaints = await played(f"{address}/vod/{BROADCAST}/index.m3u8", "0:v:0")
    assert complaints == b""
    assert frames == SECONDS * FRAMES_A_SECOND


async def test_ffmpeg_plays_what_a_crash_left_up_to_the_last_finished_segment(archive: Archive, address: str) -> None:
    await record(archive, Report())
    assert archive.folder is not None
    path = archive.folder / "recordings" / BROADCAST / "manifest.jsonl"
    whole = path.read_bytes()
    # A line may stand twice: one that was being written when the recorder closed is written again.
    last = whole.index(b'{"kind":"segment","number":%d' % (NUMBERS - 1))
    path.write_bytes(whole[: last + 40])
    frames, complaints = await played(f"{address}/vod/{BROADCAST}/source/index.m3u8", "0:v:0")
    assert complaints == b""
    assert frames == (SECONDS - SEGMENT_S) * FRAMES_A_SECOND


async def test_the_master_playlist_says_what_each_rendition_is(archive: Archive, client: httpx.AsyncClient) -> None:
    await record(archive, Report())
    answer = await client.get(f"/vod/{BROADCAST}/index.m3u8")
    assert answer.headers["content-type"] == "application/vnd.apple.mpegurl"
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert answer.headers["access-control-allow-origin"] == "*"
    source, audio = m3u8.loads(answer.text).playlists
    (rendition, _, segments), _ = encoded(), encoded(video=False)
    assert source.uri == "source/index.m3u8"
    assert source.stream_info.codecs == rendition.codecs
    assert source.stream_info.resolution == (WIDTH, HEIGHT)
    assert source.stream_info.bandwidth == max(map(len, segments)) * 8 // SEGMENT_S
    assert source.stream_info.average_bandwidth <= source.stream_info.bandwidth
    assert (audio.stream_info.codecs, audio.stream_info.resolution) == ("mp4a.40.2", None)


async def test_a_media_playlist_lists_every_segment_and_says_that_it_is_whole(
    archive: Archive, client: httpx.AsyncClient
) -> None:
    await record(archive, Report())
    answer = await client.get(f"/vod/{BROADCAST}/source/index.m3u8")
    playlist = m3u8.loads(answer.text)
    assert playlist.playlist_type == "vod"
    assert playlist.is_endlist
    assert playlist.target_duration == SEGMENT_S
    assert [it.uri for it in playlist.segments] == [f"{number}.m4s" for number in range(NUMBERS)]
    assert {it.init_section.uri for it in playlist.segments} == {"init-0.mp4"}
    assert playlist.segments[1].program_date_time.timestamp() == START.timestamp() + SEGMENT_S
    stored = b"".join([(await client.get(f"/vod/{BROADCAST}/source/{it.uri}")).content for it in playlist.segments])
    assert stored == b"".join(encoded()[2])


async def test_a_number_that_a_rendition_missed_is_a_gap_and_one_that_began_anew_has_its_initialisation(
    archive: Archive, client: httpx.AsyncClient
) -> None:
    (source, init, data), (audio, audio_init, audio_data) = encoded(), encoded(video=False)
    recording = recorder(archive, Report())
    recording.rendition(source, init)
    recording.rendition(audio, audio_init)
    for number, start_s in enumerate((0.0, 2.0, 60.0, 62.0)):
        recording.segment(segment("source", number, data[number], start_s=start_s))
        if number == 3:
            recording.rendition(audio, audio_init + b"\x00\x00\x00\x08free")
        if number != 1:
            recording.segment(segment("audio", number, audio_data[number], start_s=start_s))
    await recording.close(START)
    of_source = m3u8.loads((await client.get(f"/vod/{BROADCAST}/source/index.m3u8")).text).segments
    of_audio = m3u8.loads((await client.get(f"/vod/{BROADCAST}/audio/index.m3u8")).text).segments
    assert [it.discontinuity for it in of_source] == [False, False, True, False]
    assert [it.discontinuity for it in of_audio] == [False, False, True, False]
    assert [bool(it.gap_tag) for it in of_audio] == [False, True, False, False]
    assert [it.init_section.uri for it in of_audio] == ["init-0.mp4"] * 3 + ["init-1.mp4"]


async def test_where_the_source_became_another_every_rendition_says_so(
    archive: Archive, client: httpx.AsyncClient
) -> None:
    (source, init, data), (audio, audio_init, audio_data) = encoded(), encoded(video=False)
    assert source.video is not None
    recording = recorder(archive, Report())
    recording.rendition(source, init)
    recording.rendition(audio, audio_init)
    for number in range(4):
        if number == 2:
            other = replace(source, video=replace(source.video, codec="hvc1.1.6.L93.B0"))
            recording.rendition(other, init + b"\x00\x00\x00\x08free")
        for name, its in (("source", data), ("audio", audio_data)):
            recording.segment(replace(segment(name, number, its[number]), discontinuity=number == 2))
    await recording.close(START)
    agreement = Agreement(recorded=True)
    for name in ("source", "audio"):
        text = (await client.get(f"/vod/{BROADCAST}/{name}/index.m3u8")).text
        assert [it.discontinuity for it in m3u8.loads(text).segments] == [False, False, True, False]
        agreement.watch(name, lambda _: None)
        agreement.playlist(name, text)
    assert [it for it in agreement.findings() if "fetched" not in it] == []
    master = m3u8.loads((await client.get(f"/vod/{BROADCAST}/index.m3u8")).text)
    assert master.playlists[0].stream_info.codecs == f"hvc1.1.6.L93.B0,{audio_codec(source)},{source.video.codec}"


def audio_codec(of: Rendition) -> str:
    assert of.audio is not None
    return of.audio.codec


async def test_what_a_rendition_has_of_a_segment_is_listed_with_gaps_around_it(
    archive: Archive, client: httpx.AsyncClient
) -> None:
    (source, init, data), (audio, audio_init, audio_data) = encoded(), encoded(video=False)
    recording = recorder(archive, Report())
    recording.rendition(source, init)
    recording.rendition(audio, audio_init)
    for number in range(3):
        recording.segment(segment("source", number, data[number]))
        its = segment("audio", number, audio_data[number])
        recording.segment(replace(its, start_s=2.5, duration_s=1.0) if number == 1 else its)
    await recording.close(START)
    listed = m3u8.loads((await client.get(f"/vod/{BROADCAST}/audio/index.m3u8")).text).segments
    assert [(it.uri, it.duration, bool(it.gap_tag)) for it in listed] == [
        ("0.m4s", 2.0, False),
        ("1.m4s", 0.5, True),
        ("1.m4s", 1.0, False),
        ("1.m4s", 0.5, True),
        ("2.m4s", 2.0, False),
    ]
    for it in listed:
        assert it.program_date_time is not None
    starts = [it.program_date_time.timestamp() - START.timestamp() for it in listed if it.program_date_time]
    assert starts == [0.0, 2.0, 2.5, 3.5, 4.0]


async def test_playlists_go_out_compressed_and_are_not_sent_again_to_who_has_them(
    archive: Archive, client: httpx.AsyncClient
) -> None:
    await record(archive, Report())
    for path in ("index.m3u8", "source/index.m3u8"):
        url = f"/vod/{BROADCAST}/{path}"
        zipped = await client.get(url, headers={"Accept-Encoding": "gzip"})
        plain = await client.get(url, headers={"Accept-Encoding": "identity"})
        assert zipped.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert zipped.text == plain.text
        assert plain.headers["vary"] == "Accept-Encoding"
        assert zipped.headers["etag"] != plain.headers["etag"]
        for known in (zipped, plain):
            asked = {
                "If-None-Match": known.headers["etag"],
                "Accept-Encoding": "gzip" if known is zipped else "identity",
            }
            again = await client.get(url, headers=asked)
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["cache-control"] == plain.headers["cache-control"]
    first = await client.get(f"/vod/{BROADCAST}/source/0.m4s")
    again = await client.get(f"/vod/{BROADCAST}/source/0.m4s", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_a_recording_that_is_still_written_grows_and_is_not_cached(archive: Archive) -> None:
    report, now = Report(), [0.0]
    recording = recorder(archive, report)
    source, init, data = encoded()
    app = Starlette(routes=Vod(archive, clock=lambda: now[0]).routes())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://vod") as client:
        recording.rendition(source, init)
        for number in range(2):
            recording.segment(segment("source", number, data[number]))
            await report.until(facts=number + 1)
            now[0] += 2
            answer = await client.get(f"/vod/{BROADCAST}/source/index.m3u8")
            assert answer.headers["cache-control"] == "public, max-age=1"
            assert len(m3u8.loads(answer.text).segments) == number + 1
        await recording.close(START)
        now[0] += 2
        answer = await client.get(f"/vod/{BROADCAST}/source/index.m3u8")
        assert answer.headers["cache-control"] == "public, max-age=300"


async def test_segments_are_immutable_and_come_in_ranges(archive: Archive, client: httpx.AsyncClient) -> None:
    await record(archive, Report())
    url, whole = f"/vod/{BROADCAST}/source/0.m4s", encoded()[2][0]
    size = len(whole)
    answer = await client.get(url)
    assert (answer.status_code, answer.content) == (200, whole)
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["accept-ranges"] == "bytes"
    for asked, expected, content_range in (
        ("bytes=0-9", whole[:10], f"bytes 0-9/{size}"),
        ("bytes=100-", whole[100:], f"bytes 100-{size - 1}/{size}"),
        ("bytes=-7", whole[-7:], f"bytes {size - 7}-{size - 1}/{size}"),
        (f"bytes=5-{size + 99}", whole[5:], f"bytes 5-{size - 1}/{size}"),
    ):
        answer = await client.get(url, headers={"Range": asked})
        assert (answer.status_code, answer.content) == (206, expected)
        assert answer.headers["content-range"] == content_range
        head = await client.head(url, headers={"Range": asked})
        assert (head.status_code, head.content) == (206, b"")
        assert head.headers["content-length"] == str(len(expected))
    for beyond in (f"bytes={size}-", "bytes=-0"):
        answer = await client.get(url, headers={"Range": beyond})
        assert (answer.status_code, answer.json()["code"]) == (416, "range_invalid")
        assert answer.headers["content-range"] == f"bytes */{size}"
    for senseless in ("bytes=9-1", "lines=1-2", "bytes=-", "bytes=0-1,4-5", "x" * 5000):
        answer = await client.get(url, headers={"Range": senseless})
        assert (answer.status_code, answer.content) == (200, whole)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/vod/nothing/index.m3u8", "recording_not_found"),
        ("/vod/..%2F..%2Fetc/index.m3u8", "not_found"),
        ("/vod/.hidden/index.m3u8", "recording_not_found"),
        ("/vod/" + "a" * 65 + "/index.m3u8", "recording_not_found"),
        (f"/vod/{BROADCAST}/nothing/index.m3u8", "rendition_not_found"),
        (f"/vod/{BROADCAST}/source/99.m4s", "segment_not_found"),
        (f"/vod/{BROADCAST}/source/..%2Fmanifest.jsonl", "not_found"),
        (f"/vod/{BROADCAST}/manifest.jsonl", "not_found"),
        (f"/vod/{BROADCAST}/%2e%2e/0.m4s", "segment_not_found"),
        (f"/vod/{BROADCAST}/source/0.m4s%00", "segment_not_found"),
        ("/vod/", "not_found"),
    ],
)
async def test_what_is_not_there_is_a_problem_with_a_code(
    archive: Archive, client: httpx.AsyncClient, path: str, code: str
) -> None:
    await record(archive, Report())
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_a_browser_may_ask_before_it_asks_for_a_range(client: httpx.AsyncClient) -> None:
    answer = await client.options(f"/vod/{BROADCAST}/source/0.m4s")
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-headers"].startswith("Range")


async def test_while_the_archive_is_away_the_answer_says_when_to_come_back(archive: Archive) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    away = S3Store(
        "bucket", endpoint=f"http://127.0.0.1:{port}", access_key_id="a", secret_access_key="b", region="c",
        client_options={"allow_http": True}, retry_config={"max_retries": 0},
    )  # fmt: skip
    app = Starlette(routes=routes(Archive(away, None)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://vod") as client:
        for path in ("index.m3u8", "source/0.m4s"):
            answer = await client.get(f"/vod/{BROADCAST}/{path}")
            assert (answer.status_code, answer.json()["code"]) == (503, "archive_unavailable")
            assert answer.headers["retry-after"] == "2"


async def test_the_manifest_holds_what_the_playlists_need_and_its_digests_are_those_of_the_bytes(
    archive: Archive, client: httpx.AsyncClient
) -> None:
    await record(archive, Report())
    found = await manifest.read(archive.store, BROADCAST)
    assert found is not None
    for line in found.segments:
        for it in line.objects:
            answer = await client.get(f"/vod/{BROADCAST}/{it.rendition}/{line.number}.m4s")
            assert hashlib.sha256(answer.content).hexdigest() == it.sha256
