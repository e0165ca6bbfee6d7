"""The spool on a real disk: order, kill -9, torn tails, an event plane that comes and goes, and a bound."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from media.spool import Record, Spool, SpoolInUse
from tests.media.facts import ListPlane, archived, ended


@asynccontextmanager
async def running(folder: Path, record: Record, **bounds: int) -> AsyncIterator[Spool]:
    spool = Spool(folder, record, **bounds)
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
    spool = Spool(Path(sys.argv[1]), away)
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


async def test_when_it_is_full_segments_are_refused_and_a_broadcasts_life_is_not(tmp_path: Path) -> None:
    plane = ListPlane(there=False)
    async with running(tmp_path, plane.record, bytes_max=2000) as spool:
        kept = [n for n in range(20) if await spool.put(archived(n))]
        assert kept
        assert kept == list(range(len(kept)))
        assert len(kept) < 20
        assert await spool.put(ended(1))
        plane.there = True
        await drained(spool)
        assert await spool.put(archived(99))
        await drained(spool)
    assert plane.facts == [*(archived(n) for n in kept), ended(1), archived(99)]


async def test_two_processes_cannot_share_a_folder(tmp_path: Path) -> None:
    plane = ListPlane()
    async with running(tmp_path, plane.record):
        with pytest.raises(SpoolInUse):
            await Spool(tmp_path, plane.record).start()


@pytest.fixture
def full_disk() -> Iterator[BinaryIO]:
    with Path("/dev/full").open("wb", buffering=0) as file:
        yield file


async def test_a_disk_that_will_not_take_a_fact_says_so_and_the_next_one_is_kept(
    tmp_path: Path, full_disk: BinaryIO
) -> None:
    plane = ListPlane()
    async with running(tmp_path, plane.record) as spool:
        assert spool._log.out is not None
        spool._log.out.close()
        spool._log.out = full_disk
        assert not await spool.put(ended(1))
        assert await spool.put(ended(2))
        await drained(spool)
    assert plane.facts == [ended(2)]
