"""Who watches through the edge: Varnish's log of delivered playlists, told on. The origin sees one request of many and cannot count.

A viewer is what `media.origin.viewer_named` says, as at the origin: the one request that does reach it is nobody twice.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from gateways.edge.vcl import tool, working
from gateways.engines.process import dying_with_parent
from media.origin import viewer_named

log = structlog.get_logger()

LINE_BYTES_MAX: Final = 64 * 1024
RETRY_S: Final = 1.0
_FORMAT: Final = r"%{VCL_Log:channel}x\t%{Tallylight-Viewer}i\t%{X-Forwarded-For}i\t%{User-agent}i"
_FIELDS: Final = 4


async def watching(config: Path, seen: Callable[[str, str], None]) -> None:
    """Tell `seen` of each channel id and viewer, until cancelled. Lines that are lost are viewers counted a moment later."""
    while True:
        async for channel_id, viewer in _read(config):
            seen(channel_id, viewer)
        log.warning("edge.viewers", problem="the log ended; it is read again")
        await asyncio.sleep(RETRY_S)


async def _read(config: Path) -> AsyncIterator[tuple[str, str]]:
    process = await asyncio.create_subprocess_exec(
        *dying_with_parent("TERM"), tool("varnishncsa"), "-n", str(working(config)), "-t", "off", "-g", "request",
        "-q", 'VCL_Log ~ "^channel:"', "-F", _FORMAT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, limit=LINE_BYTES_MAX,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        while line := await process.stdout.readline():
            if (found := parse(line)) is not None:
                yield found
    except ValueError:
        log.warning("edge.viewers", problem="a line that is too long")
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def parse(line: bytes) -> tuple[str, str] | None:
    """A line of `_FORMAT`; varnishncsa writes `-` for what is not there."""
    fields = line.decode("utf-8", "replace").rstrip("\n").split("\t")
    if len(fields) != _FIELDS:
        return None
    channel_id, named, forwarded, browser = ("" if field == "-" else field for field in fields)
    return channel_id, viewer_named(named, forwarded, browser)
