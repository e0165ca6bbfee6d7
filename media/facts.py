"""What is told of a broadcast and its recording, each fact under an id made from what it is about: told again, it is the same fact.

Made by the pipeline and the archive as things happen, and again from a recording's manifest where a fact was lost or had no room.
"""

from datetime import datetime
from typing import Final, Literal
from uuid import UUID, uuid5

from obstore.store import ObjectStore

from media import manifest
from media.manifest import RecordingLine, SegmentLine
from media.port import ArchivedObject, Ended, RecordingReady, SegmentsArchived, Started

_FACTS: Final = UUID("1b0c4a5e-3a3f-5e0b-9a53-9fdc63c6b7a1")


def fact_of(recording: RecordingLine, line: SegmentLine) -> SegmentsArchived:
    """The fact of a manifest's line: the same one however often it is made."""
    folder = f"{manifest.ROOT}/{recording.broadcast_id}/"
    return SegmentsArchived(
        fact_id=fact_id(recording.broadcast_id, f"{line.apart}:{line.number}" if line.apart else str(line.number)),
        broadcast_id=recording.broadcast_id,
        channel_id=recording.channel_id,
        at=line.program_date_time,
        number=line.number,
        apart=line.apart,
        program_date_time=line.program_date_time,
        offset_s=line.start_s,
        duration_s=line.duration_s,
        objects=tuple(
            ArchivedObject(rendition=it.rendition, key=it.key.removeprefix(folder), size=it.size, sha256=it.sha256)
            for it in line.objects
        ),
    )


async def restore(store: ObjectStore, broadcast_id: str, apart: str, first: int) -> list[SegmentsArchived]:
    """The facts of a recording's segments from number `first` on, as its manifest has them; none where there is no manifest."""
    found = await manifest.read(store, broadcast_id)
    if found is None:
        return []
    return [fact_of(found.recording, it) for it in found.segments if it.apart == apart and it.number >= first]


def recording_of(started: Started) -> RecordingLine:
    return RecordingLine(broadcast_id=started.broadcast_id, channel_id=started.channel_id, started_at=started.at)


def fact_id(broadcast_id: str, what: str) -> UUID:
    """A fact's id from what it is about, so that whoever tells it again gives it the same."""
    return uuid5(_FACTS, f"{broadcast_id}:{what}")


def ended(
    broadcast_id: str, channel_id: str, at: datetime, reason: Literal["unpublished", "disconnected", "node_lost"]
) -> Ended:
    """A broadcast ends once, whoever says so: its node, or who finds that the node is no more."""
    return Ended(
        fact_id=fact_id(broadcast_id, "ended"), broadcast_id=broadcast_id, channel_id=channel_id, at=at, reason=reason
    )


def ready(broadcast_id: str, channel_id: str, at: datetime, duration_s: float) -> RecordingReady:
    return RecordingReady(
        fact_id=fact_id(broadcast_id, "ready"),
        broadcast_id=broadcast_id,
        channel_id=channel_id,
        at=at,
        vod_url=f"/vod/{broadcast_id}/index.m3u8",
        duration_s=round(duration_s, 3),
    )
