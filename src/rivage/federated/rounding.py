"""Two bytes per number: float16 and bfloat16, rounded to nearest, ties to even.

float16 has 11 significant bits and numbers up to 65504, bfloat16 has 8 and the range of float32. A finite number beyond
the range becomes the largest finite one of its sign, never infinity: one large coordinate of a sound update must not
get the client rejected. NaN and infinity stay, so that the server sees that a client diverged. Numbers of a float64 run
are rounded once, not through float32, unless top_k stands before and has made them float32.

Rounding alone keeps no residual; behind top_k its error is part of that stage's residual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

from rivage.core.seeding import Streams
from rivage.federated.stages import Encoded, narrow

__all__ = ["BFloat16", "Float16"]

_SIGN, _LARGEST = np.uint32(0x8000), np.uint32(0x7F7F)


@dataclass(frozen=True, kw_only=True)
class Float16:
    """Sends numbers as IEEE float16."""

    linear: ClassVar[bool] = False
    role: ClassVar[Literal["rounds"]] = "rounds"
    feedback: ClassVar[bool] = False

    def encode(self, vector: Float[ndarray, "d"], streams: Streams) -> Encoded:
        """The rounded numbers."""
        return Encoded(narrow(vector, np.float16))

    def decode(self, encoded: Encoded, dimension: int) -> Float[ndarray, "d"]:
        """The same numbers in float32."""
        with np.errstate(invalid="ignore"):  # some forms of NaN complain
            return encoded.vector.astype(np.float32)

    def sends(self, dimension: int) -> int:
        """All of them."""
        return dimension

    def nbytes(self, dimension: int) -> int:
        """2 d."""
        return 2 * dimension


@dataclass(frozen=True, kw_only=True)
class BFloat16:
    """Sends numbers as bfloat16, the upper half of a float32; on the wire they are uint16."""

    linear: ClassVar[bool] = False
    role: ClassVar[Literal["rounds"]] = "rounds"
    feedback: ClassVar[bool] = False

    def encode(self, vector: Float[ndarray, "d"], streams: Streams) -> Encoded:
        """The codes of the rounded numbers."""
        bits = _odd(vector).view(np.uint32)
        codes = (bits + np.uint32(0x7FFF) + (bits >> 16 & np.uint32(1))) >> 16
        sign = bits >> 16 & _SIGN
        codes = np.where(np.isfinite(vector), np.minimum(codes & np.uint32(0x7FFF), _LARGEST) | sign, bits >> 16)
        codes = np.where(np.isnan(vector), sign | np.uint32(0x7FC0), codes)
        return Encoded(codes.astype(np.uint16))

    def decode(self, encoded: Encoded, dimension: int) -> Float32[ndarray, "d"]:
        """The numbers the codes stand for, in float32."""
        numbers: ndarray = (encoded.vector.astype(np.uint32) << 16).view(np.float32)
        return numbers

    def sends(self, dimension: int) -> int:
        """All of them."""
        return dimension

    def nbytes(self, dimension: int) -> int:
        """2 d."""
        return 2 * dimension


def _odd(vector: Float[ndarray, "d"]) -> Float32[ndarray, "d"]:
    """As float32, rounded to odd: towards zero, and inexact ones get an odd last bit.

    A second rounding to fewer bits then gives what one rounding of the original would give (Boldo, Melquiond, IEEE
    Transactions on Computers 2008).
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        near = vector.astype(np.float32)
    if vector.dtype == np.float32:
        return near
    exact = near.astype(vector.dtype) == vector
    bits = near.view(np.uint32)
    bits = np.where(np.abs(near).astype(vector.dtype) > np.abs(vector), bits - np.uint32(1), bits)
    odd: ndarray = np.where(exact | np.isnan(vector), bits, bits | np.uint32(1)).astype(np.uint32).view(np.float32)
    return odd
