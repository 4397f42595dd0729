"""Numbers that can be summed under a mask: a grid of reals, and the integers modulo R = 2^b.

A coordinate x is clipped to [−c, c] and written as a whole number of steps s = 2c / 2^q,

    z = ⌊x / s + u⌋,   |z| ≤ 2^(q−1),

with u uniform on [0, 1) (stochastic rounding, E[s z] = x for |x| ≤ c) or u = 1/2 (to nearest). n numbers add up without
overflow modulo R while

    n 2^q < R,

since their sum then lies in (−R/2, R/2) and is read off its residue exactly. With q = 22 and b = 32 this allows 1023
clients. Residues are the machine's unsigned integers, whose sums are modulo 2^b by themselves; on the wire a coordinate
takes b/8 bytes.

References:
    Bonawitz, Ivanov, Kreuter, Marcedone, McMahan, Patel, Ramage, Segal, Seth. Practical secure aggregation for
    privacy-preserving machine learning. CCS 2017, doi 10.1145/3133956.3133982 (sums modulo R).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64, UInt
from numpy import ndarray

from rivage.federated.secagg_keys import stream

__all__ = ["Grid", "Residues", "Ring"]

Residues = UInt[ndarray, "n"]


@dataclass(frozen=True)
class Ring:
    """The integers modulo 2^bits.

    Args:
        bits: b.
    """

    bits: Literal[16, 32, 64] = 32

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of residues."""
        return np.dtype(f"<u{self.bits // 8}")

    def residues(self, numbers: Int64[ndarray, "n"]) -> Residues:
        """Whole numbers modulo R."""
        return numbers.astype(self.dtype)

    def centred(self, residues: Residues) -> Int64[ndarray, "n"]:
        """The numbers in [−R/2, R/2) with these residues."""
        return residues.view(np.dtype(f"<i{self.bits // 8}")).astype(np.int64)

    def add(self, total: Residues, seed: bytes, sign: int = 1) -> None:
        """Add the mask of a seed to ``total``, or subtract it: uniform residues, b/8 bytes of its stream for each."""
        start = 0
        for block in stream(seed, total.nbytes):
            mask = np.frombuffer(block, self.dtype)
            part = total[start : start + len(mask)]
            (np.add if sign > 0 else np.subtract)(part, mask, out=part)
            start += len(mask)

    def holds(self, clients: int, bits: int) -> bool:
        """Whether so many numbers of a grid of 2^bits steps can be added up."""
        return clients << bits < 1 << self.bits


@dataclass(frozen=True)
class Grid:
    """Whole multiples of a step.

    Args:
        bound: c, > 0.
        bits: q.
    """

    bound: float
    bits: int

    @property
    def step(self) -> float:
        """Its length s."""
        return 2 * self.bound / (1 << self.bits)

    @property
    def most(self) -> int:
        """The largest number of steps."""
        return 1 << (self.bits - 1)

    def integers(
        self, vector: Float64[ndarray, "n"], random: np.random.Generator | None
    ) -> tuple[Int64[ndarray, "n"], int]:
        """Steps of each coordinate, and how many coordinates were clipped.

        Args:
            vector: finite.
            random: draws u; None rounds to nearest.
        """
        clipped = np.clip(vector, -self.bound, self.bound)
        shift = 0.5 if random is None else random.random(len(vector))
        steps = np.floor(clipped / self.step + shift).clip(-self.most, self.most).astype(np.int64)
        return steps, int(np.count_nonzero(clipped != vector))
