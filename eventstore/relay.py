"""The relay: hands the log to Kafka, many events of one shard and category in one record (`eventstore.wire`), as they are stored.

Run by `gateways.relay_role`. Of any number of relays one leads, by a Postgres advisory lock on the session it also reads and writes with:
when that session ends, however it ends, another takes over. It sends again what was not known to be acknowledged; consumers skip repeats.
It never decrypts, never decides, and acknowledges to nobody: the event store is the truth, Kafka only carries it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import asyncpg
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from prometheus_client import Counter, Gauge

from eventstore.listen import CHANNEL
from eventstore.port import SHARDS
from eventstore.reader import CATEGORIES
from eventstore.wire import RECORD_BYTES_MAX, WireEvent, key_of, partition_of, records
from eventstore.writer import FAULTS_OF_CONNECTION

log = structlog.get_logger()

LOCK: Final = 7_308_613_710
LEAD_POLL_S: Final = 0.5
"""How often a stand-by tries for the lock. It does not wait inside Postgres: a waiting statement holds a snapshot, and with it vacuum."""
POLL_S: Final = 1.0
"""How late an event is at most whose notification was lost."""
EVENTS_PER_ROUND_MAX: Final = 8192
"""Events in hand at a time, dealt to the shards that have new ones; the next are read when the broker has acknowledged these."""
EVENTS_PER_SHARD_MIN: Final = 64
RECORDS_PER_S: Final = 1000
"""A record costs its consumers the same whether it holds one event or hundreds: rounds are spaced so that records fill as load grows."""
PAUSE_S_MIN: Final = 0.002
PAUSE_S_MAX: Final = 0.1
SAVE_S: Final = 0.25
"""How much is sent again after a crash."""
ACK_S_MAX: Final = 5.0
CHECK_S: Final = 5.0
RETRY_S_MIN: Final = 0.2
RETRY_S_MAX: Final = 3.0
STATEMENT_S_MAX: Final = 10.0

_SETTINGS: Final = {
    "jit": "off",
    # A leader that vanished with its machine loses the lock after some ten seconds.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    # Positions may be lost: what they say was sent is then sent again.
    "synchronous_commit": "off",
}
_HEADS: Final = "SELECT shard, position FROM shard_heads"
# Ids as text: the header's JSON is all they go into, and asyncpg's own UUIDs are strange to its encoder.
_EVENTS: Final = """SELECT s.shard, e.* FROM unnest($1::smallint[], $2::bigint[], $3::bigint[]) s(shard, after, upto)
    CROSS JOIN LATERAL (SELECT category, position, stream, version, topic, at, actor,
            command_id::text, correlation_id::text, causation_id::text, state
        FROM events e WHERE e.category = ANY($4::text[]) AND e.shard = s.shard AND e.position > s.after AND e.position <= s.upto
        ORDER BY e.position LIMIT $5) e"""
_POSITIONS: Final = """SELECT p.shard, p.position, c.category, t.position FROM relay_positions p CROSS JOIN unnest($1::text[]) c(category)
    LEFT JOIN LATERAL (SELECT e.position FROM events e WHERE e.category = c.category AND e.shard = p.shard AND e.position <= p.position
        ORDER BY e.position DESC LIMIT 1) t ON true"""
_SAVE: Final = """UPDATE relay_positions p SET position = u.position FROM unnest($1::smallint[], $2::bigint[]) u(shard, position)
    WHERE p.shard = u.shard"""

_events = Counter("tallylight_relay_events_total", "Events acknowledged by the broker")
_records = Counter("tallylight_relay_records_total", "Kafka records acknowledged by the broker")
_failures = Counter("tallylight_relay_failures_total", "Rounds that failed and were begun again", ["engine"])
_leading = Gauge("tallylight_relay_leading", "1 while this relay leads")
_lag = Gauge("tallylight_relay_lag_events", "Events stored and not yet acknowledged by the broker")

Connection = Any
"""asyncpg's connection; its stubs make the row type part of it, which nobody here reads."""


class Relay:
    """`prepare` brings the broker's topics to be, or raises BrokerAway; it is called whenever the broker may have forgotten them."""

    def __init__(self, dsn: str, bootstrap: str, partitions: int, *, prepare: Callable[[], Awaitable[None]]) -> None:
        self._dsn = dsn
        self._bootstrap = bootstrap
        self._partitions = partitions
        self._prepare = prepare
        self._wake = asyncio.Event()
        self._position: dict[int, int] = {}
        self._tails: dict[int, dict[str, int]] = {}
        self._saved: dict[int, int] = {}
        self._offsets: dict[tuple[str, int], int] = {}
        self.leading = False
        self.started = asyncio.Event()
        """Set once it stands by, or leads with the broker at hand."""
        self.problem: str | None = None
        """Why nothing is sent now, for `/readyz`."""

    async def run(self) -> None:
        """Stand by, lead, and stand by again whenever Postgres was away, for ever."""
        retry_s = RETRY_S_MIN
        while True:
            connection: Connection = None
            try:
                connection = await asyncpg.connect(
                    self._dsn, server_settings=_SETTINGS, command_timeout=STATEMENT_S_MAX
                )
                connection.add_termination_listener(lambda _: self._wake.set())
                while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
                    self.problem = None
                    retry_s = RETRY_S_MIN
                    self.started.set()
                    await asyncio.sleep(LEAD_POLL_S)
                self._lead(True)
                await self._resume(connection)
                await self._carry(connection)
            except (*FAULTS_OF_CONNECTION, asyncpg.PostgresError) as fault:
                _failures.labels("postgres").inc()
                self.problem = f"Postgres: {fault!r}"
                log.warning("relay", problem="event store away", error=repr(fault), again_in_s=retry_s)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, RETRY_S_MAX)
            except Exception as fault:
                # Whatever it is (drivers raise more than they document, when a session is cut in mid-query), nobody else would go on.
                _failures.labels("unknown").inc()
                self.problem = repr(fault)
                log.exception("relay", problem="a fault", again_in_s=retry_s)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, RETRY_S_MAX)
            finally:
                self._lead(False)
                if connection is not None:
                    connection.terminate()

    def _lead(self, leading: bool) -> None:
        if leading != self.leading:
            log.info("relay", leading=leading)
        self.leading = leading
        _leading.set(leading)

    async def _resume(self, connection: Connection) -> None:
        """Positions as the last leader left them, and the last event of each category up to there."""
        self._position, self._tails = {}, {shard: {} for shard in range(SHARDS)}
        for shard, position, category, last in await connection.fetch(_POSITIONS, CATEGORIES):
            self._position[shard] = position
            if last is not None:
                self._tails[shard][category] = last
        self._saved = dict(self._position)
        await connection.add_listener(CHANNEL, lambda *_: self._wake.set())

    async def _carry(self, connection: Connection) -> None:
        """Lead: from the store to the broker, whatever becomes of the broker. Ends only with the session."""
        retry_s = RETRY_S_MIN
        while True:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                acks="all",
                request_timeout_ms=int(ACK_S_MAX * 1000),
                max_batch_size=RECORD_BYTES_MAX + 4096,
                max_request_size=RECORD_BYTES_MAX + 65536,
            )
            started = time.monotonic()
            self._offsets.clear()
            try:
                await self._prepare()
                await _of_broker(producer.start())
                self.problem = None
                self.started.set()
                await self._follow(connection, producer)
            except BrokerAway as fault:
                _failures.labels("broker").inc()
                self.problem = f"broker: {fault}"
                log.warning("relay", problem="broker away", error=str(fault), again_in_s=retry_s)
            finally:
                await _stopped(producer)
            await asyncio.sleep(retry_s)
            worked = time.monotonic() - started > ACK_S_MAX + RETRY_S_MAX
            retry_s = RETRY_S_MIN if worked else min(2 * retry_s, RETRY_S_MAX)

    async def _follow(self, connection: Connection, producer: AIOKafkaProducer) -> None:
        saved_at = checked_at = time.monotonic()
        while True:
            self._wake.clear()
            behind = await self._behind(connection)
            sent = await self._round(connection, producer, behind) if behind else 0
            now = time.monotonic()
            if now - saved_at >= SAVE_S or not sent:
                await self._save(connection)
                saved_at = now
            if now - checked_at >= CHECK_S:
                await _of_broker(_check_topics(producer, self._partitions))
                checked_at = now
            if not behind:
                await self._idle()
            else:
                await asyncio.sleep(min(max(sent / RECORDS_PER_S, PAUSE_S_MIN), PAUSE_S_MAX))

    async def _idle(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _behind(self, connection: Connection) -> dict[int, tuple[int, int]]:
        """Shards with events not yet sent: from where, up to where."""
        heads = await connection.fetch(_HEADS)
        behind = {shard: (self._position[shard], head) for shard, head in heads if head > self._position[shard]}
        _lag.set(sum(head - position for position, head in behind.values()))
        return behind

    async def _round(
        self, connection: Connection, producer: AIOKafkaProducer, behind: Mapping[int, tuple[int, int]]
    ) -> int:
        """Send the next events of these shards and wait until the broker has them. The number of records."""
        limit = max(EVENTS_PER_SHARD_MIN, EVENTS_PER_ROUND_MAX // len(behind))
        after, upto = zip(*behind.values(), strict=True)
        rows = await connection.fetch(_EVENTS, list(behind), after, upto, CATEGORIES, limit)
        found: dict[int, dict[str, list[WireEvent]]] = {}
        reached: dict[int, int] = {}
        for shard, category, *columns in rows:
            found.setdefault(shard, {}).setdefault(category, []).append(event := WireEvent(*columns))
            reached[shard] = event.position
        if not rows:
            raise Unreadable(f"shards {sorted(behind)} have events that cannot be read")
        tails = {
            shard: self._tails[shard] | {category: events[-1].position for category, events in batches.items()}
            for shard, batches in found.items()
        }
        outgoing = [
            (category, record, shard)
            for shard, batches in found.items()
            for category, events in batches.items()
            for record in records(
                shard,
                category,
                events,
                prev=self._tails[shard].get(category, 0),
                upto=reached[shard],
                tails=tails[shard],
            )
        ]
        await _of_broker(self._send(producer, outgoing))
        self._position |= reached
        self._tails |= tails
        _records.inc(len(outgoing))
        _events.inc(len(rows))
        return len(outgoing)

    async def _send(self, producer: AIOKafkaProducer, outgoing: Sequence[tuple[str, bytes, int]]) -> None:
        """Returns when all in-sync replicas have them all."""
        for topic in {topic for topic, _, _ in outgoing}:
            if len(await producer.partitions_for(topic)) < self._partitions:
                raise BrokerAway(f"topic {topic} has fewer partitions than {self._partitions}")
        acknowledged = [
            await producer.send(topic, record, key=key_of(shard), partition=partition_of(shard, self._partitions))
            for topic, record, shard in outgoing
        ]
        for metadata in await asyncio.gather(*acknowledged):
            place = metadata.topic, metadata.partition
            if metadata.offset <= self._offsets.get(place, -1):
                # It was restarted without its log. Tansu acknowledges records even of topics that it no longer has.
                raise BrokerAway(f"the broker forgot what it had: offset {metadata.offset} again in {place}")
            self._offsets[place] = metadata.offset

    async def _save(self, connection: Connection) -> None:
        moved = {shard: position for shard, position in self._position.items() if position != self._saved[shard]}
        if moved:
            await connection.execute(_SAVE, list(moved), list(moved.values()))
            self._saved |= moved


class BrokerAway(Exception):
    """The broker did not do what was asked within its time."""


class Unreadable(Exception):
    """The heads say that there are events which a query does not find: the log is damaged, or parts of it are detached."""


T = TypeVar("T")


async def _of_broker(work: Awaitable[T]) -> T:
    try:
        return await work
    except (KafkaError, OSError, TimeoutError) as fault:
        raise BrokerAway(repr(fault)) from fault


async def _check_topics(producer: AIOKafkaProducer, partitions: int) -> None:
    """A broker that was restarted may have forgotten its topics while there was nothing to send, or made them anew in its own way."""
    await producer.client.force_metadata_update()
    cluster = producer.client.cluster
    wrong = [topic for topic in CATEGORIES if len(cluster.partitions_for_topic(topic) or ()) < partitions]
    if wrong:
        raise BrokerAway(f"no topics {wrong} of {partitions} partitions")


async def _stopped(producer: AIOKafkaProducer) -> None:
    try:
        async with asyncio.timeout(ACK_S_MAX):
            await producer.stop()
    except (KafkaError, OSError, TimeoutError) as fault:
        log.debug("relay", problem="producer did not stop", error=repr(fault))
    except asyncio.CancelledError:
        # aiokafka may let the cancellation of a task of its own out; only ours counts.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
