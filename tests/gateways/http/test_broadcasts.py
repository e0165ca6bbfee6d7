"""Broadcasts over the API: who is live, the history, what their owner may change, and the chat of a recording."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from domain import broadcast, recording
from domain.broadcast import BroadcastEnded, BroadcastStarted, RecordingPublished
from domain.chat import MessagePosted
from eventstore.port import Append, Appended, ChatPost, StreamWrite
from gateways.http.base import encode_position
from tests.gateways.http.conftest import Person, Stand, problem

START = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Aired:
    """A channel on air, as the media plane tells of it."""

    def __init__(self, stand: Stand, owner: Person, name: str, channel_id: str) -> None:
        self.stand, self.owner, self.name, self.channel_id = stand, owner, name, channel_id

    async def say(self, stream: str, *events: Any) -> str:
        outcome = await self.stand.services.store.append(
            Append(uuid4(), [StreamWrite(stream, self.channel_id, list(events))])
        )
        assert isinstance(outcome, Appended)
        position = encode_position(outcome.placed)
        self.owner.position = position
        return position

    async def start(self, *, title: str = "Painting", at: datetime = START) -> str:
        broadcast_id = str(uuid4())
        event = BroadcastStarted(
            broadcast_id=broadcast_id,
            channel_id=self.channel_id,
            title=title,
            category="Art",
            started_at=at,
            node="media-1",
        )
        await self.say(broadcast.stream(broadcast_id), event)
        return broadcast_id

    async def end(self, broadcast_id: str, *, published: bool = True) -> None:
        told: dict[str, Any] = {"broadcast_id": broadcast_id, "channel_id": self.channel_id}
        ended = BroadcastEnded(**told, ended_at=START + timedelta(hours=1), reason="unpublished")
        await self.say(broadcast.stream(broadcast_id), ended)
        if published:
            await self.publish(broadcast_id)

    async def publish(self, broadcast_id: str) -> None:
        event = RecordingPublished(
            broadcast_id=broadcast_id,
            channel_id=self.channel_id,
            vod_url=f"/vod/{broadcast_id}/index.m3u8",
            duration_s=3600.0,
        )
        await self.say(broadcast.stream(broadcast_id), event)


@pytest.fixture
async def aired(stand: Stand) -> Aired:
    ann = await stand.register("ann")
    name = await ann.open_channel(title="Ann's", category="Art")
    channel_id = (await ann.get(f"/channels/{name}"))["channel_id"]
    return Aired(stand, ann, name, channel_id)


async def test_the_live_directory_lists_by_category_and_goes_on_where_its_cursor_says(
    stand: Stand, aired: Aired
) -> None:
    started, ann = {}, aired.owner
    category = f"Art {uuid4().hex[:6]}"
    for number in range(3):
        ann = await stand.register(f"a{number}")
        name = await ann.open_channel(title=str(number), category=category)
        channel_id = (await ann.get(f"/channels/{name}"))["channel_id"]
        one = Aired(stand, ann, name, channel_id)
        started[name] = (one, await one.start())
        listed = await ann.get(f"/channels/live?category={category}")
        assert name in [item["channel"] for item in listed["items"]]
    seen, cursor = [], ""
    while True:
        listed = await ann.get(f"/channels/live?category={category}&limit=1{cursor}")
        seen += listed["items"]
        if listed["next"] is None:
            break
        cursor = f"&cursor={listed['next']}"
    assert sorted(item["channel"] for item in seen) == sorted(started)
    assert len(seen) == 3
    assert seen[0]["playback_url"] == f"/live/{seen[0]['channel']}/index.m3u8"
    assert {item["broadcast_id"] for item in seen} == {broadcast_id for _, broadcast_id in started.values()}
    for one, broadcast_id in started.values():
        assert (await one.owner.get(f"/channels/{one.name}"))["is_live"] is True
        await one.end(broadcast_id)
        assert (await one.owner.get(f"/channels/{one.name}"))["is_live"] is False
        left = (await one.owner.get(f"/channels/live?category={category}"))["items"]
        assert one.name not in [item["channel"] for item in left]


async def test_the_history_is_newest_first_and_paged(aired: Aired) -> None:
    ids = [await aired.start(title=str(number), at=START + timedelta(days=number)) for number in range(3)]
    for broadcast_id in ids:
        await aired.end(broadcast_id)
    ann, path = aired.owner, f"/channels/{aired.name}/broadcasts"
    whole = await ann.get(path)
    assert [item["id"] for item in whole["items"]] == ids[::-1]
    first = await ann.get(f"{path}?limit=2")
    rest = await ann.get(f"{path}?limit=2&cursor={first['next']}")
    assert first["items"] + rest["items"] == whole["items"]
    assert rest["next"] is None
    newest = await ann.get(f"/broadcasts/{ids[-1]}")
    assert newest == whole["items"][0]
    assert (newest["channel"], newest["title"], newest["vod_url"]) == (aired.name, "2", f"/vod/{ids[-1]}/index.m3u8")
    assert newest["peak_viewers"] == newest["total_views"] == 0


async def test_a_broadcast_is_renamed_by_its_owner_alone(stand: Stand, aired: Aired) -> None:
    ann, bob = aired.owner, await stand.register("bob")
    broadcast_id = await aired.start()
    path = f"/broadcasts/{broadcast_id}"
    assert (await ann.ask("PATCH", path, {"title": "Oil on canvas"})).status_code == 204
    seen = await ann.get(path)
    assert (seen["title"], seen["category"]) == ("Oil on canvas", "Art")
    problem(await bob.ask("PATCH", path, {"title": "Mine"}), 403, "forbidden")
    problem(await ann.ask("PATCH", "/broadcasts/none", {"title": "x"}), 404, "broadcast_not_found")
    for body in ({"title": "x" * 141}, {"title": "a\x00b"}, {"vod_url": "/elsewhere"}, ["title"]):
        problem(await ann.ask("PATCH", path, body), 422, "invalid")
    problem(await stand.client.patch(f"/api/v1{path}", json={"title": "x"}), 401, "unauthenticated")


async def test_a_deleted_recording_is_gone_from_the_history_even_if_it_is_published_later(
    stand: Stand, aired: Aired
) -> None:
    ann, bob = aired.owner, await stand.register("bob")
    broadcast_id, late = await aired.start(), await aired.start()
    path = f"/broadcasts/{broadcast_id}"
    problem(await ann.ask("DELETE", path), 409, "broadcast_live")
    await aired.end(broadcast_id)
    assert (await ann.get(path))["vod_url"]
    problem(await stand.client.delete(f"/api/v1{path}"), 401, "unauthenticated")
    problem(await bob.ask("DELETE", path), 403, "forbidden")
    for _ in range(2):
        assert (await ann.ask("DELETE", path)).status_code == 204
        assert (await ann.get(path))["vod_url"] is None
    await aired.end(late, published=False)
    assert (await ann.ask("DELETE", f"/broadcasts/{late}")).status_code == 204
    await aired.publish(late)
    listed = (await ann.get(f"/channels/{aired.name}/broadcasts"))["items"]
    assert {item["id"]: item["vod_url"] for item in listed} == {broadcast_id: None, late: None}


async def test_a_recordings_chat_is_replayed_by_offset(stand: Stand, aired: Aired) -> None:
    ann = aired.owner
    broadcast_id = await aired.start(at=datetime.now(UTC))
    posted = []
    for number in range(3):
        bob = await stand.register(f"b{number}")
        event = MessagePosted(
            channel_id=aired.channel_id,
            message_id=str(uuid4()),
            author_id=bob.account_id,
            username=bob.name,
            text=f"m{number}",
        )
        outcome = await stand.services.store.post_message(
            ChatPost(uuid4(), aired.channel_id, bob.account_id, event, event.text.encode())
        )
        assert isinstance(outcome, Appended)
        posted.append(outcome.at)
    # Ten seconds on air, a minute away, and on again: the recording has no minute.
    for number, (before_s, offset_s, duration_s) in enumerate(((71.0, 0.0, 10.0), (1.0, 70.0, 60.0))):
        segment = recording.SegmentsRecorded(
            broadcast_id=broadcast_id,
            channel_id=aired.channel_id,
            number=number,
            program_date_time=posted[0] - timedelta(seconds=before_s),
            offset_s=offset_s,
            duration_s=duration_s,
            objects=(),
        )
        await aired.say(recording.stream(broadcast_id), segment)
    path = f"/broadcasts/{broadcast_id}/chat"
    whole = (await ann.get(path))["items"]
    assert [item["text"] for item in whole] == ["m0", "m1", "m2"]
    assert whole[0]["offset"] == pytest.approx(11.0, abs=0.01)
    assert (await ann.get(f"{path}?to_offset=11"))["items"] == []
    assert [item["text"] for item in (await ann.get(f"{path}?from_offset={whole[1]['offset']}"))["items"]][-1] == "m2"
    first = await ann.get(f"{path}?limit=2")
    rest = await ann.get(f"{path}?limit=2&cursor={first['next']}")
    assert first["items"] + rest["items"] == whole
    history = f"/channels/{aired.name}/chat"
    first = await ann.get(f"{history}?limit=2")
    rest = await ann.get(f"{history}?limit=2&after={first['items'][-1]['position']}")
    assert [item["text"] for item in first["items"] + rest["items"]] == ["m0", "m1", "m2"]
    assert (await ann.get(f"{history}?cursor={first['next']}"))["items"] == rest["items"]
    problem(await ann.ask("GET", "/broadcasts/none/chat"), 404, "broadcast_not_found")
