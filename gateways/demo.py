"""`tallylight demo`: a test broadcast on air, a moving picture with a clock and a tone, through the public API and the RTMP port alone.

Run by the supervisor beside the roles, or by itself beside a running stack. It knows of the product what any broadcaster knows: an account,
a channel, a stream key, an address.
"""

import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import ffmpeg
import httpx

from gateways.engines.process import dying_with_parent

NAME: Final = "demo"
NAMES_TRIED_MAX: Final = 5
FRAMES_S: Final = 30
KEY_FRAME_S: Final = 2
BITRATE_K: Final = 2500
REQUEST_S_MAX: Final = 20.0
PAUSES_S: Final = (1, 2, 5, 10)
STEADY_S: Final = 5.0
"""A publication that ended sooner was refused: its key is no longer good."""
MANY_CPUS: Final = 4


class DemoFailed(Exception):
    """The stack refused what the demo needs; the message is its answer."""


@dataclass(frozen=True, slots=True)
class OnAir:
    """What the demo remembers between runs."""

    username: str
    password: str
    stream_key: str


def broadcast(url: str, rtmp_url: str, folder: Path, say: Callable[[str], None]) -> None:
    """Keep the demo on air until interrupted."""
    on_air = prepare(url, folder)
    say(f"On air: watch {url}/{on_air.username}   (account {on_air.username!r}, password in {_saved(folder)})")
    failures = 0
    while True:
        began = time.monotonic()
        process = subprocess.Popen(
            [*dying_with_parent("TERM"), *command(f"{rtmp_url}/{on_air.stream_key}", now=datetime.now().astimezone())],
            stdin=subprocess.DEVNULL,
        )
        try:
            code = process.wait()
        finally:
            process.terminate()
            process.wait()
        lasted_s = time.monotonic() - began
        failures = 0 if lasted_s > STEADY_S else failures + 1
        say(f"the broadcast ended after {lasted_s:.0f} s (FFmpeg's code {code}); going on air again")
        time.sleep(PAUSES_S[min(failures, len(PAUSES_S) - 1)])
        if failures and _answers(rtmp_url):
            on_air = prepare(url, folder, fresh_key=True)


def prepare(url: str, folder: Path, *, fresh_key: bool = False) -> OnAir:
    """The account and the channel, made the first time; a new stream key where none is saved or the old one was refused."""
    path = _saved(folder)
    known = OnAir(**json.loads(path.read_text())) if path.exists() else None
    with httpx.Client(base_url=url, timeout=REQUEST_S_MAX) as client:
        if known is not None and not fresh_key:
            return known
        username, password = (known.username, known.password) if known else _register(client)
        token = _asked(client, "/api/v1/sessions", {"username": username, "password": password})["access_token"]
        authorised = {"Authorization": f"Bearer {token}"}
        channel = {"name": username, "title": "A test picture with a clock", "category": "Demo"}
        _asked(client, "/api/v1/channels", channel, headers=authorised, also=409)
        key = _asked(client, f"/api/v1/channels/{username}/stream-key", None, headers=authorised)
    on_air = OnAir(username, password, key["stream_key"])
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(on_air), file)
    return on_air


def _register(client: httpx.Client) -> tuple[str, str]:
    """Under the plain name, or where somebody has that, under one with a number."""
    password = secrets.token_urlsafe(16)
    for username in (NAME, *(f"{NAME}_{secrets.randbelow(10_000)}" for _ in range(NAMES_TRIED_MAX))):
        body = {"username": username, "password": password}
        if _asked(client, "/api/v1/accounts", body, also=409).get("status") != 409:
            return username, password
    raise DemoFailed("no free name for the demo's account")


def _asked(client: httpx.Client, path: str, body: Any, *, headers: dict[str, str] | None = None, also: int = 0) -> Any:
    answer = client.post(path, json=body, headers=headers)
    if answer.status_code not in (200, 201, also):
        raise DemoFailed(f"POST {path}: {answer.status_code} {answer.text[:300]}")
    return {"status": 409} if answer.status_code == 409 else answer.json()


def _answers(rtmp_url: str) -> bool:
    """Whether anybody is there who could have refused us."""
    address = urlsplit(rtmp_url)
    try:
        with socket.create_connection((address.hostname or "", address.port or 1935), timeout=2):
            return True
    except OSError:
        return False


def _saved(folder: Path) -> Path:
    return folder / "demo.json"


# -- the picture ------------------------------------------------------------------------------------------------


def command(publish_url: str, *, now: datetime, size: tuple[int, int] | None = None) -> list[str]:
    """FFmpeg's arguments. Smaller where two cores must encode, transcode and serve."""
    width, height = size or ((1280, 720) if (os.cpu_count() or 1) >= MANY_CPUS else (854, 480))
    picture = ffmpeg.input(f"testsrc2=size={width}x{height}:rate={FRAMES_S}", format="lavfi", re=None)
    picture = picture.filter("drawbox", x=0, y=height * 2 // 3, w="iw", h=height // 4, color="black@0.8", t="fill")
    for box in clock(now, width, height):
        picture = picture.filter("drawbox", **box)
    tone = ffmpeg.input("sine=frequency=220:beep_factor=4:sample_rate=48000", format="lavfi", re=None).filter(
        "volume", 0.1
    )
    output = ffmpeg.output(
        picture,
        tone,
        publish_url,
        format="flv",
        vcodec="libx264",
        preset="veryfast",
        tune="zerolatency",
        pix_fmt="yuv420p",
        g=FRAMES_S * KEY_FRAME_S,
        acodec="aac",
        flvflags="no_duration_filesize",
        **{"b:v": f"{BITRATE_K}k", "maxrate": f"{BITRATE_K}k", "bufsize": f"{BITRATE_K}k", "b:a": "128k"},
    )
    arguments: list[str] = ffmpeg.compile(output, cmd=_binary())
    return [arguments[0], "-hide_banner", "-loglevel", "error", *arguments[1:]]


# Which of a digit's seven segments are lit, by digit: the usual a (top), b, c (right), d (bottom), e, f (left), g (middle).
_LIT: Final = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcfgd")


def clock(now: datetime, width: int, height: int) -> Iterator[dict[str, Any]]:
    """The time of day to the tenth as boxes that light up by expression: needs no font, which a fresh machine may lack."""
    start_s = now.hour * 3600 + now.minute * 60 + now.second + now.microsecond / 1e6
    tall, line = height // 6, max(2, height // 60)
    wide = tall // 2
    left, top = (width - 11 * wide) // 2, height * 2 // 3 + (height // 4 - tall) // 2
    # Divisor and modulus of each digit of HH MM SS t.
    digits = ((36_000, 3), (3_600, 10), (600, 6), (60, 10), (10, 6), (1, 10), (0.1, 10))
    for place, (divisor, modulus) in enumerate(digits):
        x = left + int((place * 1.35 + (place // 2) * 0.45) * wide)
        moment = f"mod(t+{start_s:.3f},86400)"
        digit = f"mod(floor({moment}/{divisor}),{modulus})"
        for segment, (dx, dy, w, h) in _segments(wide, tall, line).items():
            mask = sum(1 << number for number, lit in enumerate(_LIT) if segment in lit)
            yield {
                "x": x + dx,
                "y": top + dy,
                "w": w,
                "h": h,
                "color": "white",
                "t": "fill",
                "enable": f"mod(floor({mask}/pow(2,{digit})),2)",
            }


def _segments(wide: int, tall: int, line: int) -> dict[str, tuple[int, int, int, int]]:
    half = tall // 2
    return {
        "a": (0, 0, wide, line),
        "b": (wide - line, 0, line, half),
        "c": (wide - line, half, line, half),
        "d": (0, tall - line, wide, line),
        "e": (0, half, line, half),
        "f": (0, 0, line, half),
        "g": (0, half - line // 2, wide, line),
    }


def _binary() -> str:
    from gateways.doctor import ffmpeg as found

    return found()


def main() -> None:
    """As the supervisor runs it: where to go is in the environment, what it says goes into the log."""
    from gateways.settings import PREFIX

    try:
        broadcast(
            os.environ[f"{PREFIX}PUBLIC_URL"],
            os.environ[f"{PREFIX}RTMP_PUBLIC_URL"],
            Path(os.environ[f"{PREFIX}DATA_DIR"]),
            lambda text: print(text, flush=True),
        )
    except (DemoFailed, httpx.HTTPError) as failed:
        raise SystemExit(str(failed)) from None


if __name__ == "__main__":
    main()
