"""DP-FedAvg: differential privacy of whole clients, by a server that is trusted to add the noise.

With Δ_u the difference of client u's update to the broadcast, w_u = min(n_u / cap, 1) and S the clip,

    Δ = ( Σ_u w_u Δ_u min(1, S/‖Δ_u‖) + N(0, (z S)² I) ) / (q W) .

The denominator is fixed: the expected sum of weights, not the one that arrived. With sampling by chance
(``run.sampling = "poisson"``) each client takes part with probability q = cohort / clients, which the accountant
assumes; with any other cohort every round a client takes part in counts in full. The relation is *add or remove* one
client. The promise is for what leaves the server, the models: the server itself sees every update, and whoever reads
the links does too. Who took part must stay secret where sampling counts.

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
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.federated.algorithm import Mean, State, Update

__all__ = ["CLIP", "PrivateMean", "PrivateSum"]

CLIP = "collector.clip"
"""What the adaptive clip is called in the server's state."""


@dataclass(frozen=True, kw_only=True)
class PrivateMean:
    """The noisy mean of clipped updates.

    Args:
        noise: multiplier z of the clip, > 0.
        clip: largest norm S of an update, > 0; where the search starts if it is adaptive.
        cap: records from which on a client has weight 1, > 0; None gives every client weight 1.
        denominator: q W, > 0; None takes the expected number of clients in a round.
        adaptive: whether S follows the quantile of the clients' norms.
        quantile: γ, in (0, 1).
        clip_rate: η, > 0.
        count_noise: σ_b, > noise / 2; None takes a twentieth of the expected number of clients.
        delta: δ at which ε is told, in (0, 1).
    """

    noise: float = 1.0
    clip: float = 1.0
    cap: float | None = field(default=None, metadata={"none": "off"})
    denominator: float | None = field(default=None, metadata={"none": "auto"})
    adaptive: bool = False
    quantile: float = 0.5
    clip_rate: float = 0.2
    count_noise: float | None = field(default=None, metadata={"none": "auto"})
    delta: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("noise", "clip", "clip_rate"):
            require(getattr(self, name), name, above=0)
        for name in ("cap", "denominator", "count_noise"):
            if (value := getattr(self, name)) is not None:
                require(value, name, above=0)
        for name in ("quantile", "delta"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", mend="Give a number above 0 and below 1.")

    def refusal(self, received: int) -> str | None:
        """Any number will do, 0 too."""
        return None

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

    def collector(self, *, each: bool) -> PrivateSum:
        """The collector of one round.

        Raises:
            ConfigError: for methods that want single updates.
        """
        if each:
            raise ConfigError(
                "the method wants single updates, but the noise is on their sum",
                mend="Take another method or collector.",
            )
        return PrivateSum(self)

    def promise(self) -> dict[str, Any]:
        """What record and message log say of it, but for the sampling."""
        return {
            "unit": "user",
            "relation": "add-remove",
            "protects": "every model that leaves the server",
            "mechanism": "DP-FedAvg: Gaussian noise of the server on the sum of clipped updates",
            "noise_multiplier": self.noise,
            "clip": "adaptive" if self.adaptive else self.clip,
            "delta": self.delta,
            "not_covered": ["single updates, which server and links see", "set-up messages", "evaluations"],
        }


class PrivateSum:
    """Adds up clipped updates, and noise.

    Args:
        settings: of the collection.

    Attributes:
        count: updates taken in; what it hands on is aggregated also when there were none.
    """

    def __init__(self, settings: PrivateMean) -> None:
        self.settings, self.count, self.below = settings, 0, 0.0
        self._sum: Tensor | None = None

    def begin(self, entry: str, state: State, expected: float, streams: Streams) -> None:
        """Before the first update.

        Args:
            entry: the one payload entry, broadcast under the same name.
            state: of the server.
            expected: number of clients.
            streams: of this round and this collector.
        """
        self.entry, self.base, self.expected, self.streams = entry, state[entry], expected, streams
        self.clip = float(state[CLIP]) if CLIP in state else self.settings.clip
        self._sum = torch.zeros_like(self.base, dtype=torch.float64)

    @property
    def refusal(self) -> str | None:
        """Any number of updates will do."""
        return None

    def add(self, update: Update, down: State | None = None) -> None:
        """Take in one update: its norm is bounded before its weight counts."""
        assert self._sum is not None, "begin comes first"
        vector, records = update.payload[self.entry]
        change = (vector - self.base).double()
        norm = float(torch.linalg.vector_norm(change))
        weight = 1.0 if self.settings.cap is None else min(records / self.settings.cap, 1.0)
        self._sum += weight * min(1.0, self.clip / max(norm, 1e-300)) * change
        self.below += 0.5 if norm <= self.clip else -0.5
        self.count += 1

    def result(self) -> Mapping[str, Mean]:
        """The noisy mean; its weight is the denominator."""
        assert self._sum is not None, "begin comes first"
        deviation = self.settings.on_sums(self.expected) * self.clip
        noise = self.streams.numpy("noise").standard_normal(tuple(self.base.shape)) * deviation
        total = self._sum + torch.from_numpy(np.asarray(noise)).to(self._sum.device)
        denominator = self.settings.denominator or self.expected
        return {self.entry: Mean((self.base.double() + total / denominator).to(self.base.dtype), denominator)}

    def carried(self) -> State:
        """What the server's state holds until the next round: the clip, if it is adaptive."""
        if not self.settings.adaptive:
            return {}
        noise = self.streams.numpy("count").standard_normal() * self.settings.counts(self.expected)
        share = 0.5 + (self.below + noise) / self.expected
        clip = self.clip * math.exp(-self.settings.clip_rate * (share - self.settings.quantile))
        return {CLIP: torch.tensor(clip, dtype=torch.float64)}

    def report(self) -> dict[str, Any]:
        """For the round's event."""
        return {"clip": self.clip} if self.settings.adaptive else {}
