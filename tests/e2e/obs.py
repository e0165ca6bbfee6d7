"""OBS itself, headless: its configuration written, started under Xvfb, streaming to where it is told."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

WIDTH, HEIGHT, FPS = 640, 360, 30
STOP_S_MAX: Final = 15

_PROFILE: Final = f"""[General]
Name=P
[Output]
Mode=Simple
[SimpleOutput]
VBitrate=1500
ABitrate=96
StreamEncoder=x264
Preset=ultrafast
[Video]
BaseCX={WIDTH}
BaseCY={HEIGHT}
OutputCX={WIDTH}
OutputCY={HEIGHT}
FPSType=0
FPSCommon={FPS}
[Audio]
SampleRate=48000
"""


@contextmanager
def streaming(url: str) -> Iterator["subprocess.Popen[bytes]"]:
    """OBS with its own defaults but for size and bitrate, publishing to `rtmp://host/app/key`."""
    server, _, key = url.rpartition("/")
    with tempfile.TemporaryDirectory(prefix="obs") as name:
        home = Path(name)
        _configure(home / ".config" / "obs-studio", server, key)
        runtime = home / "run"
        runtime.mkdir(mode=0o700)
        environment = os.environ | {
            "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "XDG_RUNTIME_DIR": str(runtime),
            "LIBGL_ALWAYS_SOFTWARE": "1", "QT_QPA_PLATFORM": "xcb",
        }  # fmt: skip
        screen = ["xvfb-run", "-a", "-s", f"-screen 0 {WIDTH}x{HEIGHT}x24"]
        arguments = ["obs", "--multi", "--startstreaming", "--profile", "P", "--collection", "C", "--minimize-to-tray"]
        log = (home / "obs.log").open("wb")
        process = subprocess.Popen(
            [*screen, "dbus-run-session", "--", *arguments],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            os.killpg(process.pid, 15)
            deadline = time.monotonic() + STOP_S_MAX
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            if process.poll() is None:
                os.killpg(process.pid, 9)
            process.wait()
            log.close()


def available() -> str:
    """What is missing, if anything."""
    return ", ".join(tool for tool in ("obs", "xvfb-run", "dbus-run-session") if shutil.which(tool) is None)


def _configure(folder: Path, server: str, key: str) -> None:
    profile = folder / "basic" / "profiles" / "P"
    scenes = folder / "basic" / "scenes"
    for made in (profile, scenes):
        made.mkdir(parents=True)
    (folder / "global.ini").write_text(
        "[General]\nFirstRun=true\nPre19Defaults=false\nInfoIncrement=999\nEnableAutoUpdates=false\n"
        "[Basic]\nProfile=P\nProfileDir=P\nSceneCollection=C\nSceneCollectionFile=C\n"
    )
    (profile / "basic.ini").write_text(_PROFILE)
    service = {"type": "rtmp_custom", "settings": {"server": server, "key": key, "use_auth": False}}
    (profile / "service.json").write_text(json.dumps(service))
    screen: dict[str, Any] = {"id": "xshm_input", "name": "Screen", "settings": {"screen": 0}, "enabled": True}
    item = {"name": "Screen", "id": 1, "visible": True, "pos": {"x": 0.0, "y": 0.0}, "scale": {"x": 1.0, "y": 1.0}}
    scene = {"id": "scene", "name": "Scene", "settings": {"items": [item], "id_counter": 1}}
    (scenes / "C.json").write_text(
        json.dumps(
            {
                "name": "C",
                "current_scene": "Scene",
                "current_program_scene": "Scene",
                "scene_order": [{"name": "Scene"}],
                "sources": [screen, scene],
            }
        )
    )
