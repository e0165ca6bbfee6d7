"""docs/operations.md, held to the settings there are."""

import re
from pathlib import Path
from typing import Final

from pydantic_core import PydanticUndefined

from gateways.settings import PREFIX, Settings

PAGE: Final = (Path(__file__).parents[1] / "docs" / "operations.md").read_text()
# Said in words, because `up` decides or no value says it.
WORDS: Final = {"see above", "the front's", "none", "embedded", "made once", "below the data folder", "the wheel's"}


def _kinds(kind: type[Settings]) -> list[type[Settings]]:
    return [found for child in kind.__subclasses__() for found in (child, *_kinds(child))]


def _defaults() -> dict[str, set[str]]:
    """Variable → the defaults its fields have, over all roles."""
    found: dict[str, set[str]] = {}
    kinds: list[type[Settings]] = [Settings, *_kinds(Settings)]
    for kind in kinds:
        if not kind.__module__.startswith("gateways"):
            continue
        for name, field in kind.model_fields.items():
            defaults = found.setdefault(f"{PREFIX}{name.upper()}", set())
            if field.default is not PydanticUndefined and field.default is not None:
                defaults.add(str(field.default))
    return found


def _table() -> dict[str, str]:
    """Variable → the default the page names."""
    settings = PAGE[PAGE.index("## Settings") :]
    return dict(re.findall(r"^\| `(TALLYLIGHT_\w+)` \| (.+?) \|", settings, re.MULTILINE))


def test_every_setting_is_described_and_every_described_one_exists() -> None:
    assert set(_table()) == set(_defaults())


def test_the_defaults_on_the_page_are_the_programs() -> None:
    defaults = _defaults()
    for variable, told in _table().items():
        if told.startswith("`"):
            assert told.strip("`") in defaults[variable], variable
        else:
            assert told in WORDS, variable
