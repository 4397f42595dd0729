"""The other silos of a run on this machine: one process each, started and watched by the process of silo 0.

Each gets the same command and, in its environment, who it is, exactly as ``torchrun`` would start it. What it says goes
to a file, of which the last lines are shown when it fails. Whatever ends the first process ends the others: they are
told, given some seconds, and then killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

from rivage.decentralized.torchdist.meeting import Meeting
from rivage.decentralized.torchdist.watch import Watch

__all__ = ["Processes"]

_LOOKS_S = 0.1  # between looks at which processes are alive
_GRACE_S = 8.0  # to stop by themselves


class Processes:
    """Silos 1, 2, …, each in a process of its own. A context: they have ended when it is left.

    Args:
        command: what starts a silo.
        meeting: of silo 0.
        folder: where each silo's output goes, ``silo-<rank>.log``.
    """

    def __init__(self, command: Sequence[str], meeting: Meeting, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()
        self._guard: threading.Thread | None = None
        try:
            for rank in range(1, meeting.size):
                self._running[rank] = self._start(command, replace(meeting, rank=rank, listener=None))
        except OSError:
            self._kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self._over.set()
        if self._guard is not None:
            self._guard.join()
        until = time.monotonic() + _GRACE_S
        for process in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
        self._kill()

    def report_to(self, watch: Watch) -> None:
        """Accuse every silo whose process ends although nothing has failed before."""
        self._guard = threading.Thread(target=self._look, args=(watch,), name="silos", daemon=True)
        self._guard.start()

    def died(self, rank: int) -> str | None:
        """How a process ended, to be read after the name of its silo; None while it runs or if it ended well."""
        code = self._running[rank].poll()
        if not code:
            return None
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        words = self._last_words(rank)
        return f"{how} ({words})" if words and code > 0 else how

    def _start(self, command: Sequence[str], meeting: Meeting) -> subprocess.Popen[bytes]:
        with self._log(meeting.rank).open("wb") as log:
            return subprocess.Popen(
                command,
                env={"TORCH_CPP_LOG_LEVEL": "ERROR", **os.environ, **meeting.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches silo 0, which tells the others
            )

    def _look(self, watch: Watch) -> None:
        while not self._over.wait(_LOOKS_S):
            for rank in self._running:
                if (how := self.died(rank)) is not None:
                    watch.accuse(rank, how, patience=0.5 if how.startswith("ended") else 0.0)
                    return

    def _kill(self) -> None:
        for process in self._running.values():
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _log(self, rank: int) -> Path:
        return self._folder / f"silo-{rank}.log"

    def _last_words(self, rank: int) -> str:
        with suppress(OSError):
            lines = self._log(rank).read_text("utf-8", errors="replace").split("\n")
            return next((line.strip() for line in reversed(lines) if line.strip()), "")
        return ""
