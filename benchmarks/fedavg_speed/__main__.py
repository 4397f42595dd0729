"""How long does a round of federated averaging take, beside a plain PyTorch loop and beside other simulators?

    python -m benchmarks.fedavg_speed [--workloads W1,W2] [--peer pfl=/path/to/python] [--json PATH] [--docs]

Every contestant is a process of its own. All train on the same rows in the same order from the same parameters; they
take turns of a few rounds, another one beginning each time, and ratios are medians of per-turn ratios. Exits with 1
when a bar is missed or a result strays from the plain loop's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .heat import Entry, Lane, Plan, race
from .results import LOGGED, METHODS, OURS, PEERS, PLAIN, judged, strays, summary
from .tables import all_tables, fill_page
from .workloads import WORKLOADS, prepare

PLANS = {
    "W1": Plan(5, 60, 2, turn=5),
    "W2": Plan(5, 50, 2, turn=5),
    "W3": Plan(1, 8, 1),
    "W4": Plan(1, 8, 1),
    "tiny": Plan(1, 3, 1),
}
QUICK = {
    "W1": Plan(2, 8, 1, turn=2),
    "W2": Plan(2, 10, 1, turn=2),
    "W3": Plan(1, 2, 1),
    "W4": Plan(1, 2, 1),
    "tiny": Plan(1, 2, 1),
}
QUICK_COHORT = {"W3": 4}
_COMPONENTS = 3  # of FedEM


def main(words: Sequence[str]) -> int:
    options = _parser().parse_args(words)
    report = _measured(options, words) if options.redo is None else json.loads(options.redo.read_text(encoding="utf-8"))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print("\n\n".join(all_tables(report).values()))
    if options.docs:
        fill_page(report)
    astray = strays(report["workloads"])
    for name in astray:
        print(f"another result than the plain loop: {name}", file=sys.stderr)
    return int(bool(astray) or any(bar["verdict"] == "not met" for bar in report["bars"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fedavg_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", default="W1,W2,W3,W4", help="comma between names")
    parser.add_argument("--rounds", type=int, help="timed rounds of every workload")
    parser.add_argument("--cohort", type=int, help="clients per round, instead of each workload's own")
    parser.add_argument("--workers", type=int, help="of rivage and of peers; one per core by default")
    parser.add_argument("--quick", action="store_true", help="a few rounds, W3 with a cohort of 4: a look, no result")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help=f"one of {', '.join(PEERS)}")
    parser.add_argument("--no-own", action="store_true", help="only rivage's FedAvg, without its variants")
    parser.add_argument("--json", type=Path, help="where to write everything that was measured")
    parser.add_argument("--redo", type=Path, metavar="JSON", help="make tables of an earlier run instead of measuring")
    parser.add_argument("--docs", action="store_true", help="fill in docs/explanation/engine-speed.md and its figure")
    return parser


def _measured(options: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    peers = [entry for text in options.peer for entry in _peer(text, options.workers)]
    before, began = os.getloadavg()[0], time.time()
    workloads = {}
    for name in options.workloads.split(","):
        workloads[name] = _workload(name, options, peers)
    found = [lane for workload in workloads.values() for lane in workload["own"].values()]
    return {
        "command": " ".join(["python -m benchmarks.fedavg_speed", *_anonymous(words)]),
        "machine": {**_machine(), "load_before": before, "seconds": round(time.time() - began)},
        "versions": next((lane["versions"] for lane in found if "rivage" in lane.get("versions", {})), {}),
        "workloads": workloads,
        "bars": judged(workloads),
    }


def _peer(text: str, workers: int | None) -> list[Entry]:
    """A peer with each of its settings: on one core where it has another, and on all."""
    name, equals, python = text.partition("=")
    if name not in PEERS or not equals:
        sys.exit(f"--peer {text}: give one of {', '.join(PEERS)}, an equals sign, and the path of its Python.")
    settings = (1, workers or _cores())[-len(PEERS[name]) :]
    return [Entry(label, name, {"workers": used}, python) for label, used in zip(PEERS[name], settings, strict=True)]


def _workload(name: str, options: argparse.Namespace, peers: Sequence[Entry]) -> dict[str, Any]:
    settings, plan = WORKLOADS[name][0], (QUICK if options.quick else PLANS)[name]
    cohort = options.cohort or (QUICK_COHORT.get(name) if options.quick else None) or settings.cohort
    settings, plan = replace(settings, cohort=cohort), replace(plan, timed=options.rounds or plan.timed)
    ours = Entry(OURS, "ours", {"workers": options.workers})
    own = [] if options.no_own else _variants(name, options.workers)
    with tempfile.TemporaryDirectory() as place:
        replay = prepare(settings, Path(place) / name, plan.rounds)

        def played(entries: Sequence[Entry], kind: str) -> dict[str, Any]:
            tell = _telling(f"{name}, {kind}")
            lanes = race([Entry(PLAIN, "plain"), ours, *entries], replay.folder, plan, Path(place), tell)
            return _summaries(lanes, replay.initial)

        return {
            "parameters": len(replay.initial),
            "clients": replay.clients,
            "cohort": cohort,
            "rounds": plan.timed,
            "data_bytes": replay.data_bytes,
            "own": played(own, "own"),
            "peers": played(peers, "peers") if peers else {},
        }


def _variants(name: str, workers: int | None) -> list[Entry]:
    """What else rivage is measured with: its message log on and, on the small workloads, other methods."""
    entries = [Entry(LOGGED, "ours", {"workers": workers, "log": "all"})]
    for method, label in METHODS.items() if name in ("W1", "W2", "tiny") else ():
        more = {"components": _COMPONENTS} if method == "fedem" else {}
        if find_spec(f"rivage.federated.{method}") is not None:
            entries.append(Entry(label, "ours", {"workers": workers, "algorithm": method, **more}))
    return entries


def _summaries(lanes: Mapping[str, Lane], initial: np.ndarray) -> dict[str, Any]:
    return {label: summary(lane, lanes[PLAIN], initial) for label, lane in lanes.items()}


def _telling(where: str) -> Callable[[str], None]:
    """Progress on standard error, a line every few seconds at most."""
    last = 0.0

    def tell(text: str) -> None:
        nonlocal last
        if time.monotonic() - last > 5 or not text.startswith("round"):
            last = time.monotonic()
            print(f"{where}: {text}", file=sys.stderr, flush=True)

    return tell


def _machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return {"cpu": cpu, "cores": _cores(), "python": platform.python_version(), "system": platform.system()}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _anonymous(words: Sequence[str]) -> list[str]:
    """The command without paths of this machine."""
    return [f"{w.partition('=')[0]}=…" if "=" in w else Path(w).name if "/" in w else w for w in words]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
