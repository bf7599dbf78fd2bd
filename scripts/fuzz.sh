#!/usr/bin/env bash
# Fuzzes what comes from outside, each target for some seconds (60, or the first argument). New inputs that reach new
# code are kept in fuzz/corpus; an input that breaks something lies in fuzz/artifacts and its path is printed.
set -euo pipefail

seconds=${1:-60}
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
export PATH="$root/.local/cargo/bin:$PATH"
command -v cargo-fuzz >/dev/null || cargo install --quiet --locked --root .local/cargo cargo-fuzz
for target in $(cargo fuzz list); do
  printf 'fuzz: %s for %s s\n' "$target" "$seconds" >&2
  # Without a sanitizer it needs no nightly compiler; the code has no unsafe block that one would look into.
  cargo fuzz run -s none "$target" -- -max_total_time="$seconds" -max_len=4096 -verbosity=0 -print_final_stats=1
  # Only inputs that add something are worth keeping.
  cargo fuzz cmin -s none "$target" >/dev/null 2>&1 || true
done
