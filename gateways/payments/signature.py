"""How a provider's webhook proves itself: `t=<unix seconds>,v1=<hex HMAC-SHA-256 of "<t>.<body>">`, as Stripe's do.

Used by the sandbox, which signs, and by `gateways.http.webhooks`, which verifies.
"""

import hmac
from hashlib import sha256
from typing import Final

HEADER: Final = "Tallylight-Signature"
AGE_S_MAX: Final = 300
"""Older than this it may be somebody's recording."""
_CHARS_MAX: Final = 200


def sign(secret: str, body: bytes, *, now_s: int) -> str:
    return f"t={now_s},v1={_digest(secret, str(now_s), body)}"


def verify(secret: str, header: str | None, body: bytes, *, now_s: float) -> bool:
    if not header or len(header) > _CHARS_MAX:
        return False
    fields = dict(field.split("=", 1) for field in header.split(",") if "=" in field)
    at, given = fields.get("t", ""), fields.get("v1", "")
    if not (at.isascii() and at.isdigit()) or abs(now_s - int(at)) > AGE_S_MAX:
        return False
    return hmac.compare_digest(given.encode(), _digest(secret, at, body).encode())


def _digest(secret: str, at: str, body: bytes) -> str:
    return hmac.new(b"webhook:" + secret.encode(), f"{at}.".encode() + body, sha256).hexdigest()
