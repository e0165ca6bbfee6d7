"""OBS Studio as a broadcaster has it, key frames every 8 s and all: it is seen, advised, and recorded."""

import asyncio
from pathlib import Path

import httpx
import m3u8
import pytest

from bench.stack import Stack
from tests.e2e import obs
from tests.media.stage import played

WAIT_S_MAX = 60.0


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_obs_is_seen_advised_and_recorded(tmp_path: Path) -> None:
    assert not obs.available(), f"missing: {obs.available()}; make test-full installs them"
    stack = Stack(tmp_path / "stack")
    await asyncio.to_thread(stack.start)
    try:
        channel = await asyncio.to_thread(stack.open_channel, "obs")
        headers = {"Authorization": f"Bearer {channel.access_token}"}
        async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=30) as client:
            with obs.streaming(channel.publish_url):
                async with asyncio.timeout(WAIT_S_MAX):
                    while (await client.get("/live/obs/index.m3u8")).status_code != 200:  # noqa: ASYNC110 - nothing tells us
                        await asyncio.sleep(0.2)
                await asyncio.sleep(25)
                health = (await client.get("/api/v1/channels/obs/stream-health")).json()["broadcast"]
                master = m3u8.loads((await client.get("/live/obs/index.m3u8")).text)
                frames, _ = await played(f"{stack.url}/live/obs/index.m3u8", "0:v:0", "-t", "4")
            assert "obs" in health["encoder"].lower()
            assert (health["width"], health["height"], health["state"]) == (obs.WIDTH, obs.HEIGHT, "live")
            assert 25 < health["frame_rate"] < 32
            assert health["key_frame_interval_s"] == pytest.approx(8.33, abs=0.5)
            assert "key_frames_far_apart" in [it["code"] for it in health["advice"]]
            assert len(master.playlists) >= 3
            assert frames > 60
            async with asyncio.timeout(WAIT_S_MAX + 90):
                while True:
                    items = (await client.get("/api/v1/channels/obs/broadcasts")).json()["items"]
                    if items and items[0]["vod_url"]:
                        break
                    await asyncio.sleep(0.5)
            assert items[0]["duration_s"] > 20
    finally:
        await asyncio.to_thread(stack.stop)
