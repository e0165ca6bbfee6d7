"""Values that several streams speak of: ids, money, names and refusals."""

import re
from dataclasses import dataclass
from typing import Annotated, Final, NewType

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

AccountId = NewType("AccountId", str)
ChannelId = NewType("ChannelId", str)
BroadcastId = NewType("BroadcastId", str)

Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]

NAME_PATTERN: Final = re.compile(r"[a-z0-9_]{3,25}")
RESERVED_NAMES: Final = frozenset(
    {
        "about", "admin", "api", "assets", "asyncapi", "auth", "clip", "clips", "dashboard", "directory", "docs", "edge",
        "favicon", "finance", "healthz", "help", "helix", "irc", "live", "login", "logout", "media", "metrics",
        "moderation", "oauth2", "openapi", "readyz", "redoc", "register", "robots", "search", "settings", "static",
        "system", "tallylight", "video", "videos", "vod", "webhooks", "www",
    }
)  # fmt: skip
"""Names that would collide with a route of the front (design §9)."""


class Money(BaseModel):
    """An amount in integer minor units (cents) of one ISO 4217 currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    amount_minor: Annotated[int, Field(ge=-(2**53), le=2**53)]
    currency: Currency


@dataclass(frozen=True, slots=True)
class Refusal:
    """An expected 'no': a stable code, a sentence for a person, and whether the same command may succeed later."""

    code: str
    detail: str
    retryable: bool = False
    wait_s: float | None = None


def normalise_name(name: str) -> str | Refusal:
    """The one form a user or channel name is claimed in, or why it cannot be one."""
    normalised = name.strip().lower()
    if not NAME_PATTERN.fullmatch(normalised):
        return Refusal("name_invalid", "A name has 3 to 25 letters a-z, digits or underscores.")
    if normalised in RESERVED_NAMES:
        return Refusal("name_reserved", "This name is reserved.")
    return normalised
