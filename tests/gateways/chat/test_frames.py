"""Chat frames, text in and typed requests or errors out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.chat import frames
from gateways.chat.frames import BadFrame, Ping, PostMessage


def test_a_message_frame_becomes_a_post() -> None:
    raw = '{"type":"message","text":"hello","reply_to":"m1","nonce":"n1"}'
    assert frames.parse(raw) == PostMessage(type="message", text="hello", reply_to="m1", nonce="n1")


def test_a_ping_needs_nothing_else() -> None:
    assert frames.parse('{"type":"ping"}') == Ping(type="ping")


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x00", "frame_binary"),
        ("", "frame_invalid"),
        ("[]", "frame_invalid"),
        ("null", "frame_invalid"),
        ('{"type":"dance"}', "frame_invalid"),
        ('{"type":"message"}', "frame_invalid"),
        ('{"type":"message","text":""}', "text_invalid"),
        ('{"type":"message","text":7}', "frame_invalid"),
        ('{"type":"message","text":"x","extra":1}', "frame_invalid"),
        ('{"type":"message","text":"' + "x" * 501 + '"}', "text_invalid"),
        ('{"type":"message","text":"   "}', "text_invalid"),
        ('{"type":"message","text":"a\\u0000b"}', "text_invalid"),
        ('{"type":"message","text":"a\\nb"}', "text_invalid"),
        ("x" * 9000, "frame_too_large"),
    ],
)
def test_what_is_no_frame_of_ours_gets_a_typed_error(raw: str | bytes, code: str) -> None:
    parsed = frames.parse(raw)
    assert isinstance(parsed, BadFrame)
    assert parsed.code == code


def test_a_refused_text_names_the_nonce_it_answers() -> None:
    parsed = frames.parse('{"type":"message","text":" ","nonce":"n7"}')
    assert isinstance(parsed, BadFrame)
    assert parsed.nonce == "n7"


@given(st.text(max_size=600) | st.binary(max_size=64))
def test_no_input_raises(raw: str | bytes) -> None:
    assert frames.parse(raw) is not None
