"""What a node's death left open, closed when its encoder has not come back in time: the media role calls `recover` at its start, before it
takes publishers, and again and again, for other nodes are lost too.

The manifest alone says what was stored, so every fact that the crash kept from being told is told from it, under its old id. A broadcast
that died before it could leave a marker in the archive is known to the node's spool.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import obstore
import structlog
from pydantic import ValidationError

from media import manifest
from media.archive import OPEN, Archive
from media.facts import ended, fact_of, ready, recording_of
from media.lease import Leases
from media.manifest import EndLine, Manifest, RecordingLine
from media.port import Fact, Started

log = structlog.get_logger()

STALE_S: Final = 600.0
"""A recording of another node on which nothing was written for so long has lost its node."""
RECOVERY_S_MAX: Final = 120.0
LOOK_S: Final = 10.0
"""So often the role looks for what others lost."""
SETTLE_S: Final = 0.3
"""Two nodes that find the same: the one that wrote last closes it."""

Put = Callable[[Fact], Awaitable[object]]


async def recover(
    archive: Archive,
    put: Put,
    *,
    begun: Sequence[Started] = (),
    is_live: Callable[[str], bool],
    now: datetime,
    leases: Leases | None = None,
    resume_s: float = 0.0,
) -> list[str]:
    """Close what no living node writes; the broadcasts' ids are returned. One that cannot be closed now stays for the next look.
    `begun`: what this node began in an earlier life, and did not end. By `leases` others are known to live; and who is lost is given
    `resume_s`, in which its encoders may come to another node, or to this one."""
    closed = []
    marked = await _open(archive)
    for node, broadcast_id in marked:
        if is_live(broadcast_id):
            continue
        marker = f"{OPEN}/{node}/{broadcast_id}"
        try:
            async with asyncio.timeout(RECOVERY_S_MAX):
                lost = (
                    node == archive.node or await _is_stale(archive, broadcast_id, marker, now)
                    if leases is None
                    else await _is_lost(archive, leases, node, broadcast_id, now, resume_s)
                )
                if lost and not is_live(broadcast_id):
                    await _close(archive, marker, broadcast_id, put)
                    closed.append(broadcast_id)
        except Exception as fault:
            log.error("recovery_failed", broadcast=broadcast_id, error=f"{type(fault).__name__}: {fault}")
    known = {broadcast_id for _, broadcast_id in marked}
    for started in begun:
        if started.broadcast_id not in known and not is_live(started.broadcast_id):
            # It died before its marker was written, and so before anything was stored; or another node has gone on with it, to its end.
            found = await manifest.read(archive.store, started.broadcast_id)
            at = started.at if found is None else found.ended_at or found.end_at
            await put(ended(started.broadcast_id, started.channel_id, at, "node_lost"))
            closed.append(started.broadcast_id)
    return closed


async def _is_lost(
    archive: Archive, leases: Leases, node: str, broadcast_id: str, now: datetime, resume_s: float
) -> bool:
    """Whether nobody writes it, and nobody will go on with it. Then its lease says so, and no encoder's return comes between."""
    marker = f"{OPEN}/{node}/{broadcast_id}"
    began = await _marked(archive, marker)
    held = await leases.read(began.channel_id) if began is not None else None
    if began is None or held is None or held.broadcast_id != broadcast_id or held.state == "ended":
        # Its channel has gone on without it, or whoever had it was closing it.
        ours = node == archive.node and not (held is not None and leases.is_ours(held))
        return ours or await _is_stale(archive, broadcast_id, marker, now)
    if leases.lives(held) or leases.age_s(held) <= resume_s:
        return False
    await leases.write(began.channel_id, broadcast_id, held.term + 1, "ended")
    await asyncio.sleep(SETTLE_S)
    now_held = await leases.read(began.channel_id)
    return now_held is not None and leases.is_ours(now_held) and now_held.term == held.term + 1


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
    began = await _marked(archive, marker)
    if found is None and began is not None:
        # It died before its first line.
        recording = recording_of(began) if isinstance(began, Started) else began
        found = Manifest(recording=recording, renditions=(), segments=(), ended_at=None)
    if found is None:
        log.error("marker_unreadable", marker=marker)
        return
    if isinstance(began, Started):
        await put(began)
    for line in found.segments:
        await put(fact_of(found.recording, line))
    channel_id, end_at = found.recording.channel_id, found.ended_at or found.end_at
    await put(ended(broadcast_id, channel_id, end_at, "node_lost"))
    if found.ended_at is None:
        log.warning("recording_recovered", broadcast=broadcast_id, segments=len(found.segments))
        await _write_end(archive, broadcast_id, found)
    if found.segments:
        await put(ready(broadcast_id, channel_id, found.end_at, found.duration_s))
    await archive.forget(marker)


async def _marked(archive: Archive, marker: str) -> Started | RecordingLine | None:
    """What a marker says: how the broadcast began, or in those of before, what the manifest's first line does."""
    data = bytes(await (await obstore.get_async(archive.store, marker)).bytes_async())
    for kind in (Started, RecordingLine):
        try:
            return kind.model_validate_json(data)
        except ValidationError:
            continue
    return None


async def _write_end(archive: Archive, broadcast_id: str, found: Manifest) -> None:
    log_: manifest.ManifestLog = (
        archive.manifest(broadcast_id)
        if archive.folder is not None
        else await manifest.resume(archive.store, broadcast_id)
    )
    await log_.append([found.recording, EndLine(at=found.end_at)])
    await log_.close()
