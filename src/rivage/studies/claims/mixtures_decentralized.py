"""Statements about mixtures that are learnt without a server: D-FedEM beside FedEM on the same clients.

The setting is that of `rivage.studies.claims.mixtures` with fewer clients: 16 silos on a ring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch

from rivage.data.mixture_clients import MixtureOnDemand, MixturePopulation
from rivage.decentralized.dfedem import DFedEM
from rivage.decentralized.mixing_plan import Cycled, Exact
from rivage.decentralized.session import SiloSession
from rivage.decentralized.silo_trial import SiloTrial
from rivage.federated.algorithm import Phase
from rivage.federated.checkpoint import Notebook
from rivage.federated.engine import Session
from rivage.federated.executors.jobs import one_thread
from rivage.federated.fedem import FedEM
from rivage.federated.trial import Trial
from rivage.graphs.mixing import metropolis
from rivage.studies.claims.claim import Claim, Outcome, within
from rivage.studies.claims.mixtures import (
    PAPER,
    drawn,
    mean_and_decile,
    mixture_task,
    mixture_trial,
    published,
    true_accuracy,
)
from rivage.studies.starts import best_start, judge
from rivage.testing.toys import linear_clients, linear_task

__all__ = ["CLAIMS", "Row", "ring_row"]

_RATE = 2.0
_WORK = Phase(updates=5, batch_size=None)
_SILOS = 16
_AROUND = np.roll(np.eye(_SILOS), 1, axis=0) + np.roll(np.eye(_SILOS), -1, axis=0)
_RING = Cycled(matrices=[metropolis(_AROUND)])


@dataclass(frozen=True, slots=True)
class Row:
    """One data seed: accuracies are (mean, bottom decile).

    Args:
        server: FedEM.
        ring: what the silos hold after twice the rounds on a ring.
        average: the average of their components, each silo with its own shares.
        true: who knows components and shares.
        apart: mean over silos and parameters of (θ_t − θ̄)² in the last round.
    """

    server: tuple[float, float]
    ring: tuple[float, float]
    average: tuple[float, float]
    true: tuple[float, float]
    apart: float

    def told(self, seed: int) -> str:
        """In a line."""
        names = ("server", "ring", "average", "true")
        scores = ", ".join(f"{name} {getattr(self, name)[0]:.4f} / {getattr(self, name)[1]:.3f}" for name in names)
        return f"seed {seed}: {scores}, consensus {self.apart:.3g}"


@dataclass(frozen=True, slots=True)
class _Start:
    likelihood: float
    own: tuple[float, float]
    average: tuple[float, float]
    apart: float


@cache
def ring_row(law: MixtureOnDemand, seed: int, rounds: int, starts: int) -> Row:
    """Both methods, each with its best start by training likelihood; the silos have twice the rounds."""
    population, ids = drawn(law, seed), list(range(law.clients))
    server = best_start(mixture_trial(FedEM(learning_rate=_RATE, work=_WORK), population, rounds, seed), starts)
    played = (_on_a_ring(population, seed, 2 * rounds, restart) for restart in range(starts))
    ring = max(played, key=lambda one: one.likelihood)
    return Row(
        server=mean_and_decile(judge(server, ids)["test"]),
        ring=ring.own,
        average=ring.average,
        true=mean_and_decile(true_accuracy(population, ids)),
        apart=ring.apart,
    )


def _on_a_ring(population: MixturePopulation, seed: int, rounds: int, restart: int) -> _Start:
    trial = SiloTrial(
        name="claim",
        algorithm=DFedEM(learning_rate=_RATE, work=_WORK, count_by="records", restart=restart),
        population=population,
        task=mixture_task(population),
        rounds=rounds,
        plan=_RING,
        seed=seed,
        every=rounds + 1,
    )
    book = Notebook()
    with SiloSession(trial, book) as session:
        *_, last = session
        likelihood = _likelihood(session)
        session.outcome(keep=0)
    own, average = (told["test"] for told in book.events if told["event"] == "evaluation")
    return _Start(likelihood, mean_and_decile(own), mean_and_decile(average), last["consensus"])


def _likelihood(session: SiloSession) -> float:
    """Mean over all training records of log Σ_m π_tm exp(−ℓ_i(θ_tm)), each silo with its own components."""
    data = [session.trial.population.client(client).train for client in session.silos]
    with one_thread():
        losses = session.executor.losses(list(zip(session.state["params"], data, strict=True)))
    found = [
        torch.logsumexp(mix.log() - each, dim=1) for each, mix in zip(losses, session.state["shares"], strict=True)
    ]
    return float(torch.cat(found).double().mean())


def _near_the_server(law: MixtureOnDemand, seeds: Sequence[int], rounds: int, starts: int) -> Outcome:
    rows = {seed: ring_row(law, seed, rounds, starts) for seed in seeds}
    gap = max(abs(row.server[0] - row.ring[0]) for row in rows.values())
    return within(gap, 0.0, 0.03, "; ".join(row.told(seed) for seed, row in rows.items()))


def _star() -> Outcome:
    clients, work = linear_clients((6, 6, 6, 6), seed=1), Phase(epochs=2, batch_size=2)
    task = linear_task(clients)
    method = FedEM(learning_rate=0.05, work=work)
    central = Trial(name="f", algorithm=method, population=clients, task=task, rounds=20)
    silos = SiloTrial(
        name="s",
        algorithm=DFedEM(learning_rate=0.05, work=work),
        population=clients,
        task=task,
        rounds=20,
        plan=Exact(silos=4, hub=0),
    )
    with Session(central) as one, SiloSession(silos) as other:
        for _ in zip(one, other, strict=True):
            pass
    gap = float((one.state["params"] - other.state["params"]).abs().max())
    return within(gap, 0.0, 1e-10, "largest difference of a parameter of three components after 20 rounds")


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="dfedem-with-exact-averages-is-fedem",
        paper=PAPER,
        where="D-FedEM with W = 1 1ᵀ / T, clients of equal size",
        statement="D-FedEM with exact averages is FedEM with all clients.",
        expected=0.0,
        tolerance=1e-10,
        cost="quick",
        run=_star,
    ),
    Claim(
        name="dfedem-on-a-ring-of-16",
        paper=PAPER,
        where="synthetic setting with 16 clients and 20 features, alpha 0.4, three data seeds, best of 3 starts; "
        "200 rounds of FedEM, 400 on the ring; silos count by their records",
        statement="On a ring of 16 silos with Metropolis weights D-FedEM has the mean accuracy of FedEM to 0.03 in "
        "twice the rounds.",
        expected=0.0,
        tolerance=0.03,
        cost="slow",
        run=partial(_near_the_server, published(0.4, clients=_SILOS), (0, 1, 2), 200, 3),
    ),
)
