"""A room: what one pod knows of one channel's chat. Sans-IO: recorded events in, encoded frames out at each tick.

Called by `gateways.chat.pod`. It keeps the last messages for those who join, drops repeats by position, names gaps (which the pod
fills from the event store) and coalesces everything since the last tick into one frame, encoded once for all members.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby, takewhile
from typing import Final

from domain import chat
from domain.channel import ChatMode
from domain.event import ERASED
from eventstore.port import Recorded
from gateways.chat import frames
from gateways.chat.frames import Json

LOG_MAX: Final = 500
HISTORY_ON_JOIN: Final = 100
TICK_S_MIN: Final = 0.02
TICK_S_MAX: Final = 0.25


def tick_s(members: int) -> float:
    """How long a room of this size gathers messages before it writes.

    A frame costs ~9 µs a member whatever it holds (design §6), so the tick widens with the room: 50 ms at 1 K, 100 ms at 5 K.
    """
    if members <= 100:
        return TICK_S_MIN
    if members <= 1000:
        return 0.05
    return min(TICK_S_MAX, 0.1 * max(1.0, members / 5000))


class Room:
    def __init__(
        self, channel_id: str, name: str, *, tail: Sequence[Recorded] = (), mode: ChatMode | None = None
    ) -> None:
        """`tail`: the last events of the room's stream, up to its head."""
        self.channel_id = channel_id
        self.name = name
        self.stream = chat.stream(channel_id)
        self.position = tail[0].version - 1 if tail else 0
        self.mode = mode or ChatMode()
        self._log: deque[Json] = deque(maxlen=LOG_MAX)
        self._log_after = self.position
        self._pending: list[Json] = []
        self._mode_changed = False
        self.apply(tail)
        self._pending.clear()

    @property
    def pending(self) -> bool:
        return self._mode_changed or bool(self._pending)

    def apply(self, events: Sequence[Recorded]) -> None:
        """Take events of this room's stream in order; what it has already seen is passed over. The pod fills gaps first."""
        for recorded in events:
            if recorded.version <= self.position:
                continue
            if recorded.version != self.position + 1:
                raise ValueError(f"{self.stream} at {self.position} was given {recorded.version}")
            self.position = recorded.version
            self._take(recorded)

    def set_mode(self, mode: ChatMode) -> None:
        if mode != self.mode:
            self.mode = mode
            self._mode_changed = True

    def _take(self, recorded: Recorded) -> None:
        if len(self._log) == LOG_MAX:
            self._log_after = self._log[0]["position"]
        told = entry(recorded)
        for message in self._hidden_by(told):
            message["hidden"] = True
        self._log.append(told)
        self._pending.append(told)

    def _hidden_by(self, frame: Json) -> Iterator[Json]:
        """Who joins later must not be shown what moderators removed, nor may what still waits here show it."""
        messages = (m for m in self._log if "type" not in m)
        match frame.get("type"):
            case "deleted":
                yield from (m for m in messages if m["id"] == frame["id"])
            case "banned" | "timeout":
                yield from (m for m in messages if m["user"] == frame["user"])
            case "cleared":
                yield from messages
            case _:
                return

    def flush(self) -> list[bytes]:
        """All that came since the last flush, as encoded frames in position order: consecutive messages share one."""
        payloads = encode_entries(self._pending)
        if self._mode_changed:
            payloads.append(frames.encode(frames.mode(self.mode)))
        self._pending, self._mode_changed = [], False
        return payloads

    def since(self, after: int) -> list[bytes] | None:
        """Encoded frames of everything after a position, or None where it is older than this pod remembers."""
        if not self.remembers(after):
            return None
        return encode_entries(self._later(after))

    def remembers(self, after: int) -> bool:
        """Whether everything after a position stands in this memory."""
        return after >= self._log_after

    def resume(self, missed: list[Json]) -> list[bytes]:
        """Encoded frames of entries read from the store, which end where this memory begins or later, and of what came after them.

        What was removed by now is left out, whichever of the two holds the message and whichever its removal.
        """
        told = missed + self._later(missed[-1]["position"])
        hide_removed(told)
        return encode_entries(told)

    def _later(self, after: int) -> list[Json]:
        later = list(takewhile(lambda told: told["position"] > after, reversed(self._log)))
        return later[::-1]

    @property
    def authors(self) -> set[str]:
        """Whose messages those who join may be shown."""
        return users_of(self._log)

    def forget(self, user: str) -> None:
        """A person was erased: their messages leave this memory, and those who see them are told."""
        erase(self._log, {user})
        self._pending.append(frames.erased(user))

    def recent(self) -> list[bytes]:
        """The last messages, for one who joins."""
        shown = [m for m in self._log if "type" not in m and "hidden" not in m]
        return encode_entries(shown[-HISTORY_ON_JOIN:])


def users_of(entries: Iterable[Json]) -> set[str]:
    """The authors of the messages that are shown."""
    return {told["user"] for told in entries if "type" not in told and "hidden" not in told}


def erase(entries: Iterable[Json], users: Collection[str]) -> None:
    """Nothing is left of what these wrote."""
    for told in entries:
        if "type" not in told and told["user"] in users:
            told.update(hidden=True, text=ERASED)


def hide_removed(entries: Sequence[Json]) -> None:
    """Mark every message that a later entry removes."""
    deleted: set[str] = set()
    silenced: set[str] = set()
    cleared = False
    for told in reversed(entries):
        match told.get("type"):
            case None:
                if cleared or told["id"] in deleted or told["user"] in silenced:
                    told["hidden"] = True
            case "deleted":
                deleted.add(told["id"])
            case "banned" | "timeout":
                silenced.add(told["user"])
            case "cleared":
                cleared = True


def encode_entries(entries: Sequence[Json]) -> list[bytes]:
    """Log entries (message items, and frames with a `type`) as encoded frames, in order; hidden messages are left out."""
    payloads: list[bytes] = []
    for is_message, run in groupby(entries, key=lambda told: "type" not in told):
        if not is_message:
            payloads.extend(frames.encode(frame) for frame in run)
        elif shown := [message for message in run if "hidden" not in message]:
            payloads.append(frames.encode(frames.messages(shown)))
    return payloads


def entry(recorded: Recorded) -> Json:
    """A recorded event of the room's stream as a log entry, for what is read from the store instead of from memory."""
    return frames.item(recorded) if isinstance(recorded.event, chat.MessagePosted) else frames.moderation(recorded)
