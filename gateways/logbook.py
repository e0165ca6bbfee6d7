"""The one log of `tallylight up`: each line with the name of who said it in the margin, in colour on a terminal; or JSON.

Called by the supervisor. A reader that went away never stops the product: what cannot be written is dropped.
"""

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, TextIO

from gateways.settings import UpSettings

_MARGIN: Final = 9
_COLOURS: Final = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)
_OWN: Final = "up"


class Logbook:
    def __init__(self, settings: UpSettings, to: TextIO) -> None:
        self._to = to
        self._json = settings.log_format == "json"
        self._colour = to.isatty() and "NO_COLOR" not in os.environ
        self._colours: dict[str, int] = {}

    def line(self, name: str, text: str) -> None:
        """What a process wrote. Under JSON its own objects pass as they are, and anything else becomes one."""
        if not self._json:
            self._write(f"{self._margin(name)} {text}")
        elif text.startswith("{") and _is_object(text):
            self._write(text)
        elif text.strip():
            self._write(_as_json(name, "info", text))

    def info(self, text: str) -> None:
        self._say("info", text)

    def error(self, text: str) -> None:
        self._say("error", text)

    def notice(self, text: str) -> None:
        """For the person who started us."""
        if self._json:
            self._say("info", text)
        else:
            self._write("\n" + text + "\n")

    def _say(self, level: str, text: str) -> None:
        if self._json:
            self._write(_as_json(_OWN, level, text))
            return
        stamp = datetime.now().astimezone().strftime("%H:%M:%S.%f")
        for line in text.splitlines():
            self._write(f"{self._margin(_OWN)} {stamp} [{level}] {line}")

    def _margin(self, name: str) -> str:
        if not self._colour:
            return f"{name:<{_MARGIN}}│"
        colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
        return f"\x1b[{colour}m{name:<{_MARGIN}}│\x1b[0m"

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._to.write(text + "\n")
            self._to.flush()


def _as_json(name: str, level: str, text: str) -> str:
    return json.dumps({"level": level, "role": name, "timestamp": datetime.now(UTC).isoformat(), "event": text})


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
