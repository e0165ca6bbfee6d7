"""Chat admission, the pure rule: who may write what, and what waiting helps. That the database decides alike is a test of the store."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.channel import ChatMode
from domain.chat_admission import COOLDOWN_S, UNIQUE_WINDOW_S, Ban, LastPost, Post, Refusal, admit
from tests import histories

NOW = datetime(2026, 1, 1, tzinfo=UTC)

ago = st.integers(0, 1_000_000).map(lambda ms: NOW - timedelta(milliseconds=ms))
about_now = st.integers(-900_000, 900_000).map(lambda ms: NOW + timedelta(milliseconds=ms))
posts = st.builds(
    Post,
    digest=st.sampled_from([b"same", b"other"]),
    emote_only_text=st.booleans(),
    following_since=st.none() | ago,
    subscriber=st.booleans(),
)
bans = st.none() | st.builds(Ban, st.none() | about_now)
lasts = st.none() | st.builds(LastPost, ago, st.sampled_from([b"same", b"other"]))
PLAIN = Post(b"same", emote_only_text=False, following_since=None, subscriber=False)


def asked(
    post: Post = PLAIN,
    *,
    ban: Ban | None = None,
    mode: ChatMode | None = None,
    trusted: bool = False,
    last: LastPost | None = None,
) -> str | None:
    """The refusal's code, or None where the message is admitted now."""
    refusal = admit(post, now=NOW, ban=ban, mode=mode or ChatMode(), trusted=trusted, last=last)
    return None if refusal is None else refusal.reason


def said(seconds_ago: float, digest: bytes = b"other") -> LastPost:
    return LastPost(NOW - timedelta(seconds=seconds_ago), digest)


@given(posts, bans, histories.modes, st.booleans(), lasts)
def test_who_waits_as_long_as_told_is_not_refused_for_that_reason_again(
    post: Post, ban: Ban | None, mode: ChatMode, trusted: bool, last: LastPost | None
) -> None:
    refusal = admit(post, now=NOW, ban=ban, mode=mode, trusted=trusted, last=last)
    if refusal is None or refusal.wait_s is None:
        return
    assert refusal.wait_s > 0
    later = NOW + timedelta(seconds=refusal.wait_s)
    then = admit(post, now=later, ban=ban, mode=mode, trusted=trusted, last=last)
    assert then is None or then.reason != refusal.reason


@given(posts, histories.modes, st.booleans(), lasts)
def test_nobody_is_exempt_from_a_ban_nor_from_the_platforms_cooldown(
    post: Post, mode: ChatMode, trusted: bool, last: LastPost | None
) -> None:
    assert admit(post, now=NOW, ban=Ban(None), mode=mode, trusted=trusted, last=last) == Refusal("banned")
    if last is not None and NOW - last.at < timedelta(seconds=COOLDOWN_S):
        assert admit(post, now=NOW, ban=None, mode=mode, trusted=trusted, last=last) is not None


@given(posts, bans, histories.modes, lasts)
def test_whoever_is_admitted_would_be_as_a_moderator(
    post: Post, ban: Ban | None, mode: ChatMode, last: LastPost | None
) -> None:
    if admit(post, now=NOW, ban=ban, mode=mode, trusted=False, last=last) is None:
        assert admit(post, now=NOW, ban=ban, mode=mode, trusted=True, last=last) is None


def test_a_timeout_ends_by_itself_at_its_time() -> None:
    assert asked(ban=Ban(NOW + timedelta(milliseconds=1))) == "timed_out"
    assert asked(ban=Ban(NOW)) is None


@pytest.mark.parametrize(
    ("mode", "fitting", "code"),
    [
        (ChatMode(subscribers_only=True), Post(b"same", False, None, True), "subscribers_only"),
        (ChatMode(emote_only=True), Post(b"same", True, None, False), "emote_only"),
        (
            ChatMode(followers_only_min=10),
            Post(b"same", False, NOW - timedelta(minutes=10), False),
            "followers_only",
        ),
    ],
)
def test_a_room_for_some_refuses_the_others_and_never_its_moderators(mode: ChatMode, fitting: Post, code: str) -> None:
    assert asked(mode=mode) == code
    assert asked(fitting, mode=mode) is None
    assert asked(mode=mode, trusted=True) is None


def test_slow_mode_and_the_platforms_cooldown_are_told_apart() -> None:
    slow = ChatMode(slow_s=30)
    assert asked(last=said(0.5)) == "rate_limited"
    assert asked(last=said(COOLDOWN_S)) is None
    assert asked(mode=slow, last=said(29)) == "slow_mode"
    assert asked(mode=slow, last=said(30)) is None
    assert asked(mode=slow, last=said(29), trusted=True) is None
    assert asked(mode=slow, last=said(0.5), trusted=True) == "rate_limited"


def test_a_room_of_unique_messages_refuses_ones_last_text_for_a_while() -> None:
    unique = ChatMode(unique=True)
    assert asked(mode=unique, last=said(UNIQUE_WINDOW_S - 1, b"same")) == "not_unique"
    assert asked(mode=unique, last=said(UNIQUE_WINDOW_S, b"same")) is None
    assert asked(mode=unique, last=said(5, b"other")) is None
