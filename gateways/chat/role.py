"""The role `chat`: a pod of rooms behind a WebSocket server, fed by Kafka, told who is there. Any number may run.

Run by `gateways.roles`. Keeps serving while the broker is away (rooms then read the store) and comes back by itself.
"""

import asyncio
import os
from typing import Final

from gateways import bootstrap
from gateways.auth import Tokens
from gateways.chat.door import Door, ModelStandings
from gateways.chat.feed import KafkaFeed
from gateways.chat.pod import Pod
from gateways.chat.server import ChatServer
from gateways.health import Readiness
from gateways.peers import Fronts
from gateways.presence_sender import PresenceSender
from gateways.settings import ChatSettings

STOP_S_MAX: Final = 5.0


async def run_chat(settings: ChatSettings, readiness: Readiness) -> None:
    async with bootstrap.services(settings) as opened:
        store = opened.store
        feed = KafkaFeed(
            settings.bootstrap_servers,
            settings.kafka_partitions,
            decode_events=lambda record: store.decode(record.shard, record.events),
            deliver=lambda events: pod.deliver(events),
            wanted=lambda stream: pod.holds(stream),
            fetch_wait_ms=settings.kafka_fetch_wait_ms,
        )
        pod = Pod(store, feed, ModelStandings(store, opened.read_models))
        door = Door(store, Tokens(settings.token_secret.get_secret_value()), opened.sessions)
        server = ChatServer(
            pod,
            door,
            bootstrap.new_id,
            fronts=Fronts(settings.trusted_fronts),
            per_address_max=settings.chat_sockets_per_address_max,
        )
        presence = PresenceSender(f"chat-{os.uname().nodename}-{os.getpid()}", settings.bootstrap_servers, pod.audience)

        async def store_answers() -> str | None:
            try:
                await store.heads()
            except Exception as fault:
                return str(fault)[:200]
            return None

        async def feed_reads() -> str | None:
            return None if feed.healthy else "the broker is away; rooms read the event store"

        readiness.check("store", store_answers)
        readiness.check("feed", feed_reads)
        parts = (feed.run(), pod.sweep(), presence.run(), server.watch_sessions())
        tasks = [asyncio.ensure_future(part) for part in parts]
        try:
            await server.start(settings.host, settings.chat_port)
            readiness.ready()
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            readiness.not_ready("stopping")
            await server.close()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=STOP_S_MAX)
