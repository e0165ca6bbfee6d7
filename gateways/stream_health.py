"""How broadcasts' streams are doing, as the media nodes tell on their private ports. Asked by the API for a broadcaster.

Every node is asked at most once in `FRESH_S`, however many ask us: a broadcaster's page asks each second.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx
import structlog

log = structlog.get_logger()

FRESH_S: Final = 0.5


class StreamHealths:
    """`nodes`: base addresses of the media nodes' private ports."""

    def __init__(self, client: httpx.AsyncClient, nodes: Sequence[str]) -> None:
        self._client = client
        self._nodes = nodes
        self._found: Mapping[str, dict[str, Any]] = {}
        self._asked_at = -FRESH_S
        self._asking = asyncio.Lock()

    async def of(self, channel_id: str) -> dict[str, Any] | None:
        """As `media.health.StreamHealth`; None for a channel that is not on air, or whose node does not answer."""
        loop = asyncio.get_running_loop()
        async with self._asking:
            if loop.time() - self._asked_at >= FRESH_S:
                answers = await asyncio.gather(*map(self._ask, self._nodes))
                self._found = {it["channel_id"]: it for answer in answers for it in answer}
                self._asked_at = loop.time()
        return self._found.get(channel_id)

    async def _ask(self, node: str) -> list[dict[str, Any]]:
        try:
            answer = await self._client.get(f"{node}/broadcasts")
            answer.raise_for_status()
            found: list[dict[str, Any]] = answer.json()
        except httpx.HTTPError as fault:
            log.warning("stream_health.away", node=node, problem=repr(fault)[:200])
            return []
        return found
