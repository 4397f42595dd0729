"""How the driver and a contestant talk: one JSON object per line.

    {"setup": FOLDER, "variant": {...}}   -> {"ready": {versions}}
    {"rounds": [k, l], "watch": false}    -> {"seconds": s, "cpu_seconds": s}, of the rounds k … l − 1 together
    {"finish": PATH.npy}                  -> {"peak_rss_bytes": b, "peak_bytes": b, "helpers": n, "parameters": ...}

``peak_rss_bytes`` is the largest private and shared memory of the process and its descendants in watched rounds, above
what it had before set-up (its imports); ``helpers`` counts descendants large enough to compute.

or ``{"error": text}``, after which the contestant ends. Standard output belongs to the protocol: what a library prints
goes to standard error. Needs NumPy only.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from .process_tree import cpu_seconds, helpers, private_bytes
from .replay import Replay

__all__ = ["Contestant", "Gate", "serve"]

_PERIOD = 0.01  # seconds between two looks at the memory, in rounds that are watched


class Contestant(Protocol):
    """Who plays a workload."""

    def setup(self, replay: Replay, variant: Mapping[str, Any]) -> dict[str, str]:
        """Get ready for round 0; returns versions of what takes part."""
        ...

    def round(self, number: int) -> None:
        """Play this round; they are asked for in order."""
        ...

    def rest(self) -> None:
        """End what is still going on, before it is another's turn; within the time that counts."""

    def finish(self) -> np.ndarray:
        """End; returns the parameters, flat, in torch's order."""
        ...


class Gate:
    """Lets a framework that owns its loop play one round at a time: it calls `wait`, the protocol calls `step`."""

    def __init__(self) -> None:
        self._go, self._done, self._error = threading.Semaphore(0), threading.Semaphore(0), ""

    def run(self, loop: Callable[[], Any]) -> None:
        """Start the framework's loop; returns when it first waits."""

        def guarded() -> None:
            try:
                loop()
            except BaseException:
                self._error = traceback.format_exc()
            self._done.release()

        threading.Thread(target=guarded, daemon=True).start()
        self._join()

    def wait(self) -> None:
        """Say that the last round is over, and wait for the next to be asked for."""
        self._done.release()
        self._go.acquire()

    def step(self) -> None:
        """Have one round played."""
        self._go.release()
        self._join()

    def _join(self) -> None:
        self._done.acquire()
        if self._error:
            raise RuntimeError(self._error)


class _Watch:
    """The largest memory of this process and its descendants while it looks, and how many of those compute."""

    def __init__(self) -> None:
        self.start = private_bytes()
        self.peak, self.helpers = self.start, 0

    def during(self, work: Callable[[], Any]) -> None:
        over = threading.Event()
        looking = threading.Thread(target=self._look, args=(over,))
        looking.start()
        try:
            work()
        finally:
            over.set()
            looking.join()
        self.peak, self.helpers = max(self.peak, private_bytes()), max(self.helpers, helpers())

    def _look(self, over: threading.Event) -> None:
        while not over.wait(_PERIOD):
            self.peak = max(self.peak, private_bytes())


def serve(contestant: Contestant) -> None:
    """Answer the driver until it closes the line."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        _answer(contestant, replies)
    except BaseException:
        _reply(replies, {"error": traceback.format_exc()})
        sys.exit(1)
    replies.flush()
    os._exit(0)  # libraries with threads of their own may hang here for seconds


def _answer(contestant: Contestant, replies: TextIO) -> None:
    watch = _Watch()
    for line in sys.stdin:
        request = json.loads(line)
        if "setup" in request:
            replay = Replay(Path(request["setup"]))
            _reply(replies, {"ready": contestant.setup(replay, request.get("variant", {}))})
        elif "rounds" in request:
            _reply(replies, _played(contestant, request, watch))
        elif "finish" in request:
            np.save(request["finish"], contestant.finish())
            peaks = {"peak_bytes": watch.peak, "peak_rss_bytes": watch.peak - watch.start, "helpers": watch.helpers}
            _reply(replies, {**peaks, "parameters": request["finish"]})


def _played(contestant: Contestant, request: Mapping[str, Any], watch: _Watch) -> dict[str, float]:
    def turn() -> None:
        for number in range(*request["rounds"]):
            contestant.round(number)
        getattr(contestant, "rest", lambda: None)()

    cpu, began = cpu_seconds(), time.perf_counter()
    if request.get("watch"):
        watch.during(turn)
    else:
        turn()
    return {"seconds": time.perf_counter() - began, "cpu_seconds": cpu_seconds() - cpu}


def _reply(replies: TextIO, answer: Mapping[str, Any]) -> None:
    replies.write(json.dumps(answer) + "\n")
    replies.flush()
