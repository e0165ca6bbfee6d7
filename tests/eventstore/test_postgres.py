"""What only the durable store can be held to: several processes at once, kill -9, a lost database, a ban held open, its own tables."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain import chat_admission
from domain.channel import ChatMode
from domain.chat import MessagePosted
from eventstore import index
from eventstore.errors import StoreUnavailable
from eventstore.keys import PostgresKeys, WrongMasterKey
from eventstore.migrate import EVENT_STORE, PERSONAL_KEYS, migrate
from eventstore.port import SHARDS, Append, Appended, ChatPost, IndexWrite, Refused, StreamWrite, WrongVersion
from eventstore.postgres import PARTITION_WIDTH, PostgresStore
from eventstore.writer import FAULTS_OF_CONNECTION, BadCommand
from tests.engines import running_postgres
from tests.eventstore.test_conformance import appended, banned, command, described, message, titles
from tests.stores_postgres import MASTER_KEY, open_store, postgres_store


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what another connection brings about; the database tells nobody of it."""
    async with asyncio.timeout(20):
        while not await true():  # noqa: ASYNC110 (nothing to wait on)
            await asyncio.sleep(0.01)


async def test_several_processes_leave_no_hole_and_a_reader_beside_them_misses_nothing(
    database: str, keys_database: str
) -> None:
    async with (
        postgres_store(database, keys_database) as one,
        open_store(database, keys_database) as two,
        open_store(database, keys_database) as reader,
    ):
        total = 600
        seen: dict[int, list[int]] = {shard: [] for shard in range(SHARDS)}

        async def follow() -> None:
            async for batch in reader.subscribe(dict.fromkeys(range(SHARDS), 0)):
                seen[batch[0].shard] += [event.position for event in batch]
                if sum(map(len, seen.values())) == total:
                    return

        async def write(store: PostgresStore, worker: int) -> None:
            for number in range(total // 20):
                appended(await store.append(command("x", channel=f"c{(worker * 7 + number) % 40}")))

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(follow())
            for worker in range(20):
                group.create_task(write((one, two)[worker % 2], worker))
        for positions in seen.values():
            assert positions == list(range(1, len(positions) + 1))


async def test_one_commands_conflict_or_bad_row_fails_no_other(durable: PostgresStore) -> None:
    appended(await durable.append(command("first", channel="c0")))
    nul = IndexWrite("account_roles", {"account_id": "nul\x00", "role": "admin"}, {})
    asked = [
        *(command("fine", channel=f"c{number}") for number in range(1, 20)),
        command("late", channel="c0", expected=0),
        command("bad", channel="c50", index=(nul,)),
    ]
    outcomes = await asyncio.gather(*map(durable.append, asked), return_exceptions=True)
    assert all(isinstance(outcome, Appended) for outcome in outcomes[:19])
    assert outcomes[19] == WrongVersion("channel-c0", 1)
    assert isinstance(outcomes[20], BadCommand)
    assert await durable.read_stream("channel-c50") == []


_WRITER = """
import asyncio, sys
from tests.stores_postgres import open_store
from tests.eventstore.test_conformance import command
async def main(dsn, keys_dsn):
    async with open_store(dsn, keys_dsn) as store:
        async def write(worker):
            number = 0
            while True:
                number += 1
                await store.append(command(f"{worker}:{number}", channel=f"w{worker}"))
                print(f"{worker}:{number}", flush=True)
        await asyncio.gather(*(write(worker) for worker in range(8)))
asyncio.run(main(*sys.argv[1:]))
"""


async def test_what_was_acknowledged_survives_kill_9_of_the_writer(database: str, keys_database: str) -> None:
    async with postgres_store(database, keys_database) as store:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _WRITER, database, keys_database,
            stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert process.stdout is not None
        told = [(await process.stdout.readline()).decode().strip() for _ in range(200)]
        process.kill()
        told += (await process.stdout.read()).decode().split()[:-1]
        await process.wait()
        written = {title for worker in range(8) for title in titles(await store.read_stream(f"channel-w{worker}"))}
        assert set(filter(None, told)) <= written
        for worker in range(8):
            numbers = [int(title.split(":")[1]) for title in titles(await store.read_stream(f"channel-w{worker}"))]
            assert numbers == list(range(1, len(numbers) + 1))


async def test_a_database_away_is_said_at_once_and_the_store_comes_back_with_it(tmp_path: Path) -> None:
    with running_postgres(tmp_path) as server:
        dsn, keys_dsn = server.ensure_database("log"), server.ensure_database("keys")
        async with postgres_store(dsn, keys_dsn) as store:
            appended(await store.append(command("before")))
            server.stop()
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await store.append(command("away"))
            with pytest.raises(StoreUnavailable):
                await store.heads()
            server.start()
            async with asyncio.timeout(30):
                while True:
                    try:
                        appended(await store.append(command("after")))
                        break
                    except StoreUnavailable:
                        await asyncio.sleep(0.05)
            assert titles(await store.read_stream("channel-c1")) == ["before", "after"]


async def test_a_message_that_waited_while_a_ban_was_held_open_is_refused(
    durable: PostgresStore, database: str
) -> None:
    """The ban's transaction holds the shard's head; the message's statement begins before the ban commits."""
    async with connected(database) as holder:
        transaction = holder.transaction()
        await transaction.start()
        shard = (await durable.append(command("x"))).placed[0].shard  # type: ignore[union-attr]
        await holder.execute("SELECT FROM shard_heads WHERE shard = $1 FOR UPDATE", shard)
        posting = asyncio.create_task(durable.post_message(message("too late")))
        async with connected(database) as watcher:
            await until(lambda: watcher.fetchval("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"))
        await holder.execute("INSERT INTO chat_bans VALUES ('c1', 'a1', NULL)")
        await transaction.commit()
        assert await posting == Refused("banned")


async def test_no_message_stands_after_a_ban_whoever_bans_and_posts_at_once(database: str, keys_database: str) -> None:
    async with postgres_store(database, keys_database) as one, open_store(database, keys_database) as two:
        users = [f"u{number}" for number in range(10)]

        async def post(store: PostgresStore, user: str) -> None:
            for _ in range(4):
                await store.post_message(message("hello", author=user))

        async def ban(store: PostgresStore, user: str) -> None:
            row = IndexWrite("chat_bans", {"channel_id": "c1", "account_id": user}, {"until": None})
            write = StreamWrite("chat-c1", "c1", [banned(user)])
            appended(await store.append(Append(uuid4(), [write], (row,))))

        await asyncio.gather(
            *(post(store, user) for store in (one, two) for user in users),
            *(ban((one, two)[number % 2], user) for number, user in enumerate(users)),
        )
        gone: set[str] = set()
        last: dict[str, datetime] = {}
        for event in await one.read_stream("chat-c1"):
            if not isinstance(event.event, MessagePosted):
                gone.add(event.event.account_id)
                continue
            author = event.event.author_id
            assert author not in gone
            assert author not in last or event.at - last[author] >= timedelta(seconds=chat_admission.COOLDOWN_S)
            last[author] = event.at
        assert gone == set(users)


_seconds = st.sampled_from([-700, -601, -599, -11, -9.5, -1.5, -0.5, 30, 4000])
_maybe_time = st.none() | _seconds


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    banned_until=st.just("none") | _maybe_time,
    mode=st.none()
    | st.builds(
        ChatMode,
        slow_s=st.sampled_from([0, 1, 10]),
        followers_only_min=st.sampled_from([None, 0, 10]),
        subscribers_only=st.booleans(),
        emote_only=st.booleans(),
        unique=st.booleans(),
    ),
    role=st.sampled_from([None, None, "owner", "moderator"]),
    last=st.none() | st.tuples(_seconds.filter(lambda s: s < 0), st.sampled_from([b"same", b"other"])),
    following=_maybe_time,
    subscriber=st.booleans(),
    emotes=st.booleans(),
)
async def test_the_database_admits_and_refuses_exactly_as_its_pure_twin(
    durable: PostgresStore,
    database: str,
    banned_until: str | float | None,
    mode: ChatMode | None,
    role: str | None,
    last: tuple[float, bytes] | None,
    following: float | None,
    subscriber: bool,
    emotes: bool,
) -> None:
    channel, now = uuid4().hex, datetime.now(UTC)

    def at(seconds: float | None) -> datetime | None:
        return None if seconds is None else now + timedelta(seconds=seconds)

    async with connected(database) as connection:
        if not isinstance(banned_until, str):
            await connection.execute("INSERT INTO chat_bans VALUES ($1, 'a1', $2)", channel, at(banned_until))
        if mode:
            values = [channel, *mode.model_dump().values()]
            await connection.execute("INSERT INTO chat_modes VALUES ($1, $2, $3, $4, $5, $6)", *values)
        if role:
            await connection.execute("INSERT INTO channel_roles VALUES ($1, 'a1', $2, 'ann')", channel, role)
        if last:
            await connection.execute(
                "INSERT INTO chat_last_posts VALUES ($1, 'a1', $2, $3)", channel, at(last[0]), last[1]
            )
    event = MessagePosted(channel_id=channel, message_id="m", author_id="a1", username="ann", text="hi")
    post = ChatPost(uuid4(), channel, "a1", event, b"same", emotes, at(following), subscriber)
    outcome = await durable.post_message(post)
    expected = chat_admission.admit(
        chat_admission.Post(post.text_digest, emotes, post.following_since, subscriber),
        now=now,
        ban=None if isinstance(banned_until, str) else chat_admission.Ban(at(banned_until)),
        mode=mode or ChatMode(),
        trusted=role is not None,
        last=chat_admission.LastPost(now + timedelta(seconds=last[0]), last[1]) if last else None,
    )
    if expected is None:
        assert isinstance(outcome, Appended)
        return
    assert isinstance(outcome, Refused)
    assert outcome.reason == expected.reason
    assert (outcome.wait_s is None) == (expected.wait_s is None)
    if outcome.wait_s is not None and expected.wait_s is not None:
        # The database's own clock read the time a little later than this test did.
        assert expected.wait_s - 5 < outcome.wait_s <= expected.wait_s


async def test_the_index_tables_are_what_the_code_says(durable: PostgresStore, database: str) -> None:
    async with connected(database) as connection:
        for name, table in index.TABLES.items():
            rows = await connection.fetch(
                """SELECT a.attname, EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary
                   AND a.attnum = ANY(i.indkey)) AS key FROM pg_attribute a
                   WHERE a.attrelid = $1::regclass AND a.attnum > 0 ORDER BY a.attnum""",
                name,
            )
            assert tuple(row["attname"] for row in rows if row["key"]) == table.key
            assert {row["attname"] for row in rows if not row["key"]} == set(table.values)


async def test_partitions_are_made_beside_those_who_read_and_write(durable: PostgresStore, database: str) -> None:
    async with connected(database) as busy, connected(database) as maker, busy.transaction():
        await busy.fetch("SELECT * FROM events")
        await busy.execute("LOCK TABLE events, events_chat IN ROW EXCLUSIVE MODE")
        await maker.execute("SET lock_timeout = '5s'")
        edge = await maker.fetchval("SELECT extend_events($1)", 3 * PARTITION_WIDTH)
        assert edge >= 3 * PARTITION_WIDTH
        assert await maker.fetchval("SELECT to_regclass('events_money_2') IS NOT NULL")


async def test_partitions_are_made_before_they_are_needed(durable: PostgresStore, database: str) -> None:
    async with connected(database) as connection:
        near = PARTITION_WIDTH - 3
        shard = appended(await durable.append(command("x"))).placed[0].shard
        await connection.execute("UPDATE shard_heads SET position = $1 WHERE shard = $2", near, shard)
        appended(await durable.append(command("before the edge")))
        await until(lambda: connection.fetchval("SELECT to_regclass('events_money_1') IS NOT NULL"))
        for _ in range(3):
            appended(await durable.append(command("beyond")))
        there = await durable.read_shard(shard, after=near)
        assert [event.position - near for event in there] == [1, 2, 3, 4]


async def test_migrations_run_by_many_at_once_run_once(database: str, keys_database: str) -> None:
    await asyncio.gather(*(migrate(database, EVENT_STORE) for _ in range(4)))
    await migrate(keys_database, PERSONAL_KEYS)
    async with connected(database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM shard_heads") == SHARDS
        applied = [row[0] for row in await connection.fetch("SELECT migration_id FROM _migrations_schema")]
        assert Counter(applied) == Counter(file.stem for file in EVENT_STORE.glob("*.sql"))


async def test_another_master_key_is_told_apart_from_an_erased_person(database: str, keys_database: str) -> None:
    async with postgres_store(database, keys_database) as store:
        appended(await store.post_message(message("hello")))
    async with open_store(database, keys_database, master_key=MASTER_KEY[::-1]) as wrong:
        with pytest.raises(WrongMasterKey):
            await wrong.read_stream("chat-c1")


async def test_however_asyncpg_tells_that_postgres_ended_a_session_it_is_a_fault_of_the_connection(
    database: str,
) -> None:
    async def ask_for_ever(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        while True:
            await connection.fetchval("SELECT 1")

    async with connected(database) as other:
        for _ in range(20):
            async with connected(database) as ended:
                asking = asyncio.ensure_future(ask_for_ever(ended))
                await other.execute("SELECT pg_terminate_backend($1)", ended.get_server_pid())
                await asyncio.wait({asking})
                assert isinstance(asking.exception(), FAULTS_OF_CONNECTION)


async def test_keys_made_at_once_by_many_are_one_key(database: str, keys_database: str) -> None:
    await migrate(keys_database, PERSONAL_KEYS)
    async with asyncpg.create_pool(keys_database, min_size=4, max_size=4) as pool:
        rings = [PostgresKeys(pool, MASTER_KEY) for _ in range(4)]
        await asyncio.gather(*(ring.ensure(["ann", "bob"]) for ring in rings))
        wrapped = await pool.fetch("SELECT person FROM person_keys")
        assert len(wrapped) == 2
        await rings[0].erase("ann")
        again = await PostgresKeys(pool, MASTER_KEY).ensure(["ann"])
        assert again["ann"] is None


async def test_what_stands_in_the_tables_is_sealed(durable: PostgresStore, database: str) -> None:
    appended(await durable.post_message(message("my very secret text")))
    appended(await durable.append(command(*["public title"] * 3)))
    async with connected(database) as connection:
        states = b"".join(row[0] for row in await connection.fetch("SELECT state FROM events"))
    assert b"public title" in states
    assert b"secret" not in states
    assert described("public title").title in titles(await durable.read_stream("channel-c1"))
