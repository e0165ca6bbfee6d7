"""The JSON text frames of chat (design §9), Sans-IO: text in, typed requests or a typed error out; recorded facts in, frames out.

Every frame is one JSON object with a `type`. `position` is the dense version of the room's stream: it only rises, and a client
that reconnects with `after=<position>` misses nothing and gets nothing twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from domain import channel, chat
from eventstore.port import Recorded
from gateways.chat.text import bad_text

FRAME_BYTES_MAX: Final = 8 * 1024

Json = dict[str, Any]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PostMessage(_Request):
    """`nonce` is the client's own name for the message: sent again after a reconnect, it is not posted twice."""

    type: Literal["message"]
    text: str
    reply_to: Annotated[str, StringConstraints(max_length=64)] | None = None
    nonce: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None


class Ping(_Request):
    type: Literal["ping"]


Request = Annotated[PostMessage | Ping, Field(discriminator="type")]
_REQUESTS: Final[TypeAdapter[PostMessage | Ping]] = TypeAdapter(Request)


@dataclass(frozen=True, slots=True)
class BadFrame:
    """The client's frame is not one of ours; `detail` says why, in words for its developer."""

    code: Literal["frame_invalid", "frame_too_large", "frame_binary", "text_invalid"]
    detail: str
    nonce: str | None = None


def parse(raw: str | bytes) -> PostMessage | Ping | BadFrame:
    """One client frame as a request, or what is wrong with it. Never raises."""
    if isinstance(raw, bytes):
        return BadFrame("frame_binary", "Chat frames are JSON text frames.")
    if len(raw) > FRAME_BYTES_MAX:
        return BadFrame("frame_too_large", f"A frame has at most {FRAME_BYTES_MAX} characters.")
    try:
        request = _REQUESTS.validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return BadFrame("frame_invalid", f"{'.'.join(map(str, first['loc'])) or 'frame'}: {first['msg']}")
    if isinstance(request, PostMessage) and (bad := bad_text(request.text)):
        return BadFrame("text_invalid", bad, request.nonce)
    return request


def encode(frame: Json) -> bytes:
    return orjson.dumps(frame)


def welcome(*, room: str, position: int, user: str | None, badges: Sequence[str], mode: Json) -> Json:
    """First frame of every connection. `user` is None for a reader who may not write."""
    return {
        "type": "welcome",
        "channel": room,
        "position": position,
        "user": user,
        "badges": list(badges),
        "mode": mode,
    }


def accepted(*, nonce: str | None, message_id: str, position: int) -> Json:
    return {"type": "accepted", "nonce": nonce, "id": message_id, "position": position}


def refused(*, nonce: str | None, reason: str, wait_s: float | None = None) -> Json:
    return {"type": "refused", "nonce": nonce, "reason": reason, "wait_s": wait_s}


def error(code: str, detail: str) -> Json:
    return {"type": "error", "code": code, "detail": detail}


def gap(first: int, last: int) -> Json:
    """Positions that were not sent because too much was missed; history over HTTP has them."""
    return {"type": "gap", "from": first, "to": last}


def messages(items: Sequence[Json]) -> Json:
    return {"type": "messages", "items": list(items)}


def item(recorded: Recorded) -> Json:
    """A `MessagePosted` as readers see it."""
    posted = recorded.event
    assert isinstance(posted, chat.MessagePosted)
    return {
        "id": posted.message_id,
        "position": recorded.version,
        "user": posted.username,
        "text": posted.text,
        "badges": list(posted.badges),
        "at": _instant(recorded.at),
        "reply_to": posted.reply_to,
    }


def moderation(recorded: Recorded) -> Json:
    """The frame of a moderation event of the room's stream; an event readers need not see is a bare `position`."""
    position = recorded.version
    match recorded.event:
        case chat.MessageDeleted(message_id=message_id, moderator=by):
            return {"type": "deleted", "position": position, "id": message_id, "by": by}
        case chat.UserTimedOut(username=user, until=until, duration_s=duration_s, moderator=by):
            return {
                "type": "timeout", "position": position, "user": user, "until": _instant(until),
                "duration_s": duration_s, "by": by,
            }  # fmt: skip
        case chat.UserBanned(username=user, moderator=by):
            return {"type": "banned", "position": position, "user": user, "by": by}
        case chat.UserUnbanned(username=user, moderator=by):
            return {"type": "unbanned", "position": position, "user": user, "by": by}
        case chat.ChatCleared(moderator=by):
            return {"type": "cleared", "position": position, "by": by}
        case _:
            return {"type": "position", "position": position}


def erased(user: str) -> Json:
    """A person's account was erased: everything they wrote vanishes. No fact of the room, hence without a position."""
    return {"type": "erased", "user": user}


def mode(value: channel.ChatMode) -> Json:
    return {"type": "mode", "mode": value.model_dump()}


def _instant(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
