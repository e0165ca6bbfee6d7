"""The files that pages load, kept in memory, each folder below an address that changes with its content. Called by `gateways.web.pages`.

A browser may keep such a file for ever, and modules import each other by relative path, so that nothing needs building. Never reads
the disk after start.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain; charset=utf-8",
}
_DIGEST_CHARS: Final = 16


@dataclass(frozen=True, slots=True)
class Asset:
    content: bytes
    compressed: bytes
    media_type: str
    etag: str


@dataclass(frozen=True, slots=True)
class Folder:
    """`digest` covers every file's name and bytes."""

    digest: str
    files: dict[str, Asset]


def load(path: Path) -> Folder:
    files = {file.name: _asset(file) for file in sorted(path.iterdir()) if file.suffix in TYPES}
    whole = hashlib.sha256()
    for name, asset in files.items():
        whole.update(f"{name} {asset.etag} ".encode())
    return Folder(whole.hexdigest()[:_DIGEST_CHARS], files)


def _asset(file: Path) -> Asset:
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Asset(content, _compressed(content), TYPES[file.suffix], f'"{digest[:_DIGEST_CHARS]}"')


@cache
def _compressed(content: bytes) -> bytes:
    # Level 6 takes some 20 ms for everything we serve; no time stamp, so that every pod sends the same bytes.
    return gzip.compress(content, compresslevel=6, mtime=0)
