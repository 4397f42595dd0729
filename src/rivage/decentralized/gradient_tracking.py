"""Gradient tracking: every silo follows an estimate of the gradient of all, and so reaches the optimum of all exactly.

Nedić, Olshevsky, Shi. Achieving geometric convergence for distributed optimization over time-varying graphs. SIAM
Journal on Optimization 27, 2017, arXiv 1607.03218, Algorithms 1 (DIGing) and 2 (Push-DIGing); with stochastic
gradients: Pu, Nedić. Distributed stochastic gradient tracking methods. Mathematical Programming 187, 2021, arXiv
1805.11454.

`GradientTracking`, with W doubly stochastic:

    X ← W X − η Y,    Y⁺ = W Y + G(X⁺) − G(X),    Y(0) = G(X(0)).

The columns of W sum to 1, so Σ_i Y_i = Σ_i G_i(X_i) in every round. At a fixed point Y = 0 and all rows of X agree: the
mean of the silos' gradients is 0 there, whatever η and however the silos' data differ. How small η must be for models
to get there depends on W: smaller than for D-PSGD, and the more so the slower W mixes.

`PushDIGing` does the same over directed overlays in which only the columns of C sum to 1, by push-sum: U is what silos
pass on, V the weight by which it is off, X their ratio at which gradients are taken,

    U ← C (U − η Y),    V ← C V,    X = U / V,    Y⁺ = C Y + G(X⁺) − G(X),    V(0) = 1.

With mini-batches G is noisy: what is left is an error of the order of η and the variance, none from differing data.

Here Y of a round is made when its gradient is there, from what came in the round before. Cost per round: two models to
every out-neighbour (Push-DIGing: and a number).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rivage.decentralized.gossip import Needs
from rivage.decentralized.gossip_settings import OneGradient
from rivage.decentralized.mixing_plan import Weighting
from rivage.federated.algorithm import Reference, State

__all__ = ["GradientTracking", "PushDIGing"]


def _reference(part: str) -> Reference:
    return Reference(
        key="nedic17",
        authors="Angelia Nedić and Alex Olshevsky and Wei Shi",
        title="Achieving Geometric Convergence for Distributed Optimization over Time-Varying Graphs",
        venue="SIAM Journal on Optimization",
        year=2017,
        arxiv="1607.03218",
        part=part,
        entry="article",
    )


def _track(state: State, trained: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """G(X) of the round, and Y."""
    gradient = (state["params"] - trained) / rate
    return gradient, state["received"] + (gradient - state["gradient"])


@dataclass(frozen=True, kw_only=True)
class GradientTracking(OneGradient):
    """One mini-batch gradient a round, corrected by those of all others.

    Args:
        learning_rate: step size η, > 0.
        batch_size: records in a gradient, >= 1; ``"all"`` takes all of a silo.
        batches: ``shuffle``, ``poisson`` or ``endless``, as in ``[work]``.
        overlay: who sends to whom.
        mixing: weights on an undirected overlay: ``metropolis``, ``best_constant``, ``fdla`` or ``fmmc``.
        count_by: what silos count for: the same each (``silos``), or by their training ``records``.
    """

    reference: ClassVar[Reference] = _reference("Algorithm 1 (DIGing)")
    needs: ClassVar[Needs] = "doubly"

    mixing: Weighting = "metropolis"

    def start(self, params: Tensor) -> State:
        """The model; nothing received, no gradient yet."""
        return {"params": params, "received": torch.zeros_like(params), "gradient": torch.zeros_like(params)}

    def send(self, state: State, trained: Tensor, rate: float) -> State:
        """X and Y."""
        return {"params": state["params"], "tracker": _track(state, trained, rate)[1]}

    def receive(self, state: State, trained: Tensor, rate: float, sent: State, sums: State) -> State:
        """W X − η Y, and W Y for the next round."""
        return {
            "params": sums["params"] - rate * sent["tracker"],
            "received": sums["tracker"],
            "gradient": _track(state, trained, rate)[0],
        }


@dataclass(frozen=True, kw_only=True)
class PushDIGing(OneGradient):
    """Gradient tracking over any directed overlay.

    Args:
        learning_rate: step size η, > 0.
        batch_size: records in a gradient, >= 1; ``"all"`` takes all of a silo.
        batches: ``shuffle``, ``poisson`` or ``endless``, as in ``[work]``.
        overlay: who sends to whom.
        count_by: what silos count for: the same each (``silos``), or by their training ``records``.
    """

    reference: ClassVar[Reference] = _reference("Algorithm 2 (Push-DIGing)")
    needs: ClassVar[Needs] = "column"

    def start(self, params: Tensor) -> State:
        """The model with weight 1; nothing received, no gradient yet."""
        nothing = torch.zeros_like(params)
        one = torch.ones_like(params[..., :1])
        return {"params": params, "mass": params, "weight": one, "received": nothing, "gradient": nothing}

    def send(self, state: State, trained: Tensor, rate: float) -> State:
        """U − η Y, V and Y."""
        tracker = _track(state, trained, rate)[1]
        return {"mass": state["mass"] - rate * tracker, "weight": state["weight"], "tracker": tracker}

    def receive(self, state: State, trained: Tensor, rate: float, sent: State, sums: State) -> State:
        """U, V, their ratio, and C Y for the next round."""
        return {
            "params": sums["mass"] / sums["weight"],
            "mass": sums["mass"],
            "weight": sums["weight"],
            "received": sums["tracker"],
            "gradient": _track(state, trained, rate)[0],
        }
