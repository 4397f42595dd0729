"""Gaussian noise that a client adds to its own update: nobody else need be trusted.

    v' = v + N(0, s² I),        ‖v‖ ≤ S by the stage ``clip`` in front

Each message is protected by itself, against whoever reads it. That a client took part is seen, so the relation is to
*replace* all its data by any others: two clipped updates differ by up to 2 S, and the noise multiplier is s / (2 S).
All rounds a client takes part in are composed. The mean of m clients has noise s/√m, √m times that of a trusted server
that adds it once: the price of trusting nobody.

References:
    Dwork, Roth. The algorithmic foundations of differential privacy. 2014, appendix A (the Gaussian mechanism).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.federated.stages import Encoded

__all__ = ["GaussianNoise"]


@dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """Adds noise to every coordinate; ``clip`` has to stand before it.

    Args:
        deviation: standard deviation s per coordinate, > 0.
        delta: δ at which the ε of this noise is told, in (0, 1).
    """

    linear: ClassVar[bool] = False
    role: ClassVar[Literal["bounds"]] = "bounds"
    feedback: ClassVar[bool] = False

    deviation: float = 1.0
    delta: float = 1e-5

    def __post_init__(self) -> None:
        require(self.deviation, "deviation", above=0)
        if not 0 < self.delta < 1:
            raise ConfigError(f"delta is {self.delta}", mend="Give a probability above 0 and below 1.")

    def encode(self, vector: Float[ndarray, "d"], streams: Streams) -> Encoded:
        """The vector with its noise, another one for every client, round and entry."""
        noise = streams.numpy("noise").standard_normal(vector.size)
        return Encoded((vector + self.deviation * noise).astype(vector.dtype))

    def decode(self, encoded: Encoded, dimension: int) -> Float[ndarray, "d"]:
        """Nothing is undone."""
        decoded: ndarray = np.asarray(encoded.vector)
        return decoded

    def sends(self, dimension: int) -> int:
        """All of them."""
        return dimension

    def nbytes(self, dimension: int) -> int:
        """4 d."""
        return 4 * dimension
