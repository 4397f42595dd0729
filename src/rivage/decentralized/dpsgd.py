"""Decentralised SGD: average with neighbours, step along the own gradient. One step a round, or several.

Lian, Zhang, Zhang, Hsieh, Zhang, Liu. Can decentralized algorithms outperform centralized algorithms? A case study for
decentralized parallel stochastic gradient descent. NeurIPS 2017, arXiv 1705.09056, Algorithm 1. With X the models of
all silos, one row each, and G(X) their mini-batch gradients, a round of `DPSGD` is

    combine_then_adapt:   X ← W X − η G(X)          (D-PSGD: the gradient is of the model before averaging)
    adapt_then_combine:   X ← W (X − η G(X))        (diffusion)

Diffusion: Chen, Sayed. Diffusion adaptation strategies for distributed optimization and learning over networks. IEEE
Transactions on Signal Processing 60, 2012, arXiv 1111.0034.

With full gradients and constant η both converge to points that are O(η) from the optimum, and not to the same one: with
H_i, c_i the Hessian and the linear term of quadratic losses ½ xᵀ H_i x − c_iᵀ x, the first to the solution of
((I − W) + η H) x = η c, the second to that of (I − W + η W H) x = η W c.

`DPASGD` runs s local steps before each average, X ← W (X − η Σ of the s gradients along the way), after

    Marfoq, Xu, Neglia, Vidal. Throughput-optimal topology design for cross-silo federated learning. NeurIPS 2020, arXiv
    2010.12229, Equation 2; Wang, Joshi. Cooperative SGD. JMLR 2021, arXiv 1808.07576.

A round there is the average and then the steps, here the steps and then the average: the same sequence, cut elsewhere.
Over a star with exact averages it is FedAvg with all silos and equal weights.

Cost per round: one model to every out-neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from rivage.core.errors import require_one_of
from rivage.decentralized.gossip import Needs
from rivage.decentralized.gossip_settings import GossipSettings, OneGradient
from rivage.decentralized.mixing_plan import Weighting
from rivage.federated.algorithm import Phase, Reference, State

__all__ = ["DPASGD", "DPSGD"]


@dataclass(frozen=True, kw_only=True)
class DPSGD(OneGradient):
    """One mini-batch step a round.

    Args:
        learning_rate: step size η, > 0.
        batch_size: records in a gradient, >= 1; ``"all"`` takes all of a silo.
        batches: ``shuffle``, ``poisson`` or ``endless``, as in ``[work]``.
        order: ``combine_then_adapt`` steps along the gradient of the model before averaging, ``adapt_then_combine``
            steps first and averages what came of it.
        overlay: who sends to whom.
        mixing: weights on an undirected overlay: ``metropolis``, ``best_constant``, ``fdla`` or ``fmmc``.
        count_by: what silos count for: the same each (``silos``), or by their training ``records``.
    """

    reference: ClassVar[Reference] = Reference(
        key="lian17",
        authors="Xiangru Lian and Ce Zhang and Huan Zhang and Cho-Jui Hsieh and Wei Zhang and Ji Liu",
        title="Can Decentralized Algorithms Outperform Centralized Algorithms? A Case Study for Decentralized Parallel "
        "Stochastic Gradient Descent",
        venue="Advances in Neural Information Processing Systems",
        year=2017,
        arxiv="1705.09056",
        part="Algorithm 1",
    )
    needs: ClassVar[Needs] = "doubly"

    order: Literal["combine_then_adapt", "adapt_then_combine"] = "combine_then_adapt"
    mixing: Weighting = "metropolis"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of(self.order, "order", ("combine_then_adapt", "adapt_then_combine"))

    def start(self, params: Tensor) -> State:
        """The model."""
        return {"params": params}

    def send(self, state: State, trained: Tensor, rate: float) -> State:
        """The model, before or after the step."""
        return {"params": state["params"] if self.order == "combine_then_adapt" else trained}

    def receive(self, state: State, trained: Tensor, rate: float, sent: State, sums: State) -> State:
        """The average, with the step if it is still to be taken."""
        if self.order == "adapt_then_combine":
            return {"params": sums["params"]}
        return {"params": sums["params"] + (trained - state["params"])}


@dataclass(frozen=True, kw_only=True)
class DPASGD(GossipSettings):
    """Several local steps a round, then the average.

    Args:
        learning_rate: step size η, > 0.
        work: local steps s and batch size.
        overlay: who sends to whom.
        mixing: weights on an undirected overlay: ``metropolis``, ``best_constant``, ``fdla`` or ``fmmc``.
        count_by: what silos count for: the same each (``silos``), or by their training ``records``.
    """

    reference: ClassVar[Reference] = Reference(
        key="marfoq20",
        authors="Othmane Marfoq and Chuan Xu and Giovanni Neglia and Richard Vidal",
        title="Throughput-Optimal Topology Design for Cross-Silo Federated Learning",
        venue="Advances in Neural Information Processing Systems",
        year=2020,
        arxiv="2010.12229",
        part="Equation 2",
    )
    needs: ClassVar[Needs] = "doubly"

    work: Phase = Phase()
    mixing: Weighting = "metropolis"

    def start(self, params: Tensor) -> State:
        """The model."""
        return {"params": params}

    def send(self, state: State, trained: Tensor, rate: float) -> State:
        """The trained model."""
        return {"params": trained}

    def receive(self, state: State, trained: Tensor, rate: float, sent: State, sums: State) -> State:
        """The average."""
        return {"params": sums["params"]}
