"""What a node's death left open in the archive, closed: the media role calls `recover` once at its start, before it takes publishers.

The manifest alone says what was stored, so every fact that the crash kept from being told is told from it, under its old id.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import obstore
import structlog
from pydantic import ValidationError

from media import manifest
from media.archive import OPEN, Archive, fact_id, fact_of, ready
from media.manifest import EndLine, Manifest, RecordingLine
from media.port import Ended, Fact

log = structlog.get_logger()

STALE_S: Final = 600.0
"""A recording of another node on which nothing was written for so long has lost its node."""
RECOVERY_S_MAX: Final = 120.0

Put = Callable[[Fact], Awaitable[object]]


async def recover(archive: Archive, put: Put, *, is_live: Callable[[str], bool], now: datetime) -> list[str]:
    """Close what no living node writes; the broadcasts' ids are returned. One that cannot be closed now stays for the next start."""
    closed = []
    for node, broadcast_id in await _open(archive):
        if is_live(broadcast_id):
            continue
        marker = f"{OPEN}/{node}/{broadcast_id}"
        try:
            async with asyncio.timeout(RECOVERY_S_MAX):
                if node == archive.node or await _is_stale(archive, broadcast_id, marker, now):
                    await _close(archive, marker, broadcast_id, put)
                    closed.append(broadcast_id)
        except Exception as fault:
            log.error("recovery_failed", broadcast=broadcast_id, error=f"{type(fault).__name__}: {fault}")
    return closed


async def _open(archive: Archive) -> list[tuple[str, str]]:
    """Node and broadcast of every marker."""
    paths = [entry["path"] async for page in obstore.list(archive.store, OPEN) for entry in page]
    parts = [path.split("/") for path in sorted(paths)]
    return [(names[1], names[2]) for names in parts if len(names) == 3]


async def _is_stale(archive: Archive, broadcast_id: str, marker: str, now: datetime) -> bool:
    written = (await obstore.head_async(archive.store, marker))["last_modified"]
    async for page in obstore.list(archive.store, f"{manifest.ROOT}/{broadcast_id}"):
        written = max([written, *(entry["last_modified"] for entry in page)])
    return written < now.astimezone(UTC) - timedelta(seconds=STALE_S)


async def _close(archive: Archive, marker: str, broadcast_id: str, put: Put) -> None:
    found = await manifest.read(archive.store, broadcast_id)
    if found is None:
        # It died before its first line: the marker is a copy of that.
        found = await _unwritten(archive, marker)
    if found is None:
        log.error("marker_unreadable", marker=marker)
        return
    for line in found.segments:
        await put(fact_of(found.recording, line))
    if found.ended_at is None:
        log.warning("recording_recovered", broadcast=broadcast_id, segments=len(found.segments))
        await put(
            Ended(
                fact_id=fact_id(broadcast_id, "node_lost"),
                broadcast_id=broadcast_id,
                channel_id=found.recording.channel_id,
                at=found.end_at,
                reason="node_lost",
            )
        )
        await _write_end(archive, broadcast_id, found)
    if found.segments:
        await put(ready(broadcast_id, found.recording.channel_id, found.end_at, found.duration_s))
    await archive.forget(marker)


async def _unwritten(archive: Archive, marker: str) -> Manifest | None:
    data = bytes(await (await obstore.get_async(archive.store, marker)).bytes_async())
    try:
        recording = RecordingLine.model_validate_json(data)
    except ValidationError:
        return None
    return Manifest(recording=recording, renditions=(), segments=(), ended_at=None)


async def _write_end(archive: Archive, broadcast_id: str, found: Manifest) -> None:
    log_: manifest.ManifestLog = (
        archive.manifest(broadcast_id)
        if archive.folder is not None
        else await manifest.resume(archive.store, broadcast_id)
    )
    await log_.append([found.recording, EndLine(at=found.end_at)])
    await log_.close()
