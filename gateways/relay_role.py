"""The role `relay`: hands the event store's log to Kafka. As many as one likes may run; one leads and the others stand by.

Run by `gateways.roles`. Ready as soon as it leads or stands by; `/readyz` then tells when Postgres or the broker is away.
"""

import asyncio

from aiokafka.errors import KafkaError

from eventstore.migrate import EVENT_STORE, migrate
from eventstore.relay import BrokerAway, Relay
from eventstore.wire import PRESENCE_TOPIC, TOPICS
from gateways.engines.broker import ensure_topics
from gateways.engines.process import EngineFailed
from gateways.health import Readiness
from gateways.settings import Conveyed, RelaySettings


def topics(settings: Conveyed) -> dict[str, int]:
    """Every topic with its partitions. Presence is little traffic, and each partition costs its reader polling (design §2)."""
    return dict.fromkeys(TOPICS, settings.kafka_partitions) | {PRESENCE_TOPIC: max(1, settings.kafka_partitions // 8)}


async def run_relay(settings: RelaySettings, readiness: Readiness) -> None:
    dsn = settings.dsn.get_secret_value()
    await migrate(dsn, EVENT_STORE)

    async def prepare() -> None:
        try:
            # Of all relays only the one that leads comes here.
            await ensure_topics(
                settings.bootstrap_servers, topics(settings), replication=settings.kafka_replication, mend=True
            )
        except (KafkaError, EngineFailed, OSError, TimeoutError) as fault:
            raise BrokerAway(repr(fault)) from fault

    relay = Relay(dsn, settings.bootstrap_servers, settings.kafka_partitions, prepare=prepare)

    async def problem() -> str | None:
        return relay.problem

    readiness.check("relay", problem)
    running = asyncio.ensure_future(relay.run())
    started = asyncio.ensure_future(relay.started.wait())
    try:
        await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
        readiness.ready()
        await running
    finally:
        running.cancel()
        started.cancel()
        await asyncio.gather(running, started, return_exceptions=True)
