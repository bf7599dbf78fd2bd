"""Reports as one CSV: a row per run, phase and operation."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from typing import Any

from .run import Run

#: Latency columns are nanoseconds; `>` before one says that requests without an answer fall among it.
COLUMNS = (
    "run",
    "valid",
    "phase",
    "operation",
    "due",
    "sent",
    "ok",
    "offered_per_second",
    "achieved_per_second",
    "response_p50_ns",
    "response_p95_ns",
    "response_p99_ns",
    "response_p999_ns",
    "response_p9999_ns",
    "response_max_ns",
    "service_p50_ns",
    "service_p95_ns",
    "service_p99_ns",
    "service_p999_ns",
    "service_p9999_ns",
    "service_max_ns",
    "recall",
)


def save_results_csv(runs: Iterable[Run], path: str | os.PathLike[str]) -> int:
    """Writes the figures of the reports; gives the number of rows. An absent figure is an empty cell."""
    written = 0
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for run in runs:
            for phase in run.summary["phases"]:
                for operation in phase["operations"]:
                    writer.writerow(_row(run, phase, operation))
                    written += 1
    return written


def _row(run: Run, phase: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    row = {name: operation.get(name) for name in COLUMNS}
    row.update(run=run.directory.name, valid=run.valid, phase=phase["name"])
    if operation["operation"] == "knn":
        row["recall"] = (phase.get("recall") or {}).get("recall")
    for kind in ("response", "service"):
        for name, quantile in (operation.get(kind) or {}).items():
            if isinstance(quantile, dict):
                row[f"{kind}_{name}_ns"] = f"{'>' if quantile['censored'] else ''}{quantile['ns']}"
    return {name: row.get(name) for name in COLUMNS}
