"""The demo broadcast: its account over a stand-in for the public API, its picture through the real FFmpeg."""

import json
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateways import demo
from gateways.engines.process import free_port


class PublicApi:
    """Accounts, sessions, channels and keys as the design has them, remembering what was asked."""

    def __init__(self, *, taken: set[str] | None = None) -> None:
        self.accounts: dict[str, str] = {}
        self.taken = taken or set()
        self.keys = 0

    async def account(self, request: Request) -> Response:
        body: dict[str, Any] = await request.json()
        if body["username"] in self.taken | set(self.accounts):
            return JSONResponse({"code": "name_taken"}, 409)
        self.accounts[body["username"]] = body["password"]
        return JSONResponse({"username": body["username"]}, 201)

    async def session(self, request: Request) -> Response:
        body: dict[str, Any] = await request.json()
        if self.accounts.get(body["username"]) != body["password"]:
            return JSONResponse({"code": "wrong_credentials"}, 401)
        return JSONResponse({"access_token": body["username"], "token_type": "bearer", "expires_in": 900})

    async def channel(self, request: Request) -> Response:
        return JSONResponse({}, 201 if not self.keys else 409)

    async def key(self, request: Request) -> Response:
        assert request.headers["authorization"] == f"Bearer {request.path_params['name']}"
        self.keys += 1
        return JSONResponse({"stream_key": f"key{self.keys}", "rtmp_url": "rtmp://h:1935/live", "srt_url": ""})


@contextmanager
def serving(api: PublicApi) -> Iterator[str]:
    routes = [
        Route("/api/v1/accounts", api.account, methods=["POST"]),
        Route("/api/v1/sessions", api.session, methods=["POST"]),
        Route("/api/v1/channels", api.channel, methods=["POST"]),
        Route("/api/v1/channels/{name}/stream-key", api.key, methods=["POST"]),
    ]
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=port, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def test_the_account_and_the_key_are_made_once_and_kept_for_their_owner_alone(tmp_path: Path) -> None:
    api = PublicApi()
    with serving(api) as url:
        first = demo.prepare(url, tmp_path)
        again = demo.prepare(url, tmp_path)
    assert first == again
    assert first.stream_key == "key1"
    assert api.keys == 1
    assert stat.S_IMODE((tmp_path / "demo.json").stat().st_mode) == 0o600


def test_a_refused_key_is_replaced_on_the_same_account(tmp_path: Path) -> None:
    api = PublicApi()
    with serving(api) as url:
        first = demo.prepare(url, tmp_path)
        second = demo.prepare(url, tmp_path, fresh_key=True)
    assert (second.username, second.password) == (first.username, first.password)
    assert second.stream_key == "key2"
    assert json.loads((tmp_path / "demo.json").read_text())["stream_key"] == "key2"


def test_somebody_else_may_have_the_plain_name(tmp_path: Path) -> None:
    with serving(PublicApi(taken={"demo"})) as url:
        assert demo.prepare(url, tmp_path).username.startswith("demo_")


def test_a_stack_that_refuses_is_quoted(tmp_path: Path) -> None:
    api = PublicApi()
    with serving(api) as url:
        demo.prepare(url, tmp_path)
        api.accounts.clear()
        with pytest.raises(demo.DemoFailed, match="wrong_credentials"):
            demo.prepare(url, tmp_path, fresh_key=True)


def test_the_clock_reads_the_time_of_day() -> None:
    width, height = 640, 360
    now = datetime(2026, 1, 1, 23, 59, 58, 750_000, tzinfo=UTC)
    expected = "2359587"
    boxes = list(demo.clock(now, width, height))
    assert len(boxes) == 7 * len(expected)
    done = subprocess.run(
        [
            *(
                imageio_ffmpeg.get_ffmpeg_exe(),
                "-v",
                "error",
                "-f",
                "lavfi",
                "-i",
                f"color=black:size={width}x{height}",
            ),
            *("-vf", ",".join("drawbox=" + ":".join(f"{k}='{v}'" for k, v in box.items()) for box in boxes)),
            *("-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "gray", "-"),
        ],
        capture_output=True,
        check=True,
        timeout=30,
    )
    picture = np.frombuffer(done.stdout, np.uint8).reshape(height, width)
    lit = [
        "".join(
            name
            for name, box in zip("abcdefg", boxes[7 * place : 7 * place + 7], strict=True)
            if picture[box["y"] + box["h"] // 2, box["x"] + box["w"] // 2] > 128
        )
        for place in range(len(expected))
    ]
    assert lit == ["".join(sorted(demo._LIT[int(digit)])) for digit in expected]


def test_the_broadcast_has_picture_and_sound_and_a_key_frame_every_two_seconds(tmp_path: Path) -> None:
    target = tmp_path / "demo.flv"
    arguments = demo.command(str(target), now=datetime(2026, 1, 1, tzinfo=UTC), size=(320, 180))
    arguments = [argument for argument in arguments if argument != "-re"]
    subprocess.run([*arguments[:-1], "-t", "4.5", arguments[-1]], check=True, capture_output=True, timeout=60)
    probe = subprocess.run(
        [
            imageio_ffmpeg.get_ffmpeg_exe(),
            "-v",
            "info",
            "-skip_frame",
            "nokey",
            "-i",
            str(target),
            "-vf",
            "showinfo",
            "-f",
            "null",
            "-",
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stderr
    assert "Video: h264" in probe
    assert "Audio: aac" in probe
    assert probe.count("iskey:1") == 3
