"""Whose request it is, behind a front or not."""

import pytest

from gateways.peers import Fronts, counted_as


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("unknown", "unknown"),
    ],
)
def test_an_address_counts_as_whoever_holds_it(host: str, counted: str) -> None:
    assert counted_as(host) == counted


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),  # not one of ours: what it says counts for nothing
        ("127.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("::ffff:127.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.1.2.3", ["made up, 203.0.113.7"], "203.0.113.7"),
        ("10.1.2.3", ["1.2.3.4", "203.0.113.7, 10.9.9.9"], "203.0.113.7"),
        ("127.0.0.1", ["127.0.0.1"], "127.0.0.1"),
        ("127.0.0.1", [], None),
        ("127.0.0.1", [" , "], None),
    ],
)
def test_a_front_is_believed_and_nobody_else(peer: str, forwarded: list[str], client: str | None) -> None:
    assert Fronts("127.0.0.1, ::1,10.0.0.0/8").client(peer, forwarded) == client


def test_no_front_is_trusted_where_none_is_named() -> None:
    assert Fronts("").client("127.0.0.1", ["203.0.113.7"]) == "127.0.0.1"


def test_where_everybody_is_trusted_the_first_word_counts() -> None:
    assert Fronts("*").client("198.51.100.1", ["203.0.113.7, 198.51.100.2"]) == "203.0.113.7"
