"""A small network that learns what members look like: what attacks train on records whose membership is known.

Cross-entropy, Adam, mini-batches. A fifth of the known records, of members and others alike, is held back; training
stops when their loss has not fallen for a while, and the best network is kept. The step size is 1e-2 and not the usual
1e-3: with a few hundred known records it ends at the same place in a fifth of the time, and the smaller one was at
times stopped on a plateau before it had learnt anything.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64
from numpy import ndarray
from torch import Tensor, nn

from rivage.core.errors import require
from rivage.core.seeding import Streams
from rivage.learning.params import from_numpy, to_numpy

__all__ = ["Fitting", "fitted", "standardised"]

_HELD = 5  # of so many known records one is held back


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """How the network learns.

    Args:
        learning_rate: of Adam, > 0.
        weight_decay: penalty λ/2 ‖w‖² in the gradient, >= 0.
        batch_size: records per step, >= 1.
        epochs: passes at most, >= 1.
        patience: passes without improvement after which it stops, >= 1.
        networks: that are trained, each with another fifth held back; their log-odds are averaged, >= 1.
    """

    learning_rate: float = 1e-2
    weight_decay: float = 1e-4
    batch_size: int = 32
    epochs: int = 300
    patience: int = 20
    networks: int = 1

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        require(self.weight_decay, "weight_decay", least=0)
        for name in ("batch_size", "epochs", "patience", "networks"):
            require(getattr(self, name), name, least=1)


def standardised(features: Float64[ndarray, "n k"], known: Bool[ndarray, "n"]) -> Float64[ndarray, "n k"]:
    """Mean 0 and standard deviation 1 on the known records; what is constant there becomes 0 there."""
    scale = features[known].std(axis=0)
    result: ndarray = (features - features[known].mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    return result


def fitted(
    make: Callable[[], nn.Module],
    inputs: Sequence[Float[ndarray, "n *shape"]],
    known: Bool[ndarray, "n"],
    member: Bool[ndarray, "n"],
    streams: Streams,
    settings: Fitting,
) -> Float64[ndarray, "n"]:
    """Train a network on the known records; its log-odds of membership for all.

    The order of the records does not matter: known ones are put into an order that follows from their inputs.

    Args:
        make: the network, from as many tensors as there are inputs to ``[n, 1]``.
        inputs: of every record.
        known: which records it learns from.
        member: what it learns; read where known.
        streams: of initial weights, batches, held-back records and dropout.
        settings: how it learns.
    """
    tensors = [from_numpy(array, dtype=torch.float32) for array in inputs]
    rows = _canonical(inputs, known, member)
    target, odds = torch.from_numpy(member.astype(np.float32)), np.zeros(len(member))
    for number in range(settings.networks):
        below = streams.child("network", number)
        with _generator(below.seed("torch")):
            network = make()
            train, held = _split(rows, member, below)
            _descend(network, tensors, target, train, held, below, settings)
            network.eval()
            with torch.no_grad():
                odds += to_numpy(network(*tensors)[:, 0]) / settings.networks
    return odds


def _canonical(inputs: Sequence[ndarray], known: ndarray, member: ndarray) -> ndarray:
    """Known rows, sorted by membership and then by their inputs."""
    rows = np.flatnonzero(known)
    keys = np.concatenate([array[rows].reshape(len(rows), -1) for array in inputs], axis=1)
    result: ndarray = rows[np.lexsort((*keys.T[::-1], member[rows]))]
    return result


def _split(rows: ndarray, member: ndarray, streams: Streams) -> tuple[ndarray, ndarray]:
    """Rows to learn from and rows to stop by, the same share of members and others in both."""
    generator, train, held = streams.numpy("held"), [], []
    for kind in (True, False):
        order = generator.permutation(rows[member[rows] == kind])
        count = max(1, len(order) // _HELD)
        held.append(order[:count])
        train.append(order[count:])
    return np.concatenate(train), np.concatenate(held)


def _descend(
    network: nn.Module,
    tensors: Sequence[Tensor],
    target: Tensor,
    train: ndarray,
    held: ndarray,
    streams: Streams,
    settings: Fitting,
) -> None:
    optimiser = torch.optim.Adam(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, foreach=False, fused=True
    )
    generator, best, kept, since = streams.numpy("batches"), np.inf, copy.deepcopy(network.state_dict()), 0
    check, truth = [tensor[held] for tensor in tensors], target[held]
    for _epoch in range(settings.epochs):
        network.train()
        for rows in np.array_split(generator.permutation(train), max(1, len(train) // settings.batch_size)):
            loss = F.binary_cross_entropy_with_logits(
                network(*(tensor[rows] for tensor in tensors))[:, 0], target[rows]
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        network.eval()
        with torch.no_grad():
            now = float(F.binary_cross_entropy_with_logits(network(*check)[:, 0], truth))
        since += 1
        if now < best:
            best, kept, since = now, copy.deepcopy(network.state_dict()), 0
        if since == settings.patience:
            break
    network.load_state_dict(kept)


@contextmanager
def _generator(seed: int) -> Iterator[None]:
    """Torch's global CPU generator, of which initial weights and dropout are drawn, seeded for a while."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
