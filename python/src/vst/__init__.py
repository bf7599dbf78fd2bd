"""Drives the `vst` binary and reads what it leaves behind.

Everything that measures or decides is the binary: this package builds its command lines, waits for it, and gives its
JSON and Parquet back as Python values. Instants and durations in tables are nanoseconds.
"""

from .command import Binary, VstError
from .config import BenchmarkConfig
from .export import save_results_csv
from .hdr import decode_hdr, merge_hdr
from .run import Run, open_run, run
from .search import Search, binary_search_max_qps, compare, find_max_qps_with_constraints, grid_search
from .stages import stage

__all__ = [
    "BenchmarkConfig",
    "Binary",
    "Run",
    "Search",
    "VstError",
    "binary_search_max_qps",
    "compare",
    "decode_hdr",
    "find_max_qps_with_constraints",
    "grid_search",
    "merge_hdr",
    "open_run",
    "run",
    "save_results_csv",
    "stage",
]
