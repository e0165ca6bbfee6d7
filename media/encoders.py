"""Which H.264 encoder this machine has: asked of FFmpeg by encoding a few frames with each, the fastest kinds first.

The media role asks once at its start, `tallylight doctor` shows it. The hardware paths follow FFmpeg's documentation; which of them were
ever run is told in docs/media.md.
"""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

PROBE_S_MAX: Final = 10.0
_VAAPI_DEVICE: Final = "/dev/dri/renderD128"


@dataclass(frozen=True, slots=True)
class Encoder:
    """`options` are FFmpeg's for an output; `inputs` stand before the input; `upload`: filters that bring frames to the device."""

    name: str
    options: Mapping[str, Any]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    upload: tuple[tuple[str, str], ...] = ()


LIBX264: Final = Encoder(
    "libx264", {"preset": "superfast", "tune": "zerolatency", "pix_fmt": "yuv420p", "sc_threshold": 0, "threads:v": 1}
)
CANDIDATES: Final = (
    Encoder(
        "h264_nvenc",
        {
            "preset": "p2",
            "tune": "ull",
            "forced-idr": 1,
            "no-scenecut": 1,
            "rc": "cbr",
            "delay": 0,
            "pix_fmt": "yuv420p",
        },
    ),
    Encoder("h264_qsv", {"preset": "veryfast", "forced_idr": 1, "async_depth": 1, "look_ahead": 0, "pix_fmt": "nv12"}),
    Encoder(
        "h264_vaapi",
        {"async_depth": 1},
        inputs={"vaapi_device": _VAAPI_DEVICE},
        upload=(("format", "nv12"), ("hwupload", "")),
    ),
    Encoder("h264_videotoolbox", {"realtime": 1, "prio_speed": 1, "pix_fmt": "yuv420p"}),
    LIBX264,
)
"""In the order of preference."""

Run = Callable[[Sequence[str]], bool]
"""Whether the command ended well."""


def choose(binary: Path, wanted: str = "auto", *, run: Run | None = None) -> Encoder:
    """`wanted`: `auto`, or one by name, which is then taken without a question."""
    for candidate in CANDIDATES:
        if wanted == candidate.name or (wanted == "auto" and (run or _run)(probe_command(binary, candidate))):
            return candidate
    return LIBX264


def probe_command(binary: Path, encoder: Encoder) -> list[str]:
    """Encodes half a second of a test picture to nothing."""
    inputs = [str(word) for name, value in encoder.inputs.items() for word in (f"-{name}", value)]
    options = [str(word) for name, value in encoder.options.items() for word in (f"-{name}", value)]
    filters = ",".join(f"{name}={value}" if value else name for name, value in encoder.upload) or "null"
    return [
        str(binary), "-hide_banner", "-loglevel", "error", "-nostdin", *inputs,
        "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=30:duration=0.5", "-vf", filters,
        "-c:v", encoder.name, *options, "-bf", "0", "-f", "null", "-",
    ]  # fmt: skip


def _run(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=PROBE_S_MAX).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
