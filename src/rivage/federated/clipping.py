"""Bounding what one client can do.

    v' = v · min(1, norm / ‖v‖₂)

Each payload entry is bounded for itself: an update of several entries has a norm of at most norm · √entries. The norm
is taken of the difference to the broadcast where there is one, that is of the model update.

References:
    McMahan, Ramage, Talwar, Zhang. Learning differentially private recurrent language models. ICLR 2018,
    arXiv 1710.06963, section 2 (flat clipping).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from rivage.core.errors import require
from rivage.core.seeding import Streams
from rivage.federated.stages import Encoded

__all__ = ["Clip"]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Scales an update down to a norm; shorter ones pass bit for bit.

    Args:
        norm: largest Euclidean norm, to rounding, > 0.
    """

    linear: ClassVar[bool] = False
    role: ClassVar[Literal["bounds"]] = "bounds"
    feedback: ClassVar[bool] = False

    norm: float = 1.0

    def __post_init__(self) -> None:
        require(self.norm, "norm", above=0)

    def encode(self, vector: Float[ndarray, "d"], streams: Streams) -> Encoded:
        """The bounded vector; a vector that is not finite becomes NaN."""
        length = _length(vector)
        if length <= self.norm:
            return Encoded(vector)
        with np.errstate(invalid="ignore"):  # infinity times 0
            return Encoded((vector * (self.norm / length)).astype(vector.dtype))

    def decode(self, encoded: Encoded, dimension: int) -> Float[ndarray, "d"]:
        """Nothing is undone."""
        return encoded.vector

    def sends(self, dimension: int) -> int:
        """All of them."""
        return dimension

    def nbytes(self, dimension: int) -> int:
        """4 d."""
        return 4 * dimension


def _length(vector: ndarray) -> float:
    """Euclidean norm in float64, without overflow of the squares."""
    largest = float(np.abs(vector).max(initial=0.0))
    if not 0 < largest < np.inf:
        return largest
    return largest * float(np.linalg.norm(vector.astype(np.float64) / largest))
