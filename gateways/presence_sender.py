"""Sends who is watching to topic `presence`, once a window. Used by the roles that serve viewers: `chat` and `media`.

Loss is harmless: while the broker is away windows are dropped, and the next one counts anew.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from eventstore.wire import PRESENCE_TOPIC
from projections.presence import Presence

log = structlog.get_logger()

LOOK_S: Final = 1.0
RETRY_S: Final = 5.0
SEND_S_MAX: Final = 5.0


class PresenceSender:
    """`seen` as of `projections.presence.Presence`; `still_here` is asked before each sending for those who never call (open sockets)."""

    def __init__(
        self,
        pod: str,
        bootstrap_servers: str,
        still_here: Callable[[], Iterable[tuple[str, Iterable[str]]]] = tuple,
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._presence = Presence(pod)
        self._servers = bootstrap_servers
        self._still_here = still_here
        self._now_s = now_s

    def seen(self, channel_id: str, viewer: str) -> None:
        self._presence.seen(channel_id, (viewer,), self._now_s())

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            producer = AIOKafkaProducer(bootstrap_servers=self._servers, acks=1, request_timeout_ms=5000)
            try:
                await producer.start()
                await self._send(producer)
            except (KafkaError, OSError, TimeoutError) as fault:
                log.info("presence.unsent", why=repr(fault))
                await asyncio.sleep(RETRY_S)
            finally:
                await _stopped(producer)

    async def _send(self, producer: AIOKafkaProducer) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for channel_id, viewers in self._still_here():
                self._presence.seen(channel_id, viewers, self._now_s())
            for key, value in self._presence.due(self._now_s()):
                async with asyncio.timeout(SEND_S_MAX):
                    await producer.send_and_wait(PRESENCE_TOPIC, value, key=key)


async def _stopped(producer: AIOKafkaProducer) -> None:
    try:
        async with asyncio.timeout(SEND_S_MAX):
            await producer.stop()
    except (KafkaError, OSError, TimeoutError) as fault:
        log.debug("presence", problem="producer did not stop", error=repr(fault))
