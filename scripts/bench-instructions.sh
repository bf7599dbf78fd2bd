#!/usr/bin/env bash
# Instructions per encoded HSET and per scanned reply, counted by valgrind: the same on a busy machine.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
if ! valgrind=$(command -v valgrind); then
  scripts/fetch-debian.sh valgrind
  valgrind="$root/.local/debian/valgrind/usr/bin/valgrind"
  export VALGRIND_LIB="$root/.local/debian/valgrind/usr/libexec/valgrind"
fi
cargo build --locked --quiet --release -p vst-bench

count() { # piece times
  "$valgrind" --tool=callgrind --callgrind-out-file=/dev/null "${CARGO_TARGET_DIR:-target}/release/vst-bench" \
    --piece "$1" --requests "$2" 2>&1 | awk '/Collected/ {print $NF}'
}
for piece in encode-hset scan-integer scan-bulk; do
  few=$(count "$piece" 10000)
  many=$(count "$piece" 30000)
  awk -v p="$piece" -v d=$((many - few)) 'BEGIN {printf "%-14s %8.1f instructions\n", p, d / 20000}'
done
