"""Chat over real WebSockets: who may join, what is said, what is missed and made good, and what a bad client gets."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from domain.channel import ChatMode, ChatModeChanged
from domain.chat import ChatCleared, MessageDeleted, MessagePosted, UserBanned, UserTimedOut
from domain.event import Event
from eventstore.memory import MemoryStore
from eventstore.port import Append, Appended, ChatPost, IndexWrite, StreamWrite
from gateways.chat import frames, server
from gateways.chat.pod import SWEEP_S, Standing
from gateways.chat.server import BAD_FRAMES_MAX, CLOSE_SESSION
from tests.eventstore.conveyor import until
from tests.gateways.chat.stand import EXPIRES_AT, ROOM_ID, Viewer, chat_stand, session_of


async def append(
    store: MemoryStore, *events: Event, stream: str = f"chat-{ROOM_ID}", index: tuple[IndexWrite, ...] = ()
) -> None:
    outcome = await store.append(Append(uuid4(), [StreamWrite(stream, ROOM_ID, events)], index))
    assert isinstance(outcome, Appended)


async def said(store: MemoryStore, user: str, text: str) -> None:
    event = MessagePosted(channel_id=ROOM_ID, message_id=text, author_id=f"a-{user}", username=user, text=text)
    outcome = await store.post_message(ChatPost(uuid4(), ROOM_ID, f"a-{user}", event, text.encode()))
    assert isinstance(outcome, Appended)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions are looked at all the time."""
    monkeypatch.setattr(server, "SESSIONS_LOOK_S", 0.02)


def banned(user: str) -> UserBanned:
    return UserBanned(channel_id=ROOM_ID, account_id=f"a-{user}", username=user, moderator_id="m", moderator="mod")


async def test_a_message_is_accepted_and_seen_by_all_in_its_place() -> None:
    async with chat_stand() as stand, stand.join("ann") as ann, stand.join() as anyone:
        welcome = await ann.frame()
        assert (welcome["type"], welcome["user"], welcome["position"]) == ("welcome", "ann", 0)
        assert (await anyone.frame())["user"] is None
        await ann.say("hello", nonce="n1")
        accepted = await ann.until("accepted")
        assert (accepted["nonce"], accepted["position"]) == ("n1", 1)
        (seen,) = await anyone.messages(1)
        assert (seen["text"], seen["user"], seen["position"], seen["id"]) == ("hello", "ann", 1, accepted["id"])
        assert datetime.fromisoformat(seen["at"]).tzinfo is not None


async def test_history_comes_on_joining_and_what_was_missed_on_coming_back() -> None:
    async with chat_stand() as stand:
        for number in range(1, 6):
            await said(stand.store, f"u{number}", f"m{number}")
        async with stand.join("ann") as ann:
            assert (await ann.frame())["position"] == 5
            assert [item["text"] for item in await ann.messages(5)] == ["m1", "m2", "m3", "m4", "m5"]
        await said(stand.store, "u6", "m6")
        async with stand.join("ann", after=3) as back:
            await back.frame()
            assert [item["position"] for item in await back.messages(3)] == [4, 5, 6]
            await said(stand.store, "u7", "m7")
            assert [item["text"] for item in await back.messages(1)] == ["m7"]


async def test_what_came_while_kafka_was_coming_back_is_seen_soon() -> None:
    async with chat_stand() as stand, stand.join() as reader, asyncio.timeout(SWEEP_S - 1):
        stand.feed.carries.clear()
        stand.feed.healthy = False
        await said(stand.store, "u1", "while it was away")
        assert [item["text"] for item in await reader.messages(1)] == ["while it was away"]
        await said(stand.store, "u2", "before its new beginning")
        stand.feed.healthy = True
        assert [item["text"] for item in await reader.messages(1)] == ["before its new beginning"]


async def test_the_same_nonce_twice_is_one_message_even_after_a_reconnect() -> None:
    async with chat_stand() as stand:
        answers = []
        for _ in range(2):
            async with stand.join("ann") as ann:
                await ann.say("once", nonce="n1")
                answers.append(await ann.until("accepted"))
        assert answers[0] == answers[1]
        assert len(await stand.store.read_stream(f"chat-{ROOM_ID}")) == 1


async def test_who_writes_too_fast_is_told_how_long_to_wait() -> None:
    async with chat_stand() as stand, stand.join("ann") as ann:
        await ann.say("one", nonce="1")
        await ann.until("accepted")
        await ann.say("two", nonce="2")
        refused = await ann.until("refused")
        assert (refused["nonce"], refused["reason"]) == ("2", "rate_limited")
        assert 0 < refused["wait_s"] <= 1


async def test_a_reader_without_a_name_may_not_write() -> None:
    async with chat_stand() as stand, stand.join() as anyone:
        await anyone.say("hello", nonce="n")
        assert (await anyone.until("refused"))["reason"] == "login_required"
        assert await stand.store.read_stream(f"chat-{ROOM_ID}") == []


async def test_moderation_reaches_screens_and_what_was_removed_is_sent_to_nobody_later() -> None:
    async with chat_stand() as stand, stand.join() as anyone:
        await anyone.frame()
        for user in ("ann", "bob", "eve"):
            await said(stand.store, user, f"by {user}")
        assert len(await anyone.messages(3)) == 3
        deleted = MessageDeleted(
            channel_id=ROOM_ID,
            message_id="by ann",
            author_id="a-ann",
            username="ann",
            moderator_id="m",
            moderator="mod",
        )
        await append(stand.store, deleted)
        assert (await anyone.until("deleted"))["id"] == "by ann"
        timeout = UserTimedOut(
            channel_id=ROOM_ID, account_id="a-bob", username="bob", until=datetime.now(UTC) + timedelta(60),
            duration_s=60, moderator_id="m", moderator="mod",
        )  # fmt: skip
        await append(stand.store, timeout)
        assert (await anyone.until("timeout"))["user"] == "bob"
        ban = IndexWrite("chat_bans", {"channel_id": ROOM_ID, "account_id": "a-eve"}, {"until": None})
        await append(stand.store, banned("eve"), index=(ban,))
        assert (await anyone.until("banned"))["user"] == "eve"
        async with stand.join("eve") as eve:
            await eve.say("still here?", nonce="n")
            assert (await eve.until("refused"))["reason"] == "banned"
        await said(stand.store, "zoe", "after all that")
        async with stand.join() as later:
            assert [item["text"] for item in await later.messages(1)] == ["after all that"]
        await append(stand.store, ChatCleared(channel_id=ROOM_ID, moderator_id="m", moderator="mod"))
        await anyone.until("cleared")


async def test_a_changed_mode_is_announced_and_enforced() -> None:
    async with chat_stand() as stand, stand.join("ann") as ann:
        await ann.frame()
        mode = ChatMode(subscribers_only=True)
        row = IndexWrite("chat_modes", {"channel_id": ROOM_ID}, mode.model_dump())
        changed = ChatModeChanged(channel_id=ROOM_ID, mode=mode)
        await append(stand.store, changed, stream=f"channel-{ROOM_ID}", index=(row,))
        announced = await ann.until("mode")
        assert announced["mode"]["subscribers_only"] is True
        await ann.say("let me in", nonce="1")
        assert (await ann.until("refused"))["reason"] == "subscribers_only"
        stand.standings.of["a-ann"] = Standing(badges=("subscriber",), subscriber=True)
        await ann.say("now?", nonce="2")
        await ann.until("accepted")
        (seen,) = await ann.messages(1)
        assert seen["badges"] == ["subscriber"]


async def test_what_kafka_loses_is_read_from_the_store() -> None:
    async with chat_stand() as stand, stand.join("ann") as ann, stand.join() as anyone:
        await anyone.frame()
        stand.feed.carries.clear()
        await ann.say("lost on the way", nonce="n")
        await ann.until("accepted")
        (seen,) = await anyone.messages(1)
        assert seen["text"] == "lost on the way"
        stand.feed.healthy = False
        await said(stand.store, "bob", "the broker is away")
        assert (await anyone.messages(1))[0]["text"] == "the broker is away"
        stand.feed.carries.set()
        stand.feed.healthy = True
        await said(stand.store, "zoe", "once only")
        assert [item["position"] for item in await anyone.messages(1)] == [3]


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/ws/chat/nobody", {}, 404, "channel_not_found"),
        ("/ws/elsewhere", {}, 404, "not_found"),
        ("/ws/chat/room?after=-1", {}, 400, "after_invalid"),
        ("/ws/chat/room?after=99999999999999999999", {}, 400, "after_invalid"),
        ("/ws/chat/room", {"Authorization": "Bearer bad"}, 401, "token_invalid"),
        ("/ws/chat/room?ticket=bad", {}, 401, "token_invalid"),
    ],
)
async def test_a_join_that_cannot_be_is_a_problem_before_the_upgrade(
    path: str, headers: dict[str, str], status: int, code: str
) -> None:
    async with chat_stand() as stand:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{stand.port}{path}", additional_headers=headers)
        assert refused.value.response.status_code == status
        assert refused.value.response.headers["Content-Type"] == "application/problem+json"
        assert orjson.loads(refused.value.response.body or b"")["code"] == code


async def test_bad_frames_are_answered_and_then_the_door_is_closed() -> None:
    async with chat_stand() as stand, stand.join("ann") as ann:
        await ann.frame()
        for raw in ("{", "[]", '{"type":"nonsense"}', '{"type":"message"}', '{"type":"message","text":7}'):
            await ann.socket.send(raw)
            assert (await ann.frame())["type"] == "error"
        await ann.say("x" * 501, nonce="long")
        refused = await ann.frame()
        assert (refused["type"], refused["reason"], refused["nonce"]) == ("refused", "text_invalid", "long")
        for _ in range(BAD_FRAMES_MAX):
            await ann.socket.send("{")
        with pytest.raises(ConnectionClosed) as closed:
            await ann.until("never")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4100


async def test_a_frame_larger_than_any_message_is_said_to_be_and_closes_the_connection() -> None:
    async with chat_stand() as stand, stand.join("ann") as ann:
        await ann.frame()
        await ann.socket.send("x" * (frames.FRAME_BYTES_MAX + 1))
        error = await ann.frame()
        assert (error["type"], error["code"]) == ("error", "frame_too_large")
        with pytest.raises(ConnectionClosed) as closed:
            await ann.frame()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


async def dismissed(viewer: Viewer, code: str) -> None:
    """Told why, and then closed with a code that asks to come back."""
    assert (await viewer.until("error"))["code"] == code
    with pytest.raises(ConnectionClosed) as closed:
        await viewer.frame()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (CLOSE_SESSION, code)


async def test_who_logs_out_is_shown_out_of_open_rooms_and_nobody_else(soon: None) -> None:
    async with chat_stand() as stand, stand.join("ann") as ann, stand.join("bob") as bob, stand.join() as anyone:
        stand.door.ended.add(session_of("ann"))
        await dismissed(ann, "session_ended")
        await bob.say("still here", nonce="n")
        await bob.until("accepted")
        assert [item["text"] for item in await anyone.messages(1)] == ["still here"]


async def test_a_socket_ends_with_its_token_and_a_strangers_does_not(soon: None) -> None:
    async with chat_stand() as stand, stand.join("ann") as ann, stand.join() as anyone:
        stand.now = EXPIRES_AT
        await dismissed(ann, "token_expired")
        await anyone.socket.send('{"type":"ping"}')
        await anyone.until("pong")


async def test_an_address_has_so_many_connections_and_no_more() -> None:
    one, other = "203.0.113.7", "203.0.113.8"
    # Three come from the front itself, which is nobody's address.
    async with chat_stand(per_address_max=2) as stand, stand.join(), stand.join(), stand.join():
        async with stand.join(behind=one), stand.join(behind=one), stand.join(behind=other):
            with pytest.raises(InvalidStatus) as refused:
                async with stand.join(behind=f"made up, {one}"):
                    raise AssertionError("it let them in")
        assert refused.value.response.status_code == 429
        assert orjson.loads(refused.value.response.body or b"")["code"] == "too_many_connections"
        assert refused.value.response.headers["Retry-After"]

        async def there_is_room_again() -> bool:
            try:
                async with stand.join(behind=one):
                    return True
            except InvalidStatus:
                return False

        await until(there_is_room_again)


async def test_a_reader_who_does_not_read_is_cut_off_and_holds_nobody_up() -> None:
    async with chat_stand() as stand, stand.join() as reader:
        _, writer = await asyncio.open_connection("127.0.0.1", stand.port, limit=1024)
        writer.write(
            b"GET /ws/chat/room HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await writer.drain()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await reader.frame()
        count = 0
        while stand.pod.members_of(ROOM_ID) != 1 or not count:
            for _ in range(40):
                count += 1
                await said(stand.store, f"u{count}", f"{count} " + "x" * 490)
            await reader.messages(40)
            assert count < 40_000
        writer.close()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=st.binary(max_size=300) | st.text(max_size=300))
async def test_whatever_a_client_sends_it_gets_a_frame_or_a_close_and_nothing_is_written(raw: bytes | str) -> None:
    async with chat_stand() as stand, stand.join("ann") as ann:
        await ann.frame()
        await ann.socket.send(raw)
        await ann.socket.send('{"type":"ping"}')
        try:
            kinds = {(await ann.frame())["type"] for _ in range(2)}
        except ConnectionClosed:
            kinds = {"error"}
        assert kinds <= {"error", "pong", "refused"}
        assert await stand.store.read_stream(f"chat-{ROOM_ID}") == []
