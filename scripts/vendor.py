"""Fetches third-party JavaScript, the pages' and the tests', at the versions `packages.json` pins, and writes the files and their manifest.

Run by `make vendor`, by a person who changes a version; never by the product, which serves what is committed. The ordinary npm client
does the fetching, from wherever its own configuration points, and verifies what it got against the registry's digest.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDERS: Final = (ROOT / "gateways" / "web" / "vendor", ROOT / "tests" / "vendor")
FETCH_S_MAX: Final = 120
SOURCE_MAP_COMMENT: Final = b"\n//# sourceMappingURL="

Json = dict[str, Any]


def main() -> int:
    npm = shutil.which("npm")
    if npm is None:
        print("npm is needed to fetch packages anew; on Debian: apt-get install npm", file=sys.stderr)
        return 1
    for folder in FOLDERS:
        fill(npm, folder)
    return 0


def fill(npm: str, vendor: Path) -> None:
    """All that one folder's `packages.json` names, and nothing else."""
    packages: list[Json] = json.loads((vendor / "packages.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        manifest = [entry for package in packages for entry in fetch(npm, package, Path(folder), vendor)]
    (vendor / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    wanted = {entry["file"] for entry in manifest} | {"packages.json", "manifest.json"}
    for path in vendor.iterdir():
        if path.name not in wanted:
            path.unlink()
    print("\n".join(f"{entry['file']}: {entry['package']} {entry['version']}" for entry in manifest))


def fetch(npm: str, package: Json, folder: Path, vendor: Path) -> list[Json]:
    """Unpack a package's wanted files into the vendor folder; their entries for the manifest."""
    wanted = f"{package['name']}@{package['version']}"
    packed = subprocess.run(
        [npm, "pack", wanted, "--json", "--ignore-scripts", "--pack-destination", str(folder)],
        check=True,
        capture_output=True,
        text=True,
        timeout=FETCH_S_MAX,
    )
    (description,) = json.loads(packed.stdout)
    archive = folder / description["filename"]
    entries = []
    with tarfile.open(archive) as tar:
        about = json.loads(_member(tar, "package.json"))
        if about["license"] != package["license"]:
            raise SystemExit(f"{wanted} is now under {about['license']}: look at it before changing packages.json")
        for name, source in package["files"].items():
            # A map is not vendored, and asking for it only fails in people's developer tools.
            content = _member(tar, source).partition(SOURCE_MAP_COMMENT)[0].rstrip() + b"\n"
            (vendor / name).write_bytes(content)
            entries.append(
                {
                    "file": name,
                    "package": package["name"],
                    "version": package["version"],
                    "license": package["license"],
                    "source": source,
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "package_integrity": description["integrity"],
                }
            )
    return entries


def _member(tar: tarfile.TarFile, path: str) -> bytes:
    file = tar.extractfile(f"package/{path}")
    assert file is not None, path
    return file.read()


if __name__ == "__main__":
    sys.exit(main())
