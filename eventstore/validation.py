"""What every store refuses before anything is written: commands that no correct caller sends. Faults, not outcomes.

One bad value (a NUL in a text, a number out of range) would fail a whole group commit, so it is found before a command joins one.
"""

from typing import Final

from eventstore import index
from eventstore.errors import StoreError
from eventstore.port import EVENTS_PER_APPEND_MAX, Append, ChatPost

NAME_CHARS_MAX: Final = 200
STATE_BYTES_MAX: Final = 256 * 1024
"""The largest stored state of one event."""


class InvalidAppend(StoreError):
    """The command cannot be written, however often it is sent."""


def check_append(append: Append) -> None:
    count = sum(len(write.events) for write in append.writes)
    if not append.writes or any(not write.events for write in append.writes):
        raise InvalidAppend("a write without events")
    if count > EVENTS_PER_APPEND_MAX:
        raise InvalidAppend(f"{count} events in one command, at most {EVENTS_PER_APPEND_MAX}")
    streams = [write.stream for write in append.writes]
    if len(set(streams)) != len(streams):
        raise InvalidAppend("a stream written twice in one command")
    for stream in streams:
        _check_name(stream)
    if append.actor is not None:
        _check_name(append.actor)
    for row in append.index:
        index.check(row.table, row.key, row.values)


def check_post(post: ChatPost) -> None:
    _check_name(post.channel_id)
    _check_name(post.author_id)


def check_state(topic: str, state: bytes) -> None:
    if len(state) > STATE_BYTES_MAX:
        raise InvalidAppend(f"{topic}: {len(state)} bytes of state, at most {STATE_BYTES_MAX}")


def _check_name(name: str) -> None:
    if not 0 < len(name) <= NAME_CHARS_MAX or "\x00" in name:
        raise InvalidAppend(f"not a name for a stream or an actor: {name[:50]!r}")
