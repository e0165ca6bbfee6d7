#!/bin/sh
# The virtual environment from a hash-pinned lock, and this checkout in it. Called by the Makefile: setup.sh LOCK STAMP.
# Safe to interrupt and to run again; writes STAMP last. Wants Python >= 3.11 (with its venv module) and nothing else.
set -eu
lock=$1 stamp=$2
venv=.venv

suitable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null </dev/null; }

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        # An activated environment names the very one that is about to be made anew.
        case $(command -v "$candidate" || true) in "$PWD/$venv"/*) continue ;; esac
        if suitable "$candidate"; then command -v "$candidate"; return; fi
    done
    echo "Tallylight needs Python 3.11 or newer; found: $(python3 --version 2>&1 || echo none)." >&2
    echo "Install it (Debian 12 or newer: apt-get install python3 python3-venv) or name one: make PYTHON=/path/to/python3.12 ..." >&2
    exit 1
}

# Debian's python3 comes without ensurepip; a virtual environment needs it once.
make_venv() {
    python=$(find_python)
    rm -rf "$venv"
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
        sh scripts/system-packages.sh "$version-venv" "the $python module 'ensurepip', which makes the virtual environment"
    fi
    "$python" -m venv "$venv"
}

# A checkout that was moved has scripts that point to where it was: start again.
if ! suitable "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1 ||
    [ "$(cat "$venv/.checkout" 2>/dev/null || echo none)" != "$PWD" ]; then
    echo "Making the virtual environment in $venv ..." >&2
    make_venv
    echo "$PWD" > "$venv/.checkout"
fi
pip="$venv/bin/python -m pip --disable-pip-version-check --no-input"
echo "Installing what $lock pins ..." >&2
# The lock is complete: pip is to resolve nothing. Left to itself it looks at the newest `coverage[toml]`, which nothing pins.
$pip install --quiet --require-hashes --no-deps -r "$lock" </dev/null
$pip install --quiet --no-deps --no-build-isolation --config-settings editable_mode=compat -e . </dev/null
$pip check >/dev/null || { $pip check >&2; exit 1; }
touch "$stamp"
