"""A room turns recorded events into frames, in position order, whatever was removed meanwhile."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from domain import chat
from domain.channel import ChatMode
from domain.event import Event
from eventstore.port import Recorded
from gateways.chat.room import LOG_MAX, Room, entry, tick_s

AT = datetime(2026, 1, 1, tzinfo=UTC)


def recorded(version: int, event: Event) -> Recorded:
    return Recorded(
        stream="chat-c1", version=version, shard=0, position=version, topic=event.TOPIC, category="chat",
        at=AT + timedelta(seconds=version), actor=None, command_id=None, correlation_id=None, causation_id=None, event=event,
    )  # fmt: skip


def said(version: int, user: str = "alice") -> Recorded:
    posted = chat.MessagePosted(
        channel_id="c1", message_id=f"m{version}", author_id=user, username=user, text=f"text {version}"
    )
    return recorded(version, posted)


def moderated(kind: Callable[..., Event], version: int, **fields: Any) -> Recorded:
    return recorded(version, kind(channel_id="c1", moderator_id="m", moderator="mod", **fields))


def decoded(payloads: list[bytes] | None) -> list[dict[str, Any]]:
    assert payloads is not None
    return [orjson.loads(payload) for payload in payloads]


def ids(payloads: list[bytes] | None) -> list[str]:
    return [item["id"] for frame in decoded(payloads) if frame["type"] == "messages" for item in frame["items"]]


def test_messages_of_one_tick_share_a_frame() -> None:
    room = Room("c1", "lamp")
    room.apply([said(1), said(2)])
    (frame,) = decoded(room.flush())
    assert frame["type"] == "messages"
    assert [(i["id"], i["position"], i["user"], i["text"]) for i in frame["items"]] == [
        ("m1", 1, "alice", "text 1"),
        ("m2", 2, "alice", "text 2"),
    ]
    assert frame["items"][0]["at"] == "2026-01-01T00:00:01Z"
    assert not room.pending
    assert room.flush() == []


def test_a_repeat_is_passed_over() -> None:
    room = Room("c1", "lamp")
    room.apply([said(1)])
    room.flush()
    room.apply([said(1)])
    assert not room.pending


def test_a_gap_is_a_fault_of_the_caller() -> None:
    room = Room("c1", "lamp")
    with pytest.raises(ValueError, match="at 0 was given 2"):
        room.apply([said(2)])


def test_frames_keep_position_order_around_moderation() -> None:
    room = Room("c1", "lamp")
    room.apply([said(1), moderated(chat.MessageDeleted, 2, message_id="m0", author_id="x", username="x"), said(3)])
    assert [f["type"] for f in decoded(room.flush())] == ["messages", "deleted", "messages"]


def test_a_message_deleted_before_it_was_sent_is_never_sent() -> None:
    room = Room("c1", "lamp")
    room.apply([said(1), moderated(chat.MessageDeleted, 2, message_id="m1", author_id="alice", username="alice")])
    assert [f["type"] for f in decoded(room.flush())] == ["deleted"]


def test_who_joins_after_a_ban_sees_nothing_of_the_banned() -> None:
    room = Room("c1", "lamp")
    room.apply(
        [said(1, "troll"), said(2, "alice"), moderated(chat.UserBanned, 3, account_id="troll", username="troll")]
    )
    assert ids(room.recent()) == ["m2"]
    assert ids(room.since(0)) == ["m2"]


def test_who_joins_after_a_clear_sees_an_empty_room() -> None:
    room = Room("c1", "lamp")
    room.apply([said(1), moderated(chat.ChatCleared, 2), said(3)])
    assert ids(room.recent()) == ["m3"]


def test_a_room_opened_on_a_tail_answers_from_its_first_position_on() -> None:
    room = Room("c1", "lamp", tail=[said(41), said(42)])
    assert room.position == 42
    assert not room.pending
    assert ids(room.since(40)) == ["m41", "m42"]
    assert room.since(39) is None


def test_what_is_older_than_the_log_must_come_from_the_store() -> None:
    room = Room("c1", "lamp")
    room.apply([said(v) for v in range(1, LOG_MAX + 3)])
    assert room.since(1) is None
    assert ids(room.since(2)) == [f"m{v}" for v in range(3, LOG_MAX + 3)]


def test_more_messages_in_a_tick_than_the_log_holds_are_all_sent() -> None:
    room = Room("c1", "lamp")
    room.apply([said(v) for v in range(1, 2 * LOG_MAX)])
    assert len(ids(room.flush())) == 2 * LOG_MAX - 1


def test_a_mode_is_told_once() -> None:
    room = Room("c1", "lamp")
    room.set_mode(ChatMode(slow_s=30))
    room.set_mode(ChatMode(slow_s=30))
    (frame,) = decoded(room.flush())
    assert frame == {"type": "mode", "mode": ChatMode(slow_s=30).model_dump()}


def test_the_tick_widens_with_the_room() -> None:
    assert tick_s(10) < tick_s(1000) < tick_s(5000) <= tick_s(100_000)


def test_what_was_missed_is_sent_without_what_was_removed_since() -> None:
    room = Room("c1", "lamp", tail=[said(40), moderated(chat.UserBanned, 41, account_id="troll", username="troll")])
    room.apply([moderated(chat.MessageDeleted, 42, message_id="m2", author_id="alice", username="alice"), said(43)])
    missed = [entry(one) for one in (said(1, "troll"), said(2), said(3))]
    missed += [entry(moderated(chat.MessageDeleted, 4, message_id="m3", author_id="alice", username="alice"))]
    missed += [entry(said(v)) for v in range(5, 8)]
    assert ids(room.resume(missed)) == ["m5", "m6", "m7", "m40", "m43"]


def test_what_was_missed_before_a_clear_is_not_sent() -> None:
    room = Room("c1", "lamp", tail=[said(40), moderated(chat.ChatCleared, 41), said(42)])
    frames = decoded(room.resume([entry(said(v)) for v in range(30, 40)]))
    assert [frame["type"] for frame in frames] == ["cleared", "messages"]
    assert ids(room.resume([entry(said(39))])) == ["m42"]


def test_an_erased_persons_messages_leave_the_room_and_its_members_are_told() -> None:
    room = Room("c1", "lamp", tail=[said(1, "bob"), said(2)])
    room.apply([said(3, "bob")])
    assert room.authors == {"alice", "bob"}
    room.forget("bob")
    assert decoded(room.flush()) == [{"type": "erased", "user": "bob"}]
    assert ids(room.recent()) == ids(room.since(0)) == ["m2"]
    assert room.authors == {"alice"}
    assert "text 1" not in repr(vars(room))
