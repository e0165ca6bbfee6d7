"""Byte ranges as RFC 9110 14 has them: for whatever a client sends there is a range inside the bytes, the whole, or none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.answers import byte_range


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("", (0, 10)),
        ("bytes=0-0", (0, 1)),
        ("bytes=2-5", (2, 6)),
        ("bytes=2-", (2, 10)),
        ("bytes=2-99", (2, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("bytes=-0", None),
        ("bytes=10-", None),
        ("bytes=99-100", None),
        ("bytes=5-2", (0, 10)),
        ("bytes=-", (0, 10)),
        ("bytes=0-1,3-4", (0, 10)),
        ("lines=0-1", (0, 10)),
        ("bytes=\u0663-", (0, 10)),
    ],
)
def test_one_range_is_given_and_what_is_none_is_ignored(asked: str, found: tuple[int, int] | None) -> None:
    assert byte_range(asked, 10) == found


@given(first=st.none() | st.integers(0, 30), last=st.none() | st.integers(0, 30), size=st.integers(0, 20))
def test_a_range_is_a_slice_of_the_bytes(first: int | None, last: int | None, size: int) -> None:
    found = byte_range(f"bytes={'' if first is None else first}-{'' if last is None else last}", size)
    data = bytes(range(size))
    if found is None:
        assert not (data[first:] if first is not None else data[-(last or 0) :] if last else b"")
    elif found != (0, size):
        expected = data[-(last or 0) :] if first is None else data[first : None if last is None else last + 1]
        assert data[slice(*found)] == expected != b""


@given(asked=st.text(max_size=30), size=st.integers(0, 100))
def test_whatever_is_asked_the_range_lies_within_the_bytes(asked: str, size: int) -> None:
    for text in (asked, f"bytes={asked}"):
        found = byte_range(text, size)
        assert found is None or 0 <= found[0] <= found[1] <= size
