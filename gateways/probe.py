"""One question over HTTP to a private port on this machine: does it answer, and how.

Called by the supervisor many times a second while things start, and by containers; so no client library, no pool, no redirect.
"""

import asyncio
import sys
from contextlib import suppress
from typing import Final

ANSWER_S_MAX: Final = 3.0
STATUS_LINE_BYTES_MAX: Final = 256


async def probe(host: str, port: int, path: str) -> int | None:
    """The status of `GET path`; None when nobody answers in time."""
    writer = None
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            reader, writer = await asyncio.open_connection(host, port, limit=STATUS_LINE_BYTES_MAX)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            status = (await reader.readuntil(b"\r\n")).split()
            return int(status[1])
    except (TimeoutError, OSError, ValueError, IndexError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    finally:
        if writer is not None:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def main() -> None:
    """`python -m gateways.probe HOST PORT PATH`, a container's health check: code 0 for a 200, else 1."""
    _, host, port, path = sys.argv
    raise SystemExit(0 if asyncio.run(probe(host, int(port), path)) == 200 else 1)


if __name__ == "__main__":
    main()
