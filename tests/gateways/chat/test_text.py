"""Which texts are messages, and what the chat modes make of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.chat.text import TEXT_CHARS_MAX, bad_text, emote_only, text_digest


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "tab\tbed",
        "\u0645\u0631\u062d\u0628\u0627\u200f!",  # Arabic with a right-to-left mark
        "\u0915\u094d\u200d\u0937",  # Devanagari with a joiner
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # a family, joined
        "\u2764\ufe0f",
        "e\u0301",
        "\U0001faff",
        "x" * TEXT_CHARS_MAX,
    ],
    ids=ascii,
)
def test_what_people_write_is_a_message(text: str) -> None:
    assert bad_text(text) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "something to read"),
        (" \u3000\u00a0", "something to read"),
        ("\u200b", "something to read"),
        ("\u200d \ufeff\u2060\u00ad", "something to read"),
        ("\u3164", "something to read"),
        ("\u2800\u2800", "something to read"),
        ("\u034f\ufe0f", "something to read"),
        ("\U000e0041\U000e007f", "something to read"),
        ("safe\u202egpj.exe", "direction"),
        ("\u2067open", "direction"),
        ("a\x00b", "control"),
        ("a\nb", "control"),
        ("a\u2028b", "control"),
        ("a\x85b", "control"),
        ("\x9b31mred", "control"),
        ("a\x7f", "control"),
        ("a\ud800", "control"),
        ("x" * (TEXT_CHARS_MAX + 1), "at most"),
    ],
    ids=ascii,
)
def test_what_nobody_can_read_or_turns_screens_around_is_none(text: str, why: str) -> None:
    assert why in (bad_text(text) or "")


@given(st.text())
def test_no_text_raises(text: str) -> None:
    assert bad_text(text) is None or bad_text(text)


def test_case_and_spacing_do_not_make_a_text_another_one() -> None:
    assert text_digest("Hello  World ") == text_digest("hello world")
    assert text_digest("hello world") != text_digest("hello worlds")


def test_pictographs_alone_are_emotes() -> None:
    assert emote_only("\U0001f600 \u2764\ufe0f \U0001f44d\U0001f3fd")
    assert not emote_only("\U0001f600 hi")
