"""Who is watching reaches a real broker once a window, and a broker that is away costs a window and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer

from eventstore.wire import PRESENCE_TOPIC
from gateways import presence_sender
from gateways.engines.broker import Broker, ensure_topics
from gateways.presence_sender import PresenceSender
from projections.presence import WINDOW_S, Seen, Viewers, decode
from tests.eventstore.conveyor import until

START_S = 1_000_000


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks, and tries again, all the time."""
    monkeypatch.setattr(presence_sender, "LOOK_S", 0.02)
    monkeypatch.setattr(presence_sender, "RETRY_S", 0.1)


class Pod:
    """A sender of its own, its clock, and who never calls but is there."""

    def __init__(self, bootstrap: str) -> None:
        self.now_s = float(START_S)
        self.channel = f"c-{uuid4().hex[:8]}"
        self.sockets: list[str] = []
        self.asked = asyncio.Event()
        self.sender = PresenceSender("pod-1", bootstrap, self._still_here, now_s=lambda: self.now_s)

    def _still_here(self) -> Iterable[tuple[str, Iterable[str]]]:
        self.asked.set()
        return [(self.channel, self.sockets)] if self.sockets else []

    async def looked(self) -> None:
        """Until those who are there were counted once more."""
        for _ in range(2):
            self.asked.clear()
            await self.asked.wait()


@asynccontextmanager
async def running(sender: PresenceSender) -> AsyncIterator[None]:
    task = asyncio.create_task(sender.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def reading(bootstrap: str) -> AsyncIterator[AIOKafkaConsumer]:
    await ensure_topics(bootstrap, {PRESENCE_TOPIC: 1})
    consumer = AIOKafkaConsumer(
        PRESENCE_TOPIC, bootstrap_servers=bootstrap, fetch_max_wait_ms=50, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def next_of(consumer: AIOKafkaConsumer, channel: str) -> Seen:
    async with asyncio.timeout(60):
        async for message in consumer:
            if message.key == channel.encode():
                return decode(message.value)
    raise AssertionError("the topic ended")


async def test_each_viewer_counts_once_a_window_whichever_way_they_are_seen(broker: str) -> None:
    pod = Pod(broker)
    pod.sockets = ["ann", "bob"]
    async with reading(broker) as consumer, running(pod.sender):
        for viewer in ("ann", "cat", "cat"):
            pod.sender.seen(pod.channel, viewer)
        await pod.looked()
        pod.now_s += WINDOW_S
        first = await next_of(consumer, pod.channel)
        assert (first.pod, first.window_s) == ("pod-1", START_S)
        assert Viewers([first.sketch]).count == 3
        # Who only called once is gone with the window; who is still there is not.
        await pod.looked()
        pod.now_s += WINDOW_S
        second = await next_of(consumer, pod.channel)
        assert second.window_s == START_S + WINDOW_S
        assert Viewers([second.sketch]).count == 2


async def test_a_broker_that_comes_late_or_is_restarted_gets_what_is_seen_then(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    pod = Pod(broker.bootstrap)
    async with running(pod.sender):
        pod.sender.seen(pod.channel, "ann")
        await asyncio.to_thread(broker.start)
        try:
            async with reading(broker.bootstrap) as consumer:
                await pod.looked()
                pod.now_s += WINDOW_S
                assert Viewers([(await next_of(consumer, pod.channel)).sketch]).count == 1
            await asyncio.to_thread(broker.stop)
            await asyncio.to_thread(broker.start)
            async with reading(broker.bootstrap) as consumer:

                async def comes_again() -> bool:
                    pod.sender.seen(pod.channel, "bob")
                    pod.now_s += WINDOW_S
                    batches = await consumer.getmany(timeout_ms=200)
                    return any(one.key == pod.channel.encode() for some in batches.values() for one in some)

                await until(comes_again)
        finally:
            await asyncio.to_thread(broker.stop)
