#!/usr/bin/env bash
# Compares `vst dataset ground-truth` with faiss-cpu's IndexFlatL2 on the same data, threads and machine, in turns:
# 1,000,000 x 128 uniform floats, 1,000 queries, k = 100. Prints both times and their ratio (the best of three each);
# ends with 6 when the ratio is over the bound, and with 1 when the neighbours differ.
set -euo pipefail

package='faiss-cpu==1.15.1'
bound=0.7
rows=${BENCH_ROWS:-1000000}

say() { printf 'bench-ground-truth: %s\n' "$*" >&2; }
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
vst=${VST:-$root/target/debug/vst}
[[ -x $vst ]] || { say "$vst is missing: cargo build -p vst"; exit 1; }
work=$(mktemp -d "$root/.local/bench.XXXXXX")
trap 'rm -rf "$work"' EXIT

python="$root/.local/python-faiss"
if ! PYTHONPATH=$python python3 -c 'import faiss' 2>/dev/null; then
  say "downloading $package"
  PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet --only-binary=:all: --target "$python" "$package" >&2 \
    || PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet --only-binary=:all: --target "$python" faiss-cpu >&2
fi

PYTHONPATH=$python VST=$vst WORK=$work ROWS=$rows BOUND=$bound python3 - <<'PY'
import json, os, subprocess, sys, time
import numpy as np, faiss

work, rows, bound = os.environ["WORK"], int(os.environ["ROWS"]), float(os.environ["BOUND"])
draw = np.random.default_rng(1)
base, queries = draw.random((rows, 128), np.float32), draw.random((1000, 128), np.float32)
for name, data in (("base", base), ("query", queries)):
    with open(f"{work}/{name}.fbin", "wb") as file:
        np.array(data.shape, "<u4").tofile(file)
        data.tofile(file)
threads = len(os.sched_getaffinity(0))
faiss.omp_set_num_threads(threads)
index = faiss.IndexFlatL2(128)
index.add(base)
ours, theirs = [], []
for _ in range(3):
    began = time.perf_counter()
    _, found = index.search(queries, 100)
    theirs.append(time.perf_counter() - began)
    said = subprocess.run(
        [os.environ["VST"], "dataset", "ground-truth", "--base", f"{work}/base.fbin", "--queries", f"{work}/query.fbin",
         "--out", f"{work}/truth.bin", "--threads", str(threads), "--json"],
        check=True, stdout=subprocess.PIPE)
    ours.append(json.loads(said.stdout)["seconds"])
truth = np.fromfile(f"{work}/truth.bin", "<u4", count=2 + 100_000)[2:].reshape(1000, 100)
same = float(np.mean([len(set(a) & set(b)) for a, b in zip(truth, found)])) / 100
ratio = min(ours) / min(theirs)
print(json.dumps({"rows": rows, "queries": 1000, "k": 100, "threads": threads, "vst_s": round(min(ours), 3),
                  "faiss_s": round(min(theirs), 3), "faiss": faiss.__version__, "ratio": round(ratio, 3),
                  "same_neighbours": same}))
if same < 0.9999:
    sys.exit("bench-ground-truth: the neighbours differ")
sys.exit(0 if ratio <= bound else 6)
PY
