"""Broadcasts: what their history calls them, who may still see their recording, and the clips cut of it, as pure decisions."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import broadcast
from domain.broadcast import (
    AHEAD_S,
    CLIP_S_MAX,
    Broadcast,
    BroadcastDescribed,
    BroadcastEnded,
    BroadcastStarted,
    ClipCreated,
    ClipDeleted,
    RecordingDeleted,
    RecordingPublished,
    RecordingUnpublished,
)
from domain.event import Event
from domain.shared import Refusal
from tests import histories
from tests.domain.given import Decide, Decided, Stream, code, deciding

BROADCASTS = Stream(Broadcast(), broadcast.evolve)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
STARTED = BroadcastStarted(
    broadcast_id="b1", channel_id="c1", title="Painting", category="Art", started_at=NOW, node="media-1"
)
ENDED = BroadcastEnded(broadcast_id="b1", channel_id="c1", ended_at=NOW + timedelta(seconds=100), reason="unpublished")
PUBLISHED = RecordingPublished(broadcast_id="b1", channel_id="c1", vod_url="/vod/b1/index.m3u8", duration_s=100.0)
HIDDEN = RecordingUnpublished(broadcast_id="b1", channel_id="c1")
DELETED = RecordingDeleted(broadcast_id="b1", channel_id="c1")
CLIP = ClipCreated(
    clip_id="k1", broadcast_id="b1", channel_id="c1", created_by="ann", title="Painting", start_s=10.0, end_s=20.0
)
CLIP_DELETED = ClipDeleted(clip_id="k1", broadcast_id="b1", channel_id="c1")

b1 = st.just("b1")
clip_ids = st.sampled_from(["k1", "k2"])
steps = st.lists(
    st.sampled_from([ENDED, PUBLISHED])
    | deciding(broadcast.describe, b1, title=st.none() | histories.texts, category=st.none() | histories.texts)
    | deciding(broadcast.publish, b1, published=st.booleans())
    | deciding(broadcast.delete_recording, b1)
    | deciding(
        broadcast.create_clip,
        b1,
        clip_id=clip_ids,
        created_by=st.sampled_from(histories.PEOPLE),
        title=histories.texts,
        start_s=st.sampled_from([-1.0, 0.0, 10.0, 95.0]),
        end_s=st.sampled_from([10.5, 20.0, 62.0, 105.0]),
        now=st.just(NOW + timedelta(seconds=60)),
    )
    | deciding(broadcast.delete_clip, b1, clip_ids),
    max_size=15,
).map(lambda steps: [STARTED, *steps])


def clip(state: Broadcast, start_s: float, end_s: float, *, now_s: float = 100.0) -> Decided:
    return broadcast.create_clip(
        state, "b1", clip_id="k1", created_by="ann", title="", start_s=start_s, end_s=end_s,
        now=NOW + timedelta(seconds=now_s),
    )  # fmt: skip


@given(steps)
def test_deciding_again_says_nothing_new(steps: list[Event | Decide]) -> None:
    BROADCASTS.assert_deciding_again_says_nothing_new(steps)


@given(st.lists(histories.events()))
def test_any_recorded_event_is_accepted_and_those_of_other_streams_change_nothing(events: list[Event]) -> None:
    own = [event for event in events if event.TOPIC.startswith("broadcast.")]
    assert BROADCASTS.given(*events) == BROADCASTS.given(*own)


def test_a_broadcast_is_described_with_what_is_not_said_left_as_it_is() -> None:
    described = BroadcastDescribed(broadcast_id="b1", channel_id="c1", title="Drawing", category="Art")
    assert broadcast.describe(BROADCASTS.given(STARTED), "b1", title="Drawing", category=None) == [described]
    assert broadcast.describe(BROADCASTS.given(STARTED, described), "b1", title=None, category="Art") == []


def test_a_recording_is_deleted_once_its_broadcast_has_ended_and_once_only() -> None:
    assert code(broadcast.delete_recording(BROADCASTS.given(STARTED), "b1")) == "broadcast_live"
    assert broadcast.delete_recording(BROADCASTS.given(STARTED, ENDED), "b1") == [DELETED]
    assert broadcast.delete_recording(BROADCASTS.given(STARTED, ENDED, DELETED), "b1") == []


def test_a_recording_is_hidden_and_shown_again_as_it_was() -> None:
    there = BROADCASTS.given(STARTED, ENDED, PUBLISHED)
    assert broadcast.publish(there, "b1", published=True) == []
    assert broadcast.publish(there, "b1", published=False) == [HIDDEN]
    hidden = BROADCASTS.given(STARTED, ENDED, PUBLISHED, HIDDEN)
    assert broadcast.publish(hidden, "b1", published=False) == []
    assert broadcast.publish(hidden, "b1", published=True) == [PUBLISHED]


def test_what_has_no_recording_yet_or_none_any_more_is_not_published() -> None:
    assert code(broadcast.publish(BROADCASTS.given(STARTED), "b1", published=True)) == "recording_not_ready"
    gone = BROADCASTS.given(STARTED, ENDED, PUBLISHED, DELETED)
    assert code(broadcast.publish(gone, "b1", published=True)) == "broadcast_not_found"


def test_a_clip_without_a_title_bears_that_of_its_broadcast() -> None:
    assert clip(BROADCASTS.given(STARTED, ENDED, PUBLISHED), 10.0, 20.0) == [CLIP]


def test_the_clip_of_an_id_is_made_once_whatever_is_asked_under_it() -> None:
    state = BROADCASTS.given(STARTED, ENDED, PUBLISHED, CLIP)
    assert clip(state, 10.0, 20.0) == []
    assert clip(state, 50.0, 20.0) == []


@pytest.mark.parametrize(
    ("start_s", "end_s"),
    [(20.0, 10.0), (10.0, 10.5), (10.0, 10.0 + CLIP_S_MAX + 1), (-1.0, 9.0), (95.0, 101.0), (200.0, 210.0)],
)
def test_a_clip_lies_within_its_recording_and_has_a_length_that_clips_have(start_s: float, end_s: float) -> None:
    assert code(clip(BROADCASTS.given(STARTED, ENDED, PUBLISHED), start_s, end_s)) == "clip_range_invalid"


def test_a_clip_of_a_broadcast_on_air_ends_no_later_than_now_but_for_what_clocks_differ() -> None:
    live = BROADCASTS.given(STARTED)
    assert not isinstance(clip(live, 40.0, 60.0 + AHEAD_S, now_s=60.0), Refusal)
    assert code(clip(live, 40.0, 62.0 + AHEAD_S, now_s=60.0)) == "clip_range_invalid"


@pytest.mark.parametrize(
    "events", [(), (STARTED, ENDED, PUBLISHED, DELETED), (STARTED, ENDED, PUBLISHED, HIDDEN)], ids=str
)
def test_nobody_clips_what_nobody_may_see(events: tuple[Event, ...]) -> None:
    assert code(clip(BROADCASTS.given(*events), 10.0, 20.0)) == "broadcast_not_found"


def test_a_clip_is_deleted_once_and_for_ever() -> None:
    assert broadcast.delete_clip(BROADCASTS.given(STARTED, CLIP), "b1", "k1") == [CLIP_DELETED]
    assert broadcast.delete_clip(BROADCASTS.given(STARTED, CLIP, CLIP_DELETED), "b1", "k1") == []
    assert broadcast.delete_clip(BROADCASTS.given(STARTED), "b1", "k1") == []


def test_nothing_is_decided_about_a_broadcast_that_is_not_there() -> None:
    nowhere = BROADCASTS.given()
    for decided in (
        broadcast.describe(nowhere, "b1", title="t", category=None),
        broadcast.delete_recording(nowhere, "b1"),
        broadcast.publish(nowhere, "b1", published=True),
        broadcast.delete_clip(nowhere, "b1", "k1"),
    ):
        assert code(decided) == "broadcast_not_found"
