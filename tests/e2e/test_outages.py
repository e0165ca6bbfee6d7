"""The picture goes on while the database stands still, and a killed media node's broadcast goes on when it is back."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import psutil

from bench.stack import Stack
from media.manifest import parse
from tests.e2e.conftest import encoder, eventually, kill

STANDSTILL_S = 6.0


async def test_the_picture_goes_on_while_the_database_stands_still_and_no_fact_is_lost(
    stack: Stack, api: httpx.AsyncClient
) -> None:
    channel = await asyncio.to_thread(stack.open_channel, "eve")
    async with encoder(channel.publish_url):
        await eventually(lambda: newest_segment(api, "eve"), lambda number: number >= 1)
        async with standing_still(stack):
            before = await newest_segment(api, "eve")
            await eventually(lambda: newest_segment(api, "eve"), lambda number: number >= before + 2)
        (live,) = (await api.get("/api/v1/channels/live")).json()["items"]
    broadcast = await recorded(api, "eve")
    assert broadcast["id"] == live["broadcast_id"]
    await the_manifest_is_what_the_events_say(stack, broadcast["id"])


async def test_a_killed_media_node_goes_on_with_its_broadcast_and_the_recording_is_one(
    stack: Stack, api: httpx.AsyncClient
) -> None:
    channel = await asyncio.to_thread(stack.open_channel, "finn")
    async with encoder(channel.publish_url) as encoding:
        await eventually(lambda: newest_segment(api, "finn"), lambda number: number >= 2)
        last = await newest_segment(api, "finn")
        await kill(stack, "media")
        assert await asyncio.wait_for(encoding.wait(), 30) != 0
    await eventually(lambda: api.get("/readyz"), lambda answer: answer.status_code == 200)
    async with encoder(channel.publish_url):
        await eventually(lambda: newest_segment(api, "finn"), lambda number: number >= last + 2)
    broadcast = await recorded(api, "finn")
    manifest = await the_manifest_is_what_the_events_say(stack, broadcast["id"])
    assert max(manifest) >= last + 2
    log = await asyncio.to_thread(stack.run, "events", "show", f"broadcast-{broadcast['id']}")
    kinds = ("BroadcastStarted", "BroadcastInterrupted", "BroadcastResumed", "BroadcastEnded")
    assert [log.stdout.count(kind) for kind in kinds] == [1, 1, 1, 1], log.stdout
    playlist = await api.get(f"/vod/{broadcast['id']}/source/index.m3u8")
    assert playlist.text.count("#EXTINF") == len(manifest)
    assert playlist.text.count("#EXT-X-DISCONTINUITY\n") == 1
    await it_can_be_deleted(stack, api, broadcast["id"], channel.access_token)


async def it_can_be_deleted(stack: Stack, api: httpx.AsyncClient, broadcast_id: str, token: str) -> None:
    """Nobody plays it any more, and its bytes are gone."""
    answer = await api.delete(f"/api/v1/broadcasts/{broadcast_id}", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 204
    folder = stack.folder / "data" / "archive" / "recordings" / broadcast_id
    assert any(folder.rglob("*.m4s"))
    playlist = f"/vod/{broadcast_id}/index.m3u8"
    await eventually(lambda: api.get(playlist), lambda answer: answer.status_code == 404)
    await eventually(lambda: asyncio.to_thread(lambda: list(folder.rglob("*.m4s"))), lambda left: not left)


async def newest_segment(api: httpx.AsyncClient, channel: str) -> int:
    """The last finished one that players see; -1 while there is none."""
    master = await api.get(f"/live/{channel}/index.m3u8")
    if master.status_code != 200:
        return -1
    variant = next(line for line in master.text.splitlines() if not line.startswith("#"))
    playlist = (await api.get(f"/live/{channel}/{variant}")).text.splitlines()
    first = next(int(line.partition(":")[2]) for line in playlist if line.startswith("#EXT-X-MEDIA-SEQUENCE"))
    return first + sum(line.startswith("#EXTINF") for line in playlist) - 1


@asynccontextmanager
async def standing_still(stack: Stack) -> AsyncIterator[None]:
    """Every process of Postgres, stopped where it is: connections stay and nobody answers."""
    stopped = [process for process in stack.processes() if process.name() == "postgres"]
    assert stopped
    for process in stopped:
        process.suspend()
    try:
        yield
    finally:
        for process in stopped:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                process.send_signal(signal.SIGCONT)


async def recorded(api: httpx.AsyncClient, channel: str) -> dict[str, Any]:
    async def broadcasts() -> Any:
        answer = await api.get(f"/api/v1/channels/{channel}/broadcasts")
        return answer.json()["items"] if answer.status_code == 200 else []

    items = await eventually(broadcasts, lambda items: items and items[0]["vod_url"])
    found: dict[str, Any] = items[0]
    return found


async def the_manifest_is_what_the_events_say(stack: Stack, broadcast_id: str) -> set[int]:
    """Number by number, object by object; the numbers."""
    shown = await asyncio.to_thread(
        stack.run, "events", "show", f"recording-{broadcast_id}", "--json", "--limit", "1000"
    )
    assert shown.returncode == 0, shown.stderr
    fields = [orjson.loads(line)["fields"] for line in shown.stdout.splitlines()]
    said = {event["number"]: {made["sha256"] for made in event["objects"]} for event in fields}
    assert len(said) == len(fields), "a number was told twice"
    folder = stack.folder / "data" / "archive" / "recordings" / broadcast_id
    manifest = parse(b"".join(path.read_bytes() for path in sorted(folder.glob("manifest*"))))
    assert manifest is not None
    kept = {line.number: {made.sha256 for made in line.objects} for line in manifest.segments}
    assert set(said) == set(kept) == set(range(len(kept)))
    # A rung may come to a number after it was told: the manifest has it, and the event never says more than there is.
    assert all(said[number] <= kept[number] for number in said)
    return set(kept)
