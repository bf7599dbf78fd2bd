"""Marks on stderr, so that a profiler or a log can follow what a script does."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stage(name: str, tag: str = "") -> Iterator[None]:
    """Writes `[STAGE:START] name:tag` and, whatever happens within, `[STAGE:END] name:tag duration=..s`."""
    began = time.monotonic()
    print(f"[STAGE:START] {name}:{tag}", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        took = time.monotonic() - began
        print(f"[STAGE:END] {name}:{tag} duration={took:.3f}s", file=sys.stderr, flush=True)
