"""The vendored JavaScript is what its manifest says, at the versions that are pinned, with its licences beside it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from gateways.web import pages

VENDOR = Path(pages.__file__).parent / "vendor"
FOR_TESTS = Path(__file__).parents[2] / "vendor"
each_folder = pytest.mark.parametrize("folder", [VENDOR, FOR_TESTS], ids=["pages", "tests"])


def listed(folder: Path, file: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / file).read_text())
    return found


@each_folder
def test_every_vendored_file_has_the_bytes_its_manifest_promises(folder: Path) -> None:
    for entry in listed(folder, "manifest.json"):
        content = (folder / entry["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], entry["file"]


@each_folder
def test_no_file_is_vendored_without_an_entry_in_the_manifest(folder: Path) -> None:
    present = {path.name for path in folder.iterdir()} - {"manifest.json", "packages.json"}
    assert present == {entry["file"] for entry in listed(folder, "manifest.json")}


@each_folder
def test_the_manifest_is_at_the_versions_that_are_pinned(folder: Path) -> None:
    pinned = {
        (package["name"], package["version"], name, source)
        for package in listed(folder, "packages.json")
        for name, source in package["files"].items()
    }
    manifest = listed(folder, "manifest.json")
    assert pinned == {(entry["package"], entry["version"], entry["file"], entry["source"]) for entry in manifest}


@each_folder
def test_every_package_brings_its_licence(folder: Path) -> None:
    for package in listed(folder, "packages.json"):
        assert "LICENSE" in package["files"].values()
        assert package["license"] in {"Apache-2.0", "MIT"}


def test_nothing_vendored_for_the_player_names_an_address_to_load_from() -> None:
    # Two identifiers that are addresses by form alone: an XML namespace and an emsg scheme.
    known = {b"http://www.w3.org/2000/svg", b"https://aomedia.org/emsg/ID3"}
    # Swagger UI is full of links to specifications; that its page asks no other host is held to in a browser (tests/e2e/test_docs.py).
    for path in set(VENDOR.glob("*.*js")) - {VENDOR / "swagger-ui.js"}:
        content = path.read_bytes()
        for identifier in known:
            content = content.replace(identifier, b"")
        assert b"https://" not in content, path.name
        assert b"http://" not in content, path.name
