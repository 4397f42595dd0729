"""Updates as whole numbers that can be summed under masks, and the means that their sum stands for.

An entry of an update is a vector v with a weight w. A client sends whole numbers

    q = ⌊m w / W⌉,    z = [ (q / m) (v − b) / s ],

with m = 2^(q−1) steps in the clipping range, W the largest weight there may be, b what was broadcast to all clients
alike under the same name and shape (0 otherwise), and [·] the rounding of `rivage.federated.secagg_field`. The server
reads off the sums

    weight = W Σ q / m,    mean = b + s Σ z / (Σ q / m).

Both use the rounded weight, so the result is a weighted mean whose weights are W/2m off at most. Rounding moves a
coordinate of the mean by less than s n / (Σ q / m): the *resolution*, s when every weight is W. The last number counts
the coordinates that a client clipped, so that the server knows of clipping without knowing whose.

With noise, weights would tell too much: every client counts once, all entries of v − b together are scaled down to the
norm C, and a discrete Gaussian of σ steps is added to each coordinate. The whole vector of a client is at most
Δ = C/s + √d/2 long (√d when rounding is stochastic), and

    σ = ⌈z Δ / √m⌉

for a noise multiplier z at the least number m of clients whose sum may be read: with m of them the sum has noise of at
least z Δ. More clients bring more noise, each its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray
from torch import Tensor

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.federated.algorithm import Mean, State, Update
from rivage.federated.discrete_gaussian import MOST_SIGMA, concentrated, discrete_gaussian
from rivage.federated.secagg_field import Grid
from rivage.learning.params import to_numpy

__all__ = ["Coding", "Noisy", "Weighted", "entries_of"]

Numbers = Int64[ndarray, "n"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What one entry of all updates looks like.

    Args:
        name: of the entry.
        like: a tensor of its shape, dtype and device.
        base: what all clients subtract.
    """

    name: str
    like: Tensor
    base: Float64[ndarray, "d"]

    @property
    def size(self) -> int:
        """Coordinates."""
        return self.like.numel()

    def difference(self, update: Update) -> Float64[ndarray, "d"]:
        """The flat vector v − b."""
        moved: ndarray = _flat(update.payload[self.name][0]) - self.base
        return moved

    def tensor(self, difference: Float64[ndarray, "d"]) -> Tensor:
        """Of the entry's form, with what was subtracted."""
        return torch.from_numpy(self.base + difference).reshape(self.like.shape).to(self.like)


def entries_of(update: Update, shared: State) -> tuple[Entry, ...]:
    """The form of all updates of a round, seen on one of them.

    Args:
        update: any of them.
        shared: what was broadcast to all clients alike.
    """
    entries = []
    for name, (vector, _) in update.payload.items():
        base = shared.get(name)
        known = base is not None and base.shape == vector.shape
        entries.append(Entry(name, vector, _flat(base) if known else np.zeros(vector.numel())))
    return tuple(entries)


def _flat(tensor: Tensor | None) -> Float64[ndarray, "d"]:
    assert tensor is not None, "known"
    return to_numpy(tensor).astype(np.float64).reshape(-1)


class Coding(Protocol):
    """Turns updates into whole numbers, and their sum into means."""

    def numbers(self, update: Update, streams: Streams) -> Numbers:
        """On a client; all updates of a round give equally many."""
        ...

    def means(self, total: Numbers, clients: int) -> dict[str, Mean]:
        """On the server, from the sum over so many clients."""
        ...

    def report(self, total: Numbers, clients: int) -> dict[str, float]:
        """What the record says of the sum."""
        ...


@dataclass(frozen=True)
class Weighted:
    """The weighted mean, to rounding.

    Args:
        grid: of coordinates.
        stochastic: rounds at random instead of to nearest.
        entries: form of the updates.
        most: W, largest weight.
    """

    grid: Grid
    stochastic: bool
    entries: Sequence[Entry]
    most: float

    def numbers(self, update: Update, streams: Streams) -> Numbers:
        """Weights, coordinates, and the number of coordinates that were clipped."""
        random = streams.numpy("rounding") if self.stochastic else None
        weights, vectors, clipped = [], [], 0
        for entry in self.entries:
            weight = round(self.grid.most * update.payload[entry.name][1] / self.most)
            steps, cut = self.grid.integers(weight / self.grid.most * entry.difference(update), random)
            weights.append(weight)
            vectors.append(steps)
            clipped += cut
        return np.concatenate([np.array(weights), *vectors, [min(clipped, self.grid.most)]]).astype(np.int64)

    def means(self, total: Numbers, clients: int) -> dict[str, Mean]:
        """One for each entry; an entry of weight 0 is what was broadcast."""
        result, start = {}, len(self.entries)
        for entry, share in zip(self.entries, self._shares(total), strict=True):
            moved = total[start : start + entry.size] * self.grid.step
            result[entry.name] = Mean(entry.tensor(moved / share if share else 0 * moved), share * self.most)
            start += entry.size
        return result

    def report(self, total: Numbers, clients: int) -> dict[str, float]:
        """The number of clipped coordinates, and how fine the coarsest mean is."""
        shares = [share for share in self._shares(total) if share]
        return {
            "clipped": int(total[-1]),
            "resolution": self.grid.step * clients / min(shares) if shares else 0.0,
        }

    def _shares(self, total: Numbers) -> list[float]:
        """Weights in units of the largest."""
        shares: list[float] = (total[: len(self.entries)] / self.grid.most).tolist()
        return shares


@dataclass(frozen=True)
class Noisy:
    """The plain mean of bounded differences, with noise.

    Args:
        grid: of coordinates.
        stochastic: rounds at random instead of to nearest.
        entries: form of the updates.
        clip: C, largest norm.
        multiplier: z.
        least: m, clients with which the multiplier holds.
    """

    grid: Grid
    stochastic: bool
    entries: Sequence[Entry]
    clip: float
    multiplier: float
    least: int

    @property
    def dimension(self) -> int:
        """Coordinates of all entries."""
        return sum(entry.size for entry in self.entries)

    @property
    def sensitivity(self) -> float:
        """Δ, in steps."""
        return self.clip / self.grid.step + math.sqrt(self.dimension) * (1.0 if self.stochastic else 0.5)

    @property
    def sigma(self) -> int:
        """Of one client's noise, in steps.

        Raises:
            ConfigError: for more than can be drawn.
        """
        sigma = max(1, math.ceil(self.multiplier * self.sensitivity / math.sqrt(self.least)))
        if sigma > MOST_SIGMA:
            raise ConfigError(f"noise of {sigma} steps cannot be drawn", mend="Lower quantisation_bits.")
        return sigma

    def numbers(self, update: Update, streams: Streams) -> Numbers:
        """Coordinates with noise."""
        moved = np.concatenate([entry.difference(update) for entry in self.entries])
        norm = float(np.linalg.norm(moved))
        if norm > self.clip:
            moved *= self.clip / norm
        steps, _ = self.grid.integers(moved, streams.numpy("rounding") if self.stochastic else None)
        total: ndarray = steps + discrete_gaussian(self.sigma, len(steps), streams.numpy("noise"))
        return total

    def means(self, total: Numbers, clients: int) -> dict[str, Mean]:
        """One for each entry, every client counting once."""
        ends = np.cumsum([entry.size for entry in self.entries])[:-1]
        parts = np.split(total * self.grid.step / clients, ends)
        return {
            entry.name: Mean(entry.tensor(part), float(clients))
            for entry, part in zip(self.entries, parts, strict=True)
        }

    def report(self, total: Numbers, clients: int) -> dict[str, float]:
        """The standard deviation of the noise in each coordinate of the mean, and the ρ it gives."""
        return {
            "noise": self.sigma * self.grid.step / math.sqrt(clients),
            "rho": concentrated(self.sigma, clients, self.sensitivity, self.dimension),
        }
