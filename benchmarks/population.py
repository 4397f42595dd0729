"""Does a round cost the same whatever the size of the population?

Time: rounds of FedAvg with a cohort of 100 at N = 10^3, 10^6 and 10^9 registered devices, interleaved round by round in
one process; the bar is a ratio of medians of at most 1.2. Memory: a round with a cohort of 10^4 at N = 10^5 and
10^9, each in a process of its own; the bar is a growth of the peak resident set of less than 64 MiB.

    python benchmarks/population.py [--json]
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from rivage.data.build import build_population
from rivage.data.generative import Generative
from rivage.federated import FedAvg, Notebook, Phase, Trial, run
from rivage.learning import TaskSettings, make_task
from rivage.simulation.availability import Markov

TIME_SIZES, TIME_COHORT, ROUNDS, WARM_UP = (10**3, 10**6, 10**9), 100, 30, 3
MEMORY_SIZES, MEMORY_COHORT = (10**5, 10**9), 10**4
MAX_RATIO, MAX_GROWTH = 1.2, 64 * 2**20


def trial(size: int, cohort: int, rounds: int) -> Trial:
    population = build_population(Generative(size=size), availability=Markov(mean=0.3, correlation=0.9), seed=0)
    return Trial(
        name="fedavg",
        algorithm=FedAvg(learning_rate=0.05, work=Phase(batch_size=10)),
        population=population,
        task=make_task(TaskSettings(), population.schema),
        rounds=rounds,
        cohort=cohort,
        every=rounds + 1,
    )


def rounds_of(size: int) -> Iterator[float]:
    """Seconds of one round after the other, each played when it is asked for."""
    notebook = Notebook()
    for number in range(1, ROUNDS + 1):
        clock: list[float] = []
        played = trial(size, TIME_COHORT, number)
        began = time.perf_counter()
        run(
            played,
            notebook,
            lambda event, clock=clock: clock.append(time.perf_counter()) if event["event"] == "round" else None,
        )
        yield clock[-1] - began


def times() -> dict[int, float]:
    sources = {size: rounds_of(size) for size in TIME_SIZES}
    seconds: dict[int, list[float]] = {size: [] for size in TIME_SIZES}
    for number in range(ROUNDS):
        sizes = TIME_SIZES[number % 3 :] + TIME_SIZES[: number % 3]
        for size in sizes:
            taken = next(sources[size])
            if number >= WARM_UP:
                seconds[size].append(taken)
    return {size: statistics.median(values) for size, values in seconds.items()}


def memory() -> dict[int, int]:
    """Peak resident set by size, each in its own process."""
    peaks = {}
    for size in MEMORY_SIZES:
        command = [sys.executable, __file__, "--peak", str(size)]
        peaks[size] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return peaks


def peak(size: int) -> int:
    run(trial(size, MEMORY_COHORT, 1))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    if "--peak" in sys.argv:
        print(peak(int(sys.argv[-1])))
        return 0
    seconds, peaks = times(), memory()
    ratio = max(seconds.values()) / min(seconds.values())
    growth = peaks[MEMORY_SIZES[1]] - peaks[MEMORY_SIZES[0]]
    result = {
        "seconds_per_round": seconds,
        "time_ratio": ratio,
        "peak_bytes": peaks,
        "growth_bytes": growth,
        "holds": ratio <= MAX_RATIO and growth < MAX_GROWTH,
    }
    if "--json" in sys.argv:
        print(json.dumps(result))
    else:
        for size, value in seconds.items():
            print(f"N = {size:>13,}  cohort {TIME_COHORT:>6,}  {1e3 * value:8.1f} ms per round")
        print(f"largest ratio {ratio:.2f} (bar {MAX_RATIO})")
        for size, value in peaks.items():
            print(f"N = {size:>13,}  cohort {MEMORY_COHORT:>6,}  {value / 2**20:8.0f} MiB at the peak")
        print(f"growth {growth / 2**20:.0f} MiB (bar {MAX_GROWTH // 2**20})")
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
