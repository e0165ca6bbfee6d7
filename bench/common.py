"""What all benchmarks share: the result line of design §8, progress on stderr, a durable Postgres of one's own, the shape of a spread."""

import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from gateways.engines.postgres import Postgres


def say(line: str) -> None:
    """Progress for whoever waits."""
    print(line, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def report(
    name: str,
    *,
    figure: float,
    unit: str,
    peer: str,
    peer_figure: float,
    ratio: float,
    detail: dict[str, Any],
    on: dict[str, Any],
) -> None:
    """The last line of stdout: one JSON object. `ratio` > 1 is better than the peer."""
    print(
        json.dumps(
            {
                "name": name,
                "figure": round(figure, 3),
                "unit": unit,
                "peer": peer,
                "peer_figure": round(peer_figure, 3),
                "ratio": round(ratio, 2),
                "machine": on,
                "detail": detail,
            }
        ),
        flush=True,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "runs": len(values),
    }


@contextmanager
def durable_postgres() -> Iterator[Postgres]:
    """The embedded server as `up` runs it: fsync on. Its folder is on disk where /tmp may be memory."""
    root = Path(os.environ.get("TALLYLIGHT_BENCH_DIR", "/var/tmp"))
    with tempfile.TemporaryDirectory(prefix="tallylight-bench-", dir=root) as folder:
        server = Postgres(Path(folder) / "postgres")
        server.start()
        try:
            yield server
        finally:
            server.stop()
