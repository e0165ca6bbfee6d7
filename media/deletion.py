"""A recording destroyed: its objects, its manifest and whatever would bring it back. `gateways.media_deletions` calls it.

Repeating it changes nothing; what a late writer left behind goes the second time.
"""

import obstore

from media import manifest
from media.archive import OPEN, Archive


async def destroy(archive: Archive, broadcast_id: str) -> None:
    """The manifest first, so that nobody begins to play. Raises what obstore raises while the archive is away."""
    folder = f"{manifest.ROOT}/{broadcast_id}"
    found = [entry["path"] async for page in obstore.list(archive.store, folder) for entry in page]
    manifests = [path for path in found if path.startswith(f"{folder}/manifest")]
    # A recovery begins from these: without them there is none.
    markers = [
        entry["path"]
        async for page in obstore.list(archive.store, OPEN)
        for entry in page
        if entry["path"].rpartition("/")[2] == broadcast_id
    ]
    for path in (*manifests, *markers, *(path for path in found if path not in set(manifests))):
        await archive.forget(path)  # or another node did
