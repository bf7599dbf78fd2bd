#!/usr/bin/env bash
# Puts Azurite, Microsoft's Azure Blob server for tests, under .local/azurite. It comes from npm, pinned by version.
set -euo pipefail

package='azurite@3.37.0'

say() { printf 'fetch-azurite: %s\n' "$*" >&2; }
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
azurite="$root/.local/azurite"
[[ -f $azurite/STAMP && $(<"$azurite/STAMP") == "$package" ]] && exit 0

command -v npm >/dev/null || { say 'npm is missing: install Node.js (Debian, Ubuntu: apt install nodejs npm)'; exit 1; }
mkdir -p "$root/.local"
work=$(mktemp -d "$root/.local/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "downloading $package"
npm install --silent --no-audit --no-fund --ignore-scripts --omit=dev --prefix "$work/azurite" "$package" >"$work/npm.log" 2>&1 || {
  sed 's/^/  npm: /' "$work/npm.log" >&2
  say "npm could not install $package (see above): check the network and npm's registry, then try again"
  exit 1
}
printf '%s' "$package" >"$work/azurite/STAMP"
rm -rf "$azurite"
mv "$work/azurite" "$azurite"
