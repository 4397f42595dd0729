"""How near to the optimum are designed overlays, how long does that take, and how long do its parts?

    python -m benchmarks.design [--parts published,slow,random,large,mean,ring] [--json PATH] [--docs]

- *published*: iNaturalist on Gaia, AWS North America and Géant, 10 Gb/s access, five seeds, default settings.
- *slow*: the same at 1 Gb/s and 100 Mb/s, beside every overlay of the literature.
- *random*: 50 seeded networks of 10 to 90 silos, geometric and Waxman, three access rates in turn.
- *large*: everything for 90 silos at 10 Gb/s with default settings.
- *mean*: the largest mean of a circuit, beside Karp's recursion in NumPy and bisection with networkx.
- *ring*: a ring of 1,000 silos with local search, beside networkx's greedy one.

With ``--json`` results are added to those in the file, so that a run can be made in pieces, by ``--networks`` and
``--seeds``. Exits with 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .networks import FILES
from .parts import cycle_mean, long_ring, one_network, random_network, random_sizes, slow_access
from .results import judged
from .tables import all_tables, fill_page

PARTS = ("published", "slow", "random", "large", "mean", "ring")
NETWORKS, SLOW_S, RANDOM_S = 50, 20.0, 20.0


def main(words: Sequence[str]) -> int:
    options = _parser().parse_args(words)
    report: dict[str, Any] = {}
    if options.json is not None and options.json.is_file():
        report = json.loads(options.json.read_text(encoding="utf-8"))
    for part in options.parts.split(",") if options.parts else ():
        for path, value in _measured(part, options):
            _put(report, path, value)
            print(" ".join(path), file=sys.stderr, flush=True)
            if options.json is not None:
                options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print("\n\n".join(all_tables(report).values()))
    if options.docs:
        fill_page(report)
    return int(any(bar["met"] is False for bar in judged(report)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.design", description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="with commas between; none to make tables only")
    parser.add_argument("--networks", help="of the published ones by name, or the numbers of random ones, as 0-9")
    parser.add_argument("--seeds", default="0-4", help="of the search on published networks")
    parser.add_argument("--seconds", type=float, help="of every search, instead of the defaults")
    parser.add_argument("--json", type=Path, help="where results are added")
    parser.add_argument("--docs", action="store_true", help="fill in docs/explanation/overlay-design.md")
    return parser


def _measured(part: str, options: argparse.Namespace) -> Iterable[tuple[tuple[str, ...], Any]]:
    """Results with their place in the report."""
    yield ("machine",), {"cores": os.cpu_count(), "python": platform.python_version()}
    chosen = options.networks.split(",") if options.networks and not options.networks[0].isdigit() else list(FILES)
    if part == "published":
        for name in chosen:
            for seed in _numbers(options.seeds):
                yield ("published", name, str(seed)), one_network(name, seed, 1e10, options.seconds)
    elif part == "slow":
        for name in chosen:
            for label, rate in (("1 Gb/s", 1e9), ("100 Mb/s", 1e8)):
                yield ("slow access", f"{name}, {label}"), slow_access(name, rate, options.seconds or SLOW_S)
    elif part == "random":
        numbers = _numbers(options.networks) if options.networks else range(NETWORKS)
        for seed in numbers:
            yield ("random", str(seed)), random_network(seed, random_sizes(NETWORKS)[seed], options.seconds or RANDOM_S)
    elif part == "large":
        for seed in (0, 3):  # geometric and Waxman, both with 10 Gb/s, where it is hardest
            yield ("large", ("geometric", "Waxman")[seed % 2] + ", 90 silos"), random_network(seed, 90, options.seconds)
    elif part == "mean":
        yield ("cycle mean",), cycle_mean()
    elif part == "ring":
        yield ("long ring",), long_ring()
    else:
        sys.exit(f"--parts {part}: give some of {', '.join(PARTS)}.")


def _numbers(text: str) -> list[int]:
    """0-2,7 are 0, 1, 2 and 7."""
    ranges = [part.partition("-") for part in text.split(",")]
    return [k for low, _, high in ranges for k in range(int(low), int(high or low) + 1)]


def _put(report: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        report = report.setdefault(key, {})
    report[path[-1]] = value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
