#!/usr/bin/env bash
# Client CPU per request: one load lane beside valkey-benchmark, in one run. More arguments go to vst-bench (--help).
# Ends with 6 when the lane costs more than its peer. Without arguments it also counts instructions of the hot path.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
scripts/fetch-valkey-tools.sh
cargo build --locked --quiet --release -p vst-bench
valkey="$root/.local/debian/valkey/usr"
code=0
"${CARGO_TARGET_DIR:-target}/release/vst-bench" --programs "$valkey/bin" \
  --libraries "$valkey/lib/x86_64-linux-gnu" "$@" || code=$?
[[ $# -gt 0 ]] || scripts/bench-instructions.sh
exit "$code"
