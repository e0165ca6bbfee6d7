"""The live origin as players and caches meet it: a real server, real requests, and a real player that reads a broadcast to its end."""

import asyncio
from collections.abc import AsyncIterator

import m3u8
import pytest

from media.hls.playlist import CONTENT_TYPE
from tests.media.encoded import decode
from tests.media.hls.given import AUDIO, real, rendition, sound
from tests.media.stage import PARTS_A_SEGMENT, Encoder, Stage, code, hint, played, staged


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        yield stage


# -- the master playlist ----------------------------------------------------------------------------------------------


async def test_the_master_playlist_says_what_each_rendition_is_and_leads_to_it(stage: Stage) -> None:
    broadcast = stage.open()
    source = Encoder(broadcast)
    Encoder(broadcast, rendition("audio", video=None, audio=AUDIO), sound(500)).push(500)
    source.until(2, 0)
    answer = await stage.get("/live/ann/index.m3u8")
    assert answer.headers["content-type"] == CONTENT_TYPE
    assert answer.headers["cache-control"] == "public, max-age=1"
    assert answer.headers["access-control-allow-origin"] == "*"
    video, audio = m3u8.loads(answer.text, uri=f"{stage.url}/live/ann/index.m3u8").playlists
    assert video.stream_info.codecs == "avc1.64001f"
    assert video.stream_info.resolution == (640, 360)
    assert video.stream_info.frame_rate == 30.0
    assert video.stream_info.bandwidth == 1_000_000
    assert audio.stream_info.codecs == "mp4a.40.2"
    assert (audio.stream_info.resolution, audio.stream_info.frame_rate) == (None, None)
    for variant in (video, audio):
        playlist = await stage.client.get(variant.absolute_uri)
        segment = m3u8.loads(playlist.text, uri=variant.absolute_uri).segments[0]
        assert (await stage.client.get(segment.absolute_uri)).status_code == 200
        assert (await stage.client.get(segment.init_section.absolute_uri)).status_code == 200


async def test_the_master_playlist_waits_for_the_first_segment_and_no_longer(stage: Stage) -> None:
    broadcast = stage.open()
    asked = stage.asking("/live/ann/index.m3u8")
    await stage.held(1)
    encoder = Encoder(broadcast)
    encoder.until(0, 8)
    assert not asked.done()
    encoder.until(1, 0)
    assert (await asked).status_code == 200
    assert stage.origin.held == 0


async def test_a_channel_with_nothing_to_show_is_not_live() -> None:
    async with staged(first_segment_s_max=0.05) as stage:
        assert code(await stage.get("/live/nobody/index.m3u8")) == (404, "not_live")
        broadcast = stage.open()
        early = await stage.get("/live/ann/index.m3u8")
        assert code(early) == (404, "not_live")
        assert (early.headers["retry-after"], early.headers["cache-control"]) == ("1", "no-store")
        Encoder(broadcast)
        stage.registry.close(broadcast)
        assert code(await stage.get("/live/ann/index.m3u8")) == (404, "not_live")


async def test_a_broadcast_that_ends_before_it_began_holds_nobody(stage: Stage) -> None:
    broadcast = stage.open()
    asked = stage.asking("/live/ann/index.m3u8")
    await stage.held(1)
    stage.registry.close(broadcast)
    assert code(await asked) == (404, "not_live")


async def test_an_ended_broadcast_answers_for_a_while_and_a_new_one_has_addresses_of_its_own(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(2, 3)
    stage.registry.close(encoder.broadcast)
    stage.clock[0] += 59
    assert encoder.broadcast.address in (await stage.get("/live/ann/index.m3u8")).text
    playlist = await stage.get(f"{encoder.path}/index.m3u8")
    assert m3u8.loads(playlist.text).is_endlist
    assert playlist.headers["cache-control"] == "public, max-age=60"
    again = Encoder(stage.open(broadcast_id="b2"))
    again.until(1, 0)
    assert again.path != encoder.path
    assert again.broadcast.address in (await stage.get("/live/ann/index.m3u8")).text
    assert (await stage.get(f"{encoder.path}/0.m4s")).status_code == 200
    stage.clock[0] += 2
    gone = await stage.get(f"{encoder.path}/index.m3u8")
    assert code(gone) == (404, "broadcast_not_found")
    assert gone.headers["cache-control"] == "public, max-age=2"
    late = await stage.get(f"{encoder.path}/index.m3u8?_HLS_msn=3")
    assert late.headers["cache-control"] == "public, max-age=8"


# -- blocking reload --------------------------------------------------------------------------------------------------


async def test_a_blocking_reload_is_answered_when_its_part_is_made_and_may_be_kept(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(1, 2)
    asked = stage.asking(f"{encoder.path}/index.m3u8?_HLS_msn=1&_HLS_part=2")
    await stage.held(1)
    encoder.until(1, 3)
    answer = await asked
    assert hint(answer) == f"part-{PARTS_A_SEGMENT + 3}.m4s"
    assert f'URI="part-{PARTS_A_SEGMENT + 2}.m4s"' in answer.text
    assert answer.headers["cache-control"] == "public, max-age=12"
    plain = await stage.get(f"{encoder.path}/index.m3u8")
    assert plain.text == answer.text
    assert plain.headers["cache-control"] == "public, max-age=1"


async def test_one_part_wakes_only_those_who_wait_for_it(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(1, 2)
    first = stage.asking(f"{encoder.path}/index.m3u8?_HLS_msn=1&_HLS_part=2")
    second = stage.asking(f"{encoder.path}/index.m3u8?_HLS_msn=1&_HLS_part=3")
    whole = stage.asking(f"{encoder.path}/index.m3u8?_HLS_msn=1")
    beyond = stage.asking(f"{encoder.path}/index.m3u8?_HLS_msn=2&_HLS_part=0")
    past = stage.asking(f"{encoder.path}/index.m3u8?_HLS_msn=1&_HLS_part={PARTS_A_SEGMENT}")
    await stage.held(5)
    assert len(encoder.live.listeners) == 1
    for part, asked in ((3, first), (4, second)):
        encoder.until(1, part)
        assert hint(await asked) == f"part-{PARTS_A_SEGMENT + part}.m4s"
    await stage.held(3)
    encoder.until(2, 0)
    assert "\n1.m4s\n" in (await whole).text
    await stage.held(2)
    encoder.until(2, 1)
    # 6.2.5.2: a part past the segment's last one is the first of the next segment.
    assert hint(await beyond) == hint(await past) == f"part-{2 * PARTS_A_SEGMENT + 1}.m4s"
    assert encoder.live.listeners == []


async def test_what_a_player_far_behind_is_given_is_not_kept_for_others(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(6, 1)
    for query in ("_HLS_msn=0", "_HLS_msn=3&_HLS_part=100"):
        answer = await stage.get(f"{encoder.path}/index.m3u8?{query}")
        assert hint(answer) == f"part-{6 * PARTS_A_SEGMENT + 1}.m4s"
        assert answer.headers["cache-control"] == "public, max-age=1"


async def test_a_playlist_is_held_until_it_can_be_played(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(0, 4)
    plain, part = (
        stage.asking(f"{encoder.path}/index.m3u8"),
        stage.asking(f"{encoder.path}/index.m3u8?_HLS_msn=0&_HLS_part=1"),
    )
    await stage.held(2)
    encoder.until(1, 0)
    assert hint(await plain) == hint(await part) == f"part-{PARTS_A_SEGMENT}.m4s"


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        ("_HLS_part=1", "directive_invalid"),
        ("_HLS_msn=-1", "directive_invalid"),
        ("_HLS_msn=", "directive_invalid"),
        ("_HLS_msn=2.0", "directive_invalid"),
        ("_HLS_msn=%D9%A2", "directive_invalid"),
        ("_HLS_msn=2&_HLS_part=x", "directive_invalid"),
        ("_HLS_msn=1&_HLS_msn=2", "directive_invalid"),
        ("_HLS_msn=2&_HLS_part=0&_HLS_part=1", "directive_invalid"),
        ("_HLS_msn=4", "too_far_ahead"),
        ("_HLS_msn=99999999999&_HLS_part=0", "too_far_ahead"),
        ("_HLS_msn=2&_HLS_part=15", "too_far_ahead"),
        ("_HLS_msn=3&_HLS_part=12", "too_far_ahead"),
    ],
)
async def test_directives_that_make_no_sense_are_refused_until_the_end(stage: Stage, query: str, refusal: str) -> None:
    encoder = Encoder(stage.open())
    encoder.until(2, 3)
    refused = await stage.get(f"{encoder.path}/index.m3u8?{query}")
    assert code(refused) == (400, refusal)
    # What is too early now will soon be asked by everybody: no cache may keep the refusal.
    assert refused.headers["cache-control"] == ("no-store" if refusal == "too_far_ahead" else "public, max-age=8")
    stage.registry.close(encoder.broadcast)
    assert m3u8.loads((await stage.get(f"{encoder.path}/index.m3u8?{query}")).text).is_endlist


async def test_directives_that_are_not_offered_are_ignored(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(2, 3)
    plain = await stage.get(f"{encoder.path}/index.m3u8")
    for query in ("_HLS_skip=YES", "_HLS_skip=v2&_HLS_msn=2&_HLS_part=2", "_HLS_what=%00", "a=b"):
        assert (await stage.get(f"{encoder.path}/index.m3u8?{query}")).content == plain.content


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [("gzip, deflate, br", "gzip"), ("br;q=1.0, GZIP;q=0.5", "gzip"), ("gzip;q=0", None), ("br", None), ("", None)],
)
async def test_a_playlist_is_compressed_once_for_all_who_take_it(
    stage: Stage, accepted: str, coding: str | None
) -> None:
    encoder = Encoder(stage.open())
    encoder.until(2, 3)
    answer = await stage.get(f"{encoder.path}/index.m3u8", headers={"Accept-Encoding": accepted})
    assert answer.headers.get("content-encoding") == coding
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.text == encoder.live.playlist()
    assert encoder.live.text().gzipped is encoder.live.text().gzipped
    segment = await stage.get(f"{encoder.path}/0.m4s", headers={"Accept-Encoding": accepted})
    assert "content-encoding" not in segment.headers


async def test_the_master_playlist_is_compressed_too_and_not_sent_to_who_has_it(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(2, 3)
    url = "/live/ann/index.m3u8"
    zipped = await stage.get(url, headers={"Accept-Encoding": "gzip"})
    plain = await stage.get(url, headers={"Accept-Encoding": "identity"})
    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.text == plain.text
    assert zipped.headers["etag"] != plain.headers["etag"]
    again = await stage.get(url, headers={"If-None-Match": plain.headers["etag"], "Accept-Encoding": "identity"})
    assert (again.status_code, again.content) == (304, b"")
    encoder.broadcast.withdraw("source")
    changed = await stage.get(url, headers={"If-None-Match": plain.headers["etag"], "Accept-Encoding": "identity"})
    assert changed.status_code == 200


async def test_who_waits_sees_the_end(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(1, 3)
    reload = stage.asking(f"{encoder.path}/index.m3u8?_HLS_msn=2&_HLS_part=5")
    part = stage.asking(f"{encoder.path}/part-{PARTS_A_SEGMENT + 3}.m4s")
    await stage.held(2)
    stage.registry.close(encoder.broadcast)
    answer = await reload
    assert m3u8.loads(answer.text).is_endlist
    assert answer.headers["cache-control"] == "public, max-age=60"
    assert code(await part) == (404, "media_not_found")


async def test_where_nothing_comes_in_three_target_durations_everybody_is_told_to_come_back(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(1, 3)
    reload = stage.asking(f"{encoder.path}/index.m3u8?_HLS_msn=1&_HLS_part=3")
    part = stage.asking(f"{encoder.path}/part-{PARTS_A_SEGMENT + 3}.m4s")
    for answer in (await reload, await part):
        assert code(answer) == (503, "media_late")
        assert (answer.headers["retry-after"], answer.headers["cache-control"]) == ("1", "no-store")
    assert stage.origin.held == 0


# -- a real player --------------------------------------------------------------------------------------------------------


async def test_ffmpeg_plays_a_broadcast_while_it_is_made_and_to_its_end(stage: Stage) -> None:
    of, samples = real()
    encoder = Encoder(stage.open(), of, samples)
    encoder.until(2, 1)
    playing = asyncio.create_task(played(f"{stage.url}/live/ann/index.m3u8", "0:v:0", "-live_start_index", "0"))
    for number in (3, 4):
        await stage.reloaded()
        encoder.until(number, 1)
    encoder.rest()
    stage.registry.close(encoder.broadcast)
    count, complaints = await playing
    # FFmpeg fetches the initialisation segment again after a reload, and remarks on it.
    assert all(b"duplicated MOOV" in line or b"repeated" in line for line in complaints.splitlines())
    assert count == 300


async def follow(stage: Stage, path: str) -> dict[str, bytes]:
    """As a low-latency player: reload for the next part, fetch what is new and what is hinted at, until the end."""
    parts: dict[str, bytes] = {}
    query = ""
    while True:
        playlist = m3u8.loads((await stage.get(f"{path}/index.m3u8{query}")).text)
        for uri in [part.uri for segment in playlist.segments for part in segment.parts]:
            if uri not in parts:
                parts[uri] = (await stage.get(f"{path}/{uri}")).content
        if playlist.is_endlist:
            return parts
        last = playlist.segments[-1]
        number = playlist.media_sequence + len(playlist.segments)
        query = f"?_HLS_msn={number}&_HLS_part=0" if last.uri else f"?_HLS_msn={number - 1}&_HLS_part={len(last.parts)}"
        hinted = await stage.get(f"{path}/{playlist.preload_hint.uri}")
        if hinted.status_code == 200:
            parts[playlist.preload_hint.uri] = hinted.content


async def test_a_player_that_follows_part_by_part_misses_nothing(stage: Stage) -> None:
    of, samples = real()
    encoder = Encoder(stage.open(), of, samples)
    encoder.until(1, 1)
    following = asyncio.create_task(follow(stage, encoder.path))
    while encoder.live.window.next < (4, 6):
        await stage.reloaded(held=1)
        sequence = encoder.live.window.next_sequence
        while encoder.live.window.next_sequence == sequence:
            encoder.push(1)
    encoder.rest()
    stage.registry.close(encoder.broadcast)
    parts = await following
    assert list(parts) == [f"part-{n}.m4s" for n in range(len(parts))]
    count, complaints = decode(encoder.live.window.inits[0] + b"".join(parts.values()))
    assert (count, complaints) == (300, b"")


# -- delta updates, rewind, what the client has already -----------------------------------------------------------------


async def test_a_client_that_asks_for_a_delta_update_gets_one_and_can_merge_it(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(8, 3)
    whole = m3u8.loads((await stage.get(f"{encoder.path}/index.m3u8")).text)
    for way in ("_HLS_skip=YES", "_HLS_skip=v2", "_HLS_msn=8&_HLS_part=1&_HLS_skip=YES"):
        update = m3u8.loads((await stage.get(f"{encoder.path}/index.m3u8?{way}")).text)
        skipped = update.skip.skipped_segments
        assert skipped > 0
        assert [it.uri for it in whole.segments][skipped:] == [it.uri for it in update.segments]
    odd = m3u8.loads((await stage.get(f"{encoder.path}/index.m3u8?_HLS_skip=maybe")).text)
    assert len(odd.segments) == len(whole.segments)


async def test_a_playlist_that_has_its_end_is_given_whole_whatever_was_asked(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(9, 3)
    encoder.broadcast.end()
    answer = await stage.get(f"{encoder.path}/index.m3u8?_HLS_skip=YES")
    assert "EXT-X-SKIP" not in answer.text


async def test_what_a_client_has_already_is_not_sent_again(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(2, 3)
    for path in ("index.m3u8", "0.m4s", "part-0.m4s", "init-0.mp4"):
        first = await stage.get(f"{encoder.path}/{path}")
        again = await stage.get(f"{encoder.path}/{path}", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["cache-control"] == first.headers["cache-control"]
    tag = (await stage.get(f"{encoder.path}/index.m3u8")).headers["etag"]
    encoder.push(30)
    assert (await stage.get(f"{encoder.path}/index.m3u8", headers={"If-None-Match": tag})).status_code == 200
    plain = await stage.get(f"{encoder.path}/index.m3u8", headers={"Accept-Encoding": "identity"})
    zipped = await stage.get(f"{encoder.path}/index.m3u8", headers={"Accept-Encoding": "gzip"})
    assert plain.headers["etag"] != zipped.headers["etag"]


async def test_a_part_of_other_bytes_is_not_continued(stage: Stage) -> None:
    encoder = Encoder(stage.open())
    encoder.until(1, 0)
    headers = {"Range": "bytes=10-", "If-Range": '"something else"'}
    assert (await stage.get(f"{encoder.path}/0.m4s", headers=headers)).status_code == 200
