"""The timeline of each recording: when in the world each of its segments was, so that a moment of chat can be found by its offset."""

from collections.abc import Iterable
from typing import Final

from domain.recording import SegmentsRecorded
from eventstore.port import Recorded
from projections.projection import Projection
from projections.rows import Change, Put, Table

SEGMENTS: Final = Table(
    "segments",
    {"broadcast_id": "text", "number": "bigint"},
    {
        "channel_id": "text",
        "starts_at": "timestamptz",
        "offset_s": "double precision",
        "duration_s": "double precision",
    },
)


def _recorded(recorded: Recorded) -> Iterable[Change]:
    event: SegmentsRecorded = recorded.event
    values = {
        "channel_id": event.channel_id,
        "starts_at": event.program_date_time,
        "offset_s": event.offset_s,
        "duration_s": event.duration_s,
    }
    # Both countings tell the same times; those of a rendition apart go downward from -1.
    number = -1 - event.number if event.apart else event.number
    return (Put(SEGMENTS, (event.broadcast_id, number), values),)


PROJECTION: Final = Projection("recordings", version=1, tables=(SEGMENTS,), handlers={SegmentsRecorded: _recorded})
