"""The list of events is whole, and each stands under a topic of its own."""

from collections import Counter

from domain import account, broadcast, channel, chat, follow, name, payment, recording, subscription
from domain.event import Event
from domain.topics import BY_TOPIC, EVENTS

MODULES = (account, broadcast, channel, chat, follow, name, payment, recording, subscription)


def test_every_event_of_every_stream_is_listed_once() -> None:
    defined = [
        one
        for module in MODULES
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, Event) and one.__module__ == module.__name__
    ]
    assert Counter(EVENTS) == Counter(defined)


def test_a_topic_is_written_out_and_is_nobody_elses() -> None:
    assert len(BY_TOPIC) == len(EVENTS)
    for event in EVENTS:
        assert "TOPIC" in vars(event)
        assert "CATEGORY" in vars(event)


def test_a_personal_field_names_the_person_whose_key_seals_it() -> None:
    for event in EVENTS:
        assert set(event.PERSONAL) <= set(event.model_fields)
        assert set(event.PERSONAL.values()) <= set(event.model_fields)
