"""Varnish with our policy, in a folder and on a port of its own, and its own counters. Used by the benchmarks that have an edge."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateways.edge import vcl
from gateways.engines.process import listening
from media.playback import Signer

STORAGE_MIB: Final = 256
COUNTED: Final = ("client_req", "cache_hit", "cache_miss", "cache_hitpass", "s_pass", "s_synth", "backend_req")

Counters = Mapping[str, int]


@contextmanager
def varnish(
    nodes: Mapping[str, tuple[str, int]], folder: Path, *, port: int, secret: str = "bench"
) -> Iterator[Callable[[], Counters]]:
    """Runs until left; what it yields reads the counters as they stand. Health probes are in none of them. `secret`: by which it
    and the origin know tokens, should anything be closed."""
    config = vcl.prepare(nodes, folder, Signer(secret))
    process = subprocess.Popen(
        vcl.command(config, host="127.0.0.1", port=port, storage_mib=STORAGE_MIB, nodes=len(nodes)),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not listening("127.0.0.1", port):
            if process.poll() is not None:
                raise RuntimeError("varnishd did not start")

        def counters() -> Counters:
            wanted = [word for name in COUNTED for word in ("-f", f"MAIN.{name}")]
            asked = [vcl.tool("varnishstat"), "-n", str(vcl.working(config)), "-j", *wanted]
            done = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
            found = json.loads(done)["counters"]
            return {name: int(found[f"MAIN.{name}"]["value"]) for name in COUNTED}

        yield counters
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)
