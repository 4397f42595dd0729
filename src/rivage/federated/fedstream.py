"""Federated learning from streams: how much should records count that stay, and how much those that pass?

Marfoq, Neglia, Kameni, Vidal. Federated learning for data streams. AISTATS 2023, arXiv 2301.01542, Algorithm 1. The
authors published no code; the form of the bounds is theirs, constants and the estimate of κ are ours.

Record j of client m has the weight λ_m^{t,j} while it is in the memory M_m^t of round t (`rivage.data.streams`). In a
round client m of the cohort starts from θ^t and trains on

    L_m^t(θ) = Σ_{j in M_m^t} λ_m^{t,j} ℓ(θ; z_j) / Σ_j λ_m^{t,j} ,

and with θ_m where it ends, p_m^t = Σ_j λ_m^{t,j} / Σ_{m', j'} λ_{m'}^{t, j'} over the cohort,

    θ^{t+1} = Proj_Θ( θ^t + η_s Σ_m p_m^t (θ_m − θ^t) ) .

Every record counting the same over the whole run, historical clients get the share N_H / N. To impose another share p
the weights of historical records are multiplied by p N / N_H, those of fresh ones by (1 − p) N / N_F. The strategies:

    uniform      p = N_H / N: all records count the same, best for the statistical error alone
    historical   p = 1: only memories that do not change, best for the optimisation alone
    fresh        p = 0
    rule         p minimises the bound ψ of both errors (`rivage.federated.stream_shares`), for a κ
    grid         p = ``share``, to be chosen on validation records

κ weighs the noise of changing memories against the statistical error. Left out, historical clients estimate it every
few rounds, without test data, from at most 256 records each:

    s²  = trace of the covariance of ∇ℓ(θ^t; z) over training records
    gap = max(0, mean loss on validation records − on training records) + one standard error of the former
    κ   = caution · ‖θ^{t+1} − θ^0‖ · s / (gap · √N_H)

The standard error keeps κ small where little is known: then all records count the same. ``caution`` stands for the
constants of the bound, which are for the worst case; docs/explanation/data-streams.md says how 0.1 was found.

Deviations: the paper sets p once, at the start; here κ is 0, hence p uniform, until the first estimate.
Without a stream all data are historical and every strategy but ``fresh`` is FedAvg, bit for bit.
With a cohort, p is imposed on the weights and then renormalised within the cohort; clients whose weight would be 0 are
not asked.

Cost beyond FedAvg: one number up per client, two more while κ is estimated; per estimate at most 256 gradients at each
historical client of the cohort, one record at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData, ClientIds, Population, Samples
from rivage.data.streams import StreamPopulation, Volumes
from rivage.federated.algorithm import Cohort, Local, LocalWork, Mean, Phase, Predictor, Reference, State, Update
from rivage.federated.averaging import Averaging, global_predictor
from rivage.federated.cohorts import Candidates
from rivage.federated.stream_shares import historical_share

if TYPE_CHECKING:
    from rivage.learning.task import Bound, Task

__all__ = ["FedStream"]

_LOOKED_AT = 256  # records per client and estimate
_FEWEST = 2  # a variance needs two


@dataclass(frozen=True, kw_only=True)
class FedStream(Averaging):
    """FedAvg on memories that change, with a chosen share of historical data.

    Args:
        learning_rate: local step size, > 0.
        server_rate: η_s, how far the server goes from the model it sent to the clients' mean, > 0.
        strategy: how much historical data count, see the module.
        share: p of ``grid``, in [0, 1].
        kappa: κ >= 0 of ``rule``.
        caution: what an estimated κ is multiplied by, >= 0; 0 is ``uniform``.
        every: rounds between estimates of κ, >= 1.
        output: the ``last`` model, or the ``average`` of the models sent, weighted by the rounds' total weights.
        radius: of the ball around the first model that is Θ, > 0.
        work: local epochs and batch size.
    """

    reference: ClassVar[Reference] = Reference(
        key="marfoq23",
        authors="Othmane Marfoq and Giovanni Neglia and Laetitia Kameni and Richard Vidal",
        title="Federated Learning for Data Streams",
        venue="AISTATS",
        year=2023,
        arxiv="2301.01542",
        part="Algorithm 1",
    )

    learning_rate: float = 0.1
    server_rate: float = 1.0
    strategy: Literal["uniform", "historical", "fresh", "rule", "grid"] = "rule"
    share: float = 0.5
    kappa: float | None = field(default=None, metadata={"none": "estimated"})
    caution: float = 0.1
    every: int = 5
    output: Literal["last", "average"] = "last"
    radius: float | None = field(default=None, metadata={"none": "unbounded"})
    work: Phase = Phase()

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        require(self.server_rate, "server_rate", above=0)
        require(self.every, "every", least=1)
        require(self.caution, "caution", least=0)
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share is {self.share}", mend="Give a number of at least 0 and at most 1.")
        if self.kappa is not None:
            require(self.kappa, "kappa", least=0)
        if self.radius is not None:
            require(self.radius, "radius", above=0)

    @property
    def estimates(self) -> bool:
        """Whether historical clients are asked for κ."""
        return self.strategy == "rule" and self.kappa is None

    def misfit(self, population: Population) -> ConfigError | None:
        """What is missing to weigh historical data as asked; None when nothing is."""
        found = _volumes(population, None)
        missing = [name for name in ("historical", "fresh") if not getattr(found, name)]
        needed = {"historical": ("historical",), "fresh": ("fresh",), "grid": _of_share(self.share)}
        for kind in missing:
            if kind in needed.get(self.strategy, ()):
                return ConfigError(
                    f'strategy "{self.strategy}" learns from {kind} data, but no client has any',
                    where="strategy",
                    mend='Change "historical" in [stream], or use strategy = "uniform".',
                )
        return None

    def init(self, task: Task, clients: int, streams: Streams) -> State:
        """One model, from the seed that all methods share, and what is measured at the server."""
        params = task.initial(streams.seed("model"))
        zero = torch.zeros((), dtype=torch.float64)
        state = {"params": params, "rounds": torch.zeros((), dtype=torch.int64), "historical": zero}
        if self.estimates:
            state |= {"noise": zero, "gap": zero, "distance": zero}
        if self.estimates or self.radius is not None:
            state["first"] = params
        if self.output == "average":
            state |= {"average": torch.zeros_like(params), "total": zero}
        return state

    def select(self, state: State, candidates: Candidates, streams: Streams, task: Task) -> Cohort:
        """Uniformly among the available whose records count, weighted by importance in the wanted shares.

        Raises:
            ConfigError: when the strategy needs data that nobody has.
        """
        population = candidates.population
        if fault := self.misfit(population):
            raise fault
        factors = self._factors(state, _volumes(population, candidates.excluded))
        if isinstance(population, StreamPopulation):
            static = population.historical
        else:
            factors, static = (1.0, 1.0), None

        def factor(ids: ClientIds) -> np.ndarray:
            return np.ones(len(ids)) if static is None else np.where(static[ids], *factors)

        ids = candidates.uniform(streams, None if min(factors) > 0 else lambda ids: factor(ids) > 0)
        return Cohort(ids, candidates.sizes(ids) * factor(ids), LocalWork((self.work,), self.learning_rate))

    def _factors(self, state: State, volumes: Volumes) -> tuple[float, float]:
        """By what weights of historical and of fresh records are multiplied; exactly 1 for the uniform share."""
        uniform = volumes.historical / (volumes.historical + volumes.fresh)
        share = self.wanted(self.kappa_of(state, volumes), volumes)
        return (
            share / uniform if uniform > 0 else 0.0,
            (1 - share) / (1 - uniform) if uniform < 1 else 0.0,
        )

    def kappa_of(self, state: State, volumes: Volumes) -> float:
        """κ as given, or as estimated so far; 0 before anything is known, infinite where there is no gap at all."""
        if not self.estimates:
            return self.kappa or 0.0
        noise, gap, distance = (float(state[name]) for name in ("noise", "gap", "distance"))
        if not self.caution * distance * noise > 0:
            return 0.0
        found = self.caution * distance * math.sqrt(noise / volumes.historical)
        return math.inf if gap <= 0 else found / gap

    def wanted(self, kappa: float, volumes: Volumes) -> float:
        """The share p of historical data.

        Args:
            kappa: as given or estimated; only the rule looks at it.
            volumes: records at both kinds of clients.
        """
        uniform = volumes.historical / (volumes.historical + volumes.fresh)
        fixed = {"uniform": uniform, "historical": 1.0, "fresh": 0.0, "grid": self.share}
        if self.strategy in fixed:
            return fixed[self.strategy]
        # A memory between the two kinds has a share of one batch's drift, and so of its noise.
        noise = kappa * volumes.drift if volumes.drift else 0.0
        return historical_share(volumes.historical, volumes.fresh, noise)

    def broadcast(self, state: State, client: int, task: Task) -> State:
        """The model; with it the number of the round while κ is estimated."""
        names = ("params", "rounds") if self.estimates else ("params",)
        return {name: state[name] for name in names}

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """From the shared model, on the weighted loss of what is in memory; and what κ is estimated from."""
        params = broadcast["params"]
        keep = {"historical": params.new_tensor([float(not data.arrives)])}
        if self.estimates:
            keep |= {"noise": params.new_zeros(1), "held": params.new_zeros(2), "records": torch.zeros(2)}
            if not data.arrives and self._is_due(int(broadcast["rounds"])):
                keep |= _measured(params, data, streams.numpy("measured"), task)
        return Local(params[None], weights=_relative(data, params), keep=keep)

    def _is_due(self, rounds: int) -> bool:
        """Whether κ is estimated after so many rounds; the first model tells nothing of what training does."""
        return rounds > 0 and rounds % self.every == 0

    def finish(self, local: Local, task: Task) -> Update:
        """The trained model and which kind of client it is; numbers for κ, weighted by records where there are some."""
        payload = {"params": (local.params[0], local.weight), "historical": (local.keep["historical"], local.weight)}
        if self.estimates:
            trained, held = local.keep["records"].tolist()
            payload |= {"noise": (local.keep["noise"], trained), "held": (local.keep["held"], held)}
        return Update(payload)

    def aggregate(self, state: State, received: Mapping[str, Mean], task: Task) -> State:
        """Towards the weighted mean of what arrived, kept within Θ; no step if all of that has weight 0."""
        rounds = state["rounds"] + 1
        found = received["params"]
        if not found.weight > 0:
            return {**state, "rounds": rounds}
        params = self._projected(state, torch.lerp(state["params"], found.mean, self.server_rate), task)
        after = {**state, "params": params, "rounds": rounds, "historical": received["historical"].mean[0].double()}
        if self.output == "average":
            total = state["total"] + found.weight
            share = float(found.weight / total)
            after |= {"total": total, "average": torch.lerp(state["average"], state["params"], share)}
        return after | dict(self._estimated(after, received, task))

    def _projected(self, state: State, params: Tensor, task: Task) -> Tensor:
        """The nearest vector within Θ; what does not learn is left alone."""
        if self.radius is None:
            return params
        size, first = task.layout.trainable, state["first"]
        moved = params[:size] - first[:size]
        scale = min(1.0, self.radius / max(float(torch.linalg.vector_norm(moved)), 1e-30))
        return params if scale == 1 else torch.cat([first[:size] + scale * moved, params[size:]])

    def _estimated(self, state: State, received: Mapping[str, Mean], task: Task) -> Iterator[tuple[str, Tensor]]:
        """What κ is made of, where clients have measured it."""
        if not self.estimates:
            return
        noise, held, size = received["noise"], received["held"], task.layout.trainable
        if held.weight > 0:  # both come together
            difference, variance = held.mean.double()
            yield "noise", noise.mean[0].double()
            yield "gap", difference.clamp_min(0) + (variance / held.weight).sqrt()
            yield "distance", torch.linalg.vector_norm(state["params"][:size] - state["first"][:size]).double()

    def report(self, state: State) -> Mapping[str, float]:
        """What the server knows: the share of historical data in what arrived, and what κ is made of."""
        return {name: float(state[name]) for name in ("historical", "noise", "gap", "distance") if name in state}

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The shared model, or the average of those that were sent."""
        averaged = self.output == "average" and float(state["total"]) > 0
        return global_predictor(state["average" if averaged else "params"])


def _volumes(population: Population, excluded: ClientIds | None) -> Volumes:
    """Records at both kinds of clients; without a stream all stay, however many they are."""
    if isinstance(population, StreamPopulation):
        return population.volumes(excluded)
    return Volumes(1.0, 0.0, 0.0)


def _of_share(share: float) -> tuple[str, ...]:
    """Which kinds of data a fixed share needs."""
    return ("historical",) * (share > 0) + ("fresh",) * (share < 1)


def _relative(data: ClientData, like: Tensor) -> Float[Tensor, "records groups"] | None:
    """Weights of the training records with mean 1, for batches are divided by their rows; None when all are equal."""
    if data.importance is None or not len(data.train) or np.ptp(data.importance) == 0:
        return None
    weights = torch.from_numpy(data.importance / data.importance.mean())[:, None]
    return weights.to(like)


def _measured(params: Tensor, data: ClientData, rng: np.random.Generator, task: Task) -> dict[str, Tensor]:
    """Of at most 256 records of each kind, and of none where there are too few.

    Returns:
        noise: s² on training records, ``[1]``.
        held: mean loss on validation records minus that on training records, and the variance of the former, ``[2]``.
        records: how many training and validation records this is from, ``[2]``.
    """
    trained, held = _some(data.train, rng), _some(data.validation, rng)
    if min(len(trained), len(held)) < _FEWEST:
        return {}
    bound = task.bind()
    bound.load(params)
    bound.module.eval()
    loss, noise = _by_record(bound, task, trained)
    with torch.no_grad():
        unseen = bound.losses(*task.tensors(held))
    return {
        "noise": params.new_tensor([noise]),
        "held": torch.stack([unseen.mean() - loss, unseen.var()]),
        "records": torch.tensor([len(data.train), len(held)], dtype=torch.float64),
    }


def _some(samples: Samples, rng: np.random.Generator) -> Samples:
    if len(samples) <= _LOOKED_AT:
        return samples
    return samples.take(np.sort(rng.choice(len(samples), _LOOKED_AT, replace=False)))


def _by_record(bound: Bound, task: Task, samples: Samples) -> tuple[float, float]:
    """Mean loss, and trace of the covariance of the records' gradients; one gradient in memory at a time."""
    x, y = task.tensors(samples)
    count, loss, squares = len(samples), 0.0, 0.0
    total = torch.zeros(task.layout.trainable, dtype=torch.float64, device=task.device)
    for i in range(count):
        with torch.enable_grad():
            one = bound.losses(x[i : i + 1], y[i : i + 1])[0]
        parts = torch.autograd.grad(one, bound.parameters, allow_unused=True, materialize_grads=True)
        gradient = torch.cat([part.reshape(-1) for part in parts]).double()
        total += gradient
        squares += float(gradient.square().sum())
        loss += float(one.detach()) / count
    return loss, max(squares - float(total.square().sum()) / count, 0.0) / (count - 1)
