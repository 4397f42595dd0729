"""A contestant: a process that serves one trace again and again, in our environment or in a peer's.

One JSON object per line:

    {"label": L, "folder": F} -> {"ready": versions}
    {"play": n}               -> {"seconds": s, "hits": h, "inserted": i, "requests": r, "bytes": b}

for the first n requests, of which the first fifth warms up: seconds and requests leave it out, hits and insertions do
not. ``bytes`` is what the cache holds at the end, index included: the growth of the memory that no file backs. Errors
come as {"error": text}.

Nothing but NumPy and what the contestant needs is imported here.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":  # by its path, because in a peer's environment there is no package
    sys.path.insert(0, str(Path(__file__).parent))

Serve = Callable[[int, int], tuple[int, "int | None"]]
"""Serve the requests from one place of the trace up to another: hits, and insertions where they are told."""

_WARM_UP = 5  # a share of one in so many


class Trace:
    """The requests, as everybody wants them.

    Args:
        folder: with trace.npy, trace.oracleGeneral and facts.json.
        requests: how many will be played.
    """

    def __init__(self, folder: Path, requests: int) -> None:
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        self.items, self.capacity, self.requests = facts["items"], facts["capacity"], requests
        self.file = folder / "trace.oracleGeneral"
        self._numbers = folder / "trace.npy"

    @property
    def numbers(self) -> np.ndarray:
        """int64, read into memory."""
        return np.load(self._numbers)[: self.requests]


def anonymous_bytes() -> int:
    """Memory of this process that no file backs; 0 where that is not known."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("RssAnon:"):
                return 1024 * int(line.split()[1])
    return 0


def played(make: Callable[[Trace], Iterator[Serve]], folder: Path, requests: int) -> dict[str, Any]:
    """One play from an empty cache: ``make`` yields once when its inputs are ready, then what serves."""
    trace = Trace(folder, requests)
    making = make(trace)
    next(making)
    gc.collect()
    before, warm = anonymous_bytes(), requests // _WARM_UP
    serve = next(making)
    first = serve(0, warm)
    began = time.perf_counter()
    second = serve(warm, requests)
    seconds = time.perf_counter() - began
    held = anonymous_bytes() - before
    inserted = None if first[1] is None or second[1] is None else first[1] + second[1]
    hits = first[0] + second[0]
    return {"seconds": seconds, "requests": requests - warm, "hits": hits, "inserted": inserted, "bytes": held}


def main() -> None:
    """Answer the driver until it closes the line."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(answer: dict[str, Any]) -> None:
        replies.write(json.dumps(answer) + "\n")
        replies.flush()

    try:
        opening = json.loads(sys.stdin.readline())
        if opening["label"].startswith(("libCacheSim", "cachetools")):
            from peers import contestant
        else:
            from ours import contestant
        make, versions = contestant(opening["label"])
        reply({"ready": versions})
        for line in sys.stdin:
            reply(played(make, Path(opening["folder"]), json.loads(line)["play"]))
    except BaseException:
        reply({"error": traceback.format_exc()})
        sys.exit(1)


if __name__ == "__main__":
    main()
