"""`make bench NAME=cold_start`: how long `tallylight up` takes to serve, and what it costs when nobody does anything.

Three kinds of start: the very first, in an empty folder (initdb and all migrations included); a second on the same folder; and the peer,
the same engines and the same front without any role of ours, started one after the other as their documentation has it. Memory is PSS,
so that shared pages count once; the idle time is the whole tree's. `ratio` is the peer's time over ours: below 1, for we do more.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil

from bench.common import machine, report, say, spread
from bench.stack import Stack, free_ports
from gateways import front
from gateways.engines.broker import Broker
from gateways.engines.postgres import Postgres
from gateways.engines.process import listening, wait_until
from gateways.settings import FrontSettings

SETTLE_S: Final = 15.0
IDLE_S: Final = 30.0
READY_GOAL_S: Final = 10.0
MEMORY_GOAL_MIB: Final = 700.0
IDLE_GOAL: Final = 0.30


def pss_mib(processes: Iterable[psutil.Process]) -> dict[str, float]:
    """Proportional set size by what the process is."""
    found: dict[str, float] = defaultdict(float)
    for process in processes:
        with suppress(psutil.Error, OSError):
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            kib = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
            found[_kind(process)] += kib / 1024
    return dict(found)


def cpu_s(processes: Iterable[psutil.Process]) -> dict[str, float]:
    """CPU time used so far, by what the process is."""
    found: dict[str, float] = defaultdict(float)
    for process in processes:
        with suppress(psutil.Error):
            times = process.cpu_times()
            found[_kind(process)] += times.user + times.system
    return dict(found)


def _kind(process: psutil.Process) -> str:
    """`role api`, `postgres`, `tansu`, …; the supervisor by the command it was called with."""
    arguments = process.cmdline()
    if arguments[-2:-1] == ["role"]:
        return arguments[-1]
    if "gateways.cli" in arguments:
        return "supervisor"
    if any("zygote" in argument for argument in arguments):
        return "zygote"
    return process.name()


def start(folder: Path) -> dict[str, Any]:
    """Once in this folder: seconds until `/readyz` answers 200."""
    stack = Stack(folder)
    with stack:
        return {"ready_s": stack.ready_after_s}


def rest(folder: Path, idle_s: float) -> dict[str, Any]:
    """What everything uses when nothing happens."""
    with Stack(folder) as stack:
        say(f"resting {SETTLE_S:.0f} s, then measuring {idle_s:.0f} s …")
        time.sleep(SETTLE_S)
        before, began = cpu_s(stack.processes()), time.monotonic()
        time.sleep(idle_s)
        after, lasted = cpu_s(stack.processes()), time.monotonic() - began
        memory = pss_mib(stack.processes())
    share = {kind: (after[kind] - before.get(kind, 0.0)) / lasted for kind in after}
    return {
        "memory_mib": round(sum(memory.values()), 1),
        "idle_cpu": round(sum(share.values()), 3),
        "memory_mib_by": {kind: round(mib, 1) for kind, mib in sorted(memory.items())},
        "idle_cpu_by": {kind: round(used, 4) for kind, used in sorted(share.items())},
    }


def bare(folder: Path) -> float:
    """The peer: seconds until Postgres, broker and front accept connections, on a cluster that exists."""
    began = time.monotonic()
    postgres, broker = Postgres(folder / "postgres"), Broker(folder / "broker")
    (http_port,) = free_ports(1)
    settings = FrontSettings(data_dir=folder, http_port=http_port, https_port=0)
    caddy: subprocess.Popen[bytes] | None = None
    try:
        postgres.start()
        broker.start()
        config = front.prepare(settings, folder / "front")
        caddy = subprocess.Popen(
            front.command(config), env=front.environment(folder / "front"), stderr=subprocess.DEVNULL
        )
        if not wait_until(lambda: listening("127.0.0.1", http_port), caddy, timeout_s=20):
            raise RuntimeError("the peer's front did not start")
        return time.monotonic() - began
    finally:
        if caddy is not None:
            caddy.terminate()
            caddy.wait()
        broker.stop()
        postgres.stop()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--idle-s", type=float, default=IDLE_S)
    options = arguments.parse_args()
    on = machine()
    root = Path(os.environ.get("TALLYLIGHT_BENCH_DIR", "/var/tmp"))
    with tempfile.TemporaryDirectory(prefix="tallylight-bench-", dir=root) as folder:
        kept, peer_folder = Path(folder) / "kept", Path(folder) / "peer"
        say("the very first start, in an empty folder …")
        first_s = start(kept)["ready_s"]
        say(f"{first_s:.2f} s")
        bare(peer_folder)
        ready, peer = [], []
        for run in range(options.runs):
            ready.append(start(kept)["ready_s"])
            peer.append(bare(peer_folder))
            say(f"run {run + 1}: ready after {ready[-1]:.2f} s, bare engines after {peer[-1]:.2f} s")
        resting = rest(kept, options.idle_s)
    median = statistics.median(ready)
    report(
        "cold_start",
        figure=median,
        unit="s",
        peer="the same Postgres, broker and Caddy one after the other, without our roles",
        peer_figure=statistics.median(peer),
        ratio=statistics.median(peer) / median,
        on=on,
        detail={
            "first_start_s": round(first_s, 3),
            "ready_s": spread(ready),
            "peer_s": spread(peer),
            **resting,
            "goals": {
                "ready_s": [round(max(first_s, *ready), 3), READY_GOAL_S],
                "memory_mib": [resting["memory_mib"], MEMORY_GOAL_MIB],
                "idle_cpu": [resting["idle_cpu"], IDLE_GOAL],
            },
        },
    )


if __name__ == "__main__":
    main()
