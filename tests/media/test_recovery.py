"""A node killed in the middle of a broadcast: its next start closes the recording from the manifest alone, once."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from media import manifest
from media.archive import Archive
from media.facts import ended as end_of
from media.port import Ended, Fact, RecordingReady, SegmentsArchived
from media.recovery import STALE_S, recover
from tests.media.recorded import BROADCAST, SEGMENT_S, START, Report, begun, encoded, record, recorder, segment

NOW = datetime(2026, 1, 2, 4, tzinfo=UTC)

CHILD = """
import asyncio, sys
from media.archive import Archive
from tests.media.recorded import Report, encoded, recorder, segment

async def main():
    report = Report()
    recording = recorder(Archive.open(sys.argv[1]), report)
    source, init, data = encoded()
    recording.rendition(source, init)
    for number in range(1000000):
        recording.segment(segment("source", number, data[0]))
        await report.until(facts=number + 1)
        print(number, file=sys.stderr, flush=True)

asyncio.run(main())
"""


def killed_while_it_records(folder: Path) -> int:
    """The last number that a process told of before kill -9 hit it."""
    command = [sys.executable, "-c", CHILD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        assert child.stderr is not None
        told = -1
        while told < 5:
            told = int(child.stderr.readline())
        child.kill()
        return max([told, *map(int, child.stderr.read().split())])


class Told:
    def __init__(self) -> None:
        self.facts: list[Fact] = []

    async def __call__(self, fact: Fact) -> bool:
        self.facts.append(fact)
        return True


def not_live(_broadcast_id: str) -> bool:
    return False


async def abandoned(archive: Archive, numbers: int, broadcast_id: str = BROADCAST) -> None:
    """A recording whose writer stops without a word."""
    report = Report()
    recording = recorder(archive, report, broadcast_id)
    source, init, data = encoded()
    recording.rendition(source, init)
    for number in range(numbers):
        recording.segment(segment("source", number, data[number]))
    await report.until(facts=numbers)
    for task in recording._tasks:
        task.cancel()


async def test_after_kill_9_the_recording_plays_up_to_its_last_segment_and_every_fact_is_told(tmp_path: Path) -> None:
    told = killed_while_it_records(tmp_path)
    archive, facts = Archive.open(str(tmp_path)), Told()
    assert await recover(archive, facts, begun=[], is_live=not_live, now=NOW) == [BROADCAST]
    started, *segments, ended, ready = facts.facts
    assert started == begun()
    assert [fact.number for fact in segments if isinstance(fact, SegmentsArchived)] == list(range(len(segments)))
    assert len(segments) in (told + 1, told + 2)
    assert isinstance(ended, Ended)
    assert ended.reason == "node_lost"
    assert ended.at == START + timedelta(seconds=len(segments) * SEGMENT_S)
    assert isinstance(ready, RecordingReady)
    assert ready.duration_s == len(segments) * SEGMENT_S
    found = await manifest.read(archive.store, BROADCAST)
    assert found is not None
    assert found.ended_at == ended.at


@pytest.fixture(params=["folder", "objects"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    return Archive.open(str(tmp_path)) if request.param == "folder" else Archive(MemoryStore(), None)


async def test_a_second_start_finds_nothing_to_close(archive: Archive) -> None:
    await abandoned(archive, 2)
    facts = Told()
    assert await recover(archive, facts, begun=[], is_live=not_live, now=NOW) == [BROADCAST]
    assert len(facts.facts) == 5
    assert await recover(archive, facts, begun=[], is_live=not_live, now=NOW) == []
    assert len(facts.facts) == 5
    found = await manifest.read(archive.store, BROADCAST)
    assert found is not None
    assert len(found.segments) == 2


async def test_a_recovery_cut_short_itself_tells_the_same_facts_again(archive: Archive) -> None:
    await abandoned(archive, 2)
    first, second = Told(), Told()

    async def dies_at_the_end(fact: Fact) -> None:
        await first(fact)
        if isinstance(fact, RecordingReady):
            raise ConnectionError

    assert await recover(archive, dies_at_the_end, begun=[], is_live=not_live, now=NOW) == []
    assert await recover(archive, second, begun=[], is_live=not_live, now=NOW) == [BROADCAST]
    assert {fact.fact_id for fact in second.facts} <= {fact.fact_id for fact in first.facts}
    assert second.facts[-1] == first.facts[-1]


async def test_broadcasts_that_are_live_or_closed_are_left_alone(archive: Archive) -> None:
    await abandoned(archive, 1, "live-one")
    await record(archive, Report(), "closed-one")
    facts = Told()
    assert await recover(archive, facts, begun=[], is_live=lambda it: it == "live-one", now=NOW) == []
    assert facts.facts == []


async def test_another_nodes_recording_is_closed_only_once_nothing_was_written_for_long(archive: Archive) -> None:
    await abandoned(archive, 1)
    other = Archive(archive.store, archive.folder, "other-node")
    facts, now = Told(), datetime.now(UTC)
    assert await recover(other, facts, begun=[], is_live=not_live, now=now) == []
    later = now + timedelta(seconds=STALE_S + 60)
    assert await recover(other, facts, begun=[], is_live=not_live, now=later) == [BROADCAST]


async def test_a_broadcast_that_died_before_its_first_segment_ends_without_a_recording(archive: Archive) -> None:
    recording = recorder(archive, Report())
    for task in recording._tasks:
        task.cancel()
    marked = {"its beginning": begun(), "what earlier versions wrote": recording._recording}
    for content in marked.values():
        await archive.put(archive.marker(BROADCAST), content.model_dump_json().encode())
        facts = Told()
        assert await recover(archive, facts, begun=[], is_live=not_live, now=NOW) == [BROADCAST]
        *before, ended = facts.facts
        assert before == ([begun()] if content == begun() else [])
        assert isinstance(ended, Ended)
        assert ended.at == START


async def test_a_broadcast_that_died_before_its_marker_was_written_ends_as_well(archive: Archive) -> None:
    await abandoned(archive, 1, "marked")
    facts = Told()
    known = [begun("unmarked"), begun("marked"), begun("live-one")]
    assert await recover(archive, facts, begun=known, is_live=lambda it: it == "live-one", now=NOW) == [
        "marked",
        "unmarked",
    ]
    ended = [fact for fact in facts.facts if isinstance(fact, Ended)]
    assert [(it.broadcast_id, it.at, it.reason) for it in ended] == [
        ("marked", START + timedelta(seconds=SEGMENT_S), "node_lost"),
        ("unmarked", START, "node_lost"),
    ]


async def test_a_broadcast_ends_once_whether_its_node_or_a_recovery_says_so(archive: Archive) -> None:
    await abandoned(archive, 1)
    facts = Told()
    await recover(archive, facts, begun=[], is_live=not_live, now=NOW)
    (ended,) = [fact for fact in facts.facts if isinstance(fact, Ended)]
    assert ended.fact_id == end_of(BROADCAST, "channel-1", NOW, "disconnected").fact_id


async def test_a_marker_nobody_can_read_harms_nothing(archive: Archive) -> None:
    await archive.put(archive.marker("torn"), b"{")
    await abandoned(archive, 1)
    assert BROADCAST in await recover(archive, Told(), begun=[], is_live=not_live, now=NOW)
