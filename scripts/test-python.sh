#!/usr/bin/env bash
# The Python package in a fresh virtual environment: installed as a user would, types checked, tests and example run
# against the built binary and a real server.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
say() { printf 'test-python: %s\n' "$*" >&2; }
binary=${VST_BINARY:-$root/target/debug/vst}
[[ -x $binary ]] || { say "no $binary: cargo build -p vst"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv" || { say 'venv is missing (Debian, Ubuntu: apt install python3-venv)'; exit 1; }
# A copy: building in place leaves folders in the tree.
cp -r "$root/python" "$work/package"
say 'installing the package and what it needs'
PIP_DISABLE_PIP_VERSION_CHECK=1 "$work/venv/bin/pip" install --quiet --only-binary=pyarrow,pandas,hdrhistogram,mypy \
  "$work/package[pandas]" mypy >"$work/pip.log" 2>&1 || { sed 's/^/  pip: /' "$work/pip.log" >&2; exit 1; }
# What others bring has no types of its own.
(cd "$work/package" && "$work/venv/bin/mypy" --no-error-summary --ignore-missing-imports)
cd "$root"
VST_BINARY=$binary "$work/venv/bin/python" -m unittest discover -s "$work/package/tests" -t "$work/package/tests"
