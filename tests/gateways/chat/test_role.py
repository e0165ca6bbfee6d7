"""The role `chat` over the real engines: who is let in as whom, what is seen by whom, and what an absent broker or store costs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from commands.accounts import EraseAccount
from commands.channels import AppointModerator, ChangeChatMode, FollowChannel
from commands.moderation import Ban
from domain.channel import ChatMode
from eventstore.wire import PRESENCE_TOPIC
from gateways.auth import Tokens
from gateways.engines.postgres import Postgres
from projections.presence import Viewers, decode
from tests.engines import running_postgres
from tests.eventstore.conveyor import until
from tests.gateways.chat.role_stand import SECRET, ChatRole, Platform, Room, platform
from tests.gateways.chat.stand import Viewer


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stand(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    async with platform(postgres, tmp_path_factory.mktemp("chat_role")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def role(stand: Platform) -> ChatRole:
    return await stand.chat()


async def refused(role: ChatRole, room: Room, headers: dict[str, str], query: str = "") -> dict[str, Any]:
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(role.url(room, query), additional_headers=headers):
            raise AssertionError("it let them in")
    assert refusal.value.response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = orjson.loads(refusal.value.response.body or b"")
    assert body["status"] == refusal.value.response.status_code
    return body


async def heard(viewer: Viewer, count: int) -> list[str]:
    return [item["text"] for item in await viewer.messages(count)]


async def user_of(viewer: Viewer) -> str | None:
    user: str | None = (await viewer.until("welcome"))["user"]
    return user


async def test_what_one_posts_both_see_in_order_on_whichever_pod_they_are(stand: Platform, role: ChatRole) -> None:
    room, people = await stand.room(), [await stand.person(f"p{number}") for number in range(5)]
    other = await stand.chat()
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(pod.join(room)) for pod in (role, other)]
        for number, person in enumerate(people):
            pod = (role, other)[number % 2]
            speaker = await stack.enter_async_context(pod.join(room, person.bearer))
            assert await user_of(speaker) == person.name
            await speaker.say(f"m{number}", nonce="n")
            assert (await speaker.until("accepted"))["position"] == number + 1
        for reader in readers:
            items = await reader.messages(5)
            assert [item["text"] for item in items] == ["m0", "m1", "m2", "m3", "m4"]
            assert [item["user"] for item in items] == [person.name for person in people]
            assert [item["position"] for item in items] == [1, 2, 3, 4, 5]
    assert await role.reasons() == {}


async def test_a_ticket_opens_the_door_once(stand: Platform, role: ChatRole) -> None:
    room, ann = await stand.room(), await stand.person("ann")
    ticket = await stand.services.sessions.ticket(ann.actor)
    async with role.join(room, query=f"?ticket={ticket}") as viewer:
        assert await user_of(viewer) == ann.name
    assert (await refused(role, room, {}, f"?ticket={ticket}"))["code"] == "ticket_invalid"


async def test_credentials_that_are_no_good_are_refused_before_the_upgrade(stand: Platform, role: ChatRole) -> None:
    room = await stand.room()
    for header in ("Bearer bad", "Basic YTpi", "Bearer"):
        body = await refused(role, room, {"Authorization": header})
        assert (body["status"], body["code"]) == (401, "unauthenticated")
    for ticket in ("never-issued", "x" * 1000):
        body = await refused(role, room, {}, f"?ticket={ticket}")
        assert (body["status"], body["code"]) == (401, "ticket_invalid")


async def test_a_cookie_counts_from_our_own_pages_only(stand: Platform, role: ChatRole) -> None:
    room, ann = await stand.room(), await stand.person("ann")
    own = f"http://127.0.0.1:{role.port}"
    for origin, user in (
        (own, ann.name),
        ("https://evil.example", None),
        (f"{own}.evil.example", None),
        ("null", None),
    ):
        async with role.join(room, ann.cookie, origin=origin) as viewer:
            assert await user_of(viewer) == user
            await viewer.say("hello", nonce="n")
            answer = await viewer.until("accepted" if user else "refused")
            assert answer.get("reason") == (None if user else "login_required")
    async with role.join(room, {"Cookie": "tallylight_access=ran-out"}, origin=own) as viewer:
        assert await user_of(viewer) is None


async def test_a_ban_stops_the_next_message_and_all_are_told(stand: Platform, role: ChatRole) -> None:
    room, bob = await stand.room(), await stand.person("bob")
    async with role.join(room, bob.bearer) as speaker, role.join(room) as reader:
        await speaker.say("before", nonce="1")
        await speaker.until("accepted")
        assert await heard(reader, 1) == ["before"]
        await stand.do(room.owner, Ban(room.channel_id, bob.actor.account_id, bob.name))
        await speaker.say("after", nonce="2")
        assert (await speaker.until("refused"))["reason"] == "banned"
        assert (await reader.until("banned"))["user"] == bob.name


async def test_badges_tell_what_one_is_to_the_channel(stand: Platform, role: ChatRole) -> None:
    room, mod, anyone = await stand.room(), await stand.person("mod"), await stand.person("anyone")
    await stand.do(room.owner, AppointModerator(room.channel_id, mod.actor.account_id, mod.name))
    for who, badges in ((room.owner, ["broadcaster"]), (mod, ["moderator"]), (anyone, [])):
        async with role.join(room, who.bearer) as viewer:
            assert (await viewer.until("welcome"))["badges"] == badges
            await viewer.say(f"I am {who.name}", nonce="1")
            await viewer.until("accepted")
    async with role.join(room) as reader:
        assert [item["badges"] for item in await reader.messages(3)] == [["broadcaster"], ["moderator"], []]


async def test_who_subscribes_wears_the_badge_on_what_they_say_a_moment_later(stand: Platform, role: ChatRole) -> None:
    room, fan = await stand.room(), await stand.person("fan")
    await stand.do(room.owner, ChangeChatMode(room.channel_id, ChatMode(subscribers_only=True)))
    async with role.join(room, fan.bearer) as viewer, role.join(room) as reader:
        assert (await viewer.until("welcome"))["badges"] == []
        await viewer.say("let me", nonce="0")
        assert (await viewer.until("refused"))["reason"] == "subscribers_only"
        await stand.subscribe(fan, room)
        await accepted_at_last(viewer)
        assert [item["badges"] for item in await reader.messages(1)] == [["subscriber"]]
    async with role.join(room, fan.bearer) as viewer:
        assert (await viewer.until("welcome"))["badges"] == ["subscriber"]


async def test_who_is_erased_is_gone_from_open_rooms_and_from_those_opened_later(
    stand: Platform, role: ChatRole
) -> None:
    room, bob, ann = await stand.room(), await stand.person("bob"), await stand.person("ann")
    async with role.join(room) as reader:
        for who, text in ((bob, "my street is Elm Street"), (ann, "hello")):
            async with role.join(room, who.bearer) as speaker:
                await speaker.say(text, nonce="n")
                await speaker.until("accepted")
        assert await heard(reader, 2) == ["my street is Elm Street", "hello"]
        await stand.do(bob, EraseAccount(bob.actor.account_id))
        assert (await reader.until("erased"))["user"] == bob.name
        other = await stand.chat()
        for pod, query in ((role, ""), (role, "?after=0"), (other, ""), (other, "?after=0")):
            async with pod.join(room, query=query) as later:
                assert await heard(later, 1) == ["hello"]


async def test_who_logs_out_is_shown_out_by_the_pod(stand: Platform, role: ChatRole) -> None:
    room, ann = await stand.room(), await stand.person("ann")
    session = Tokens(SECRET).session_of(ann.token)
    assert session is not None
    ticket = await stand.services.sessions.ticket(ann.actor, session)
    async with role.join(room, ann.bearer) as one, role.join(room, query=f"?ticket={ticket}") as other:
        await stand.services.sessions.end_family(session)
        for viewer in (one, other):
            assert (await viewer.until("error"))["code"] == "session_ended"
            with pytest.raises(ConnectionClosed):
                await viewer.frame()


async def test_who_follows_now_may_speak_among_followers_a_moment_later(stand: Platform, role: ChatRole) -> None:
    room, fan = await stand.room(), await stand.person("fan")
    await stand.do(room.owner, ChangeChatMode(room.channel_id, ChatMode(followers_only_min=0)))
    async with role.join(room, fan.bearer) as viewer:
        await viewer.say("let me", nonce="0")
        assert (await viewer.until("refused"))["reason"] == "followers_only"
        await stand.do(fan, FollowChannel(room.channel_id))
        await accepted_at_last(viewer)


async def accepted_at_last(viewer: Viewer) -> None:
    """Says it until it is admitted, as often as the rule of a connection's frames allows."""
    for attempt in count():
        await viewer.say("let me", nonce=f"again {attempt}")
        while (frame := await viewer.frame())["type"] not in ("accepted", "refused"):
            pass
        if frame["type"] == "accepted":
            return
        await asyncio.sleep(0.3)


async def test_presence_counts_each_viewer_once(stand: Platform, role: ChatRole) -> None:
    room, ann = await stand.room(), await stand.person("ann")
    async with (
        role.join(room, ann.bearer) as one,
        role.join(room, ann.bearer) as same,
        role.join(room) as stranger,
        role.join(room) as another,
    ):
        for viewer in (one, same, stranger, another):
            await viewer.until("welcome")
        assert await presence_of(stand.broker.bootstrap, room.channel_id) == 3


async def presence_of(bootstrap: str, channel_id: str) -> int:
    """Viewers in the first record of a channel."""
    consumer = AIOKafkaConsumer(
        PRESENCE_TOPIC, bootstrap_servers=bootstrap, fetch_max_wait_ms=50, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        async with asyncio.timeout(60):
            async for message in consumer:
                if message.key == channel_id.encode():
                    return Viewers([decode(message.value).sketch]).count
        raise AssertionError("the topic ended")
    finally:
        await consumer.stop()


async def test_those_in_a_room_are_told_to_come_back_when_the_role_ends(stand: Platform) -> None:
    room, role = await stand.room(), await stand.chat()
    async with role.join(room) as viewer:
        await viewer.until("welcome")
        await role.stop()
        with pytest.raises(ConnectionClosed) as closed:
            await viewer.frame()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    assert "chat" in await role.reasons()


async def test_a_broker_that_comes_late_and_is_restarted_loses_nothing(postgres: Postgres, tmp_path: Path) -> None:
    async with platform(postgres, tmp_path, broker_runs=False) as own:
        room, speaking, listening = await own.room(), await own.chat(), await own.chat()
        async with listening.join(room) as reader:

            async def heard_when_said(text: str) -> None:
                person = await own.person("ann")
                async with speaking.join(room, person.bearer) as speaker:
                    await speaker.say(text, nonce="n")
                    await speaker.until("accepted")
                    assert await heard(reader, 1) == [text]

            assert "feed" in await listening.reasons()
            await heard_when_said("without a broker")
            await asyncio.to_thread(own.broker.start)
            await own.relay.wait()
            await listening.all_well()
            await heard_when_said("with one")
            await asyncio.to_thread(own.broker.stop)
            await heard_when_said("away again")
            await asyncio.to_thread(own.broker.start)
            await heard_when_said("while it comes back")
            await listening.all_well()
            await heard_when_said("back")


async def test_a_store_that_is_away_for_a_moment_is_told_and_comes_back(tmp_path: Path) -> None:
    with running_postgres(tmp_path / "postgres") as server:
        async with platform(server, tmp_path) as own:
            room, ann = await own.room(), await own.person("ann")
            role = await own.chat()
            async with role.join(room, ann.bearer) as speaker:
                await speaker.say("before", nonce="1")
                await speaker.until("accepted")
                await asyncio.to_thread(server.stop)
                assert "store" in await role.reasons()
                await speaker.say("meanwhile", nonce="2")
                assert (await speaker.until("refused"))["reason"] == "unavailable"
                assert (await refused(role, room, ann.bearer))["code"] == "unavailable"
                await asyncio.to_thread(server.start)
                await role.all_well()
                await accepted_at_last(speaker)

            async def joined() -> list[str] | None:
                try:
                    async with role.join(room, ann.bearer, query="?after=0") as viewer:
                        return await heard(viewer, 2)
                except (InvalidStatus, ConnectionClosed):
                    return None

            assert await until(joined) == ["before", "let me"]
