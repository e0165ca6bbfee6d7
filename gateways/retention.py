"""Deletes recordings that are older than the operator wants to keep them: the role `api` decides it, as an owner would. Clips stay."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid5

import structlog

from commands.broadcasts import DeleteRecording
from commands.bus import handle
from commands.context import Actor, Call, Context
from domain.shared import Refusal
from eventstore.errors import StoreUnavailable
from eventstore.writer import FAULTS_OF_CONNECTION

log = structlog.get_logger()

LOOK_S: Final = 600.0
PAGE: Final = 200
_RETENTION: Final = UUID("5d0f3b9b-8b0e-5a55-9d5c-0a4f1f1c7a10")
_OPERATOR: Final = Actor("retention", "retention", frozenset({"admin"}))


class Retention:
    """`ended_before(at, limit)`: ids of channel and broadcast. Any number of these may run: each deletion is one command's."""

    def __init__(
        self,
        context: Context,
        ended_before: Callable[[datetime, int], Awaitable[list[tuple[str, str]]]],
        *,
        days: int,
    ) -> None:
        self._context = context
        self._ended_before = ended_before
        self._keep = timedelta(days=days)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except (*FAULTS_OF_CONNECTION, StoreUnavailable) as fault:
                log.info("retention.wait", why=repr(fault)[:200])
            await asyncio.sleep(LOOK_S)

    async def look(self) -> int:
        """How many were deleted. The next look finds those that are left."""
        due = await self._ended_before(self._context.clock() - self._keep, PAGE)
        deleted = 0
        for _, broadcast_id in due:
            call = Call(uuid5(_RETENTION, broadcast_id), _OPERATOR)
            outcome = await handle(self._context, call, DeleteRecording(broadcast_id))
            if isinstance(outcome, Refusal):
                log.warning("retention.refused", broadcast=broadcast_id, code=outcome.code)
            else:
                deleted += bool(outcome.placed)
                log.info("retention.deleted", broadcast=broadcast_id)
        return deleted
