"""Faust on aiokafka, as `app` needs it: a fetch wait of our own, and the same partition of every topic to the same process.

Faust's driver holds a fetch for 1,500 ms. Kafka answers as soon as data arrives; Tansu after about half the wait. And without changelogs it
deals partitions round robin over all topics together, so that a shard's chat and its channel's life could come to two processes.
"""

from typing import Any, ClassVar

import aiokafka
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from faust.streams import current_event
from faust.tables.table import Table
from faust.transport.drivers import aiokafka as driver
from mode import Service


class _Thread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        self._assignor = RangePartitionAssignor
        return aiokafka.AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            bootstrap_servers=driver.server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[RangePartitionAssignor],
            enable_auto_commit=False,
            auto_offset_reset=conf.consumer_auto_offset_reset,
            max_poll_records=conf.broker_max_poll_records,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_max_wait_ms=transport.fetch_wait_ms,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
            connections_max_idle_ms=conf.consumer_connections_max_idle_ms,
        )


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)


class Transport(driver.Transport):
    """Set as an app's `transport`."""

    Consumer: ClassVar = _Consumer
    fetch_wait_ms: int = 500


class TransientTable(Table[Any, Any]):
    """A Faust table without a changelog, for what may be lost: no topic, no recovery to wait for after a rebalance.

    It is not registered with the app's tables, which exist to keep changelogs; whoever makes it starts it beside the app.
    """

    async def on_start(self) -> None:
        await Service.on_start(self)
        await self.add_runtime_dependency(self.data)

    def on_key_set(self, key: Any, value: Any) -> None:
        event = current_event()
        assert event is not None, "tables change while a stream is read"
        self._maybe_set_key_ttl(key, event.message.partition)

    def on_key_del(self, key: Any) -> None:
        return
