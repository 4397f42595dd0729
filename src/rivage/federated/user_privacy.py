"""DP-FedAvg: differential privacy of whole clients, by a server that is trusted to add the noise.

With Δ_u the difference of client u's update to the broadcast, w_u = min(n_u / cap, 1) and S the clip,

    Δ = ( Σ_u w_u Δ_u min(1, S/‖Δ_u‖) + N(0, (z S)² I) ) / (q W) .

The denominator is fixed: the expected sum of weights, not the one that arrived. With sampling by chance
(``run.sampling = "poisson"``) each client takes part with probability q = cohort / clients, which the accountant
assumes, and the relation is *add or remove* one client; with any other cohort every round a client takes part in counts
in full, and the relation is *zero out*: it sends nothing new. The promise is for what leaves the server, the models:
the server itself sees every update, and whoever reads the links does too. Who took part must stay secret where sampling
counts.

Adaptive clipping aims at the quantile γ of the clients' norms. Each client also says whether its norm is at most S;
with m the expected number of clients,

    b = ½ + ( Σ_u (1[‖Δ_u‖ ≤ S] − ½) + N(0, σ_b²) ) / m,       S ← S exp(−η (b − γ)),

and the noise on the sum grows to z_Δ = (z⁻² − (2 σ_b)⁻²)^(−½), so that both together cost what z alone does.

References:
    McMahan, Ramage, Talwar, Zhang. Learning differentially private recurrent language models. ICLR 2018,
    arXiv 1710.06963, Algorithm 1 with the estimator of a fixed denominator.
    Andrew, Thakkar, McMahan, Ramaswamy. Differentially private learning with adaptive clipping. NeurIPS 2021,
    arXiv 1905.03871, Algorithm 1 and Theorem 1.

Deviations: a round in which nobody takes part releases its noise too, so that it looks like any other. W is the number
of clients where the weights are 1, and also with ``cap``: the step is then shorter than that of the weighted mean,
unless ``denominator`` says otherwise. Cost: one vector in float64 per round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.federated.algorithm import Reference, State
from rivage.federated.clipped_sum import ClippedMean, ClippedSum, Moment, require_inside

__all__ = ["CLIP", "PrivateMean", "PrivateSum"]

CLIP = "collector.clip"
"""What the adaptive clip is called in the server's state."""


@dataclass(frozen=True, kw_only=True)
class PrivateMean(ClippedMean):
    """The noisy mean of clipped updates.

    Args:
        noise: multiplier z of the clip, > 0.
        clip: largest norm S of an update, > 0; where the search starts if it is adaptive.
        cap: records from which on a client has weight 1, > 0; None gives every client weight 1.
        denominator: q W, > 0; None takes the expected number of clients in a round.
        delta: δ at which ε is told, in (0, 1).
        adaptive: whether S follows the quantile of the clients' norms.
        quantile: γ, in (0, 1).
        clip_rate: η, > 0.
        count_noise: σ_b, > noise / 2; None takes a twentieth of the expected number of clients.
    """

    reference: ClassVar[Reference] = Reference(
        key="mcmahan18",
        authors="H. Brendan McMahan and Daniel Ramage and Kunal Talwar and Li Zhang",
        title="Learning differentially private recurrent language models",
        venue="ICLR",
        year=2018,
        arxiv="1710.06963",
        part="Algorithm 1",
    )

    adaptive: bool = False
    quantile: float = 0.5
    clip_rate: float = 0.2
    count_noise: float | None = field(default=None, metadata={"none": "auto"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.clip_rate, "clip_rate", above=0)
        if self.count_noise is not None:
            require(self.count_noise, "count_noise", above=0)
        require_inside(self.quantile, "quantile")

    def faults(self, clients: int, giver: str, mend: str) -> list[ConfigError]:
        """An adaptive clip whose counts need more noise than there are clients for."""
        if not self.adaptive or 2 * self.counts(clients) > self.noise:
            return []
        mend = f"Set count_noise above {self.noise / 2:g}, lower noise, or raise run.cohort."
        return [
            ConfigError(f"{giver} count_noise {self.counts(clients):g}, which is no more than noise / 2", mend=mend)
        ]

    def counts(self, clients: float) -> float:
        """σ_b for so many expected clients."""
        return clients / 20 if self.count_noise is None else self.count_noise

    def on_sums(self, clients: float) -> float:
        """z_Δ: the multiplier of the noise on the sum."""
        if not self.adaptive:
            return self.noise
        if faults := self.faults(math.ceil(clients), "the round has", "Raise"):
            raise faults[0]
        return float((self.noise**-2 - (2 * self.counts(clients)) ** -2) ** -0.5)

    def summed(self) -> PrivateSum:
        """The sum of one round."""
        return PrivateSum(self)

    def promise(self) -> dict[str, Any]:
        """What record and message log say of it, but for who takes part."""
        mechanism = "DP-FedAvg: Gaussian noise of the server on the sum of clipped updates"
        clip = {"clip": "adaptive"} if self.adaptive else {}
        return {"mechanism": mechanism, **super().promise(), **clip}


class PrivateSum(ClippedSum):
    """Adds up clipped updates, and noise drawn anew in every round; counts norms below an adaptive clip."""

    settings: PrivateMean

    def __init__(self, settings: PrivateMean) -> None:
        super().__init__(settings)
        self.below = 0.0

    def begin(self, entry: str, state: State, expected: float, moment: Moment) -> None:
        """Before the first update; the clip is what the last round has left."""
        super().begin(entry, state, expected, moment)
        self.clip = float(state[CLIP]) if CLIP in state else self.settings.clip

    def measured(self, norm: float) -> None:
        """Count norms within the clip, less a half each."""
        self.below += 0.5 if norm <= self.clip else -0.5

    def noise(self) -> Float64[ndarray, "dim"]:
        """Independent of all other rounds."""
        deviation = self.settings.on_sums(self.expected) * self.clip
        drawn: ndarray = self.moment.streams.numpy("noise").standard_normal(tuple(self.base.shape)) * deviation
        return drawn

    def carried(self) -> State:
        """The clip, if it is adaptive."""
        if not self.settings.adaptive:
            return {}
        noise = self.moment.streams.numpy("count").standard_normal() * self.settings.counts(self.expected)
        share = 0.5 + (self.below + noise) / self.expected
        clip = self.clip * math.exp(-self.settings.clip_rate * (share - self.settings.quantile))
        return {CLIP: torch.tensor(clip, dtype=torch.float64)}

    def report(self) -> dict[str, Any]:
        """The clip, if it is adaptive."""
        return {"clip": self.clip} if self.settings.adaptive else {}
