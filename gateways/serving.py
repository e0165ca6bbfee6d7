"""Serving an ASGI application from inside a role: uvicorn, with our signals, our limits and our readiness.

Called by roles whose body is a web application. It installs no signal handlers (the frame in `gateways.roles` cancels instead) and
believes X-Forwarded-* only from the front, which rewrites them.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn

from gateways.health import Readiness

DRAIN_S_MAX: Final = 5
KEEP_ALIVE_S: Final = 30
BACKLOG: Final = 512
FRONT: Final = "127.0.0.1,::1"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, readiness: Readiness) -> None:
        super().__init__(config)
        self._readiness = readiness

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._readiness.ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bound(host: str, port: int) -> socket.socket:
    """A listening socket whose connections send at once. asyncio sees to that only for sockets that name their protocol, and these do not:
    a head would go out, and its body wait for the acknowledgement, which a client delays by 40 ms."""
    listening = socket.create_server((host, port), backlog=BACKLOG)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


async def serve(
    app: Any,
    host: str,
    port: int,
    readiness: Readiness,
    *,
    trusted: str = FRONT,
    stopping: Callable[[], None] = lambda: None,
) -> None:
    """Serve until cancelled, then let requests in flight finish for `DRAIN_S_MAX`; `stopping` may tell them to hurry. Says `ready` once
    it listens."""
    # Bound here, not by uvicorn, which would leave the process without a word to our log.
    listening = bound(host, port)
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S_MAX,
            forwarded_allow_ips=trusted,
            loop="asyncio",
            lifespan="on",
            ws="none",
        ),
        readiness,
    )
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        readiness.not_ready("stopping")
        server.should_exit = True
        stopping()
        await task
        raise
    raise RuntimeError(f"The web server on {host}:{port} ended by itself.")
