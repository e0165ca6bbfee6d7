"""The whole product, started as its user starts it, in a folder and on ports of its own, driven over its public surface.

Used by the end-to-end tests and by the benchmarks that need everything. Knows nothing of the inside.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
import psutil

READY_S_MAX: Final = 60.0
STOP_S_MAX: Final = 30.0


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


@dataclass(frozen=True, slots=True)
class Channel:
    """An account with a channel of the same name, ready to publish."""

    name: str
    access_token: str
    publish_url: str


class Stack:
    def __init__(self, folder: Path, **settings: object) -> None:
        """`settings` by their names, beside those that give it a folder and ports of its own."""
        self.folder = folder
        self._settings = settings
        self.http_port, self.https_port, self.rtmp_port = free_ports(3)
        self.url = f"http://localhost:{self.http_port}"
        self.secure_url = f"https://localhost:{self.https_port}"
        self.log = folder / "up.log"
        self.ready_after_s = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        mine = {
            "DATA_DIR": str(self.folder / "data"),
            "HTTP_PORT": str(self.http_port),
            "HTTPS_PORT": str(self.https_port),
            "RTMP_PORT": str(self.rtmp_port),
        } | {name.upper(): str(value) for name, value in self._settings.items()}
        return os.environ | {f"TALLYLIGHT_{name}": value for name, value in mine.items()}

    @staticmethod
    def command() -> list[str]:
        """How the command line is called, whatever the working directory."""
        return [sys.executable, "-m", "gateways.cli"]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`tallylight …` beside the running stack."""
        return subprocess.run(
            [*self.command(), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def start(self) -> Self:
        began = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.command(), "up"],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while time.monotonic() - began < READY_S_MAX:
            if self._process.poll() is not None:
                raise RuntimeError(f"tallylight up ended with {self._process.returncode}:\n{self.tail()}")
            try:
                if httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200:
                    self.ready_after_s = time.monotonic() - began
                    return self
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"not ready after {READY_S_MAX} s:\n{self.tail()}")

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def processes(self) -> list[psutil.Process]:
        """The supervisor and everything under it."""
        assert self._process is not None
        supervisor = psutil.Process(self._process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def role(self, name: str) -> psutil.Process:
        """The process of a role, as its command line names it."""
        for process in self.processes():
            # What was just killed may be a zombie for a moment.
            with suppress(psutil.Error):
                if process.cmdline()[-2:] == ["role", name]:
                    return process
        raise LookupError(name)

    def stop(self) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(STOP_S_MAX)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            assert self._process is not None
            os.killpg(self._process.pid, signal.SIGKILL)
            raise

    # -- the public surface ---------------------------------------------------------------------------------------

    def register(self, username: str, password: str = "correct horse battery", *, peer: str = "") -> str:
        """A new account; its access token. `peer`: the address it comes from, where `trusted_proxies` lets us say so."""
        headers = {"X-Forwarded-For": peer} if peer else {}
        who = {"username": username, "password": password}
        self._json(httpx.post(f"{self.url}/api/v1/accounts", json=who, headers=headers), 201)
        answer = httpx.post(f"{self.url}/api/v1/sessions", json=who, headers=headers)
        return str(self._json(answer, 200, 201)["access_token"])

    def open_channel(self, name: str, *, title: str = "", category: str = "", peer: str = "") -> Channel:
        token = self.register(name, peer=peer)
        headers = {"Authorization": f"Bearer {token}"}
        body = {"name": name, "title": title, "category": category}
        self._json(httpx.post(f"{self.url}/api/v1/channels", json=body, headers=headers), 201)
        key = self._json(httpx.post(f"{self.url}/api/v1/channels/{name}/stream-key", headers=headers), 200, 201)
        return Channel(name, token, f"{key['rtmp_url']}/{key['stream_key']}")

    @staticmethod
    def _json(answer: httpx.Response, *expected: int) -> Any:
        if answer.status_code not in expected:
            raise RuntimeError(
                f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:500]}"
            )
        return answer.json()
