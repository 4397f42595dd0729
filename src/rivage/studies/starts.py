"""Several random starts of one method, and which of them to keep.

The likelihood of a mixture has several maxima, and which one training ends in depends on where the components start.
The choice is made on training records, by the number that training makes large,

    (1/n) Σ_t Σ_i log Σ_m π_tm exp(−ℓ_i(θ_m)) ,

so no validation or test record is looked at, and clients need not hold any back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from rivage.core.seeding import Streams
from rivage.federated.algorithm import Algorithm, State
from rivage.federated.checkpoint import Notebook
from rivage.federated.engine import Session
from rivage.federated.evaluation import Evaluator
from rivage.federated.executors.executor import Executor
from rivage.federated.executors.jobs import one_thread
from rivage.federated.fedem import FedEM
from rivage.federated.memories import Memory
from rivage.federated.trial import Trial

__all__ = ["Played", "best_start", "judge", "play", "training_likelihood"]

_BLOCK = 32  # clients whose records are in memory together

Recall = Callable[[Sequence[int]], Sequence[Memory]]


@dataclass(frozen=True, slots=True)
class Played:
    """A trial at its end.

    Args:
        trial: what was played.
        state: the server's tensors.
        recall: what clients remember.
        likelihoods: of FedEM, the mean training log-likelihood per record at the end; after every round where that was
            asked for. Empty for other methods.
    """

    trial: Trial
    state: State
    recall: Recall
    likelihoods: tuple[float, ...]


def play(trial: Trial, *, watch: bool = False) -> Played:
    """Play all rounds; nobody is judged.

    Args:
        trial: what to play.
        watch: take the likelihood after every round, not only at the end.
    """
    book, found = Notebook(limit=trial.remembered), list[float]()
    with Session(trial, book) as session:
        for _ in session:
            if watch and session.done < trial.planned:
                found.append(training_likelihood(trial, session.executor, session.state, book.memories.get))
        if isinstance(trial.algorithm, FedEM):
            found.append(training_likelihood(trial, session.executor, session.state, book.memories.get))
    return Played(trial, session.state, book.memories.get, tuple(found))


def best_start(trial: Trial, starts: int, *, watch: bool = False) -> Played:
    """The start with the best training likelihood.

    Args:
        trial: of `rivage.federated.FedEM`; its ``restart`` is where counting begins.
        starts: how many, >= 1.
        watch: as in `play`.
    """
    method = trial.algorithm
    assert isinstance(method, FedEM), "other methods have no restarts"
    restarts = (replace(method, restart=method.restart + number) for number in range(starts))
    played = [play(replace(trial, algorithm=restart), watch=watch) for restart in restarts]
    return max(played, key=lambda one: one.likelihoods[-1])


def training_likelihood(trial: Trial, executor: Executor, state: State, recall: Recall) -> float:
    """Mean over the training records of all clients that train, each under its client's mixture. Only of FedEM."""
    assert isinstance(trial.algorithm, FedEM), "the likelihood of a mixture is asked for"
    noise = trial.algorithm.noise
    total, records = 0.0, 0
    for block in _blocks(trial):
        requests, mixes = [], []
        for id, memory in zip(block, recall(block), strict=True):
            predictor = trial.algorithm.predictor(state, memory.values, None, trial.task)
            requests.append((predictor.params, trial.population.client(id, trial.rounds).train))
            mixes.append(predictor.mix)
        with one_thread():
            for losses, mix in zip(executor.losses(requests), mixes, strict=True):
                total += float(torch.logsumexp(mix.log() - losses / noise**2, dim=1).double().sum())
                records += len(losses)
    return total / records if records else float("nan")


def judge(played: Played, clients: Sequence[int], algorithm: Algorithm | None = None) -> Mapping[str, list[Any]]:
    """The columns of an evaluation after the last round, a few clients at a time: memory is that of their records.

    Args:
        played: from `play`.
        clients: who is judged.
        algorithm: how newcomers adapt, where that is another setting than the one that was played.
    """
    trial, columns = played.trial, dict[str, list[Any]]()
    with Executor(trial.task, trial.execution) as executor, one_thread():
        evaluator = Evaluator(algorithm or trial.algorithm, trial.population, executor, Streams(trial.seed))
        for block in (clients[i : i + _BLOCK] for i in range(0, len(clients), _BLOCK)):
            found = evaluator.evaluate(played.state, played.recall, block, trial.rounds, "seen", keep=0)
            for name, values in found.columns.items():
                columns.setdefault(name, []).extend(values)
    return columns


def _blocks(trial: Trial) -> Iterator[list[int]]:
    ids = np.setdiff1d(np.arange(trial.population.size), trial.unseen).tolist()
    yield from (ids[i : i + _BLOCK] for i in range(0, len(ids), _BLOCK))
