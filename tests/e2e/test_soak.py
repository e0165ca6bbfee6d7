"""Minutes of broadcasts and talk while everything that may die is killed in turn. The long form: `make test-full`."""

import asyncio
import itertools
import os
import random
import signal
from contextlib import AsyncExitStack, suppress
from typing import Any
from uuid import uuid4

import httpx
import orjson
import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bench.stack import Stack
from tests.e2e.conftest import encoder, eventually, kill
from tests.e2e.test_outages import newest_segment, recorded, standing_still, the_manifest_is_what_the_events_say

SECONDS = 240.0
CHANNELS = ("gil", "hal", "ida")
CALM_S = 8.0
MEDIA_MIB_MAX = 400.0


class Talker:
    """Says a line a second and says it again, under its nonce, until it is answered; remembers what was accepted."""

    def __init__(self, stack: Stack, channel: str, token: str) -> None:
        self._url = f"ws://localhost:{stack.http_port}/ws/chat/{channel}"
        self._headers = {"Authorization": f"Bearer {token}"}
        self.accepted: list[str] = []

    async def talk(self) -> None:
        lines = (f"line {number}" for number in itertools.count())
        text, nonce = next(lines), uuid4().hex
        while True:
            with suppress(ConnectionClosed, InvalidStatus, OSError, TimeoutError):
                async with connect(self._url, additional_headers=self._headers, open_timeout=5) as room:
                    while True:
                        await room.send(orjson.dumps({"type": "message", "text": text, "nonce": nonce}).decode())
                        if await self._answer(room, nonce) == "accepted":
                            self.accepted.append(text)
                            text, nonce = next(lines), uuid4().hex
                        await asyncio.sleep(1.05)
            await asyncio.sleep(0.5)

    @staticmethod
    async def _answer(room: Any, nonce: str) -> str:
        async with asyncio.timeout(15):
            while True:
                frame = orjson.loads(await room.recv())
                if frame.get("nonce") == nonce:
                    return str(frame["type"])


@pytest.mark.full
@pytest.mark.timeout(900)
async def test_minutes_of_kills_lose_nothing(stack: Stack, api: httpx.AsyncClient) -> None:
    chance = random.Random(1)
    opened = [await asyncio.to_thread(stack.open_channel, name) for name in CHANNELS]
    talkers = [Talker(stack, channel.name, channel.access_token) for channel in opened]
    async with AsyncExitStack() as ending:
        for channel in opened:
            await ending.enter_async_context(encoder(channel.publish_url))
        talking = [asyncio.create_task(talker.talk()) for talker in talkers]
        for channel in opened:
            await goes_on(api, channel.name)
        end = asyncio.get_running_loop().time() + SECONDS
        while asyncio.get_running_loop().time() < end:
            await disturb(stack, chance)
            await asyncio.sleep(CALM_S)
            for channel in opened:
                await goes_on(api, channel.name)
        used_mib = stack.role("media").memory_info().rss / 2**20
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)
    assert used_mib < MEDIA_MIB_MAX
    for channel, talker in zip(opened, talkers, strict=True):
        broadcast = await recorded(api, channel.name)
        numbers = await the_manifest_is_what_the_events_say(stack, broadcast["id"])
        assert len(numbers) * 2 > SECONDS
        said = await everything_said(api, channel.name, len(talker.accepted))
        # The last line may have been admitted without its answer reaching anybody.
        assert said[: len(talker.accepted)] == talker.accepted
        assert len(said) - len(talker.accepted) in (0, 1)
        assert len(talker.accepted) > SECONDS / 4
    verified = await asyncio.to_thread(stack.run, "ledger", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


async def goes_on(api: httpx.AsyncClient, channel: str) -> None:
    before = await newest_segment(api, channel)
    await eventually(lambda: newest_segment(api, channel), lambda number: number > before)


async def disturb(stack: Stack, chance: random.Random) -> None:
    what = chance.choice(["relay", "projector", "chat", "api", "transcoder", "postgres"])
    if what == "transcoder":
        encoders = [child for child in stack.role("media").children() if child.name().startswith("ffmpeg")]
        os.kill(chance.choice(encoders).pid, signal.SIGKILL)
    elif what == "postgres":
        async with standing_still(stack):
            await asyncio.sleep(4)
    else:
        with suppress(psutil.Error):
            await kill(stack, what)


async def everything_said(api: httpx.AsyncClient, channel: str, at_least: int) -> list[str]:
    async def history() -> list[str]:
        texts: list[str] = []
        after = 0
        while True:
            answer = await api.get(f"/api/v1/channels/{channel}/chat", params={"after": after, "limit": 100})
            items = answer.json()["items"]
            if not items:
                return texts
            texts += [item["text"] for item in items]
            after = items[-1]["position"]

    return await eventually(history, lambda texts: len(texts) >= at_least)
