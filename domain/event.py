"""What every recorded fact has in common: an explicit topic, a class of storage and its personal fields.

Events are frozen pydantic models. Their topic is written out, never derived from the module, so that moving a file orphans nothing.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Category(StrEnum):
    """The storage class of an event: its partition in the store and its Kafka topic."""

    LIFECYCLE = "lifecycle"
    CHAT = "chat"
    MEDIA = "media"
    MONEY = "money"


class Event(BaseModel):
    """Base of all events. A subclass sets `TOPIC` (e.g. ``"chat.MessagePosted"``) and `CATEGORY`.

    `PERSONAL` maps each personal field to the field that names the person (an account id) whose key encrypts it.
    A later shape of an event raises `class_version` and adds a static ``upcast_v1_v2(state: dict) -> None``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    TOPIC: ClassVar[str]
    CATEGORY: ClassVar[Category]
    PERSONAL: ClassVar[Mapping[str, str]] = {}
    class_version: ClassVar[int] = 1


ERASED = "[erased]"
"""What a personal text field reads as once its person's key is gone."""
