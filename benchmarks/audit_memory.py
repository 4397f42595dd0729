"""Does an audit need little memory, however many updates a message log holds?

A log of 10^4 exchanges of 10^5 float32 parameters, 4 GB, is written and streamed through the view of a curious server,
once as one round of 10^4 clients that share a broadcast and once as 100 rounds of 100 clients that do not. Memory: the
growth of the resident set of the reading process, at its peak, from where it was when all was imported; the bar is 200
MB. Beside it the time, and that of the heads alone. Each reading is a process of its own; the log lies in the folder
for temporary files. Linux only: the peak is the kernel's, set back before the reading. (``ru_maxrss`` cannot be set
back, and begins with the peak of the parent.)

    python benchmarks/audit_memory.py [--records 10000] [--json]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from rivage.core.message_log import MessageLog
from rivage.core.messages import Message
from rivage.privacy.views import CuriousServer, Recorded

RECORDS, DIMENSION, MAX_GROWTH = 10**4, 10**5, 200 * 10**6
HEADER: dict[str, Any] = {
    "parameters": [{"name": "w", "offset": 0, "shape": [DIMENSION]}],
    "buffers": [],
    "trainable": DIMENSION,
    "kept": [],
    "loss": "squared",
    "hyper_parameters": {},
    "secure_aggregation": False,
    "differential_privacy": None,
}


def write(path: Path, rounds: int, clients: int, *, shared: bool) -> None:
    """A log of that many exchanges; every update has numbers of its own."""
    with MessageLog.create(path, HEADER) as log:
        for round in range(rounds):
            everyone = {"params": np.full(DIMENSION, round, np.float32)}
            for client in range(clients):
                sent = everyone if shared else {"params": np.full(DIMENSION, round + client / clients, np.float32)}
                who = f"client:{client}"
                log.append(Message(round=round, sender="server", receiver=who, kind="broadcast", payload=sent))
            for client in range(clients):
                returned = {"params": np.full(DIMENSION, -client, np.float32)}
                who = f"client:{client}"
                log.append(Message(round=round, sender=who, receiver="server", kind="update", payload=returned))


def resident(field: str) -> int:
    """Bytes of this process in memory: now (``VmRSS``) or at the peak (``VmHWM``)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field))) * 1024


def read(path: Path) -> dict[str, float]:
    """Stream every exchange, and what that takes."""
    server = CuriousServer(Recorded(path))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before, began = resident("VmRSS"), time.perf_counter()
    clients = len(server.clients)
    heads = time.perf_counter()
    count = sum(bool(np.isfinite(exchange.pseudo_gradient).all()) for exchange in server.exchanges())
    ended, after = time.perf_counter(), resident("VmHWM")
    return {
        "exchanges": count,
        "clients": clients,
        "log_bytes": path.stat().st_size,
        "growth_bytes": after - before,
        "heads_s": heads - began,
        "seconds": ended - heads,
    }


def measured(rounds: int, clients: int, *, shared: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "messages.rvg"
        write(path, rounds, clients, shared=shared)
        command = [sys.executable, __file__, "--read", str(path)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, float] = json.loads(told)
    assert found["exchanges"] == rounds * clients, "every exchange was read"
    return found


def main() -> int:
    if "--read" in sys.argv:
        print(json.dumps(read(Path(sys.argv[-1]))))
        return 0
    records = int(sys.argv[sys.argv.index("--records") + 1]) if "--records" in sys.argv else RECORDS
    cases = {
        "one round, one broadcast": measured(1, records, shared=True),
        "100 clients a round, a broadcast each": measured(records // 100, 100, shared=False),
    }
    growth = max(case["growth_bytes"] for case in cases.values())
    if "--json" in sys.argv:
        print(json.dumps({"cases": cases, "holds": growth < MAX_GROWTH}))
    else:
        for name, case in cases.items():
            print(
                f"{name:<38} {case['exchanges']:>7,} exchanges  {case['log_bytes'] / 1e9:5.1f} GB  "
                f"heads {case['heads_s']:5.1f} s  all {case['seconds']:6.1f} s  + {case['growth_bytes'] / 1e6:5.1f} MB"
            )
        print(f"largest growth {growth / 1e6:.1f} MB (bar {MAX_GROWTH / 1e6:.0f})")
    return 0 if growth < MAX_GROWTH else 1


if __name__ == "__main__":
    sys.exit(main())
