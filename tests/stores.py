"""Stores for tests: the in-memory one, wired as the gateways wire the durable one."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from domain import chat_admission
from domain.channel import ChatMode
from domain.topics import EVENTS
from eventstore.keys import MemoryKeys, PersonalKeys
from eventstore.mapper import EventMapper
from eventstore.memory import MemoryStore
from eventstore.port import ChatPost, Refused


def admit(
    post: ChatPost,
    *,
    now: datetime,
    ban: Mapping[str, Any] | None,
    mode: Mapping[str, Any] | None,
    role: str | None,
    last_at: datetime | None,
    last_digest: bytes | None,
) -> Refused | None:
    """The domain's rule, over the rows of the index tables."""
    refusal = chat_admission.admit(
        chat_admission.Post(post.text_digest, post.emote_only_text, post.following_since, post.subscriber),
        now=now,
        ban=None if ban is None else chat_admission.Ban(ban["until"]),
        mode=ChatMode() if mode is None else ChatMode.model_validate(mode),
        trusted=role is not None,
        last=None if last_at is None or last_digest is None else chat_admission.LastPost(last_at, last_digest),
    )
    return None if refusal is None else Refused(refusal.reason, refusal.wait_s)


def memory_store(
    *, keys: PersonalKeys | None = None, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> MemoryStore:
    return MemoryStore(EventMapper(EVENTS, keys or MemoryKeys()), admit, clock=clock)
