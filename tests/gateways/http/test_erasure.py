"""A person who was erased is shown by no query, and what they wrote, or was written about them, stands in no row."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from domain import broadcast, recording
from domain.broadcast import BroadcastStarted
from domain.chat import MessagePosted
from eventstore.port import Append, Appended, ChatPost, StreamWrite
from projections import forgetting
from tests.gateways.http.conftest import Person, Stand

SECRET = "my street is Elm Street"
REASON = "says where bob lives"


async def say(stand: Stand, channel_id: str, who: Person, text: str) -> datetime:
    event = MessagePosted(
        channel_id=channel_id, message_id=str(uuid4()), author_id=who.account_id, username=who.name, text=text
    )
    outcome = await stand.services.store.post_message(
        ChatPost(uuid4(), channel_id, who.account_id, event, text.encode())
    )
    assert isinstance(outcome, Appended)
    return outcome.at


async def on_air(stand: Stand, channel_id: str, at: datetime) -> str:
    """A broadcast whose recording holds the minute around a moment."""
    broadcast_id = str(uuid4())
    started = BroadcastStarted(
        broadcast_id=broadcast_id, channel_id=channel_id, title="", category="", started_at=at, node="media-1"
    )
    segment = recording.SegmentsRecorded(
        broadcast_id=broadcast_id, channel_id=channel_id, number=0, program_date_time=at - timedelta(seconds=30),
        offset_s=0.0, duration_s=60.0, objects=(),
    )  # fmt: skip
    for stream, event in ((broadcast.stream(broadcast_id), started), (recording.stream(broadcast_id), segment)):
        outcome = await stand.services.store.append(Append(uuid4(), [StreamWrite(stream, channel_id, [event])]))
        assert isinstance(outcome, Appended)
    return broadcast_id


async def test_what_an_erased_person_wrote_is_gone_from_history_replay_and_rows(stand: Stand) -> None:
    ann, bob, cat = [await stand.register(name) for name in ("ann", "bob", "cat")]
    name = await ann.open_channel()
    channel_id = (await ann.get(f"/channels/{name}"))["channel_id"]
    broadcast_id = await on_air(stand, channel_id, datetime.now(UTC))
    # A moderator's reason is about a person, and theirs to have erased.
    body = {"username": bob.name, "duration_s": 1, "reason": REASON}
    assert (await ann.ask("POST", f"/channels/{name}/bans", body)).status_code == 201
    assert (await ann.ask("DELETE", f"/channels/{name}/bans/{bob.name}")).status_code == 204
    assert REASON in str(await ann.get(f"/channels/{name}/moderation-log"))
    await say(stand, channel_id, bob, SECRET)
    await say(stand, channel_id, cat, "hello")
    ann.position = (await ann.ask("PATCH", f"/channels/{name}/chat-mode", {"slow_s": 1})).headers["Tallylight-Position"]
    paths = (f"/channels/{name}/chat", f"/broadcasts/{broadcast_id}/chat")
    for path in paths:
        assert [item["text"] for item in (await ann.get(path))["items"]] == [SECRET, "hello"]

    assert (await bob.ask("DELETE", "/accounts/me")).status_code == 204
    ann.position = bob.position
    for path in paths:
        assert [item["text"] for item in (await ann.get(path))["items"]] == ["hello"]
    log = await ann.get(f"/channels/{name}/moderation-log")
    assert "timeout" in [entry["action"] for entry in log["items"]]
    assert REASON not in str(log)

    await forgetting.forget(stand.services.pool, late_s=60.0)
    for table, column in (("p_chat_log.messages", "text"), ("p_moderation.entries", "reason")):
        rows = await stand.services.pool.fetch(
            f"SELECT {column} AS told FROM {table} WHERE channel_id = $1", channel_id
        )
        told = {row["told"] for row in rows}
        assert "[erased]" in told
        assert not told & {SECRET, REASON}


async def test_the_log_itself_no_longer_says_why_an_erased_person_was_silenced(stand: Stand) -> None:
    ann, bob = await stand.register("ann"), await stand.register("bob")
    name = await ann.open_channel()
    channel_id = (await ann.get(f"/channels/{name}"))["channel_id"]
    await ann.ask("POST", f"/channels/{name}/bans", {"username": bob.name, "reason": REASON})
    stream = f"chat-{channel_id}"
    (before,) = await stand.services.store.read_stream(stream)
    assert before.event.reason == REASON
    stored = await stand.services.pool.fetchval("SELECT state FROM events WHERE stream = $1", stream)
    assert REASON.encode() not in stored
    assert (await bob.ask("DELETE", "/accounts/me")).status_code == 204
    (after,) = await stand.services.store.read_stream(stream)
    assert after.event.reason == "[erased]"
