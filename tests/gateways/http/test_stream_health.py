"""Stream health as a broadcaster gets it: from the media nodes' private ports, once or every second; and nobody else gets it."""

import asyncio
import json

import httpx
from starlette.applications import Starlette

from gateways.health import HealthServer, Readiness
from gateways.http import stream_health
from gateways.stream_health import FRESH_S, StreamHealths
from media.health import Advice, StreamHealth
from tests.gateways.http.conftest import Stand, problem
from tests.media.stage import served


async def test_nodes_are_asked_on_their_private_ports_and_one_that_is_away_hides_no_other() -> None:
    said: list[dict[str, object]] = [{"channel_id": "c1", "bitrate": 1}]
    readiness = Readiness("media")
    asked: list[int] = []

    def show() -> list[dict[str, object]]:
        asked.append(1)
        return said

    readiness.show("/broadcasts", show)
    server = HealthServer(readiness)
    port = await server.start("127.0.0.1", 0)
    try:
        async with httpx.AsyncClient() as client:
            healths = StreamHealths(client, ["http://127.0.0.1:1", f"http://127.0.0.1:{port}"])
            assert await asyncio.gather(*(healths.of("c1") for _ in range(20))) == said * 20
            assert await healths.of("c2") is None
            assert len(asked) == 1, "however many ask"
            said[0]["bitrate"] = 2
            await asyncio.sleep(FRESH_S)
            assert await healths.of("c1") == {"channel_id": "c1", "bitrate": 2}
    finally:
        await server.close()


def health(channel_id: str) -> StreamHealth:
    return StreamHealth(
        broadcast_id="b1", channel_id=channel_id, channel="ann", node="media-1", state="live", encoder="OBS", video_codec="avc1.64001f",
        audio_codec=None, width=1280, height=720, on_air_s=1.5, bitrate=5, frame_rate=30.0, nominal_frame_rate=None,
        key_frame_interval_s=2.0, speed=1.0, late_frames=0, missing_frames=0, interruptions=0, transcoder_lag_s=None,
        transcoder_speed=None, renditions=("480p",), renditions_no_room=(), renditions_shed=(), archive_lost=0,
        archive_waiting_bytes=0, advice=(Advice(code="slow", text="Slow."),),
    )  # fmt: skip


async def test_the_broadcaster_sees_it_and_nothing_while_off_air(stand: Stand) -> None:
    ann = await stand.register("ann")
    channel = await ann.open_channel()
    channel_id = (await ann.get(f"/channels/{channel}"))["channel_id"]
    assert await ann.get(f"/channels/{channel}/stream-health") == {"broadcast": None}
    stand.streams[channel_id] = health(channel_id).model_dump(mode="json")
    assert await ann.get(f"/channels/{channel}/stream-health") == {"broadcast": stand.streams[channel_id]}
    bob = await stand.register("bob")
    bob.position = ann.position
    problem(await bob.ask("GET", f"/channels/{channel}/stream-health/feed"), 403, "forbidden")
    problem(await bob.ask("GET", "/channels/nobody_here/stream-health"), 404, "channel_not_found")


async def test_the_feed_sends_what_is_so_now_every_second(stand: Stand) -> None:
    ann = await stand.register("ann")
    channel = await ann.open_channel()
    channel_id = (await ann.get(f"/channels/{channel}"))["channel_id"]
    headers = {"Authorization": f"Bearer {ann.token}"}
    app: Starlette = stand.app
    async with (
        served(app) as url,
        httpx.AsyncClient(base_url=url) as client,
        client.stream("GET", f"/api/v1/channels/{channel}/stream-health/feed", headers=headers) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.aiter_lines()
        seen = []
        async for line in lines:
            if line.startswith("data: "):
                seen.append(json.loads(line[6:]))
                stand.streams[channel_id] = {"bitrate": len(seen)}
            if len(seen) == 3:
                break
        assert seen == [None, {"bitrate": 1}, {"bitrate": 2}]
    async with asyncio.timeout(10):
        while stream_health._feeds:  # noqa: ASYNC110 - the server tells nobody that a client has left
            await asyncio.sleep(0.01)
