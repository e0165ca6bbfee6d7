"""Clips, chapters, hidden recordings and retention over the API, with the projections behind it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain import broadcast, recording
from domain.broadcast import BroadcastEnded
from gateways.retention import Retention
from tests.gateways.http.conftest import Stand, problem
from tests.gateways.http.test_broadcasts import START, Aired
from tests.gateways.http.test_broadcasts import aired as aired


def segments(aired: Aired, broadcast_id: str, *spans: tuple[float, float], at: datetime = START) -> list[Any]:
    """Recorded segments: when each began after the broadcast's start, and how long it is."""
    return [
        recording.SegmentsRecorded(
            broadcast_id=broadcast_id,
            channel_id=aired.channel_id,
            number=number,
            program_date_time=at + timedelta(seconds=begins_s),
            offset_s=begins_s,
            duration_s=duration_s,
            objects=(),
        )
        for number, (begins_s, duration_s) in enumerate(spans)
    ]


async def test_a_viewer_takes_a_clip_and_everybody_finds_it(aired: Aired, stand: Stand) -> None:
    broadcast_id = await aired.start()
    await aired.end(broadcast_id)
    bob = await stand.register("bob")
    body = {"start_s": 12.5, "end_s": 40.25, "title": "The brush falls"}
    made = await bob.ask("POST", f"/broadcasts/{broadcast_id}/clips", body, **{"Idempotency-Key": "once"})
    assert made.status_code == 201, made.text
    clip = made.json()
    assert clip["playback_url"] == f"/clips/{clip['id']}/index.m3u8"
    assert clip["download_url"] == f"/clips/{clip['id']}/clip.mp4"
    again = await bob.ask("POST", f"/broadcasts/{broadcast_id}/clips", body, **{"Idempotency-Key": "once"})
    assert again.json()["id"] == clip["id"]
    found = await bob.get(f"/clips/{clip['id']}")
    assert (found["title"], found["channel"], found["created_by"]) == ("The brush falls", aired.name, bob.name)
    assert (found["start_s"], found["end_s"], found["duration_s"]) == (12.5, 40.25, 27.75)
    untitled = await bob.ask("POST", f"/broadcasts/{broadcast_id}/clips", {"start_s": 0, "end_s": 60})
    for path in (f"/broadcasts/{broadcast_id}/clips", f"/channels/{aired.name}/clips"):
        first = await bob.get(f"{path}?limit=1")
        assert [it["id"] for it in first["items"]] == [untitled.json()["id"]]
        assert first["items"][0]["title"] == "Painting", "what the broadcast is called"
        rest = await bob.get(f"{path}?limit=1&cursor={first['next']}")
        assert ([it["id"] for it in rest["items"]], rest["next"]) == ([clip["id"]], None)
    models = stand.services.read_models
    assert await models.cut(clip["id"]) == (broadcast_id, 12.5, 40.25)
    assert set(await models.clips_of(broadcast_id)) == {clip["id"], untitled.json()["id"]}


@pytest.mark.parametrize(
    "body",
    [
        {"start_s": 0, "end_s": 0.5}, {"start_s": 0, "end_s": 61}, {"start_s": 10, "end_s": 5}, {"start_s": 3590, "end_s": 3610},
        {"start_s": -1, "end_s": 5}, {"start_s": 1}, {}, {"start_s": 1, "end_s": 2, "start_at": "2026-05-01T12:00:00Z"},
        {"start_at": "2026-05-01T12:00:00", "end_at": "2026-05-01T12:00:09"}, {"start_s": 1e300, "end_s": 1e301},
    ],
    ids=str,
)  # fmt: skip
async def test_a_range_that_is_none_is_refused(aired: Aired, stand: Stand, body: dict[str, Any]) -> None:
    broadcast_id = await aired.start()
    await aired.end(broadcast_id)
    answer = await aired.owner.ask("POST", f"/broadcasts/{broadcast_id}/clips", body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] in ("clip_range_invalid", "invalid")


async def test_who_may_clip_and_who_may_delete(aired: Aired, stand: Stand) -> None:
    broadcast_id = await aired.start()
    await aired.end(broadcast_id)
    path = f"/broadcasts/{broadcast_id}/clips"
    body = {"start_s": 1, "end_s": 5}
    problem(await stand.client.post(f"/api/v1{path}", json=body), 401, "unauthenticated")
    bob, eve = await stand.register("bob"), await stand.register("eve")
    for one in (bob, eve):
        one.position = aired.owner.position
    clip = (await bob.ask("POST", path, body)).json()["id"]
    eve.position = bob.position
    problem(await eve.ask("DELETE", f"/clips/{clip}"), 403, "forbidden")
    banned = await aired.owner.ask("POST", f"/channels/{aired.name}/bans", {"username": eve.name})
    assert banned.status_code in (200, 201, 204), banned.text
    problem(await eve.ask("POST", path, body), 403, "banned")
    assert (await bob.ask("DELETE", f"/clips/{clip}")).status_code == 204
    problem(await bob.ask("GET", f"/clips/{clip}"), 404, "clip_not_found")
    assert clip in await stand.services.read_models.deleted_clips(None)
    other = (await bob.ask("POST", path, body)).json()["id"]
    aired.owner.position = bob.position
    assert (await aired.owner.ask("DELETE", f"/clips/{other}")).status_code == 204, "the channel's owner too"
    problem(await bob.ask("POST", "/broadcasts/none/clips", body), 404, "broadcast_not_found")
    problem(await bob.ask("GET", "/clips/none"), 404, "clip_not_found")


async def test_a_clip_outlives_the_deletion_of_its_recording(aired: Aired, stand: Stand) -> None:
    broadcast_id = await aired.start()
    await aired.end(broadcast_id)
    path = f"/broadcasts/{broadcast_id}/clips"
    clip = (await aired.owner.ask("POST", path, {"start_s": 1, "end_s": 5})).json()["id"]
    assert (await aired.owner.ask("DELETE", f"/broadcasts/{broadcast_id}")).status_code == 204
    assert (await aired.owner.get(f"/clips/{clip}"))["playback_url"]
    problem(await aired.owner.ask("POST", path, {"start_s": 1, "end_s": 5}), 404, "broadcast_not_found")


async def test_a_clip_of_what_is_on_is_named_by_moments_and_leaves_the_slate_out(aired: Aired, stand: Stand) -> None:
    began = datetime.now(UTC) - timedelta(seconds=100)
    broadcast_id = await aired.start(at=began)
    # On air for 20 s, away for 60, and on again.
    spans = ((0.0, 10.0), (10.0, 10.0), (80.0, 10.0))
    await aired.say(recording.stream(broadcast_id), *segments(aired, broadcast_id, *spans, at=began))
    at = [(began + timedelta(seconds=seconds)).isoformat() for seconds in (15.0, 83.5, 95.0, 40.0)]
    path = f"/broadcasts/{broadcast_id}/clips"
    made = await aired.owner.ask("POST", path, {"start_at": at[0], "end_at": at[1]})
    assert (made.json()["start_s"], made.json()["end_s"]) == (15.0, 23.5)
    newest = await aired.owner.ask("POST", path, {"start_at": at[1], "end_at": at[2]})
    assert (newest.json()["start_s"], newest.json()["end_s"]) == (23.5, 35.0), "past what is recorded so far"
    away = await aired.owner.ask("POST", path, {"start_at": at[0], "end_at": at[3]})
    assert (away.json()["start_s"], away.json()["end_s"]) == (15.0, 20.0), "the slate takes no time"


async def test_chapters_begin_where_title_or_category_changed(aired: Aired, stand: Stand) -> None:
    began = datetime.now(UTC) - timedelta(seconds=100)
    await aired.owner.ask("PATCH", f"/channels/{aired.name}", {"title": "Before"})
    broadcast_id = await aired.start(title="Sketching", at=began)
    await aired.say(recording.stream(broadcast_id), *segments(aired, broadcast_id, (0.0, 300.0), at=began))
    for body in ({"title": "Oil & <water>"}, {"tags": ["late"]}):
        assert (await aired.owner.ask("PATCH", f"/channels/{aired.name}", body)).status_code == 204
    items = (await aired.owner.get(f"/broadcasts/{broadcast_id}/chapters"))["items"]
    assert [(it["title"], it["start_s"] == 0) for it in items] == [("Sketching", True), ("Oil & <water>", False)]
    assert items[1]["start_s"] == pytest.approx(100, abs=30)
    vtt = await aired.owner.ask("GET", f"/broadcasts/{broadcast_id}/chapters.vtt")
    assert vtt.headers["content-type"].startswith("text/vtt")
    header, first, second = vtt.text.split("\n\n")
    assert header == "WEBVTT"
    assert first.startswith("00:00:00.000 --> 00:0")
    assert second.splitlines()[1].startswith("Oil &amp; &lt;water&gt;")
    problem(await aired.owner.ask("GET", "/broadcasts/none/chapters"), 404, "broadcast_not_found")


async def test_a_recording_is_hidden_and_shown_again_by_its_owner(aired: Aired, stand: Stand) -> None:
    broadcast_id = await aired.start()
    path = f"/broadcasts/{broadcast_id}"
    problem(await aired.owner.ask("PATCH", path, {"published": False}), 409, "recording_not_ready")
    await aired.end(broadcast_id)
    bob = await stand.register("bob")
    problem(await bob.ask("PATCH", path, {"published": False}), 403, "forbidden")
    models = stand.services.read_models
    for published in (False, False, True):
        assert (await aired.owner.ask("PATCH", path, {"published": published})).status_code == 204
        found = await aired.owner.get(path)
        assert (found["published"], found["vod_url"] is not None) == (published, published)
        assert (broadcast_id in await models.unpublished_broadcasts()) is not published
    assert (await aired.owner.ask("PATCH", path, {"published": False, "title": "Both"})).status_code == 204
    found = await aired.owner.get(path)
    assert (found["title"], found["published"]) == ("Both", False)
    clip = await bob.ask("POST", f"{path}/clips", {"start_s": 1, "end_s": 5})
    problem(clip, 404, "broadcast_not_found")


async def test_old_recordings_are_deleted_and_younger_ones_kept(aired: Aired, stand: Stand) -> None:
    now = stand.api.context.clock()
    ids = []
    for days in (40, 10):
        broadcast_id = await aired.start(at=now - timedelta(days=days))
        told: dict[str, Any] = {"broadcast_id": broadcast_id, "channel_id": aired.channel_id}
        ended = BroadcastEnded(**told, ended_at=now - timedelta(days=days), reason="unpublished")
        await aired.say(broadcast.stream(broadcast_id), ended)
        await aired.publish(broadcast_id)
        ids.append(broadcast_id)
        await aired.owner.get(f"/broadcasts/{broadcast_id}")
    retention = Retention(stand.api.context, stand.services.read_models.ended_before, days=30)
    assert await retention.look() >= 1
    async with asyncio.timeout(20):
        while ids[0] not in (deleted := await stand.services.read_models.deleted_broadcasts(None)):  # noqa: ASYNC110 - a projection
            await asyncio.sleep(0.02)
    assert ids[1] not in deleted
    assert ids[0] not in [it for _, it in await stand.services.read_models.ended_before(now, 1000)]
