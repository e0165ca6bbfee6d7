"""A webhook's signature holds for its body, its time and its secret, and for nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.payments.signature import AGE_S_MAX, sign, verify

BODY = b'{"payment_id":"p1"}'
NOW = 1_800_000_000


def test_what_was_signed_is_verified_for_a_while() -> None:
    header = sign("secret", BODY, now_s=NOW)
    assert verify("secret", header, BODY, now_s=NOW)
    assert verify("secret", header, BODY, now_s=NOW + AGE_S_MAX)
    assert not verify("secret", header, BODY, now_s=NOW + AGE_S_MAX + 1)
    assert not verify("secret", header, BODY, now_s=NOW - AGE_S_MAX - 1)
    assert not verify("guess", header, BODY, now_s=NOW)
    assert not verify("secret", header, BODY + b" ", now_s=NOW)
    assert not verify("secret", header.replace(str(NOW), str(NOW + 1)), BODY, now_s=NOW)


@pytest.mark.parametrize("header", [None, "", "t=1", "v1=x", "t=,v1=", "t=²,v1=x", "t=" + "9" * 190, "=,=", ",,,"])
def test_what_is_no_signature_is_none(header: str | None) -> None:
    assert not verify("secret", header, BODY, now_s=NOW)


@given(st.text(max_size=250))
def test_no_header_makes_it_stumble(header: str) -> None:
    assert not verify("secret", header, BODY, now_s=NOW)
    assert not verify("secret", f"t={NOW},v1={header}", BODY, now_s=NOW)
