"""The text of a message: whether it is one, and what the chat modes look at. Pure; called by `frames`, which refuses, and by `pod`."""

import unicodedata
from hashlib import blake2b
from typing import Final

TEXT_CHARS_MAX: Final = 500

_DIRECTIONS: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Embeddings, overrides and isolates (UAX #9): left open they turn around what others say, and show what was never written. The marks
(LRM, RLM, ALM) only settle the text they stand in, and stay."""
_BLANK_LETTERS: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800")
"""Hangul fillers and the empty Braille pattern: letters and signs by category, nothing on a screen."""


def bad_text(text: str) -> str | None:
    """What is wrong with a message's text, in words for its writer."""
    if len(text) > TEXT_CHARS_MAX:
        return f"A message has at most {TEXT_CHARS_MAX} characters."
    # NUL cannot be stored in Postgres text; the other controls (C1 and line separators too) and lone surrogates only ever break screens.
    if any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} and char != "\t" for char in text):
        return "A message has no control characters."
    if not _DIRECTIONS.isdisjoint(text):
        return "A message does not change the direction of what stands beside it."
    if not any(_shows(char) for char in text):
        return "A message needs something to read."
    return None


def _shows(char: str) -> bool:
    """Whether a character puts ink on a screen by itself. Unassigned ones may: an emoji newer than this Python."""
    return unicodedata.category(char) not in {"Cc", "Cf", "Zs", "Mn", "Mc", "Me"} and char not in _BLANK_LETTERS


def text_digest(text: str) -> bytes:
    """What the `unique` mode compares: case and spacing do not make a text another one."""
    return blake2b(" ".join(text.casefold().split()).encode(), digest_size=16).digest()


def emote_only(text: str) -> bool:
    """Whether a text is pictographs alone (Unicode So, with the joiners, selectors and modifiers that shape them)."""
    return all(unicodedata.category(char) in {"So", "Sk", "Mn", "Me", "Cf", "Zs"} for char in text)
