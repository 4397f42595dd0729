"""Statements about populations and federated methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch

from rivage.core.errors import DataError
from rivage.core.philox import philox4x32
from rivage.core.seeding import Streams
from rivage.data import build_population
from rivage.data.partition import IID, Pathological
from rivage.data.readers import Digits, HeartDisease
from rivage.federated.adversaries import Adversary, Huge, SignFlip
from rivage.federated.algorithm import Algorithm, Phase
from rivage.federated.batches import Position, batches
from rivage.federated.collectors import Averaged, Collection
from rivage.federated.engine import run
from rivage.federated.fedavg import FedAvg, FedSGD
from rivage.federated.fedprox import FedProx
from rivage.federated.robust import Krum, TrimmedMean
from rivage.federated.trial import Trial
from rivage.learning.task import TaskSettings, make_task
from rivage.simulation.availability import Markov
from rivage.studies.claims.claim import Claim, Outcome, within
from rivage.testing.toys import Clients, linear_clients, linear_task, quadratic_clients, quadratic_task

__all__ = ["CLAIMS"]

FEDAVG = "McMahan et al., AISTATS 2017"


def _final(algorithm: Algorithm, population: Clients, task: Any, rounds: int, seed: int = 0) -> np.ndarray:
    trial = Trial(
        name="claim",
        algorithm=algorithm,
        population=population,
        task=task,
        rounds=rounds,
        every=rounds,
        seed=seed,
    )
    result: np.ndarray = run(trial).state["params"].numpy()
    return result


def _gradient_descent() -> Outcome:
    population = linear_clients((4, 7, 1, 12))
    task = linear_task(population)
    x, y = (np.concatenate(parts) for parts in zip(*population.records, strict=True))
    w = task.initial(Streams(0).seed("model")).numpy()
    for _ in range(20):
        w = w - 0.05 * x.T @ (x @ w - y[:, 0]) / len(y)
    trained = _final(FedSGD(learning_rate=0.05), population, task, 20)
    return within(float(np.abs(trained - w).max()), 0.0, 1e-10, "20 rounds, 4 clients of 1 to 12 records")


def _one_client() -> Outcome:
    population = linear_clients((11,))
    task = linear_task(population)
    phase, rate, rounds, seed = Phase(epochs=2, batch_size=4), 0.03, 4, 3
    key = Streams(seed).child("train").seed("batches", 0)
    w = task.initial(Streams(seed).seed("model"))[:, None].clone().requires_grad_()
    x, y = (torch.from_numpy(part) for part in population.records[0])
    optimizer = torch.optim.SGD([w], lr=rate)
    for number in range(rounds):
        for rows in batches(phase, key, [0], [11], number, [Position()])[0][0].split():
            loss = 0.5 * (x[rows] @ w - y[rows]).square().sum() / len(rows)
            w.grad = torch.autograd.grad(loss, w)[0]
            optimizer.step()
    trained = _final(FedAvg(learning_rate=rate, work=phase), population, task, rounds, seed)
    gap = float(np.abs(trained - w.detach().numpy()[:, 0]).max())
    return within(gap, 0.0, 1e-12, "largest difference of a parameter after 4 rounds of 2 epochs")


def _fixed_point() -> Outcome:
    a, c, rate, steps = np.array([0.5, 1.0, 2.0]), np.array([-1.0, 0.5, 3.0]), 0.2, 5
    population = quadratic_clients(a.tolist(), c.tolist())
    algorithm = FedAvg(learning_rate=rate, work=Phase(updates=steps, batch_size=None))
    limit = float(_final(algorithm, population, quadratic_task(population), 300)[0])
    shrink = 1 - (1 - rate * a) ** steps
    minimiser = float((a * c).sum() / a.sum())
    detail = f"the minimiser of the average loss is elsewhere, at {minimiser:.4f}"
    return within(limit, float((shrink * c).sum() / shrink.sum()), 1e-8, detail)


def _no_pull() -> Outcome:
    population = linear_clients()
    task = linear_task(population)
    work = Phase(epochs=2, batch_size=3)
    plain = _final(FedAvg(learning_rate=0.1, work=work), population, task, 6)
    prox = _final(FedProx(learning_rate=0.1, mu=0.0, work=work), population, task, 6)
    return within(float(np.abs(plain - prox).max()), 0.0, 0.0, "largest difference after 6 rounds")


def _philox() -> Outcome:
    ones = 0xFFFFFFFF
    cases = (
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ones,) * 4, (ones, ones), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    )
    wrong = sum(tuple(philox4x32(np.array(counter, np.uint32), key).tolist()) != words for counter, key, words in cases)
    return within(float(wrong), 0.0, 0.0, "wrong ones of three known answers")


_CHAIN = Markov(mean=0.1, correlation=0.9)
_WATCHED = 50_000
_THREE_ERRORS = 3 * 2.57 / _WATCHED**0.5  # 2.57: deviation of (x − mean)(y − mean) / variance for this chain


def _availability() -> Outcome:
    mean, ids = _CHAIN.mean, np.arange(_WATCHED)
    now, later = (_CHAIN.available(5, ids, t).astype(float) for t in (40, 41))
    covariance = float(((now - mean) * (later - mean)).mean())
    detail = f"lag-1 correlation over {_WATCHED} clients; tolerance is three standard errors"
    return within(covariance / (mean * (1 - mean)), _CHAIN.correlation, _THREE_ERRORS, detail)


def _heart() -> Outcome:
    """FLamby's Fed-Heart-Disease under its own settings: 15 rounds of 100 updates, batch 4, step 0.001."""
    values = []
    for seed in range(5):
        try:
            population = build_population(HeartDisease(), seed=seed, validation=0.0)
        except DataError as error:
            return Outcome(None, "not tested", str(error))
        task = make_task(TaskSettings(model="linear", loss="logistic"), population.schema)
        phase = Phase(updates=100, batch_size=4, batches="endless")
        trial = Trial(
            name="fedavg",
            algorithm=FedAvg(learning_rate=1e-3, work=phase),
            population=population,
            task=task,
            rounds=15,
            every=15,
            seed=seed,
        )
        values.append(_pooled(run(trial).seen.columns))
    detail = f"5 seeds: {', '.join(f'{value:.3f}' for value in values)}"
    return within(float(np.mean(values)), 0.748, 0.05, detail)


def _pooled(columns: Mapping[str, list[Any]]) -> float:
    """Accuracy over the test records of all clients together."""
    rows = [(v, n) for v, n in zip(columns["test"], columns["test_size"], strict=True) if v is not None]
    values, sizes = np.array(rows).T
    return float(values @ sizes / sizes.sum())


_GRID = ((1, None), (5, None), (1, 10), (5, 10), (20, 10))  # E, B: 1 to about 120 local updates a round
_RATES = (0.1, 0.3)
_TARGET, _MOST = 0.85, 200


class _Reached(Exception):
    """Stops a run at the round that reaches the target."""


def _rounds_to_target(pathological: bool, epochs: int, batch_size: int | None, rate: float, seed: int) -> int:
    partition = Pathological(clients=20, shards=2) if pathological else IID(clients=20)
    population = build_population(Digits(), partition=partition, seed=seed, validation=0.0, test=0.3)
    trial = Trial(
        name="fedavg",
        algorithm=FedAvg(learning_rate=rate, work=Phase(epochs=epochs, batch_size=batch_size)),
        population=population,
        task=make_task(TaskSettings(model="mlp", options={"hidden": [64]}), population.schema),
        rounds=_MOST,
        cohort=4,
        seed=seed,
        every=1,
    )
    try:
        run(trial, observe=_stop_at_target)
    except _Reached as reached:
        return int(str(reached))
    return _MOST


def _stop_at_target(event: Mapping[str, Any]) -> None:
    if event["event"] == "evaluation" and _pooled(event) >= _TARGET:
        raise _Reached(event["round"])


def _local_work() -> Outcome:
    """Rounds to the target for the best of two step sizes, per split and amount of local work, median of 3 seeds."""
    lines, ratio = [], {}
    for pathological in (False, True):
        rounds = {}
        for epochs, batch_size in _GRID:
            medians = [
                float(np.median([_rounds_to_target(pathological, epochs, batch_size, rate, s) for s in range(3)]))
                for rate in _RATES
            ]
            rounds[epochs, batch_size] = min(medians)
        name = "2 shards" if pathological else "IID"
        cells = (f"E={e} B={b or 'all'}: {r:.0f}" for (e, b), r in rounds.items())
        lines.append(f"{name}: {', '.join(cells)}")
        ratio[name] = rounds[20, 10] / rounds[1, None]
    verdict: Literal["holds", "fails"] = "holds" if ratio["IID"] < 1 else "fails"
    return Outcome(ratio["IID"], verdict, f"{'; '.join(lines)} ({_MOST}: not reached)")


_MALICIOUS = (3, 7)  # two of ten clients; n = 10 satisfies n >= 2f + 3 for f = 2
_ATTACKS = (SignFlip(clients=_MALICIOUS, scale=5.0), Huge(clients=_MALICIOUS))  # 0.8 − 0.2 · 5 < 0: the mean turns back
_LOSS = 0.1


def _accuracy_under(adversary: Adversary | None, collector: Collection, seed: int) -> float:
    population = build_population(Digits(), partition=IID(clients=10), seed=seed, validation=0.0, test=0.3)
    attack: dict[str, Any] = {"adversary": adversary, "collector": collector}
    trial = Trial(
        name="fedavg",
        algorithm=FedAvg(learning_rate=0.1, work=Phase(epochs=2, batch_size=10)),
        population=population,
        task=make_task(TaskSettings(model="mlp", options={"hidden": [64]}), population.schema),
        rounds=30,
        every=30,
        seed=seed,
        **attack,
    )
    return _pooled(run(trial).seen.columns)


def _outliers() -> Outcome:
    """Relative loss of accuracy against the attack-free mean: worst of the robust rules, best of the plain mean."""
    losses: dict[str, list[float]] = {}
    for seed in range(3):
        free = _accuracy_under(None, Averaged(), seed)
        for rule in (Averaged(), TrimmedMean(faulty=2), Krum(faulty=2)):
            for attack in _ATTACKS:
                found = losses.setdefault(type(rule).__name__, [])
                found.append(1 - _accuracy_under(attack, rule, seed) / free)
    worst = max(max(found) for name, found in losses.items() if name != "Averaged")
    verdict: Literal["holds", "fails"] = "holds" if worst <= _LOSS < min(losses["Averaged"]) else "fails"
    ranges = (f"{name} {min(found):.3f} to {max(found):.3f}" for name, found in losses.items())
    return Outcome(worst, verdict, f"relative loss over 3 seeds and both attacks: {', '.join(ranges)}")


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="fedsgd-is-gradient-descent",
        paper=FEDAVG,
        where="section 2",
        statement="FedSGD over all clients is full-batch gradient descent on the pooled records.",
        expected=0.0,
        tolerance=1e-10,
        cost="quick",
        run=_gradient_descent,
    ),
    Claim(
        name="one-client-is-local-sgd",
        paper=FEDAVG,
        where="Algorithm 1",
        statement="FedAvg with a single client is local SGD with the same batches.",
        expected=0.0,
        tolerance=1e-12,
        cost="quick",
        run=_one_client,
    ),
    Claim(
        name="fedavg-fixed-point",
        paper=FEDAVG,
        where="Algorithm 1, quadratic losses (derived)",
        statement="On quadratics FedAvg with several local steps converges to a known point, not to the minimiser.",
        expected=1.3439500616245939,
        tolerance=1e-8,
        cost="quick",
        run=_fixed_point,
    ),
    Claim(
        name="fedprox-without-pull-is-fedavg",
        paper="Li et al., MLSys 2020",
        where="Algorithm 2, mu = 0",
        statement="FedProx with mu = 0 is FedAvg, bit for bit.",
        expected=0.0,
        tolerance=0.0,
        cost="quick",
        run=_no_pull,
    ),
    Claim(
        name="philox-known-answers",
        paper="Salmon et al., SC 2011",
        where="reference implementation, known-answer tests",
        statement="Philox4x32-10 gives the published words.",
        expected=0.0,
        tolerance=0.0,
        cost="quick",
        run=_philox,
    ),
    Claim(
        name="availability-is-markov",
        paper="Rodio et al., INFOCOM 2023",
        where="section III, availability model",
        statement="The stateless availability of clients has the correlation of the two-state Markov chain.",
        expected=0.9,
        tolerance=_THREE_ERRORS,
        cost="quick",
        run=_availability,
    ),
    Claim(
        name="flamby-heart-fedavg",
        paper="Ogier du Terrail et al., NeurIPS 2022 (FLamby)",
        where="repository results of release 0.1.0, Fed-Heart-Disease, FedAvg, pooled test",
        statement="FedAvg reaches a pooled-test accuracy of 0.748 on four hospitals (0.05 is two standard deviations).",
        expected=0.748,
        tolerance=0.05,
        cost="quick",
        run=_heart,
    ),
    Claim(
        name="more-local-work-fewer-rounds",
        paper=FEDAVG,
        where="Table 2, shape only, on digits instead of MNIST",
        statement="In the IID split rounds to the target fall when local updates per round grow from 1 to 60 and more.",
        expected="ratio below 1",
        tolerance=0.0,
        cost="slow",
        run=_local_work,
    ),
    Claim(
        name="robust-rules-withstand-outliers",
        paper="Blanchard et al., NeurIPS 2017; Yin et al., ICML 2018",
        where="shape only, on digits: 10 clients of an IID split, f = 2",
        statement="When 20 % of the clients send sign-flipped (scale 5) or huge updates, trimmed mean and Krum lose at "
        "most 10 % of the attack-free accuracy, and plain averaging loses more (30 rounds, IID split).",
        expected="loss of at most 0.1",
        tolerance=0.0,
        cost="slow",
        run=_outliers,
    ),
)
