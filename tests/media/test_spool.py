"""The spool on a real disk: order, kill -9, torn tails, an event plane that comes and goes, and a bound."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from media.spool import LIFE_SHARE_MAX, Record, Restore, Spool
from media.spool_log import SpoolInUse
from tests.media.facts import ListPlane, Manifests, archived, ended, interrupted, restore_nothing, started
from tests.media.recorded import moved_away


@asynccontextmanager
async def running(
    folder: Path, record: Record, restore: Restore = restore_nothing, **bounds: int
) -> AsyncIterator[Spool]:
    spool = Spool(folder, record, restore, **bounds)
    await spool.start()
    try:
        yield spool
    finally:
        await spool.close()


async def drained(spool: Spool) -> None:
    async with asyncio.timeout(20):
        await spool.drained()


async def test_facts_are_told_in_the_order_in_which_they_were_put_and_leave_the_disk(tmp_path: Path) -> None:
    plane = ListPlane()
    async with running(tmp_path, plane.record, file_bytes_max=2000) as spool:
        assert all(await asyncio.gather(*(spool.put(archived(n)) for n in range(500))))
        await drained(spool)
    assert plane.facts == [archived(n) for n in range(500)]
    assert len(list(tmp_path.glob("*.facts"))) == 1


async def test_while_the_event_plane_is_away_facts_wait_and_are_told_once_it_is_back(tmp_path: Path) -> None:
    plane = ListPlane(there=False)
    async with running(tmp_path, plane.record) as spool:
        assert await spool.put(ended(1))
        await plane.until(refused=2)
        assert await spool.put(ended(2))
        plane.there = True
        await drained(spool)
    assert plane.facts == [ended(1), ended(2)]


async def test_what_an_earlier_process_left_untold_is_told_first_and_what_it_told_is_not_told_again(
    tmp_path: Path,
) -> None:
    first = ListPlane()
    async with running(tmp_path, first.record) as spool:
        await spool.put(ended(1))
        await drained(spool)
        first.there = False
        await spool.put(ended(2))
    second = ListPlane()
    async with running(tmp_path, second.record) as spool:
        await spool.put(ended(3))
        await drained(spool)
    assert second.facts == [ended(2), ended(3)]


CHILD = """
import asyncio, sys
from pathlib import Path
from media.spool import Spool
from tests.media.facts import archived

async def away(facts):
    raise ConnectionError

async def main():
    spool = Spool(Path(sys.argv[1]), away, away)
    await spool.start()
    for n in range(1000000):
        assert await spool.put(archived(n))
        print(n, file=sys.stderr, flush=True)  # stdout is the log's

asyncio.run(main())
"""


def killed_while_it_puts(folder: Path) -> int:
    """The last fact that a process was answered for before kill -9 hit it."""
    command = [sys.executable, "-c", CHILD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        assert child.stderr is not None
        answered = -1
        while answered < 50:
            answered = int(child.stderr.readline())
        child.kill()
        return max([answered, *map(int, child.stderr.read().split())])


async def test_every_fact_that_was_answered_for_survives_kill_9(tmp_path: Path) -> None:
    answered = killed_while_it_puts(tmp_path)
    plane = ListPlane()
    async with running(tmp_path, plane.record) as spool:
        await drained(spool)
    # One more may have been written whole and not answered for.
    assert len(plane.facts) in (answered + 1, answered + 2)
    assert plane.facts == [archived(n) for n in range(len(plane.facts))]


@pytest.mark.parametrize("tail", [b"1234", b"00000000 {}\n", b"\x00" * 300, b"deadbeef not json\n"])
async def test_a_torn_tail_is_ignored_and_what_comes_after_is_told(tmp_path: Path, tail: bytes) -> None:
    plane = ListPlane(there=False)
    async with running(tmp_path, plane.record) as spool:
        await spool.put(ended(1))
    with max(tmp_path.glob("*.facts")).open("ab") as file:
        file.write(tail)
    plane.there = True
    async with running(tmp_path, plane.record) as spool:
        await spool.put(ended(2))
        await drained(spool)
    assert plane.facts == [ended(1), ended(2)]


async def test_a_lost_or_senseless_mark_of_what_was_told_only_repeats(tmp_path: Path) -> None:
    plane = ListPlane()
    for mark in ("", "9 9", "x", "1 999999"):
        async with running(tmp_path, plane.record) as spool:
            await spool.put(ended(1))
            await drained(spool)
        (tmp_path / "told").write_text(mark)
    async with running(tmp_path, plane.record) as spool:
        await spool.put(ended(2))
        await drained(spool)
    assert plane.facts[-1] == ended(2)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.facts"))


async def test_when_it_is_full_segments_become_a_range_that_the_manifest_restores(tmp_path: Path) -> None:
    plane, manifests = ListPlane(there=False), Manifests(broadcast_1=500, broadcast_2=3)
    async with running(tmp_path, plane.record, manifests.restore, bytes_max=2000) as spool:
        assert all([await spool.put(archived(n)) for n in range(500)])
        assert all([await spool.put(archived(n, broadcast="broadcast-2")) for n in range(3)])
        assert await spool.put(ended(1))
        assert size(tmp_path) < 3000
        plane.there = True
        await drained(spool)
        manifests.numbers["broadcast_1"] = 501
        assert await spool.put(archived(500))
        await drained(spool)
    others = [archived(n, broadcast="broadcast-2") for n in range(3)]
    assert plane.facts == [*(archived(n) for n in range(500)), *others, ended(1), archived(500)]
    (range_of_1, range_of_2) = manifests.asked
    assert 0 < range_of_1.first < 10
    assert range_of_2.first == 0


async def test_what_waits_for_the_disk_counts_as_well(tmp_path: Path) -> None:
    plane, manifests = ListPlane(there=False), Manifests(broadcast_1=1000)
    async with running(tmp_path, plane.record, manifests.restore, bytes_max=2000) as spool:
        assert all(await asyncio.gather(*(spool.put(archived(n)) for n in range(1000))))
        assert size(tmp_path) < 3000
        plane.there = True
        await drained(spool)
    assert plane.facts == [archived(n) for n in range(1000)]


async def test_a_range_outlives_its_process_and_the_archives_absence(tmp_path: Path) -> None:
    plane, manifests = ListPlane(there=False), Manifests(broadcast_1=40)
    async with running(tmp_path, plane.record, manifests.restore, bytes_max=2000) as spool:
        assert all([await spool.put(archived(n)) for n in range(40)])
        assert await spool.put(ended(1))
    manifests.away, plane.there = 2, True
    async with running(tmp_path, plane.record, manifests.restore, bytes_max=2000) as spool:
        await drained(spool)
    assert manifests.away == 0
    assert plane.facts == [*(archived(n) for n in range(40)), ended(1)]


async def test_segments_that_come_while_their_range_is_told_are_told_after_it_once(tmp_path: Path) -> None:
    plane, manifests = ListPlane(there=False), Manifests(broadcast_1=30)
    async with running(tmp_path, plane.record, manifests.restore, bytes_max=2000) as spool:

        async def restore(missing: object) -> list[object]:
            found = await manifests.restore(missing)  # type: ignore[arg-type]
            for n in range(manifests.numbers["broadcast_1"], manifests.numbers["broadcast_1"] + 5):
                if n < 45:  # in the manifest first, as the archive does; and after it was read
                    manifests.numbers["broadcast_1"] = n + 1
                    assert await spool.put(archived(n))
            return list(found)

        spool._restore = restore  # type: ignore[assignment]
        for n in range(30):
            assert await spool.put(archived(n))
        plane.there = True
        await drained(spool)
        assert await spool.put(archived(45))
        await drained(spool)
    assert plane.facts == [archived(n) for n in range(46)]


async def test_a_recording_that_is_no_more_holds_nothing_up(tmp_path: Path) -> None:
    plane = ListPlane(there=False)
    async with running(tmp_path, plane.record, bytes_max=500) as spool:
        kept = [n for n in range(20) if await spool.put(archived(n))]
        assert kept == list(range(20))
        assert await spool.put(ended(1))
        plane.there = True
        await drained(spool)
    assert plane.facts[-1] == ended(1)


async def test_at_its_very_end_interruptions_are_refused_and_a_broadcasts_end_is_not(tmp_path: Path) -> None:
    plane = ListPlane(there=False)
    async with running(tmp_path, plane.record, bytes_max=2000) as spool:
        kept = [n for n in range(100) if await spool.put(interrupted(n))]
        assert kept == list(range(len(kept)))
        assert LIFE_SHARE_MAX * 2000 <= size(tmp_path) < LIFE_SHARE_MAX * 2000 + 500
        assert await spool.put(ended(1))


async def test_it_knows_which_broadcasts_began_here_and_did_not_end(tmp_path: Path) -> None:
    plane = ListPlane()
    async with running(tmp_path, plane.record) as spool:
        for n in (1, 2, 3):
            await spool.put(started(n))
        await spool.put(ended(2))
        await drained(spool)
        assert spool.begun == [started(1), started(3)]
    async with running(tmp_path, plane.record) as spool:
        assert spool.begun == [started(1), started(3)]
        await spool.put(ended(1))
        await spool.put(ended(3))
    async with running(tmp_path, plane.record) as spool:
        assert spool.begun == []


async def test_two_processes_cannot_share_a_folder(tmp_path: Path) -> None:
    plane = ListPlane()
    async with running(tmp_path, plane.record):
        with pytest.raises(SpoolInUse):
            await Spool(tmp_path, plane.record, restore_nothing).start()


async def test_a_disk_that_cannot_be_read_for_a_while_only_delays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("media.spool.READ_RETRY_S", 0.05)
    monkeypatch.setattr("media.spool.BATCH_FACTS_MAX", 1)
    plane = ListPlane(there=False)
    async with running(tmp_path / "spool", plane.record) as spool:
        await spool.put(ended(1))
        await spool.put(ended(2))
        await plane.until(refused=1)
        with moved_away(tmp_path / "spool"):
            plane.there = True
            # The first is in memory and is told; then neither can it be marked, nor the second be read.
            await plane.until(facts=1)
            await asyncio.sleep(0.2)
        await drained(spool)
    assert plane.facts == [ended(1), ended(2)]


@contextmanager
def full(spool: Spool, folder: Path, full_disk: BinaryIO) -> Iterator[None]:
    """Neither the file that is open nor a new one takes anything."""
    assert spool._log.out is not None
    spool._log.out.close()
    spool._log.out = full_disk
    with moved_away(folder):
        yield


@pytest.fixture
def full_disk() -> Iterator[BinaryIO]:
    with Path("/dev/full").open("wb", buffering=0) as file:
        yield file


async def test_what_a_disk_will_not_take_waits_in_order_until_it_does(tmp_path: Path, full_disk: BinaryIO) -> None:
    plane = ListPlane()
    async with running(tmp_path / "spool", plane.record) as spool:
        with full(spool, tmp_path / "spool", full_disk):
            first = asyncio.create_task(spool.put(ended(1)))
            second = asyncio.create_task(spool.put(ended(2)))
            done, _ = await asyncio.wait([first, second], timeout=0.5)
            assert not done
        assert await first
        assert await second
        await drained(spool)
    assert plane.facts == [ended(1), ended(2)]
