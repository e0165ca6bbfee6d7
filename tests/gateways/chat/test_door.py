"""Who is at the door of a room, by real tokens, tickets and names; and what they are to its channel, by real read models."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from commands.accounts import EraseAccount
from commands.channels import AppointModerator, FollowChannel, RemoveModerator
from eventstore.errors import StoreUnavailable
from gateways.auth import Sessions, Tokens
from gateways.chat import door as doors
from gateways.chat.door import STANDING_S, Door, ModelStandings
from gateways.chat.pod import Identity, Standing
from gateways.chat.server import Unauthenticated
from gateways.engines.postgres import Postgres
from gateways.read_models import ReadModels
from tests.eventstore.conveyor import until
from tests.gateways.chat.role_stand import SECRET, Person, Platform, platform


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stand(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    async with platform(postgres, tmp_path_factory.mktemp("door"), broker_runs=False) as running:
        yield running


@pytest.fixture
def door(stand: Platform) -> Door:
    return Door(stand.services.store, Tokens(SECRET), stand.services.sessions)


async def at(
    door: Door,
    *,
    authorization: str | None = None,
    cookie: str | None = None,
    origin: str | None = None,
    ticket: str | None = None,
) -> Identity | Unauthenticated | None:
    return await door.identify(
        authorization=authorization, cookie=cookie, origin=origin, host="tally.example", ticket=ticket
    )


def is_(who: Identity | Unauthenticated | None, person: Person) -> bool:
    return isinstance(who, Identity) and (who.account_id, who.username) == (person.actor.account_id, person.name)


async def test_a_bearer_token_says_who_its_session_and_until_when(stand: Platform, door: Door) -> None:
    ann = await stand.person("ann")
    who = await at(door, authorization=f"Bearer {ann.token}")
    assert is_(who, ann)
    assert isinstance(who, Identity)
    assert who.session == Tokens(SECRET).session_of(ann.token)
    assert who.expires_at is not None
    assert timedelta(0) < who.expires_at - datetime.now(UTC) <= timedelta(minutes=15)


@pytest.mark.parametrize("authorization", ["Bearer nonsense", "Bearer", "Basic YTpi", "x" * 5000])
async def test_a_bad_token_is_nobody_even_beside_a_good_cookie(stand: Platform, door: Door, authorization: str) -> None:
    ann = await stand.person("ann")
    who = await at(door, authorization=authorization, cookie=ann.cookie["Cookie"])
    assert isinstance(who, Unauthenticated)
    assert who.code == "unauthenticated"


async def test_a_token_of_another_secret_is_nobody(stand: Platform, door: Door) -> None:
    ann = await stand.person("ann")
    forged = Tokens("another-secret-of-at-least-32-bytes").issue(ann.actor, uuid4())
    assert isinstance(await at(door, authorization=f"Bearer {forged}"), Unauthenticated)


@pytest.mark.parametrize(
    ("origin", "counts"),
    [
        (None, True),
        ("https://tally.example", True),
        ("https://evil.example", False),
        ("https://tally.example.evil.example", False),
        ("null", False),
    ],
)
async def test_a_cookie_counts_from_our_own_pages_alone(
    stand: Platform, door: Door, origin: str | None, counts: bool
) -> None:
    ann = await stand.person("ann")
    who = await at(door, cookie=ann.cookie["Cookie"], origin=origin)
    assert is_(who, ann) if counts else who is None


async def test_a_cookie_that_ran_out_makes_a_reader_a_stranger(door: Door) -> None:
    assert await at(door, cookie="tallylight_access=ran-out") is None
    assert await at(door) is None


async def test_a_ticket_lets_in_once_with_its_session(stand: Platform, door: Door) -> None:
    ann, session = await stand.person("ann"), uuid4()
    ticket = await stand.services.sessions.ticket(ann.actor, session)
    who = await at(door, ticket=ticket)
    assert who == Identity(ann.actor.account_id, ann.name, session)
    for used in (ticket, "never issued", "x" * 1000):
        refused = await at(door, ticket=used)
        assert isinstance(refused, Unauthenticated)
        assert refused.code == "ticket_invalid"


async def test_a_ticket_that_ran_out_lets_nobody_in(stand: Platform, door: Door) -> None:
    ticket = await stand.services.sessions.ticket((await stand.person("ann")).actor)
    await stand.services.pool.execute("UPDATE chat_tickets SET expires_at = now()")
    assert isinstance(await at(door, ticket=ticket), Unauthenticated)


async def test_a_session_is_alive_until_it_is_ended_or_runs_out(stand: Platform, door: Door) -> None:
    kept, ended, old = [(await stand.services.sessions.begin("a", "ann")) for _ in range(3)]
    await stand.services.sessions.end(ended.token)
    await stand.services.pool.execute("UPDATE sessions SET expires_at = now() WHERE family = $1", old.family)
    # Refreshing keeps it the same session.
    assert await stand.services.sessions.refresh(kept.token) is not None
    asked: set[UUID] = {kept.family, ended.family, old.family, uuid4()}
    assert set(await door.alive(asked)) == {kept.family}


async def test_a_room_is_found_by_its_channels_name(stand: Platform, door: Door) -> None:
    room, ann = await stand.room(), await stand.person("ann")
    assert await door.channel_id(room.name) == room.channel_id
    for name in (ann.name, "no_such_channel", "", "a\x00b", "x" * 10_000):
        assert await door.channel_id(name) is None


async def test_a_database_that_is_away_is_said_to_be(stand: Platform) -> None:
    pool = await asyncpg.create_pool(dsn=stand._settings["dsn"].get_secret_value(), min_size=0)
    await pool.close()
    door = Door(stand.services.store, Tokens(SECRET), Sessions(pool))
    standings = ModelStandings(stand.services.store, ReadModels(pool))
    with pytest.raises(StoreUnavailable):
        await at(door, ticket="any")
    with pytest.raises(StoreUnavailable):
        await door.alive({uuid4()})
    with pytest.raises(StoreUnavailable):
        await standings.standing("c", "a")
    with pytest.raises(StoreUnavailable):
        await standings.erased({"ann"})
    assert list(await standings.erased(set())) == [], "nobody to ask about is no question"


class Told:
    """Standings whose clock a test moves."""

    def __init__(self, stand: Platform) -> None:
        self.now = 0.0
        self.standings = ModelStandings(stand.services.store, stand.services.read_models, clock=lambda: self.now)

    async def of(self, person: Person, channel_id: str) -> Standing:
        self.now += STANDING_S
        return await self.standings.standing(channel_id, person.actor.account_id)


async def test_roles_follows_and_subscriptions_make_a_standing(stand: Platform) -> None:
    room, told, fan = await stand.room(), Told(stand), await stand.person("fan")
    assert (await told.of(room.owner, room.channel_id)).badges == ("broadcaster",)
    assert await told.of(fan, room.channel_id) == Standing()
    await stand.do(room.owner, AppointModerator(room.channel_id, fan.actor.account_id, fan.name))
    assert (await told.of(fan, room.channel_id)).badges == ("moderator",)

    await stand.do(fan, FollowChannel(room.channel_id))

    async def follows() -> bool:
        return (await told.of(fan, room.channel_id)).following_since is not None

    await until(follows)
    await stand.subscribe(fan, room)

    async def subscribes() -> bool:
        return (await told.of(fan, room.channel_id)).subscriber

    await until(subscribes)
    assert (await told.of(fan, room.channel_id)).badges == ("moderator", "subscriber")
    await stand.do(room.owner, RemoveModerator(room.channel_id, fan.actor.account_id, fan.name))
    assert (await told.of(fan, room.channel_id)).badges == ("subscriber",)


async def test_a_standing_is_kept_for_a_moment_and_so_many_of_them(
    stand: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "STANDINGS_MAX", 2)
    room, told, mod = await stand.room(), Told(stand), await stand.person("mod")
    assert (await told.of(mod, room.channel_id)).badges == ()
    await stand.do(room.owner, AppointModerator(room.channel_id, mod.actor.account_id, mod.name))
    assert (await told.standings.standing(room.channel_id, mod.actor.account_id)).badges == (), "as asked just now"
    for other in ("a", "b"):
        await told.standings.standing(room.channel_id, other)
    assert (await told.standings.standing(room.channel_id, mod.actor.account_id)).badges == ("moderator",)


async def test_the_erased_are_known_by_name(stand: Platform) -> None:
    told, ann, bob = Told(stand), await stand.person("ann"), await stand.person("bob")
    await stand.do(bob, EraseAccount(bob.actor.account_id))

    async def known() -> bool:
        return bob.name in await told.standings.erased({ann.name, bob.name, "nobody"})

    await until(known)
    assert set(await told.standings.erased({ann.name, bob.name, "nobody"})) == {bob.name}
