#!/usr/bin/env bash
# Says which dependencies would be compiled twice because one crate of the workspace, built alone, asks for other features
# than the whole workspace does. What it prints belongs into workspace-hack/Cargo.toml.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

# Features of what a build script or a macro uses are picked apart from the rest; they are small and left alone.
tree() { cargo tree --locked "$@" --prefix none -f '{p} [{f}]' | sed 's/ (\*)//' | grep -v ' (/' | sort -u; }

whole=$(tree --workspace -e normal,dev)
different=0
for crate in vst-common vst-access vst-etcd vst-worker vst-coordinator vst-analysis vst-http vst fleet-tests vst-bench; do
  while read -r line; do
    printf '%s alone: %s\n  the workspace: %s\n' "$crate" "$line" "$(grep -F "${line%%[*}" <<<"$whole" | tail -n 1)"
    different=1
  done < <(comm -23 <(tree -p "$crate" -e normal) <(printf '%s\n' "$whole"))
done
exit "$different"
