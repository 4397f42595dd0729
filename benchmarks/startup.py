"""How long `import rivage` and `rivage --help` take, and what they load.

    python benchmarks/startup.py [--json]

Each number is the median over fresh processes, from start to exit, interpreter included. Exit code 1 if a bar is
missed or a heavy library is loaded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

PROCESSES = 10
HEAVY = ("torch", "matplotlib", "networkx", "pydantic", "pyarrow", "sklearn", "scipy")
CASES = {
    # what: (program, bar in seconds); the interpreter alone is the reference, not a bar
    "python": ("pass", None),
    "import rivage": ("import rivage", 0.3),
    "rivage --help": ("from rivage.cli.app import main; main(['--help'])", 0.6),
    "rivage train --help": ("from rivage.cli.app import main; main(['train', '--help'])", 0.6),
}


def seconds(program: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def loaded(program: str) -> list[str]:
    """The heavy libraries in ``sys.modules`` after the program."""
    probe = f"{program}\nimport sys\nprint(*[name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    return run.stderr.split()


def measure() -> dict[str, dict[str, Any]]:
    for program, _ in CASES.values():
        seconds(program)  # the first start compiles bytecode and warms the disk cache
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(PROCESSES):  # interleaved, so that a busy moment does not fall on one case
        for name, (program, _bar) in CASES.items():
            times[name].append(seconds(program))
    results = {}
    for name, (program, bar) in CASES.items():
        median, heavy = statistics.median(times[name]), loaded(program)
        met = (bar is None or median < bar) and not heavy
        results[name] = {"median_s": median, "bar_s": bar, "loads": heavy, "met": met}
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    results = measure()
    if arguments.json:
        print(json.dumps(results, indent=2))
    else:
        print(f"{'what':22}{'median':>10}{'bar':>10}  heavy libraries loaded")
        for name, result in results.items():
            bar = "" if result["bar_s"] is None else f"{result['bar_s']:.1f} s"
            print(f"{name:22}{result['median_s']:8.3f} s{bar:>10}  {', '.join(result['loads']) or 'none'}")
    return 0 if all(result["met"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
