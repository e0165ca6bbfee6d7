"""Every refusal and fault there is, mapped once: its HTTP status. A test proves the table total over the codes in the source.

The body is RFC 9457 problem+json with a stable `code`. Chat answers the same codes in `refused` frames.
"""

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import JSONResponse

from domain.shared import Refusal

STATUS: Final[Mapping[str, int]] = {
    # the request itself
    "bad_request": 400,
    "position_invalid": 400,
    "cursor_invalid": 400,
    "idempotency_key_required": 400,
    "idempotency_key_invalid": 400,
    "unauthenticated": 401,
    "credentials_invalid": 401,
    "session_ended": 401,
    "signature_invalid": 401,
    "payment_declined": 402,
    "forbidden": 403,
    "cross_site": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "body_too_large": 413,
    "media_type_unsupported": 415,
    "invalid": 422,
    "too_many_attempts": 429,
    "internal": 500,
    "unavailable": 503,
    # accounts and names
    "account_not_found": 404,
    "name_invalid": 422,
    "name_reserved": 422,
    "name_taken": 409,
    "role_unknown": 422,
    "last_admin": 409,
    # channels and broadcasts
    "channel_not_found": 404,
    "broadcast_not_found": 404,
    "broadcast_live": 409,
    "recording_not_ready": 409,
    "clip_not_found": 404,
    "clip_range_invalid": 422,
    "stream_key_told": 409,
    "subscription_required": 403,
    "already_owner": 409,
    "too_many_moderators": 409,
    "conflict": 409,
    # chat and moderation
    "cannot_ban_self": 403,
    "cannot_ban_owner": 403,
    "cannot_ban_moderator": 403,
    "duration_invalid": 422,
    "message_not_found": 404,
    "banned": 403,
    "timed_out": 403,
    "subscribers_only": 403,
    "followers_only": 403,
    "emote_only": 403,
    "not_unique": 409,
    "rate_limited": 429,
    "slow_mode": 429,
    # money
    "own_channel": 409,
    "already_subscribed": 409,
    "tier_unknown": 422,
    "currency_unknown": 422,
    "subscription_not_found": 404,
    "payment_not_found": 404,
    "payment_unsettled": 503,
}
_TITLES: Final[Mapping[int, str]] = {
    400: "Bad request", 401: "Not logged in", 402: "Payment declined", 403: "Not allowed", 404: "Not found",
    405: "Method not allowed", 409: "Conflict", 413: "Too large", 415: "Not JSON", 422: "Invalid", 429: "Too many requests",
    500: "Internal error", 503: "Away for a moment",
}  # fmt: skip
RETRY_S: Final = 1


class Problem(Exception):
    """Answers the request with a problem; raised by endpoints and what they depend on."""

    def __init__(self, code: str, detail: str, *, wait_s: float | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.wait_s = wait_s
        self.more = more

    @classmethod
    def of(cls, refusal: Refusal) -> "Problem":
        return cls(refusal.code, refusal.detail, wait_s=refusal.wait_s)

    def response(self) -> JSONResponse:
        status = STATUS[self.code]
        headers = {"Cache-Control": "no-store"}
        if status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="tallylight"'
        if status in (429, 503):
            headers["Retry-After"] = str(max(RETRY_S, round(self.wait_s or 0)))
        body = {
            "type": "about:blank",
            "title": _TITLES[status],
            "status": status,
            "code": self.code,
            "detail": self.detail,
            **({} if self.wait_s is None else {"wait_s": self.wait_s}),
            **self.more,
        }
        return JSONResponse(body, status, headers, media_type="application/problem+json")
