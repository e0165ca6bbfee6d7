"""Recordings destroyed in a real archive: closed ones, open ones, ones that somebody still writes."""

from pathlib import Path

import obstore
import pytest

from media.archive import Archive
from media.deletion import destroy
from media.recovery import recover
from tests.media.recorded import BROADCAST, START, Report, encoded, record, recorder, segment

OTHER = "0190c0de-0000-7000-8000-000000000002"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.open(str(tmp_path))


async def keys(archive: Archive) -> list[str]:
    return sorted([entry["path"] async for page in obstore.list(archive.store) for entry in page])


async def test_nothing_of_a_destroyed_recording_is_left_and_all_of_the_others(archive: Archive) -> None:
    await record(archive, Report(), OTHER)
    others = await keys(archive)
    await record(archive, Report())
    await destroy(archive, BROADCAST)
    assert await keys(archive) == others
    await destroy(archive, BROADCAST)
    assert await keys(archive) == others


async def test_a_destroyed_recording_that_was_still_open_is_not_recovered(archive: Archive) -> None:
    report = Report()
    recording = recorder(archive, report)
    rendition, init, segments = encoded()
    recording.rendition(rendition, init)
    recording.segment(segment(rendition.name, 0, segments[0]))
    await report.until(facts=1)
    await destroy(archive, BROADCAST)
    assert await recover(archive, _refuse, begun=[], is_live=lambda _: False, now=START) == []
    # Its writer had not heard of it: what he leaves goes the second time.
    await recording.close(START)
    await destroy(archive, BROADCAST)
    assert await keys(archive) == []


async def _refuse(fact: object) -> None:
    raise AssertionError(fact)
