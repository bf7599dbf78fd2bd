"""The searches of the binary: the limit, the best setting, a grid, the better of two.

Each gives back the JSON that the binary printed, in a `Search`. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .command import Binary
from .config import BenchmarkConfig, Value, text

#: `"16..512"` for a range, or the values themselves.
Range = str | Sequence[Value]


@dataclass(frozen=True)
class Search:
    """What a search found. `result` is the binary's JSON, whole."""

    result: dict[str, Any]
    exit_code: int

    @property
    def found(self) -> bool:
        """Whether there is an answer that keeps all constraints."""
        return self.exit_code == 0

    @property
    def best(self) -> dict[str, Any] | None:
        """Setting and safe rate (requests per second) of the winner, where the search has one."""
        best: dict[str, Any] | None = self.result.get("best")
        return best

    @property
    def command(self) -> str | None:
        """The command line that runs the winner again."""
        command: str | None = self.result.get("command")
        return command

    @property
    def folder(self) -> Path:
        """Where its measurements are; `--resume` takes it."""
        return Path(self.result["folder"])


def find_max_qps_with_constraints(
    config: BenchmarkConfig,
    constraints: Sequence[str] = ("recall >= 0.95", "p99 <= 10ms"),
    parameters: Mapping[str, Range] | None = None,
    *,
    options: Sequence[str] = (),
    progress: bool = True,
) -> Search:
    """The highest rate under constraints over parameters: `vst run tune --maximise qps`.

    Without parameters the binary takes `ef_runtime` and its usual range. `options` are further ones of `vst run tune`.
    """
    arguments = ["tune", "--maximise", "qps", *_under(constraints), *_named("--parameter", parameters or {})]
    return _search(config, [*arguments, *options], progress)


def binary_search_max_qps(
    config: BenchmarkConfig,
    constraints: Sequence[str] = ("p99 <= 10ms",),
    rates: tuple[float, float] | None = None,
    *,
    options: Sequence[str] = (),
    progress: bool = True,
) -> Search:
    """The highest rate that keeps the constraints with the scenario's own setting: `vst run sweep` of one setting.

    `rates` bounds what is tried, in requests per second; the binary probes if absent.
    """
    between = [] if rates is None else ["--rates", f"{rates[0]:g}/s..{rates[1]:g}/s"]
    return _search(config, ["sweep", *_under(constraints), *between, *options], progress)


def grid_search(
    config: BenchmarkConfig,
    grid: Mapping[str, Sequence[Value]],
    constraints: Sequence[str] = ("p99 <= 10ms",),
    *,
    options: Sequence[str] = (),
    progress: bool = True,
) -> Search:
    """The curve of every combination of values, and which stand on the front: `vst run sweep --grid`."""
    return _search(config, ["sweep", *_under(constraints), *_named("--grid", grid), *options], progress)


def compare(
    config: BenchmarkConfig,
    a: Mapping[str, Value],
    b: Mapping[str, Value],
    *,
    target_b: str | None = None,
    options: Sequence[str] = (),
    progress: bool = True,
) -> Search:
    """A against B in turn (A B B A ...): `vst run compare`."""
    arguments = ["compare"]
    for flag, side in (("--a", a), ("--b", b)):
        for name, value in side.items():
            arguments += [flag, f"{name}={text(value)}"]
    if target_b is not None:
        arguments += ["--target-b", target_b]
    return _search(config, [*arguments, *options], progress)


def _search(config: BenchmarkConfig, arguments: Sequence[str], progress: bool) -> Search:
    binary = Binary.find(config.binary)
    line = ["run", *arguments, "--scenario", str(config.scenario), "--json", *config.options()]
    if not progress:
        line.append("--quiet")
    answer = binary.call(line, password=config.password, progress=progress)
    return Search(answer.json(), answer.exit_code)


def _under(constraints: Sequence[str]) -> list[str]:
    return [part for constraint in constraints for part in ("--under", constraint)]


def _named(flag: str, ranges: Mapping[str, Range]) -> list[str]:
    arguments = []
    for name, values in ranges.items():
        listed = values if isinstance(values, str) else ",".join(text(value) for value in values)
        arguments += [flag, f"{name}={listed}"]
    return arguments
