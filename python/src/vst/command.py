"""The `vst` binary: where it is, how it is called, what its exit codes mean."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: What the exit codes of `vst` say.
EXIT_CODES: Mapping[int, str] = {
    0: "valid",
    1: "a fault of vst",
    2: "usage",
    3: "the scenario or configuration is wrong",
    4: "the target cannot be used",
    5: "the fleet is incomplete",
    6: "a criterion or regression threshold was missed",
    7: "finished, but not valid",
    130: "interrupted",
}
#: Codes with which a command has still told its result: valid, criterion missed, not valid.
TOLD = frozenset({0, 6, 7})


class VstError(RuntimeError):
    """The binary gave no result; its own words are the message.

    Attributes: `exit_code` as `vst` documents it, `command` without secrets (a password is never an argument).
    """

    def __init__(self, exit_code: int, command: Sequence[str], text: str) -> None:
        meaning = EXIT_CODES.get(exit_code, "unknown exit code")
        super().__init__(text.strip() or f"vst ended with {exit_code}: {meaning}")
        self.exit_code = exit_code
        self.command = list(command)


@dataclass(frozen=True)
class Answer:
    """What a command printed on stdout, and how it ended."""

    exit_code: int
    text: str

    def json(self) -> Any:
        """The one JSON document that was printed."""
        return json.loads(self.text)

    def json_lines(self) -> list[dict[str, Any]]:
        """One JSON object a line."""
        return [json.loads(line) for line in self.text.splitlines() if line]


@dataclass(frozen=True)
class Binary:
    """Where `vst` is: a path, or what `VST_BINARY` or `PATH` name."""

    path: Path

    @staticmethod
    def find(path: str | os.PathLike[str] | None = None) -> Binary:
        """Looks in the argument, in `VST_BINARY`, then in `PATH`.

        Raises FileNotFoundError when it is nowhere.
        """
        named = path or os.environ.get("VST_BINARY") or shutil.which("vst")
        if not named or not Path(named).is_file():
            raise FileNotFoundError(
                f"no vst binary at {named or 'any place of PATH'}: build it (cargo build -p vst) and put it into PATH, "
                "or name it in VST_BINARY"
            )
        return Binary(Path(named))

    def call(
        self, arguments: Sequence[str], *, password: str | None = None, progress: bool = True
    ) -> Answer:
        """Runs a command to its end. Its progress goes to this process' stderr, unless `progress` is off.

        Raises VstError when it ended without a result.
        """
        command = [str(self.path), *arguments]
        environment = dict(os.environ)
        if password is not None:
            environment["VST_PASSWORD"] = password
        ended = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if progress and _has_descriptor(sys.stderr) else subprocess.PIPE,
            text=True,
            check=False,
        )
        if ended.returncode not in TOLD or not ended.stdout.strip():
            raise VstError(ended.returncode, command, ended.stderr or "")
        return Answer(ended.returncode, ended.stdout)


def _has_descriptor(stream: Any) -> bool:
    # A notebook's stderr is no file: what a child writes there would be lost.
    try:
        return int(stream.fileno()) == 2
    except (AttributeError, OSError):
        return False
