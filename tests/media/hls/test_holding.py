"""Requests that wait: what fulfils a wish, held to the draft's rule by looking at every place; who goes when, and what is left behind."""

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from media.hls.holding import Begun, Held, Holding, PartMade, PlaylistReaches
from tests.media.hls.given import frames
from tests.media.hls.test_live import RUNG, SOURCE, begun, of


async def stays() -> MutableMapping[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


async def settle(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - tasks begin when the loop comes to them
            await asyncio.sleep(0)


@given(pushed=st.integers(0, 320), number=st.integers(0, 8), part=st.none() | st.integers(0, 40), missed=st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_wish_is_met_by_its_part_a_later_one_or_the_end(
    pushed: int, number: int, part: int | None, missed: bool
) -> None:
    broadcast = begun()
    source, rung = broadcast.add(SOURCE), broadcast.add(RUNG)
    for n, sample in enumerate(frames(pushed)):
        source.push(sample)
        if missed and n == 150:
            rung = broadcast.add(RUNG)  # from the middle of a segment on
        rung.push(sample)
    for live in broadcast.renditions:
        there = [(entry.number, index) for entry in live.window.listed for index in range(len(entry.parts))]
        whole = [entry.number for entry in live.window.listed if entry.finished]
        wish = PlaylistReaches(live, number, part)
        if not whole:
            assert not wish.met()
        elif part is None:
            assert wish.met() == (max(whole) >= number)
        else:
            final = max((index for at, index in there if at == number), default=-1)
            place = (number + 1, 0) if number in whole and part > final else (number, part)
            assert wish.met() == (max(there) >= place)
        sequence = live.window.next_sequence
        assert PartMade(live, sequence - 1).met()
        assert not PartMade(live, sequence).met()
    broadcast.end()
    for live in broadcast.renditions:
        assert PlaylistReaches(live, number, part).met()
        assert PartMade(live, 10_000).met()


async def test_equal_wishes_wake_together_and_the_listener_goes_with_the_last() -> None:
    broadcast, holding = begun(), Holding()
    sink, stream = broadcast.add(SOURCE), iter(frames(200))
    live = of(broadcast, "source")
    for _ in range(62):
        sink.push(next(stream))
    near = [asyncio.create_task(holding.until(PlaylistReaches(live, 1, 0), 30, stays)) for _ in range(5)]
    far = asyncio.create_task(holding.until(PlaylistReaches(live, 1, 1), 30, stays))
    hinted = asyncio.create_task(holding.until(PartMade(live, live.window.next_sequence), 30, stays))
    await settle(lambda: len(holding) == 7)
    assert len(live.listeners) == 1
    for _ in range(7):
        sink.push(next(stream))
    assert await asyncio.gather(*near, hinted) == [Held.FULFILLED] * 6
    assert (len(holding), len(live.listeners), far.done()) == (1, 1, False)
    far.cancel()
    await asyncio.gather(far, return_exceptions=True)
    assert (len(holding), live.listeners) == (0, [])


async def test_each_wait_ends_and_says_how() -> None:
    broadcast, holding = begun(), Holding(most=3)

    async def leaves() -> MutableMapping[str, Any]:
        return {"type": next(messages)}

    messages = iter(["http.request", "http.disconnect"])
    late = asyncio.create_task(holding.until(Begun(broadcast), 0.01, stays))
    left = asyncio.create_task(holding.until(Begun(broadcast), 30, leaves))
    closed = asyncio.create_task(holding.until(Begun(broadcast), 30, stays))
    await settle(lambda: len(holding) == 3)
    assert await holding.until(Begun(broadcast), 30, stays) is Held.FULL
    assert [await late, await left] == [Held.LATE, Held.LEFT]
    holding.close()
    assert await closed is Held.CLOSED
    assert await holding.until(Begun(broadcast), 30, stays) is Held.CLOSED
    broadcast.end()
    assert await holding.until(Begun(broadcast), 30, stays) is Held.FULFILLED
    assert (len(holding), broadcast.listeners) == (0, [])
