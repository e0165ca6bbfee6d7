"""How often Python looks for reference cycles, for every process of ours: seldom.

A batch of events is tens of thousands of objects that live for a moment and hold no cycles: the default, a look every 700, costs a
projection a third of its time and a server its tail latency. Called by `roles`, the command line and the benchmarks.
"""

import gc
from typing import Final

THRESHOLDS: Final = (50_000, 20, 50)
"""Objects more than at the last look; looks at the youngest before the middle is looked at; and those before all are."""


def look_seldom() -> None:
    """Cycles may pile up to some megabytes. Before any work."""
    gc.set_threshold(*THRESHOLDS)


def spare_what_is_here() -> None:
    """What was built to start lives as long as the process: no collection need look at it again. Once, when ready."""
    gc.collect()
    gc.freeze()
