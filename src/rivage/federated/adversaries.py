"""Clients that do harm, for experiments with `rivage.federated.robust`.

An adversary changes what malicious clients send, after honest training and before the update is clipped, compressed and
collected; what they remember and which weight and metrics they report stays as it was. Who is malicious is drawn once
per seed, client by client, from a counter-based hash of (seed, client): asking costs the same in a population of ten
and of 10^9. The number of malicious clients is therefore random with mean share · N; ``clients`` names them exactly.

Every entry of numbers that a client sends is corrupted: those that were broadcast under the same name and shape
relative to the broadcast w_t, others, such as SCAFFOLD's change of the control, relative to zero.

References:
    Blanchard, El Mhamdi, Guerraoui, Stainer. Machine learning with adversaries: Byzantine tolerant gradient descent.
    NeurIPS 2017, arXiv 1703.02757, section 6 (Gaussian and omniscient attacks).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol, Self, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool
from numpy import ndarray
from torch import Tensor

from rivage.core.errors import ConfigError, require
from rivage.core.philox import uniforms
from rivage.core.seeding import Streams
from rivage.data.population import ClientIds, Population, numbers_of
from rivage.federated.algorithm import State, Update
from rivage.learning.params import from_numpy

__all__ = ["Adversary", "Huge", "Malicious", "NotANumber", "SignFlip"]

_SHARE = 0.2


@runtime_checkable
class Adversary(Protocol):
    """What the engine asks, a frozen dataclass of settings."""

    def malicious(self, ids: ClientIds, seed: int) -> Bool[ndarray, "clients"]:
        """Which of these clients do harm; the same in every round of a seed. O(1) each."""
        ...

    def corrupt(self, update: Update, down: State, client: int, streams: Streams) -> Update:
        """What a malicious client sends instead; ``streams`` are those of the round."""
        ...


@dataclass(frozen=True, kw_only=True)
class Malicious(ABC):
    """Who does harm.

    Args:
        share: probability of each client, in [0, 1]; 0.2 where ``clients`` are not given either.
        clients: exactly these, by number or name, in place of a share.
    """

    share: float | None = None
    clients: tuple[int | str, ...] | None = None

    def __post_init__(self) -> None:
        if self.clients is None and self.share is None:
            object.__setattr__(self, "share", _SHARE)
        if self.clients is not None and self.share is not None:
            raise ConfigError("share and clients are both given", mend="Give one of them.")
        if self.share is not None and not 0 <= self.share <= 1:
            raise ConfigError(f"share is {self.share}", mend="Give a number from 0 to 1.")
        if any(not isinstance(client, str) and client < 0 for client in self.clients or ()):
            raise ConfigError(
                f"clients is {list(self.clients or ())}", mend="Give numbers of at least 0, or names of clients."
            )

    def registered(self, population: Population) -> Self:
        """The same with numbers in place of names.

        Raises:
            ConfigError: for clients that the population does not have.
        """
        if self.clients is None:
            return self
        size = population.size
        if strangers := [client for client in self.clients if not isinstance(client, str) and client >= size]:
            raise ConfigError(
                f"clients names {', '.join(map(str, strangers))}, but there are {size} clients",
                where="[adversary] clients",
                mend=f"Give numbers from 0 to {size - 1}.",
            )
        names = [client for client in self.clients if isinstance(client, str)]
        numbers = numbers_of(population, names, where="[adversary] clients") if names else {}
        ids = tuple(numbers[client] if isinstance(client, str) else client for client in self.clients)
        return replace(self, clients=tuple(dict.fromkeys(ids)))

    def malicious(self, ids: ClientIds, seed: int) -> Bool[ndarray, "clients"]:
        """Which of these clients do harm."""
        if self.clients is not None:
            if any(isinstance(client, str) for client in self.clients):
                raise ConfigError(
                    f"clients is {list(self.clients)}, with names", mend="Give numbers, or use registered(population)."
                )
            return np.isin(ids, np.array(self.clients, np.int64))
        drawn: ndarray = uniforms(Streams(seed).seed("adversary"), ids, 0, 0)[..., 0] < self.share
        return drawn

    def corrupt(self, update: Update, down: State, client: int, streams: Streams) -> Update:
        """The update with every floating-point entry replaced."""
        payload = {
            name: (self._harm(vector, _base(down.get(name), vector), streams.child("adversary", client, name)), weight)
            for name, (vector, weight) in update.payload.items()
            if vector.is_floating_point()
        }
        return replace(update, payload={**update.payload, **payload})

    @abstractmethod
    def _harm(self, vector: Tensor, base: Tensor, streams: Streams) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class SignFlip(Malicious):
    """Sends w_t − scale (w_k − w_t): trains honestly and pushes the other way.

    Args:
        share: probability of each client, in [0, 1]; 0.2 where ``clients`` are not given either.
        clients: exactly these, by number or name, in place of a share.
        scale: how much harder than an honest client, > 0.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.scale, "scale", above=0)

    def _harm(self, vector: Tensor, base: Tensor, streams: Streams) -> Tensor:
        return base - self.scale * (vector - base)


@dataclass(frozen=True, kw_only=True)
class Huge(Malicious):
    """Sends w_k + scale ε with ε standard normal.

    Args:
        share: probability of each client, in [0, 1]; 0.2 where ``clients`` are not given either.
        clients: exactly these, by number or name, in place of a share.
        scale: standard deviation of the noise, > 0.
    """

    scale: float = 1e9

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.scale, "scale", above=0)

    def _harm(self, vector: Tensor, base: Tensor, streams: Streams) -> Tensor:
        noise = streams.numpy("noise").standard_normal(tuple(vector.shape))
        return vector + self.scale * from_numpy(noise, dtype=vector.dtype, device=vector.device)


@dataclass(frozen=True, kw_only=True)
class NotANumber(Malicious):
    """Sends NaN everywhere: the server rejects the client, its round goes on without it.

    Args:
        share: probability of each client, in [0, 1]; 0.2 where ``clients`` are not given either.
        clients: exactly these, by number or name, in place of a share.
    """

    def _harm(self, vector: Tensor, base: Tensor, streams: Streams) -> Tensor:
        return torch.full_like(vector, torch.nan)


def _base(down: Tensor | None, vector: Tensor) -> Tensor:
    return down if down is not None and down.shape == vector.shape else torch.zeros_like(vector)
