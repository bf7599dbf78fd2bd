#!/usr/bin/env bash
# Puts Debian's Valkey 8 under .local/debian/valkey: valkey-benchmark, the peer of `make bench`, and valkey-server with
# TLS and jemalloc, for the suites that need them.
#
# They come from bookworm-backports, which a machine need not have among its own sources; apt verifies the archive's
# signature and each package's hash. Nothing is installed, no root is needed, no service is started.
set -euo pipefail

packages=(valkey-tools valkey-server)
# What the two link against and a bare machine may lack.
libraries=(libjemalloc2 liblua5.1-0 liblzf1 libsystemd0)

say() { printf 'fetch-valkey-tools: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
target="$root/.local/debian/valkey"
[[ -x $target/run/valkey-benchmark && -x $target/run/valkey-server ]] && exit 0
for tool in apt-get dpkg-deb; do
  command -v "$tool" >/dev/null || die "$tool is missing: this needs Debian or Ubuntu; elsewhere put valkey-benchmark and valkey-server (8.0 or newer) under .local/debian/valkey/run/"
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[[ -s $keyring ]] || die "$keyring is missing: install debian-archive-keyring"

mkdir -p "$root/.local/debian"
work=$(mktemp -d "$root/.local/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/debs" "$work/valkey"
printf 'deb [signed-by=%s] http://deb.debian.org/debian %s main\n' "$keyring" bookworm "$keyring" bookworm-backports \
  >"$work/sources.list"
apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
  -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work" -o "Dir::Cache::archives=$work/archives"
  -o APT::Sandbox::User=root -o Acquire::Retries=3 -o Debug::NoLocking=1)
say 'downloading valkey-tools and valkey-server of bookworm-backports'
"${apt[@]}" update >"$work/log" 2>&1 || { sed 's/^/  apt: /' "$work/log" >&2; die 'apt could not read the package lists: check the network'; }
cd "$work/debs"
"${apt[@]}" download "${packages[@]/%//bookworm-backports}" "${libraries[@]}" >"$work/log" 2>&1 ||
  { sed 's/^/  apt: /' "$work/log" >&2; die 'apt could not download the packages (see above)'; }
for deb in ./*.deb; do dpkg-deb -x "$deb" "$work/valkey"; done
cd "$root"

# The programs find their libraries beside them, whatever the machine has.
mkdir "$work/valkey/run"
for program in valkey-benchmark valkey-server; do
  binary="usr/bin/$program"
  # Debian's valkey-server is a link to the one program that can also check dumps.
  [[ -e $work/valkey/$binary ]] || die "the packages hold no $binary"
  cat >"$work/valkey/run/$program" <<SH
#!/usr/bin/env bash
here=\$(cd -- "\$(dirname -- "\${BASH_SOURCE[0]}")/.." && pwd)
export LD_LIBRARY_PATH="\$here/usr/lib/x86_64-linux-gnu:\$here/lib/x86_64-linux-gnu\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
exec "\$here/$binary" "\$@"
SH
  chmod +x "$work/valkey/run/$program"
  "$work/valkey/run/$program" --version >/dev/null || die "$program does not run on this machine"
done
mv -T "$work/valkey" "$target" 2>/dev/null || [[ -x $target/run/valkey-benchmark ]] || die "cannot put Valkey at $target"
say "$("$target/run/valkey-benchmark" --version) in .local/debian/valkey/run"
