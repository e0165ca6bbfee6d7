"""A moderator's act held open before its commit while others post: what stands in the log afterwards keeps the room's rules."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final, Literal

import asyncpg
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands.channels import ChangeChatMode
from commands.context import Actor
from commands.moderation import Ban, Unban
from domain.channel import ChatMode
from domain.chat import MessagePosted
from eventstore.port import Appended, Outcome, Refused, shard_of
from eventstore.postgres import PostgresStore
from gateways.engines.postgres import Postgres
from tests.commands.world import World
from tests.engines import fresh_database
from tests.eventstore import auditor
from tests.eventstore.test_conformance import message
from tests.eventstore.test_postgres import until
from tests.stores_postgres import open_store, postgres_store

USERS: Final = ("u0", "u1", "u2", "u3")
_numbers: Final = count(1)


@dataclass(frozen=True, slots=True)
class Act:
    """`user`: whom it is about; a mode is about everybody."""

    kind: Literal["ban", "timeout", "unban", "emotes only", "any text"]
    user: str


@dataclass(frozen=True, slots=True)
class Post:
    user: str
    pod: int
    """Which of the two stores is asked."""


acts = st.builds(
    Act, st.sampled_from(["ban", "ban", "timeout", "unban", "emotes only", "any text"]), st.sampled_from(USERS)
)
posts = st.lists(st.builds(Post, st.sampled_from(USERS), st.integers(0, 1)), max_size=10)


@dataclass(frozen=True, slots=True)
class Pods:
    """Two processes' stores on one log, a connection that holds acts open and one that watches who waits."""

    stores: Sequence[PostgresStore]
    holder: Any
    watcher: Any

    async def waiting(self) -> int:
        waiting: int = await self.watcher.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return waiting


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pods(postgres: Postgres) -> AsyncIterator[Pods]:
    with fresh_database(postgres) as dsn, fresh_database(postgres) as keys_dsn:
        async with postgres_store(dsn, keys_dsn) as one, open_store(dsn, keys_dsn) as two:
            holder, watcher = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
            yield Pods((one, two), holder, watcher)
            await holder.close()
            await watcher.close()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    earlier=st.lists(acts, max_size=2),
    before=posts,
    held=st.lists(acts, min_size=1, max_size=3),
    during=posts,
    after=posts,
)
async def test_whoever_posts_while_an_act_is_held_open_is_judged_by_it(
    pods: Pods,
    earlier: Sequence[Act],
    before: Sequence[Post],
    held: Sequence[Act],
    during: Sequence[Post],
    after: Sequence[Post],
) -> None:
    start = dict(enumerate(await pods.stores[0].heads()))
    room = await Room.opened(pods)
    for act in earlier:
        await room.do(act)
    posted = await room.post(before)
    async with pods.holder.transaction():
        # Rows that admission reads are what an append writes last: its events stand by then, its shard is locked, nobody sees either.
        await pods.holder.execute("LOCK TABLE chat_bans, chat_modes IN SHARE MODE")
        acting = asyncio.gather(*map(room.do, held))
        await until(lambda: _waits(pods, acting, 1))
        posting = asyncio.ensure_future(room.post(during))
        await until(lambda: _waits(pods, posting, 1 + len({one.pod for one in during})))
    await acting
    posted |= await posting
    posted |= await room.post(after)
    log = await auditor.read(pods.stores[0], [shard_of(room.channel_id)], start)
    auditor.assert_dense(log, start)
    auditor.assert_rooms_kept_their_rules(log)
    told = {event.event.message_id for events in log.values() for event in events if event.topic == MessagePosted.TOPIC}
    assert told == {message_id for message_id, outcome in posted.items() if isinstance(outcome, Appended)}
    assert all(isinstance(outcome, Appended | Refused) for outcome in posted.values())


async def _waits(pods: Pods, work: "asyncio.Future[Any]", backends: int) -> bool:
    """Whether the work stands in front of locks, on so many connections, or had no need to."""
    return work.done() or await pods.waiting() >= backends


@dataclass(frozen=True, slots=True)
class Room:
    """A channel's chat, its owner, and who writes there."""

    pods: Pods
    world: World
    channel_id: str
    owner: Actor

    @classmethod
    async def opened(cls, pods: Pods) -> "Room":
        world = World(pods.stores[0])
        world.now = datetime.now(UTC)
        return cls(pods, world, *await world.channel(f"room{next(_numbers)}"))

    async def do(self, act: Act) -> None:
        match act.kind:
            case "ban":
                await self.world.done(Ban(self.channel_id, act.user, act.user), self.owner)
            case "timeout":
                await self.world.done(Ban(self.channel_id, act.user, act.user, duration_s=60), self.owner)
            case "unban":
                await self.world.done(Unban(self.channel_id, act.user, act.user), self.owner)
            case _:
                mode = ChatMode(emote_only=act.kind == "emotes only")
                await self.world.done(ChangeChatMode(self.channel_id, mode), self.owner)

    async def post(self, posts: Sequence[Post]) -> dict[str, Outcome]:
        """All at once; what came of each, by its message's id."""
        asked = [message("hello", channel=self.channel_id, author=post.user) for post in posts]
        outcomes = await asyncio.gather(
            *(self.pods.stores[post.pod].post_message(one) for post, one in zip(posts, asked, strict=True))
        )
        return {one.event.message_id: outcome for one, outcome in zip(asked, outcomes, strict=True)}  # type: ignore[attr-defined]
