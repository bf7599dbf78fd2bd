"""What a run is about: a scenario, a target, and what is changed of the scenario."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Union

#: A value of a scenario: `10s`, `5k/s`, 200, 0.5, True.
Value = Union[str, int, float, bool]


@dataclass(frozen=True)
class BenchmarkConfig:
    """One benchmark; the names are those of `vst run scenario --help`.

    `set` replaces values of the scenario by their path, for example `{"phases.query.query.ef_runtime": 200}`.
    The password never becomes an argument and is not part of `repr`.
    """

    scenario: str | Path = "quick"
    target: str | None = None
    workers: int | None = None
    set: Mapping[str, Value] = field(default_factory=dict)
    results: str | Path = "runs"
    cleanup: bool = False
    password: str | None = field(default=None, repr=False)
    binary: str | Path | None = None

    def with_set(self, **values: Value) -> BenchmarkConfig:
        """The same with more values replaced; `__` in a name stands for the point of a path."""
        paths = {name.replace("__", "."): value for name, value in values.items()}
        return replace(self, set={**self.set, **paths})

    def options(self) -> list[str]:
        """The options that `run scenario` and the searches share."""
        options = ["--results", str(self.results)]
        if self.target is not None:
            options += ["--target", self.target]
        if self.workers is not None:
            options += ["--workers", str(self.workers)]
        for path, value in self.set.items():
            options += ["--set", f"{path}={text(value)}"]
        if self.cleanup:
            options.append("--cleanup")
        return options


def text(value: Value) -> str:
    """A value as a scenario writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
