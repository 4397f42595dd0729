"""Exact diffusion: adapt, correct, combine. Diffusion without the bias of a constant step size.

Yuan, Ying, Zhao, Sayed. Exact diffusion for distributed optimization and learning, Part I: algorithm development. IEEE
Transactions on Signal Processing 67, 2019, arXiv 1702.05122, Algorithm 1; with stochastic gradients it is D²: Tang,
Lian, Yan, Zhang, Liu. D²: decentralized training over decentralized data. ICML 2018, arXiv 1803.07068.

With W symmetric and doubly stochastic, and Ψ(−1) = X(0):

    Ψ = X − η G(X)                      adapt
    Φ = Ψ + X − Ψ_before                correct: what the last combination moved is taken back
    X ← ½ (I + W) Φ                     combine

At a fixed point Ψ = Ψ_before, so Φ = X and X = ½ (I + W) X: all rows agree. The rows of X sum to what those of the Ψ
before summed to, so that the silos' gradients sum to 0 there. ½ (I + W) has no negative eigenvalues, which is needed.

Cost per round: one model to every out-neighbour; each silo keeps a second one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from torch import Tensor

from rivage.core.settings import OneOf
from rivage.decentralized.designers import DESIGNERS, Designer, Mst
from rivage.decentralized.gossip import Needs
from rivage.decentralized.gossip_settings import OneGradient
from rivage.decentralized.mixing_plan import Weighting
from rivage.federated.algorithm import Reference, State

__all__ = ["ExactDiffusion"]


@dataclass(frozen=True, kw_only=True)
class ExactDiffusion(OneGradient):
    """One mini-batch gradient a round, corrected by what the last combination moved.

    Args:
        learning_rate: step size η, > 0.
        batch_size: records in a gradient, >= 1; ``"all"`` takes all of a silo.
        batches: ``shuffle``, ``poisson`` or ``endless``, as in ``[work]``.
        overlay: who sends to whom; its arcs go both ways, and it stays the same.
        mixing: weights on it: ``metropolis``, ``best_constant``, ``fdla`` or ``fmmc``.
        count_by: what silos count for: the same each (``silos``), or by their training ``records``.
    """

    reference: ClassVar[Reference] = Reference(
        key="yuan19",
        authors="Kun Yuan and Bicheng Ying and Xiaochuan Zhao and Ali H. Sayed",
        title="Exact Diffusion for Distributed Optimization and Learning—Part I: Algorithm Development",
        venue="IEEE Transactions on Signal Processing",
        year=2019,
        arxiv="1702.05122",
        part="Algorithm 1",
        entry="article",
    )
    needs: ClassVar[Needs] = "symmetric"

    overlay: Annotated[Designer, OneOf(DESIGNERS)] = field(default_factory=Mst)
    mixing: Weighting = "metropolis"

    def start(self, params: Tensor) -> State:
        """The model, which stands for Ψ(−1) as well."""
        return {"params": params, "adapted": params}

    def send(self, state: State, trained: Tensor, rate: float) -> State:
        """Φ."""
        return {"corrected": trained + (state["params"] - state["adapted"])}

    def receive(self, state: State, trained: Tensor, rate: float, sent: State, sums: State) -> State:
        """½ (I + W) Φ, and Ψ for the next round."""
        return {"params": (sent["corrected"] + sums["corrected"]) / 2, "adapted": trained}
