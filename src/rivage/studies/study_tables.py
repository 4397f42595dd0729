"""Tables of a study file: a method, how long and with whom, how methods are judged."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rivage.core.errors import ConfigError, require
from rivage.core.messages import LogPolicy
from rivage.core.settings import Located, OneOf, kind_of
from rivage.federated.kinds import COLLECTIONS, STAGES
from rivage.federated.registry import ALGORITHMS
from rivage.federated.turns import require_epoch
from rivage.studies.shared_checks import require_label, require_seeds

_AVERAGED = Located("rivage.federated.collectors:Averaged")

if TYPE_CHECKING:
    from rivage.federated.algorithm import Algorithm
    from rivage.federated.collectors import Collection
    from rivage.federated.stages import UpdateStage
else:  # resolved when a study is read: algorithms import torch
    Algorithm = Collection = UpdateStage = Any

__all__ = ["Evaluation", "Method", "Run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One competitor of a study.

    Args:
        name: what it is called in this study; its kind when left out.
        algorithm: the method with its hyper-parameters.
        stages: what happens to an update between client and server, in this order.
        collector: how the server combines updates.
    """

    name: str = ""
    algorithm: Annotated[Algorithm, OneOf(ALGORITHMS)] = field(metadata={"flat": True})
    stages: tuple[Annotated[UpdateStage, OneOf(STAGES)], ...] = ()
    collector: Annotated[Collection, OneOf(COLLECTIONS)] = field(default_factory=_AVERAGED)

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.kind)
        require_label(self.name)

    @property
    def kind(self) -> str:
        """The name under which the algorithm is registered."""
        return kind_of(ALGORITHMS, self.algorithm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How long, with whom, from which seeds.

    Args:
        rounds: exchanges between server and clients, >= 0.
        cohort: clients per round, >= 1; ``"all"`` takes everyone available.
        sampling: ``uniform`` draws exactly so many; ``poisson`` draws each client by itself, so many on average, as the
            accountant of ``private_mean`` assumes; ``epochs`` draws exactly so many of those whose turn it is, which is
            in one round of every epoch, as ``dp_ftrl`` needs it.
        epoch: rounds of an epoch, >= 1; ``"auto"`` takes as many as cohorts need to take in everyone once. In a
            shorter one each round has more clients to choose from, where many are away.
        seeds: one trial of every method for each, distinct, 0 <= seed < 2**64.
        dtype: numbers of models and losses.
        log: what the message log keeps: ``none``, ``meta``, ``clients:[0, 5]`` or ``all``; left out, everything
            while that is small.
        executor: what trains the clients: ``tiled`` (many clients in one batched product, models that are chains of
            dense layers), ``functional`` (any model, one client at a time) or ``auto``: tiled where the model allows.
        workers: threads or processes that train side by side, >= 1; ``"auto"`` takes one per core. Results do not
            depend on it.
        device: where models are trained: ``auto``, ``cpu``, or a GPU such as ``cuda:0``.
        remembered: clients whose memory is kept between rounds, >= 1; beyond it those that took part longest ago are
            forgotten and start anew. ``"all"`` forgets nobody.
    """

    rounds: int = 50
    cohort: int | None = field(default=None, metadata={"none": "all"})
    sampling: Literal["uniform", "poisson", "epochs"] = "uniform"
    epoch: int | None = field(default=None, metadata={"none": "auto"})
    seeds: tuple[int, ...] = (0,)
    dtype: Literal["float32", "float64"] = "float32"
    log: str | None = None
    executor: Literal["auto", "functional", "tiled"] = "auto"
    workers: int | None = field(default=None, metadata={"none": "auto"})
    device: str = "auto"
    remembered: int | None = field(default=None, metadata={"none": "all"})

    def __post_init__(self) -> None:
        require(self.rounds, "rounds", least=0)
        if self.cohort is not None:
            require(self.cohort, "cohort", least=1)
        require_epoch(self.sampling, self.epoch, self.cohort)
        require_seeds(self.seeds)
        if self.log is not None:
            LogPolicy.parse(self.log)
        for name in ("workers", "remembered"):
            if (count := getattr(self, name)) is not None:
                require(count, name, least=1)
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", self.device):
            raise ConfigError(f'device is "{self.device}"', mend='Write "auto", "cpu" or "cuda:0".')


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How the methods are judged.

    Args:
        every: rounds between evaluations, >= 1; the end is always evaluated.
        unseen_clients: share of the clients that never train and are judged apart, in [0, 1).
        validation: share of each client's records to choose with, in [0, 1).
        test: share of each client's records to report on, in [0, 1).
    """

    every: int = 10
    unseen_clients: float = 0.0
    validation: float = 0.15
    test: float = 0.2

    def __post_init__(self) -> None:
        require(self.every, "every", least=1)
        for name in ("unseen_clients", "validation", "test"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", mend="Give a share of at least 0 and below 1.")
        if self.validation + self.test >= 1:
            shares = f"validation {self.validation} and test {self.test}"
            raise ConfigError(f"{shares} leave no record to train on", mend="Give shares whose sum is below 1.")
