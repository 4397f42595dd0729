"""Stochastic gradient push: decentralised SGD over any strongly connected overlay, however uneven its arcs.

Assran, Loizou, Ballas, Rabbat. Stochastic gradient push for distributed deep learning. ICML 2019, arXiv 1811.10792,
Algorithm 1; after push-sum: Kempe, Dobra, Gehrke. Gossip-based computation of aggregate information. FOCS 2003; Nedić,
Olshevsky. Distributed optimization over time-varying directed graphs. IEEE Transactions on Automatic Control 60, 2015.

A silo that has more out-neighbours than another cannot know how others weigh it: it splits what it has among its
out-neighbours and itself, so only the columns of W sum to 1, and what silos get is weighted by how central they are. A
number w, passed on by the same rule, knows by how much:

    X ← W (X + trained(Z) − Z),    w ← W w,    Z = X / w,    w(0) = 1,

where trained(Z) − Z is −η G(Z) for one step, or what several local steps have changed. Silos train from Z and predict
with it. Without training Z tends to the exact mean; with doubly stochastic W, w stays 1 and this is `DPASGD`.

Steps are added to X, so they move Z by 1 / w times as much: where w is small, as at silos that few send to in very
uneven overlays, training runs away. Whoever knows the whole overlay does better with `DPASGD`, which gets doubly
stochastic weights on every overlay (`rivage.decentralized.mixing_plan.balanced`).

Cost per round: one model and a number to every out-neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rivage.decentralized.gossip import Needs
from rivage.decentralized.gossip_settings import GossipSettings
from rivage.federated.algorithm import Phase, Reference, State

__all__ = ["PushSum"]


@dataclass(frozen=True, kw_only=True)
class PushSum(GossipSettings):
    """Local steps, then push-sum.

    Args:
        learning_rate: step size η, > 0.
        work: local steps and batch size.
        overlay: who sends to whom; any that is strongly connected.
        count_by: what silos count for: the same each (``silos``), or by their training ``records``.
    """

    reference: ClassVar[Reference] = Reference(
        key="assran19",
        authors="Mahmoud Assran and Nicolas Loizou and Nicolas Ballas and Mike Rabbat",
        title="Stochastic Gradient Push for Distributed Deep Learning",
        venue="International Conference on Machine Learning",
        year=2019,
        arxiv="1811.10792",
        part="Algorithm 1",
    )
    needs: ClassVar[Needs] = "column"

    work: Phase = Phase()

    def start(self, params: Tensor) -> State:
        """The model with weight 1."""
        return {"params": params, "mass": params, "weight": torch.ones_like(params[..., :1])}

    def send(self, state: State, trained: Tensor, rate: float) -> State:
        """X after local training, and w."""
        return {"mass": state["mass"] + (trained - state["params"]), "weight": state["weight"]}

    def receive(self, state: State, trained: Tensor, rate: float, sent: State, sums: State) -> State:
        """X, w and their ratio."""
        return {"params": sums["mass"] / sums["weight"], "mass": sums["mass"], "weight": sums["weight"]}
