"""FedEM with one body for all components: only their heads differ, and every client mixes those.

An extension of FedEM (Marfoq, Neglia, Bellet, Kameni, Vidal. Federated multi-task learning under a mixture of
distributions. NeurIPS 2021, arXiv 2108.10252, Algorithm 1), not in the paper. Component m is the model θ_m = (b, h_m):
a body b that all components share, and a head h_m, the last linear layer. With q and π as in FedEM, client t minimises
the same bound on the likelihood,

    Σ_i Σ_m q_i(m) ℓ_i(b, h_m) / n_t ,

so that in a local step each head follows the records of its component, and the body all of them:

    h_m ← h_m − η (1/|B|) Σ_{i in B} q_i(m) ∇_h ℓ_i(b, h_m)
    b   ← b − η (1/|B|) Σ_{i in B} Σ_m q_i(m) ∇_b ℓ_i(b, h_m) .

Where FedEM sends M whole models, this sends one body and M heads: it fits where clients see the same features and
draw other conclusions, and not where a record's component shows in features that a shared body does not make.

The first component is the model that all other methods start from; every further one has its body and a head from a
seed of its own. What is no trainable part of the head (frozen parameters, running means and variances) belongs to the
body. M = 1 is FedAvg. Equal heads stay equal for ever and are refused.

Cost beyond FedAvg: (M − 1) heads in both directions. The local gradients are M times FedAvg's, as the body is passed
for each head, and so are the passes over a client's training records in every round and every evaluation; M numbers of
memory per client that ever took part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rivage.core.errors import require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated.algorithm import Local, Mean, Phase, Predictor, Reference, State, Update
from rivage.federated.averaging import Averaging
from rivage.federated.fedem import (
    FedEM,
    likeliest_shares,
    require_apart,
    require_components,
    require_no_noise_of_classes,
    responsibilities,
    shares_of,
)

if TYPE_CHECKING:
    from rivage.learning.task import Bound, Task

__all__ = ["FedEMHeads"]

_CHUNK = 256  # records per forward pass; activations of images stay in the cache


@dataclass(frozen=True, kw_only=True)
class FedEMHeads(Averaging):
    """A shared body under several heads, mixed by every client in its own shares.

    Args:
        learning_rate: local step size, > 0.
        components: M, number of heads, from 1 to 1000.
        work: local epochs and batch size.
        iterations: at most so many E-steps give a client that never took part its shares, >= 1.
        noise: s > 0, standard deviation of a real target around its component's prediction, in the unit in which
            models see it; 1 for classes.
        restart: which of several random starts, >= 0.
    """

    reference: ClassVar[Reference] = FedEM.reference

    learning_rate: float = 0.1
    components: int = 3
    work: Phase = Phase()
    iterations: int = 100
    noise: float = 1.0
    restart: int = 0

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        require_components(self.components)
        require(self.iterations, "iterations", least=1)
        require(self.noise, "noise", above=0)
        require(self.restart, "restart", least=0)

    def init(self, task: Task, clients: int, streams: Streams) -> State:
        """Components ``[M, D]`` that differ in their heads, and the parts of them that travel.

        Raises:
            ConfigError: when two heads start alike, the model has no linear layer, or ``noise`` is given for classes.
        """
        require_no_noise_of_classes(self.noise, task)
        first = () if self.restart == 0 else ("restart", self.restart, 0)
        seeds = [streams.seed("model", *first)]
        seeds += [streams.seed("model", *first[:-1], m) for m in range(1, self.components)]
        drawn = torch.stack([task.initial(seed) for seed in seeds])
        heads = drawn[:, _head(task)]
        require_apart(heads)
        return self._state(drawn[0, ~_head(task)], heads, task)

    @staticmethod
    def _state(body: Float[Tensor, "body"], heads: Float[Tensor, "components head"], task: Task) -> State:
        return {"params": _joined(body, heads, task), "body": body, "heads": heads}

    def broadcast(self, state: State, client: int, task: Task) -> State:
        """The body once, and all heads."""
        return {"body": state["body"], "heads": state["heads"]}

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """The components as groups, each record weighted by its q; π before anything trains."""
        params = _joined(broadcast["body"], broadcast["heads"], task)
        found = self._losses(params, data, task)
        shares = memory.get("shares", found.new_full((self.components,), 1 / self.components))
        q = responsibilities(shares, found)
        return Local(params, weights=q, extra={"head": _head(task).to(params)}, keep={"shares": shares_of(q, shares)})

    def _losses(
        self, params: Float[Tensor, "components dim"], data: ClientData, task: Task
    ) -> Float[Tensor, "records components"]:
        """Negative log-likelihoods of the training records under each component, up to a constant."""
        bound = _bound(task)
        x, y = task.tensors(data.train)
        columns = []
        with torch.no_grad():
            for row in params:
                bound.load(row)
                parts = zip(torch.split(x, _CHUNK), torch.split(y, _CHUNK), strict=True)
                columns.append(torch.cat([bound.losses(*part) for part in parts]))
        return torch.stack(columns, dim=1) / self.noise**2

    def step(
        self,
        extra: dict[str, Tensor],
        params: Float[Tensor, "*clients components dim"],
        gradient: Callable[[Tensor], Tensor],
        rate: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One local step: heads along their own gradients, bodies along the sum of all, so that they stay one."""
        points = params.clone()
        slopes = gradient(points)  # the oracle moves buffers in points; they have no slope
        own = extra["head"].unsqueeze(-2)
        slopes = own * slopes + (1 - own) * slopes.sum(dim=-2, keepdim=True)
        return torch.add(points, slopes, alpha=-rate), extra

    def finish(self, local: Local, task: Task) -> Update:
        """One body and all heads, with one weight; the shares stay."""
        head = _head(task)
        payload = {"body": (local.params[0, ~head], local.weight), "heads": (local.params[:, head], local.weight)}
        return Update(payload, memory={"shares": local.keep["shares"]})

    def aggregate(self, state: State, received: Mapping[str, Mean], task: Task) -> State:
        """The weighted means of what arrived; no step if all of that has weight 0."""
        if not received["body"].weight > 0:
            return state
        return self._state(received["body"].mean, received["heads"].mean, task)

    @property
    def adaptation(self) -> None:
        """Nothing is trained to adapt."""

    def adapt(
        self,
        state: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local | None:
        """Shares for whoever has none: the most likely ones under the components as they are."""
        if "shares" in memory:
            return None
        found = likeliest_shares(self._losses(state["params"], data, task), self.iterations)
        return Local(state["params"], keep={"shares": found})

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The current components in the client's shares; in equal ones for clients nobody knows."""
        params = state["params"]
        kept = memory if local is None else local.keep
        return Predictor(params, kept.get("shares", params.new_full((self.components,), 1 / self.components)))


@lru_cache(maxsize=1)
def _bound(task: Task) -> Bound:
    """A working copy in evaluation mode: making one takes longer than a small client's losses."""
    bound = task.bind()
    bound.module.eval()
    return bound


@lru_cache(maxsize=1)
def _head(task: Task) -> Bool[Tensor, "dim"]:
    """Where the trainable part of the head lies."""
    mask = task.layout.mask(task.head)
    mask[task.layout.trainable :] = False
    return mask


def _joined(
    body: Float[Tensor, "body"], heads: Float[Tensor, "components head"], task: Task
) -> Float[Tensor, "components dim"]:
    head = _head(task).to(body.device)
    params = body.new_empty(len(heads), task.dimension)
    params[:, ~head], params[:, head] = body, heads
    return params
