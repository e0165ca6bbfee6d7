"""Payments: what is known of one from what its stream says."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from domain import payment
from domain.event import Event
from domain.payment import Payment, PaymentCaptured, PaymentFailed, PaymentRequested
from domain.shared import Money
from tests import histories
from tests.domain.given import Stream

PAYMENTS = Stream(Payment(), payment.evolve)
PRICE = Money(amount_minor=499, currency="USD")
FEE = Money(amount_minor=45, currency="USD")
IDS: dict[str, Any] = {"payment_id": "p1", "channel_id": "c1", "account_id": "ann"}
REQUESTED = PaymentRequested(**IDS, purpose="subscription", amount=PRICE, provider="sandbox")
CAPTURED = PaymentCaptured(
    **IDS, purpose="subscription", amount=PRICE, fee=FEE, provider="sandbox", provider_ref="ch_1"
)
FAILED = PaymentFailed(**IDS, code="card_declined")


def test_a_payment_is_open_from_its_request_to_its_outcome() -> None:
    assert PAYMENTS.given(REQUESTED) == Payment(request=REQUESTED)
    assert PAYMENTS.given(REQUESTED, CAPTURED) == Payment(request=REQUESTED, captured=True)
    assert PAYMENTS.given(REQUESTED, FAILED) == Payment(request=REQUESTED, failure="card_declined")


@given(st.lists(histories.events()))
def test_any_recorded_event_is_accepted_and_those_of_other_streams_change_nothing(events: list[Event]) -> None:
    own = [event for event in events if event.TOPIC.startswith("payment.")]
    assert PAYMENTS.given(*events) == PAYMENTS.given(*own)


@given(st.lists(histories.events((PaymentRequested, PaymentCaptured, PaymentFailed))))
def test_the_same_answer_of_a_provider_heard_again_changes_nothing(events: list[Event]) -> None:
    state = PAYMENTS.given(*events)
    for event in events[-1:]:
        assert payment.evolve(state, event) == state
