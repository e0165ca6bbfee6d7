"""Which node has a channel's broadcast: one small object a channel in the archive, renewed while the broadcast lasts.

`media.pipeline` claims a channel before it begins, and lets go when another node holds a higher term. Never in the way of a broadcast:
while the archive is away a node goes by what it knows itself. The nodes' clocks must agree to a second or two.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import obstore
import structlog
from obstore.exceptions import BaseError, NotFoundError
from prometheus_client import Counter
from pydantic import BaseModel, ConfigDict, ValidationError

from media.archive import Archive
from media.sample import AlreadyPublishing

log = structlog.get_logger()

ROOT: Final = "leases"
RENEW_S: Final = 2.0
LEASE_S: Final = 7.0
"""Who has not renewed for so long is lost: three renewals, and a slow one."""
LOOK_S: Final = 0.25
ASK_S_MAX: Final = 2.0

State = Literal["live", "interrupted", "draining", "released", "ended"]
"""`live`: its encoder sends. `interrupted`: it may come back, here or elsewhere; so too while `draining`. `released`: the node has stopped.
`ended`: there is nothing to go on with."""
_LET_GO: Final[frozenset[State]] = frozenset({"interrupted", "draining", "released", "ended"})

_lost = Counter("tallylight_leases_lost_total", "Broadcasts that another node took over")


class Held(BaseModel):
    """`run`: the process, for a node that starts again is another. A higher `term` wins over a lower one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    node: str
    run: str
    broadcast_id: str
    term: int
    state: State
    at: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """The channel is ours under `term`; `before` had it, and may still be letting go."""

    term: int
    before: Held | None


class Leases:
    """Of one process. `now` is the time of day."""

    def __init__(self, archive: Archive, *, run: str, now: Callable[[], datetime]) -> None:
        self._archive = archive
        self._run = run
        self._now = now

    async def read(self, channel_id: str) -> Held | None:
        """None where nobody has it, or the archive cannot say."""
        try:
            async with asyncio.timeout(ASK_S_MAX):
                found = await obstore.get_async(self._archive.store, _key(channel_id))
                return Held.model_validate_json(bytes(await found.bytes_async()))
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError, ValidationError) as fault:
            log.warning("lease.unread", channel=channel_id, why=repr(fault)[:200])
            return None

    async def write(self, channel_id: str, broadcast_id: str, term: int, state: State) -> bool:
        """Whether it is written."""
        held = Held(
            node=self._archive.node, run=self._run, broadcast_id=broadcast_id, term=term, state=state, at=self._now()
        )
        try:
            async with asyncio.timeout(ASK_S_MAX):
                await obstore.put_async(self._archive.store, _key(channel_id), held.model_dump_json().encode())
        except (BaseError, OSError) as fault:
            log.warning("lease.unwritten", channel=channel_id, why=repr(fault)[:200])
            return False
        return True

    def lives(self, held: Held) -> bool:
        """Whether the process that holds it is there, as far as one can know."""
        if held.node == self._archive.node and held.run != self._run:
            return False  # we are that node now
        return held.state != "released" and self.age_s(held) < LEASE_S

    def age_s(self, held: Held) -> float:
        return (self._now() - held.at).total_seconds()

    def beats(self, held: Held, term: int) -> bool:
        """Whether another's lease wins over ours of this term. Two that claimed in the same moment: the one whose name is first."""
        mine = (self._archive.node, self._run)
        return (held.node, held.run) != mine and (-held.term, held.node, held.run) < (-term, *mine)

    async def claim(self, channel_id: str) -> Claim:
        """Raises `AlreadyPublishing` where an encoder sends to another node. One that has just been lost is waited for, so that its encoder
        need not try twice."""
        held = await self.read(channel_id)
        if held is None:
            return Claim(1, None)
        first, given_up_s = held, asyncio.get_running_loop().time() + LEASE_S
        while self.lives(held) and held.state not in _LET_GO and not self.is_ours(held):
            if (held.run, held.at) != (first.run, first.at) or asyncio.get_running_loop().time() > given_up_s:
                raise AlreadyPublishing
            await asyncio.sleep(LOOK_S)
            held = await self.read(channel_id) or held
        return Claim(held.term + 1, held)

    def is_ours(self, held: Held) -> bool:
        return (held.node, held.run) == (self._archive.node, self._run)


class Lease:
    """One broadcast's, renewed until `close`. `lost` is called once, when another node has it."""

    def __init__(
        self, leases: Leases, channel_id: str, broadcast_id: str, term: int, *, lost: Callable[[], None]
    ) -> None:
        self._leases = leases
        self._channel_id = channel_id
        self.broadcast_id = broadcast_id
        self._term = term
        self._lost = lost
        self._state: State = "live"
        self._changed = asyncio.Event()
        self._renewed_at = asyncio.get_running_loop().time()
        self._is_lost = self._is_over = self._is_too_late = False
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Written when it returns, if the archive takes it."""
        await self._renew()
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def become(self, state: State) -> None:
        """Told at once."""
        if state != self._state:
            self._state = state
            self._changed.set()

    async def holds(self) -> bool:
        """Before anything is stored: a process that stood still may have lost it without knowing."""
        if not self._is_over and asyncio.get_running_loop().time() - self._renewed_at > LEASE_S:
            await self._renew()
        return not self._is_too_late

    async def close(self, state: Literal["released", "ended"]) -> None:
        self._is_over = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if not self._is_lost:
            await self._leases.write(self._channel_id, self.broadcast_id, self._term, state)

    async def _run(self) -> None:
        while not self._is_lost:
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_S):
                    await self._changed.wait()
            self._changed.clear()
            await self._renew()

    async def _renew(self) -> None:
        held = await self._leases.read(self._channel_id)
        if held is not None and self._leases.beats(held, self._term):
            if not self._is_lost:
                self._is_lost = True
                # Else who took it waits for us to store what we have.
                self._is_too_late = asyncio.get_running_loop().time() - self._renewed_at > LEASE_S
                _lost.inc()
                log.warning("lease.lost", channel=self._channel_id, broadcast=self.broadcast_id, to=held.node)
                self._lost()
            return
        if await self._leases.write(self._channel_id, self.broadcast_id, self._term, self._state):
            self._renewed_at = asyncio.get_running_loop().time()


def _key(channel_id: str) -> str:
    return f"{ROOT}/{channel_id}.json"
