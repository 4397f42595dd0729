"""Statements about kNN-Per, on the 10,000 images of MNIST's test part.

The settings are those of the measurements that the statements come from: 80 % of each client's images to learn from, an
MLP of 100 hidden units on standardised pixels, plain FedAvg with one local epoch and batches of 32, and the ten nearest
of a client's own records beside it, by hidden activations. Shares of the neighbours are fixed, or chosen by each client
on its own training records, alone or with 30 records' worth of trust in its peers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor, nn

from rivage.core.errors import DataError
from rivage.core.seeding import Streams
from rivage.data import build_population
from rivage.data.images import MNIST
from rivage.data.partition import IID, Dirichlet, Partition
from rivage.data.population import Population
from rivage.data.shifts import ConceptShift
from rivage.federated.algorithm import Algorithm, Phase, State
from rivage.federated.engine import Session
from rivage.federated.evaluation import Evaluator
from rivage.federated.executors.executor import Executor
from rivage.federated.fedavg import FedAvg
from rivage.federated.knnper import KNNPer
from rivage.federated.local import Local
from rivage.federated.memories import Memory
from rivage.federated.trial import Trial
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.studies.claims.claim import Claim, Outcome

__all__ = ["CLAIMS", "PAPER", "Scores", "Trained", "learnt", "skewed", "tested", "trained"]

PAPER = "Marfoq et al., ICML 2022"
SEEDS = (0, 1)
ALPHAS = (0.3, 1.0, 100.0)
SHARES = tuple(step / 10 for step in range(11))
TRUST = 30.0


class Pixels(nn.Module):
    """784-100-10 on pixels of mean 0 and variance 1, with He's initial weights."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(784, 100), nn.Linear(100, 10)
        for layer in (self.body, self.head):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.body((x.flatten(1) - 0.1307) / 0.3081).relu())
        return logits


@dataclass(frozen=True, slots=True)
class Scores:
    """Test accuracy of clients, in percent: the mean weighted by test records, and the bottom decile."""

    mean: float
    decile: float

    @classmethod
    def of(cls, columns: Mapping[str, list[Any]]) -> Scores:
        """From the columns of an evaluation."""
        pairs = [(v, n) for v, n in zip(columns["test"], columns["test_size"], strict=True) if v is not None]
        values, sizes = np.array(pairs).T
        return cls(100 * float(values @ sizes / sizes.sum()), 100 * float(np.sort(values)[len(values) // 10]))


@dataclass(frozen=True, slots=True)
class Trained:
    """A shared model, and clients to judge with whatever they put beside it."""

    population: Population
    task: Task
    state: State
    seed: int

    def columns(self, method: Algorithm, state: State | None = None) -> dict[str, list[Any]]:
        """Of the evaluation of every client."""
        with Executor(self.task) as executor:
            evaluator = Evaluator(method, self.population, executor, Streams(self.seed))
            everyone = range(self.population.size)
            state = self.state if state is None else state
            return evaluator.evaluate(state, lambda ids: [Memory() for _ in ids], everyone, 0, "seen", keep=0).columns

    def scores(self, method: Algorithm) -> Scores:
        """Of every client."""
        return Scores.of(self.columns(method))


def learnt(population: Population, seed: int, schedule: tuple[tuple[int, float], ...]) -> Trained:
    """FedAvg over all clients, by (rounds, step size) one after the other."""
    task = make_task(TaskSettings(model="pixels"), population.schema, model=Pixels)
    state: State = {"params": task.initial(Streams(seed).seed("model"))}
    for part, (rounds, rate) in enumerate(schedule):
        method = FedAvg(learning_rate=rate, work=Phase(batch_size=32))
        given: dict[str, Any] = {"population": population, "task": task, "rounds": rounds, "every": rounds}
        with Session(Trial(name="fedavg", algorithm=method, seed=seed + 1000 * part, **given)) as session:
            session.state = state
            for _event in session:
                pass
            state = session.state
    return Trained(population, task, state, seed)


def trained(
    partition: Partition, seed: int, schedule: tuple[tuple[int, float], ...], shift: ConceptShift | None = None
) -> Trained:
    """`learnt` on the images, dealt to clients.

    Raises:
        DataError: if the images are not here.
    """
    population = build_population(MNIST(), partition=partition, shift=shift, seed=seed, validation=0.0, test=0.2)
    return learnt(population, seed, schedule)


@cache
def skewed(alpha: float, seed: int) -> Trained:
    """Fifty clients that hold other shares of the classes, the more so the smaller ``alpha``."""
    return trained(Dirichlet(clients=50, alpha=alpha), seed, ((75, 0.05), (25, 0.005)))


@cache
def shifted(seed: int) -> Trained:
    """Twenty clients, half of which call the classes otherwise."""
    return trained(IID(clients=20), seed, ((60, 0.05),), ConceptShift(share=0.5, offset=3))


def _by_share(stage: Trained) -> dict[float, Scores]:
    return {share: stage.scores(KNNPer(share=share)) for share in SHARES}


def tested(run: Callable[[], Outcome]) -> Callable[[], Outcome]:
    """A claim that is not tested where the images are missing."""

    def outcome() -> Outcome:
        try:
            return run()
        except DataError as error:
            return Outcome(None, "not tested", str(error))

    return outcome


def _verdict(measured: float, faults: list[str], detail: str) -> Outcome:
    return Outcome(measured, "fails" if faults else "holds", "; ".join([detail, *faults]))


def _interpolation() -> Outcome:
    """B1: gains over both ends, with fixed and with chosen shares."""
    lines, faults, gains = [], [], []
    for seed in SEEDS:
        stage = skewed(0.3, seed)
        curve = _by_share(stage)
        best = max(SHARES, key=lambda share: curve[share].mean)
        plain, memory, top = curve[0.0], curve[1.0], curve[best]
        chosen, alone = stage.scores(KNNPer(trust=TRUST)), stage.scores(KNNPer())
        gains.append(top.mean - plain.mean)
        wanted = {
            f"best share {best}": 0.3 <= best <= 0.7,
            "mean + 1.3": top.mean >= plain.mean + 1.3,
            "decile + 2": top.decile >= plain.decile + 2,
            "neighbours alone + 3": top.mean >= memory.mean + 3,
            "chosen + 0.8": chosen.mean >= plain.mean + 0.8,
            "chosen within 1 of fixed": chosen.mean >= top.mean - 1,
        }
        faults += [f"seed {seed}: not {name}" for name, held in wanted.items() if not held]
        cells = {"FedAvg": plain, f"best share {best}": top, "chosen with peers": chosen, "chosen alone": alone}
        cells["neighbours alone"] = memory
        lines.append(f"seed {seed}: " + ", ".join(f"{k} {v.mean:.1f} / {v.decile:.1f}" for k, v in cells.items()))
    for alpha in ALPHAS:
        for seed in SEEDS:
            stage = skewed(alpha, seed)
            lost = stage.scores(FedAvg()).decile - stage.scores(KNNPer(trust=TRUST)).decile
            faults += [f"alpha {alpha}, seed {seed}: bottom decile falls by {lost:.1f}"] if lost > 1 else []
    return _verdict(float(np.mean(gains)), faults, "mean / bottom decile; " + "; ".join(lines))


def _heterogeneity() -> Outcome:
    """B2: the gain of the best share, seeds together."""
    gains = []
    for alpha in ALPHAS:
        curves = [_by_share(skewed(alpha, seed)) for seed in SEEDS]
        means = {share: float(np.mean([curve[share].mean for curve in curves])) for share in SHARES}
        gains.append(max(means.values()) - means[0.0])
    falls = gains[0] > gains[1] > gains[2]
    cells = ", ".join(f"alpha {alpha:g}: {gain:.1f}" for alpha, gain in zip(ALPHAS, gains, strict=True))
    return _verdict(gains[0] - gains[-1], [] if falls else ["the gain does not fall"], f"gain in points, {cells}")


def _capacity() -> Outcome:
    """B2: half of the memory, and a store so small that the same share harms."""
    lines, losses = [], []
    for seed in SEEDS:
        stage = skewed(0.3, seed)
        found = {part: stage.scores(KNNPer(share=0.5, fraction=part)).mean for part in (0.05, 0.1, 0.25, 0.5, 1.0)}
        losses.append(found[1.0] - found[0.5])
        lines.append(f"seed {seed}: " + ", ".join(f"{100 * part:g} % {mean:.1f}" for part, mean in found.items()))
    worst = max(losses)
    return _verdict(worst, [] if worst <= 1 else ["more than a point is lost"], "; ".join(lines))


def _concept() -> Outcome:
    """B4: what no single model can follow."""
    lines, faults, means = [], [], []
    for seed in SEEDS:
        stage = shifted(seed)
        columns = stage.columns(KNNPer())
        ours, least = Scores.of(columns).mean, min(columns["neighbour_share"])
        plain = stage.scores(FedAvg()).mean
        start = {"params": stage.task.initial(Streams(seed).seed("model"))}
        alone = Scores.of(stage.columns(Local(learning_rate=0.05, epochs=30, work=Phase(batch_size=32)), start)).mean
        wanted = {
            "at least 85": ours >= 85,
            "Local + 2": ours >= alone + 2,
            "FedAvg at most 55": plain <= 55,
            "every share at least 0.3": least >= 0.3,
        }
        faults += [f"seed {seed}: not {name}" for name, held in wanted.items() if not held]
        means.append(ours)
        shares = f"shares from {least}, median {float(np.median(columns['neighbour_share']))}"
        lines.append(f"seed {seed}: FedAvg {plain:.1f}, Local {alone:.1f}, kNN-Per {ours:.1f}, {shares}")
    return _verdict(float(np.mean(means)), faults, "; ".join(lines))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="knnper-beats-both-ends",
        paper=PAPER,
        where="own settings: 50 clients, Dirichlet 0.3",
        statement="A model and the nearest own records together beat the model by 1.3 points and the records by 3; "
        "a share chosen without test records, with trust in peers, keeps all but a point of it.",
        expected=">= 1.3",
        tolerance=0.0,
        cost="slow",
        run=tested(_interpolation),
    ),
    Claim(
        name="knnper-gains-with-heterogeneity",
        paper=PAPER,
        where="own settings: Dirichlet 0.3, 1 and 100",
        statement="The gain over FedAvg falls as clients become alike.",
        expected="> 0",
        tolerance=0.0,
        cost="slow",
        run=tested(_heterogeneity),
    ),
    Claim(
        name="knnper-half-the-memory",
        paper=PAPER,
        where="own settings: Dirichlet 0.3, share 0.5",
        statement="Half of the memory costs less than a point of accuracy.",
        expected="<= 1",
        tolerance=0.0,
        cost="slow",
        run=tested(_capacity),
    ),
    Claim(
        name="knnper-follows-a-concept-shift",
        paper=PAPER,
        where="own settings: 20 clients, every second one calls the classes otherwise",
        statement="Where no single model can serve everyone, own records beside a shared representation beat Local by "
        "2 points.",
        expected=">= 85",
        tolerance=0.0,
        cost="slow",
        run=tested(_concept),
    ),
)
