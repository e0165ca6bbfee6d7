"""The AsyncAPI 3.0 description of chat's WebSocket, served as `GET /asyncapi.json`. Requests come from the models that parse them."""

from typing import Any, Final

from gateways.chat.frames import Ping, PostMessage

Json = dict[str, Any]

_TEXT: Final[Json] = {"type": "string"}
_NULLABLE_TEXT: Final[Json] = {"type": ["string", "null"]}
_POSITION: Final[Json] = {"type": "integer", "description": "Dense version of the room's stream; only rises."}
_INSTANT: Final[Json] = {"type": "string", "format": "date-time"}
_MODE: Final[Json] = {
    "type": "object",
    "properties": {
        "slow_s": {"type": "integer"},
        "followers_only_min": {"type": ["integer", "null"]},
        "subscribers_only": {"type": "boolean"},
        "emote_only": {"type": "boolean"},
        "unique": {"type": "boolean"},
    },
}
_ITEM: Final[Json] = {
    "type": "object",
    "required": ["id", "position", "user", "text", "badges", "at"],
    "properties": {
        "id": _TEXT,
        "position": _POSITION,
        "user": _TEXT,
        "text": _TEXT,
        "badges": {"type": "array", "items": _TEXT},
        "at": _INSTANT,
        "reply_to": _NULLABLE_TEXT,
    },
}

_SENT: Final[dict[str, tuple[str, Json]]] = {
    "welcome": (
        "First frame of every connection.",
        {
            "channel": _TEXT,
            "position": _POSITION,
            "user": _NULLABLE_TEXT,
            "badges": {"type": "array", "items": _TEXT},
            "mode": _MODE,
        },
    ),
    "messages": ("Messages, in position order.", {"items": {"type": "array", "items": _ITEM}}),
    "accepted": ("Your message is durable.", {"nonce": _NULLABLE_TEXT, "id": _TEXT, "position": _POSITION}),
    "refused": (
        "Your message was not admitted; `wait_s` where waiting helps.",
        {"nonce": _NULLABLE_TEXT, "reason": _TEXT, "wait_s": {"type": ["number", "null"]}},
    ),
    "deleted": ("A moderator removed one message.", {"position": _POSITION, "id": _TEXT, "by": _TEXT}),
    "timeout": (
        "A user may not write until then; their messages vanish.",
        {"position": _POSITION, "user": _TEXT, "until": _INSTANT, "duration_s": {"type": "integer"}, "by": _TEXT},
    ),
    "banned": ("A user may not write; their messages vanish.", {"position": _POSITION, "user": _TEXT, "by": _TEXT}),
    "unbanned": ("A ban or timeout was lifted.", {"position": _POSITION, "user": _TEXT, "by": _TEXT}),
    "cleared": ("All messages vanish.", {"position": _POSITION, "by": _TEXT}),
    "erased": ("A person erased their account; their messages vanish.", {"user": _TEXT}),
    "mode": ("The room's modes changed.", {"mode": _MODE}),
    "position": ("Something that needs no showing happened.", {"position": _POSITION}),
    "gap": ("Too much was missed: these positions stand in the history only.", {"from": _POSITION, "to": _POSITION}),
    "pong": ("Answers a ping.", {}),
    "error": ("Your frame was not understood.", {"code": _TEXT, "detail": _TEXT}),
}


def _message(name: str, summary: str, properties: Json) -> Json:
    payload = {"type": "object", "required": ["type"], "properties": {"type": {"const": name}, **properties}}
    return {"name": name, "summary": summary, "contentType": "application/json", "payload": payload}


def document() -> Json:
    sent = {name: _message(name, summary, properties) for name, (summary, properties) in _SENT.items()}
    received = {
        "message": {"name": "message", "summary": "Post a message.", "payload": PostMessage.model_json_schema()},
        "ping": {"name": "ping", "summary": "Ask for a pong.", "payload": Ping.model_json_schema()},
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Tallylight chat", "version": "1"},
        "channels": {
            "room": {
                "address": "/ws/chat/{channel}",
                "parameters": {"channel": {"description": "The channel's name."}},
                "messages": sent | received,
                "bindings": {
                    "ws": {
                        "query": {
                            "type": "object",
                            "properties": {
                                "after": {
                                    "type": "integer",
                                    "description": "Send first what was missed since this position.",
                                },
                                "ticket": {
                                    "type": "string",
                                    "description": "A one-use ticket of POST /api/v1/chat-tickets.",
                                },
                            },
                        }
                    }
                },
            }
        },
        "operations": {
            "read": _operation("send", sent),
            "write": _operation("receive", received),
        },
    }


def _operation(action: str, messages: Json) -> Json:
    references = [{"$ref": f"#/channels/room/messages/{name}"} for name in messages]
    return {"action": action, "channel": {"$ref": "#/channels/room"}, "messages": references}
