"""`tallylight up`: the embedded engines, the front and every role, in one folder, with one log and one end.

Called by `gateways.cli`. It starts things in the order they need each other, restarts what dies, says when all are ready, and stops
all of them within bounds. It never touches a fact: whatever it kills may be killed.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import psutil

from gateways import front, ports, wiring
from gateways.engines.broker import STOP_SIGNAL as BROKER_STOP
from gateways.engines.broker import Broker
from gateways.engines.postgres import STOP_SIGNAL as POSTGRES_STOP
from gateways.engines.postgres import Postgres
from gateways.engines.process import EngineFailed, FolderInUse, dying_with_parent, listening
from gateways.folder import DataFolder, Running
from gateways.health import HealthServer, Readiness
from gateways.launch import Child, Zygote, ZygoteGone, start, variables
from gateways.logbook import Logbook
from gateways.probe import probe
from gateways.roles import LAPTOP
from gateways.settings import UpSettings

READY_S_MAX: Final = 90.0
ROLE_STOP_S_MAX: Final = 12.0  # a role gives itself ten
ENGINE_STOP_S_MAX: Final = 20.0
POLL_S: Final = 0.05
WATCH_S: Final = 5.0
DEAF_MAX: Final = 6
"""Unanswered looks at a role's /healthz in a row before it counts as hung."""
BACKOFF_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_S: Final = 30.0
"""A process that lived this long starts again without waiting."""
STORE: Final = "tallylight"
KEYS: Final = "tallylight_keys"
PORTED: Final = ("api", "chat", "media", "sandbox")
"""Roles with an HTTP port of their own besides the health port."""


class CannotStart(Exception):
    """Nothing was started, or everything that was has been stopped again; the message says why and what helps."""


@dataclass(slots=True)
class Service:
    """One process that shall run: how to start it, how to stop it, how to know that it works."""

    name: str
    launch: Callable[[], Awaitable[Child]]
    stop_signal: int
    stop_s_max: float
    ready: Callable[[], Awaitable[bool]]
    alive: Callable[[], Awaitable[bool]] | None = None
    child: Child | None = None
    starts: int = 0
    failures: int = 0
    running: "asyncio.Task[None] | None" = field(default=None, repr=False)


class Supervisor:
    """One `up`. `run` returns the exit code."""

    def __init__(self, settings: UpSettings, logbook: Logbook, *, demo: bool = False) -> None:
        self._settings = settings
        self._demo = demo
        self._log = logbook
        self._folder = DataFolder(settings.data_dir)
        self._services: dict[str, Service] = {}
        self._zygote: Zygote | None = None
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._began = time.monotonic()
        wanted = list(LAPTOP)
        found = list(ports.private(len(wanted) + len(PORTED) + 1))
        self._health = dict(zip(wanted, found, strict=False))
        self._ports = dict(zip(PORTED, found[len(wanted) :], strict=False))
        self._own_health = found[-1]
        self._readiness = Readiness("up")
        self._health_server = HealthServer(self._readiness)
        self._running: Running | None = None

    async def run(self) -> int:
        """Until a signal, or until it proves impossible."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._asked_to_stop)
        try:
            self._take_folder()
            await self._start_all()
            await self._stopping.wait()
            return 0
        except (CannotStart, EngineFailed, FolderInUse) as reason:
            if self._stopping.is_set():
                return 0
            self._log.error(str(reason))
            return 1
        finally:
            await self._stop_all()
            self._folder.release()

    # -- starting -----------------------------------------------------------------------------------------------

    def _take_folder(self) -> None:
        """All that can be refused, before anything is started."""
        try:
            self._folder.take()
        except OSError as refused:
            raise CannotStart(
                f"The data folder {self._folder.path} cannot be used: {refused.strerror}. Choose another with TALLYLIGHT_DATA_DIR."
            ) from None
        if stale := self._folder.end_stale():
            self._log.info(f"ended {stale} processes that an earlier run had left behind")
        if problems := ports.taken(ports.public(self._settings)):
            raise CannotStart("\n".join(problems))

    async def _start_all(self) -> None:
        self._log.info(f"data in {self._folder.path}")
        self._zygote = Zygote(self._log.line)
        await self._health_server.start(ports.HOST, self._own_health)
        self._start_front()
        (dsn, keys_dsn), bootstrap, _ = await asyncio.gather(
            self._start_postgres(), self._start_broker(), self._until(self._zygote.warm(), "the zygote")
        )
        self._running = Running(
            os.getpid(), dsn, keys_dsn, bootstrap, front.public_url(self._settings), wiring.rtmp_url(self._settings)
        )
        environment = wiring.role_environment(
            self._settings, self._folder, self._running, ports_of=self._ports, health_of=self._health
        )
        for name in LAPTOP:
            self._start_role(name, environment | {"health_port": self._health[name]})
            self._readiness.check(name, self._asks(name))
        self._say_running()
        await self._all_ready()
        self._readiness.ready()
        self._say_running()
        self._log.notice(wiring.welcome(self._settings, ready_after_s=time.monotonic() - self._began))
        if self._demo:
            self._start_demo()

    async def _until(self, what: Awaitable[object], name: str) -> None:
        """Wait for it, for the supervisor's end, or for the longest time a start may take."""
        waiting = asyncio.ensure_future(what)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({waiting, stopping}, timeout=READY_S_MAX, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                reason = (
                    "stopped while starting" if stopping.done() else f"{name} was not ready after {READY_S_MAX:.0f} s"
                )
                raise CannotStart(reason)
            waiting.result()
        finally:
            waiting.cancel()
            stopping.cancel()

    def _start_front(self) -> None:
        folder = self._folder.sub("front")
        served = {name: self._ports[name] for name in ("api", "chat", "media")}
        if "api" not in LAPTOP:
            served["api"] = self._own_health
        settings = self._settings.model_copy(update=front.upstreams(served))
        config = front.prepare(settings, folder)
        host, port = front.addresses(settings.front_host)[0], settings.http_port
        reachable = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound

        async def launch() -> Child:
            return start("front", front.command(config), self._log.line, environment=front.environment(folder))

        async def ready() -> bool:
            return listening(reachable, port)

        self._add(Service("front", launch, signal.SIGTERM, ENGINE_STOP_S_MAX, ready))

    async def _start_postgres(self) -> tuple[str, str]:
        """The DSNs of the store and of the personal keys."""
        if self._settings.dsn is not None:
            if self._settings.keys_dsn is None:
                raise CannotStart(
                    "TALLYLIGHT_DSN is set, so TALLYLIGHT_KEYS_DSN must be too: the personal keys live in a database of their own."
                )
            return self._settings.dsn.get_secret_value(), self._settings.keys_dsn.get_secret_value()
        server = Postgres(self._folder.sub("postgres"), port=self._settings.postgres_port)
        await asyncio.to_thread(server.prepare)

        async def launch() -> Child:
            return start("postgres", server.command(), self._log.line)

        async def ready() -> bool:
            return server.ready()

        service = self._add(Service("postgres", launch, POSTGRES_STOP, ENGINE_STOP_S_MAX, ready))
        await self._until(self._ready(service), "Postgres")
        store, keys = await asyncio.gather(
            asyncio.to_thread(server.ensure_database, STORE), asyncio.to_thread(server.ensure_database, KEYS)
        )
        return store, keys

    async def _start_broker(self) -> str:
        if self._settings.bootstrap_servers is not None:
            return self._settings.bootstrap_servers
        broker = Broker(self._folder.sub("broker"), port=self._settings.broker_port)

        async def launch() -> Child:
            return start("broker", broker.command(), self._log.line)

        async def ready() -> bool:
            return broker.ready()

        service = self._add(Service("broker", launch, BROKER_STOP, ENGINE_STOP_S_MAX, ready))
        await self._until(self._ready(service), "the broker")
        return broker.bootstrap

    def _start_role(self, name: str, settings: Mapping[str, object]) -> None:
        environment = variables(settings)
        health = self._health[name]

        async def launch() -> Child:
            return await self._fork(name, environment)

        async def ready() -> bool:
            return await probe(ports.HOST, health, "/readyz") == 200

        async def alive() -> bool:
            return await probe(ports.HOST, health, "/healthz") == 200

        self._add(Service(name, launch, signal.SIGTERM, ROLE_STOP_S_MAX, ready, alive))

    def _start_demo(self) -> None:
        running = self._running
        assert running is not None
        told = variables(
            {"data_dir": self._folder.path, "public_url": running.public_url, "rtmp_public_url": running.rtmp_url}
        )
        command = [*dying_with_parent("TERM"), sys.executable, "-m", "gateways.demo"]

        async def launch() -> Child:
            return start("demo", command, self._log.line, environment=os.environ | told)

        async def ready() -> bool:
            return True

        self._add(Service("demo", launch, signal.SIGTERM, ROLE_STOP_S_MAX, ready))

    async def _fork(self, name: str, environment: Mapping[str, str]) -> Child:
        """From the zygote, or from a new one where that is gone."""
        zygote = self._zygote
        assert zygote is not None
        if zygote.gone:
            self._log.error("the zygote died; starting another")
            zygote.close()
            zygote = self._zygote = Zygote(self._log.line)
        return await zygote.start(name, environment)

    # -- keeping ------------------------------------------------------------------------------------------------

    def _add(self, service: Service) -> Service:
        self._services[service.name] = service
        service.running = asyncio.create_task(self._keep(service))
        return service

    async def _keep(self, service: Service) -> None:
        """Start it, and again whenever it ends, until it is no longer wanted."""
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                service.child = await service.launch()
            except (OSError, ZygoteGone) as failed:
                self._log.error(f"{service.name} could not be started: {failed}")
                code: int | None = None
            else:
                service.starts += 1
                self._say_running()
                watching = asyncio.create_task(self._watch(service, service.child))
                code = await service.child.wait()
                watching.cancel()
            if self._stopping.is_set():
                return
            if time.monotonic() - started > STEADY_S:
                service.failures = 0
            delay_s = BACKOFF_S[min(service.failures, len(BACKOFF_S) - 1)]
            service.failures += 1
            self._log.error(f"{service.name} ended ({_told(code)}); starting it again in {delay_s:g} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)

    async def _watch(self, service: Service, child: Child) -> None:
        """A process that stopped answering is as good as dead."""
        if service.alive is None:
            return
        deaf, spoke = 0, False
        while deaf < DEAF_MAX:
            await asyncio.sleep(WATCH_S)
            answers = await service.alive()
            spoke = spoke or answers
            deaf = 0 if answers or not spoke else deaf + 1
        self._log.error(f"{service.name} has not answered for {DEAF_MAX * WATCH_S:.0f} s; killing it")
        child.signal(signal.SIGKILL)

    async def _ready(self, service: Service) -> None:
        while service.child is None or service.child.code is not None or not await service.ready():
            if service.failures >= len(BACKOFF_S):
                raise CannotStart(f"{service.name} does not stay up; the log above says why.")
            await asyncio.sleep(POLL_S)

    async def _all_ready(self) -> None:
        async with asyncio.timeout(READY_S_MAX):
            for service in list(self._services.values()):
                try:
                    await self._until(self._ready(service), service.name)
                except TimeoutError:
                    raise CannotStart(f"{service.name} was not ready after {READY_S_MAX:.0f} s.") from None

    def _asks(self, name: str) -> Callable[[], Awaitable[str | None]]:
        async def ask() -> str | None:
            return None if await self._services[name].ready() else "not ready"

        return ask

    # -- stopping -----------------------------------------------------------------------------------------------

    def _asked_to_stop(self) -> None:
        if self._stopping.is_set():
            self._log.info("in a hurry: killing what is left")
            self._hurry.set()
            return
        self._log.info("stopping (once more to hurry)")
        self._stopping.set()

    async def _stop_all(self) -> None:
        """Roles first, for they still have something to write down; then the front; the database last."""
        self._stopping.set()
        order: Iterable[Iterable[str]] = (["demo"], list(LAPTOP), ["front", "broker"], ["postgres"])
        for names in order:
            await asyncio.gather(*(self._stop(self._services[name]) for name in names if name in self._services))
        if self._zygote is not None:
            self._zygote.close()
            await _ended(self._zygote.child, 0, ENGINE_STOP_S_MAX, self._hurry)
        await self._health_server.close()
        if self._running is not None:
            self._folder.forget_running()

    async def _stop(self, service: Service) -> None:
        if service.child is not None:
            in_time = await _ended(service.child, service.stop_signal, service.stop_s_max, self._hurry)
            if not in_time:
                self._log.error(f"{service.name} had to be killed")
        if service.running is not None:
            service.running.cancel()
            await asyncio.wait({service.running})

    # -- telling ------------------------------------------------------------------------------------------------

    def _say_running(self) -> None:
        """For commands beside us, and for the next run should this one be killed."""
        if self._running is None:
            return
        children = [service.child.pid for service in self._services.values() if service.child is not None]
        if self._zygote is not None:
            children.append(self._zygote.pid)
        self._running.processes.clear()
        for pid in children:
            with suppress(psutil.NoSuchProcess):
                self._running.processes[str(pid)] = psutil.Process(pid).create_time()
        self._folder.say_running(self._running)


async def _ended(child: Child, number: int, within_s: float, hurry: asyncio.Event) -> bool:
    """Ask, wait, kill. Whether asking was enough."""
    child.signal(number)
    waiting = asyncio.ensure_future(child.wait())
    hurrying = asyncio.create_task(hurry.wait())
    await asyncio.wait({waiting, hurrying}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    hurrying.cancel()
    if waiting.done():
        return True
    child.signal(signal.SIGKILL)
    await waiting
    return False


def _told(code: int | None) -> str:
    if code is None:
        return "never started"
    return signal.Signals(-code).name if -64 < code < 0 else f"code {code}"


def up(settings: UpSettings, *, demo: bool = False) -> int:
    """Run everything until stopped, with a test broadcast on air if wanted; the exit code."""

    async def run() -> int:
        return await Supervisor(settings, Logbook(settings, sys.stderr), demo=demo).run()

    return asyncio.run(run())
