"""How many requests per second does a no-regret cache serve, beside the caches that everybody uses?

    python -m benchmarks.caching [--sizes 4,5,6,7] [--peer libcachesim=/path/to/python] [--json PATH] [--docs]

Zipf(0.8) requests for N items of which N / 100 fit. Every contestant is a process of its own on the same core count;
all play the same requests from an empty cache, in turn, another one beginning each time. Exits with 1 when a bar is
missed or when somebody's hits differ that should not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .race import Lane, here, race, write_trace
from .results import PEERS, judged, strays, summary
from .tables import OURS, all_tables, fill_page

REQUESTS, PLAYS, PATIENCE = 5_000_000, 5, 300
SHARES = {"NoRegretCache, one by one": 0.2, "cachetools LRU": 0.2, "cachetools LFU": 0.2}
PROJECTED, PROJECTIONS, LARGEST = "OGB by full projection", 1000, 100_000


def main(words: Sequence[str]) -> int:
    options = _parser().parse_args(words)
    report = _measured(options, words) if options.redo is None else json.loads(options.redo.read_text(encoding="utf-8"))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print("\n\n".join(all_tables(report).values()))
    if options.docs:
        fill_page(report)
    astray = strays(report["sizes"])
    for text in astray:
        print(f"other hits than ours: {text}", file=sys.stderr)
    return int(bool(astray) or any(bar["verdict"] == "not met" for bar in report["bars"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.caching", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="4,5,6,7", help="powers of ten of N, with commas between")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of a play")
    parser.add_argument("--plays", type=int, default=PLAYS, help="of every contestant")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds for one play")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help=f"one of {', '.join(PEERS)}")
    parser.add_argument("--only", help="labels of contestants, with semicolons between")
    parser.add_argument("--json", type=Path, help="where to write everything that was measured")
    parser.add_argument("--redo", type=Path, metavar="JSON", help="make tables of an earlier run instead of measuring")
    parser.add_argument("--docs", action="store_true", help="fill in docs/explanation/caching-speed.md and its figure")
    return parser


def _measured(options: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    before, began, sizes, versions = os.getloadavg()[0], time.time(), {}, {}
    for power in map(int, options.sizes.split(",")):
        lanes = _lanes(options, 10**power)
        with tempfile.TemporaryDirectory() as place:
            write_trace(Path(place), 10**power, options.requests)
            race(lanes, Path(place), options.requests, options.plays, options.patience, _telling(f"N = 10^{power}"))
        sizes[str(10**power)] = {lane.label: summary(lane) for lane in lanes}
        if 10**power > LARGEST:
            sizes[str(10**power)][PROJECTED] = {"fault": "not asked"}
        versions |= {name: value for lane in lanes for name, value in lane.versions.items()}
    return {
        "command": " ".join(["python -m benchmarks.caching", *_anonymous(words)]),
        "machine": {**_machine(), "load_before": before, "seconds": round(time.time() - began)},
        "versions": versions,
        "requests": options.requests,
        "plays": options.plays,
        "sizes": sizes,
        "bars": judged(sizes),
    }


def _lanes(options: argparse.Namespace, items: int) -> list[Lane]:
    found = [Lane(label, here(), SHARES.get(label, 1.0)) for label in OURS if label != PROJECTED]
    if items <= LARGEST:
        found.append(Lane(PROJECTED, here(), min(PROJECTIONS / options.requests, 1.0)))
    for text in options.peer:
        name, equals, python = text.partition("=")
        if name not in PEERS or not equals:
            sys.exit(f"--peer {text}: give one of {', '.join(PEERS)}, an equals sign, and the path of its Python.")
        found += [Lane(label, python, SHARES.get(label, 1.0)) for label in PEERS[name]]
    return [lane for lane in found if options.only is None or lane.label in options.only.split(";")]


def _telling(text: str) -> Any:
    return lambda progress: print(f"{text}: {progress}", file=sys.stderr, flush=True)


def _machine() -> dict[str, Any]:
    """What the numbers depend on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version()}


def _anonymous(words: Sequence[str]) -> list[str]:
    """The command without paths of this machine."""
    return [f"{w.partition('=')[0]}=…" if "=" in w else Path(w).name if "/" in w else w for w in words]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
