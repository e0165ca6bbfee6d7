"""Names in the one form they are claimed in, and money in whole minor units."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.shared import NAME_PATTERN, RESERVED_NAMES, Money, Refusal, normalise_name
from tests.domain.given import code


@given(st.text(max_size=30) | st.from_regex(NAME_PATTERN, fullmatch=True))
def test_a_name_is_normalised_once_for_all(name: str) -> None:
    normalised = normalise_name(name)
    if isinstance(normalised, Refusal):
        return
    assert NAME_PATTERN.fullmatch(normalised)
    assert normalised not in RESERVED_NAMES
    assert normalise_name(normalised) == normalised
    assert normalise_name(f" {normalised.upper()} ") == normalised


@pytest.mark.parametrize("name", ["", "ab", "a" * 26, "ann bob", "ann-bob", "änn", "ａｎｎ"])
def test_what_is_no_name_is_told(name: str) -> None:
    assert code(normalise_name(name)) == "name_invalid"


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_the_words_of_routes_are_nobodys_name(name: str) -> None:
    assert code(normalise_name(name.upper())) == "name_reserved"


@pytest.mark.parametrize("currency", ["usd", "US", "USDT", "", "U$D"])
def test_a_currency_is_three_capitals(currency: str) -> None:
    with pytest.raises(ValidationError):
        Money(amount_minor=1, currency=currency)


def test_money_is_whole_minor_units_that_every_reader_of_json_keeps() -> None:
    with pytest.raises(ValidationError):
        Money.model_validate({"amount_minor": 0.5, "currency": "USD"})
    with pytest.raises(ValidationError):
        Money(amount_minor=2**53 + 1, currency="USD")
    assert Money(amount_minor=-(2**53), currency="USD").amount_minor == -(2**53)
