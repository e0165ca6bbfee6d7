#!/bin/sh
# System packages that a step needs. Called by the Makefile and setup.sh: system-packages.sh PACKAGE "WHAT FOR" [PACKAGE "WHAT FOR"]...
# Installs by apt as root or where sudo asks no password; otherwise stops, naming what is missing and how to get it.
set -eu

present() {
    case $1 in
        chromium) command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 ;;
        *) dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed' ;;
    esac
}

missing="" reasons=""
while [ $# -ge 2 ]; do
    if ! present "$1"; then
        missing="$missing $1"
        reasons="$reasons  $1: $2
"
    fi
    shift 2
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    printf 'Missing, and there is no apt here to install it:\n%s' "$reasons" >&2
    exit 1
elif [ "$(id -u)" = 0 ]; then
    as_root=""
elif sudo -n true 2>/dev/null </dev/null; then
    as_root="sudo -n"
else
    printf 'Missing system packages:\n%sGet them with:\n  sudo apt-get install --no-install-recommends%s\n' "$reasons" "$missing" >&2
    exit 1
fi
echo "Installing by apt:$missing ..." >&2
apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o APT::Update::Error-Mode=any"
# shellcheck disable=SC2086 # word splitting is meant
{
    $apt update || echo "apt-get update failed; trying with the lists there are." >&2
    $apt install -y --no-install-recommends $missing
} </dev/null >/dev/null
