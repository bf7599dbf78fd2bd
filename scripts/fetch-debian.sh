#!/usr/bin/env bash
# Puts programs of Debian packages under .local/debian/<package>, without installing them: no root, no service started.
#
#   scripts/fetch-debian.sh etcd-server prometheus
#
# apt verifies the archive's signature and each package's hash; what is fetched is the newest version of the machine's
# Debian (or Ubuntu) release. A package appears whole or not at all; one that is in place is not fetched again.
set -euo pipefail

say() { printf 'fetch-debian: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

(($#)) || die 'which packages? For example: scripts/fetch-debian.sh etcd-server'
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
debian="$root/.local/debian"
mkdir -p "$debian"

missing=()
for package in "$@"; do [[ -d $debian/${package%%=*} ]] || missing+=("$package"); done
((${#missing[@]})) || exit 0
for tool in apt-get dpkg-deb; do
  command -v "$tool" >/dev/null ||
    die "$tool is missing: this needs Debian or Ubuntu; elsewhere put the program of ${missing[*]} under .local/debian/<package>/"
done

work=$(mktemp -d "$root/.local/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Own lists, so that neither root nor a fresh `apt-get update` of the machine is needed.
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/debs"
apt=(apt-get -qq -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work" -o "Dir::Cache::archives=$work/archives"
  -o APT::Sandbox::User=root -o Acquire::Retries=3 -o Debug::NoLocking=1)
say "downloading ${missing[*]}"
"${apt[@]}" update >"$work/log" 2>&1 || { sed 's/^/  apt: /' "$work/log" >&2; die 'apt could not read its package lists: check the network and /etc/apt/sources.list'; }
for package in "${missing[@]}"; do
  name=${package%%=*}
  mkdir "$work/debs/$name"
  (cd "$work/debs/$name" && "${apt[@]}" download "$package") >"$work/log" 2>&1 ||
    { sed 's/^/  apt: /' "$work/log" >&2; die "apt could not download $package (see above)"; }
  dpkg-deb -x "$work/debs/$name/"*.deb "$work/tree-$name"
  # A simultaneous call that was first is as good.
  mv -T "$work/tree-$name" "$debian/$name" 2>/dev/null || [[ -d $debian/$name ]] || die "cannot put $name at $debian"
  say "$name in .local/debian/$name"
done
