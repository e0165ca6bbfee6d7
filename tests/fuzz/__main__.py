"""The campaign: each target for its share of the time, by coverage, beginning from the corpus. `make fuzz` runs it.

Every target is a process of its own, for libFuzzer ends with its process. What it finds is written beside the corpus as `crash-…`: put it
into the corpus once it is mended, and it is tried at every test run.
"""

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

CORPUS: Final = Path(__file__).with_name("corpus")
INPUT_BYTES_MAX: Final = 16_384
INPUT_S_MAX: Final = 10
MEMORY_MIB_MAX: Final = 1024


def main() -> int:
    if len(sys.argv) == 4:
        one(sys.argv[1], float(sys.argv[2]), sys.argv[3])
        return 0
    from tests.fuzz.targets import TARGETS

    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    failed = []
    for name in TARGETS:
        print(f"fuzzing {name} for {minutes * 60 / len(TARGETS):.0f} s", flush=True)
        with tempfile.TemporaryDirectory() as found:
            share = str(minutes * 60 / len(TARGETS))
            if subprocess.run([sys.executable, "-m", "tests.fuzz", name, share, found], check=False).returncode:
                failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "nothing found")
    return 1 if failed else 0


def one(name: str, seconds: float, found: str) -> None:
    """Returns never: libFuzzer ends the process."""
    atheris = importlib.import_module("atheris")  # of `make fuzz` alone
    with atheris.instrument_imports(include=["media"]):
        from tests.fuzz.targets import TARGETS
    seeds = CORPUS / name
    options = [
        f"-max_total_time={seconds:.0f}", f"-max_len={INPUT_BYTES_MAX}", f"-timeout={INPUT_S_MAX}",
        f"-rss_limit_mb={MEMORY_MIB_MAX}", f"-artifact_prefix={CORPUS}/crash-{name}-", "-print_final_stats=1", "-verbosity=0",
    ]  # fmt: skip
    atheris.Setup([name, *options, found, str(seeds)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    raise SystemExit(main())
