"""The one log: a margin with names for people, objects for machines, and no harm from a reader that left."""

import io
import json
import os
from contextlib import suppress
from pathlib import Path

import pytest

from gateways.logbook import Logbook
from gateways.settings import UpSettings


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _no_wish_about_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_each_line_has_its_role_in_the_margin(tmp_path: Path) -> None:
    out = io.StringIO()
    book = Logbook(UpSettings(data_dir=tmp_path), out)
    book.line("relay", "leading")
    book.error("one\ntwo")
    lines = out.getvalue().splitlines()
    assert lines[0] == "relay    │ leading"
    assert [line.startswith("up       │ ") for line in lines[1:]] == [True, True]


def test_a_terminal_gets_a_colour_a_role_and_can_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = Terminal()
    book = Logbook(UpSettings(data_dir=tmp_path), coloured)
    for name in ("relay", "media", "relay"):
        book.line(name, "x")
    first, second, third = (line.partition("m")[0] for line in coloured.getvalue().splitlines())
    assert first == third != second
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    Logbook(UpSettings(data_dir=tmp_path), plain).line("relay", "x")
    assert "\x1b" not in plain.getvalue()


def test_as_json_every_line_is_an_object_with_a_role(tmp_path: Path) -> None:
    out = io.StringIO()
    book = Logbook(UpSettings(data_dir=tmp_path, log_format="json"), out)
    book.line("relay", '{"event": "leading", "role": "relay"}')
    book.line("postgres", "LOG:  ready")
    book.line("front", "{broken")
    book.notice("welcome")
    objects = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [one["role"] for one in objects] == ["relay", "postgres", "front", "up"]
    assert objects[1]["event"] == "LOG:  ready"


def test_a_reader_that_left_does_no_harm(tmp_path: Path) -> None:
    survived = False
    reading, writing = os.pipe()
    os.close(reading)
    # The file itself still complains when it is closed with something unwritten.
    with suppress(BrokenPipeError), os.fdopen(writing, "w") as out:
        book = Logbook(UpSettings(data_dir=tmp_path), out)
        book.line("relay", "x" * 100_000)
        book.info("still here")
        survived = True
    assert survived
