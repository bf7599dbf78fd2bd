#!/usr/bin/env bash
# Puts the Python packages that the suites use under .local/python: pyarrow, as an independent reader of our Parquet.
set -euo pipefail

package='pyarrow==26.0.1'

say() { printf 'fetch-python: %s\n' "$*" >&2; }
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
python="$root/.local/python"
stamp="$package $(python3 --version 2>&1)"
[[ -f $python/STAMP && $(<"$python/STAMP") == "$stamp" ]] && exit 0

python3 -m pip --version >/dev/null 2>&1 || { say 'pip is missing: install it (Debian, Ubuntu: apt install python3-pip)'; exit 1; }
mkdir -p "$root/.local"
work=$(mktemp -d "$root/.local/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "downloading $package"
PIP_REQUIRE_VIRTUALENV=0 PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet --only-binary=:all: \
  --target "$work/python" "$package" >"$work/pip.log" 2>&1 || {
  sed 's/^/  pip: /' "$work/pip.log" >&2
  say "pip could not install $package (see above): check the network and pip's package index, then try again"
  exit 1
}
printf '%s' "$stamp" >"$work/python/STAMP"
rm -rf "$python"
mv "$work/python" "$python"
