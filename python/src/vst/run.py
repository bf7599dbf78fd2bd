"""A run: started, or opened from its directory; its report, its tables, SQL over them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from .command import Binary
from .config import BenchmarkConfig

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Run:
    """A finished run in its directory."""

    directory: Path
    binary: Binary

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The report of `vst analyze summary --json`."""
        answer = self.binary.call(["analyze", "summary", str(self.directory), "--json"], progress=False)
        summary: dict[str, Any] = answer.json()
        return summary

    @property
    def verdict(self) -> dict[str, Any]:
        """State, reasons why it is not valid, saturated phases, findings."""
        verdict: dict[str, Any] = self.summary["verdict"]
        return verdict

    @property
    def valid(self) -> bool:
        """Whether the numbers can be believed: finished, and no rule says otherwise."""
        return self.verdict["state"] == "finished" and not self.verdict["not_valid"]

    @property
    def tables(self) -> list[str]:
        """Tables that hold something."""
        folders = (path for path in self.directory.iterdir() if path.is_dir())
        return sorted(path.name for path in folders if any(path.glob("*.parquet")))

    def table(self, name: str) -> pa.Table:
        """A table as it was recorded (all rows of all workers), for example `latency`, `memory`, `recall`.

        Raises KeyError for a table that the run does not have.
        """
        parts = sorted((self.directory / name).glob("*.parquet"))
        if not parts:
            raise KeyError(f"{self.directory} has no table `{name}`; there are: {', '.join(self.tables)}")
        return pa.concat_tables((pq.read_table(part) for part in parts), promote_options="permissive")

    def frame(self, name: str) -> pandas.DataFrame:
        """The same as a pandas frame (needs `vst[pandas]`)."""
        frame: pandas.DataFrame = self.table(name).to_pandas()
        return frame

    def query(self, sql: str) -> pa.Table:
        """SQL over the run's tables by `vst analyze query`, with its functions such as `hdr_quantile`."""
        answer = self.binary.call(
            ["analyze", "query", sql, "--run", str(self.directory), "--json"], progress=False
        )
        return pa.Table.from_pylist(answer.json_lines())


def run(config: BenchmarkConfig | None = None, *, progress: bool = True) -> Run:
    """Runs a scenario to its end: `vst run scenario`.

    A run that finished is given back even if it is not valid or missed a criterion: ask `valid` and `verdict`.
    Raises VstError for everything else.
    """
    config = config or BenchmarkConfig()
    binary = Binary.find(config.binary)
    arguments = ["run", "scenario", str(config.scenario), "--json", *config.options()]
    if not progress:
        arguments.append("--quiet")
    report = binary.call(arguments, password=config.password, progress=progress).json()
    return Run(Path(report["directory"]), binary)


def open_run(directory: str | os.PathLike[str], *, binary: str | os.PathLike[str] | None = None) -> Run:
    """A run that finished earlier.

    Raises FileNotFoundError when this is no run directory.
    """
    path = Path(directory)
    if not (path / "run.json").is_file():
        raise FileNotFoundError(f"{path} is no run directory: it has no run.json")
    return Run(path, Binary.find(binary))
