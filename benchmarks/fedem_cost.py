"""Does FedEM with three components cost little more than three runs of FedAvg?

Both train the same number of models on the same records; FedEM adds a pass over the training records per component and
round, and the weights of the records in every step. Sessions are interleaved round by round in one process: a round of
FedEM, a round of each of three FedAvg sessions, in turning order; the bar is the median over rounds of their ratio, at
most 1.5, for a dense model (trained in tiles) and a small convolutional one (one client at a time). `FedEMHeads`, whose
three heads share a body, stands beside it without a bar: its bytes, not its time, are what it saves.

    python benchmarks/fedem_cost.py [--json] [--workers N]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from rivage.data.population import Schema
from rivage.federated import Execution, FedAvg, FedEM, FedEMHeads, Phase, Session, Trial
from rivage.learning import TaskSettings, make_task
from rivage.testing.toys import Clients

COMPONENTS, WARM_UP, MAX_RATIO = 3, 2, 1.5


@dataclass(frozen=True)
class Load:
    """A model and the clients that train it."""

    model: str
    options: dict[str, Any]
    shape: tuple[int, ...]
    clients: int
    records: int
    rounds: int

    @property
    def population(self) -> Clients:
        """Records without meaning: their number is what costs."""
        generator = np.random.default_rng(0)
        records = tuple(
            (
                generator.normal(size=(self.records, *self.shape)).astype(np.float32),
                generator.integers(0, 10, self.records),
            )
            for _ in range(self.clients)
        )
        return Clients(records, Schema(input_shape=self.shape, target="class", num_classes=10))


LOADS = {
    "mlp": Load("mlp", {"hidden": [64]}, (784,), clients=50, records=120, rounds=15),
    "cnn": Load("cnn", {"channels": [8, 16], "hidden": 64}, (1, 28, 28), clients=10, records=96, rounds=10),
}


def measured(load: Load, workers: int | None) -> dict[str, float]:
    """Seconds per round: medians of FedEM, three FedAvg, heads; and the medians of paired ratios."""
    population, work = load.population, Phase(batch_size=32)
    task = make_task(TaskSettings(model=load.model, options=load.options), population.schema)

    def trial(algorithm: Any) -> Trial:
        return Trial(
            name="m",
            algorithm=algorithm,
            population=population,
            task=task,
            rounds=load.rounds,
            every=load.rounds + 1,
            execution=Execution(workers=workers),
        )

    with ExitStack() as stack:

        def rounds(algorithm: Any) -> Iterator[dict[str, Any]]:
            return iter(stack.enter_context(Session(trial(algorithm))))

        sides = {
            "fedem": [rounds(FedEM(components=COMPONENTS, work=work))],
            "fedavg": [rounds(FedAvg(work=work)) for _ in range(COMPONENTS)],
            "heads": [rounds(FedEMHeads(components=COMPONENTS, work=work))],
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(load.rounds):
            order = list(sides)[number % 3 :] + list(sides)[: number % 3]
            for name in order:
                began = time.perf_counter()
                for session in sides[name]:
                    next(session)
                if number >= WARM_UP:
                    seconds[name].append(time.perf_counter() - began)
    ratios = {
        f"{name}_ratio": statistics.median(a / b for a, b in zip(seconds[name], seconds["fedavg"], strict=True))
        for name in ("fedem", "heads")
    }
    return {**{name: statistics.median(values) for name, values in seconds.items()}, **ratios}


def main() -> int:
    workers = int(sys.argv[sys.argv.index("--workers") + 1]) if "--workers" in sys.argv else None
    results = {name: measured(load, workers) for name, load in LOADS.items()}
    holds = all(result["fedem_ratio"] <= MAX_RATIO for result in results.values())
    if "--json" in sys.argv:
        print(json.dumps({**results, "holds": holds}))
        return 0 if holds else 1
    print("ms per round   FedEM, 3 components   3 runs of FedAvg   ratio (bar 1.5)   3 mixed heads   ratio")
    for name, found in results.items():
        print(
            f"{name:<14} {1e3 * found['fedem']:19.1f} {1e3 * found['fedavg']:18.1f} {found['fedem_ratio']:17.2f}"
            f" {1e3 * found['heads']:15.1f} {found['heads_ratio']:7.2f}"
        )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
