#!/usr/bin/env bash
# The suites against real servers, one test at a time. These tests time real processes, and a machine that others use can
# stop all of them for seconds: what fails is tried once more, by itself, and named at the end either way. What fails
# twice has failed; so has a suite in which more than three tests fail.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
readonly most=3
log=$(mktemp)
trap 'rm -f "$log"' EXIT
suite=(cargo test --locked -p fleet-tests --test real)

"${suite[@]}" -- --test-threads=1 "$@" 2>&1 | tee "$log" && exit 0
mapfile -t failed < <(awk '/^failures:$/ { n = 0; next } /^    [a-z0-9_:]+$/ { names[n++] = $1 } END { for (i = 0; i < n; i++) print names[i] }' "$log")
count=${#failed[@]}
if ((count == 0 || count > most)); then
  printf '\nsuites: %d tests failed\n' "$count" >&2
  exit 1
fi
for name in "${failed[@]}"; do
  printf '\nsuites: once more: %s\n' "$name" >&2
  "${suite[@]}" --quiet -- --test-threads=1 --exact "$name"
done
printf '\nsuites: passed at the second attempt only:\n' >&2
printf '  %s\n' "${failed[@]}" >&2
