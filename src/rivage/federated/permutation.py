"""A keyed bijection of [0, N), evaluated where it is asked.

A balanced Feistel network with Philox as round function walks on until it is back below N (cycle-walking). Memory is
that of what is asked, for N = 10 as for N = 10^9.

References:
    Black, Rogaway. Ciphers with arbitrary finite domains. CT-RSA 2002 (cycle-walking).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from rivage.core.philox import philox4x32

__all__ = ["Permutation"]

_Mix = Callable[[Any, Int64[ndarray, "m"]], Int64[ndarray, "m"]]
_Step = Callable[[Int64[ndarray, "m"], _Mix], Int64[ndarray, "m"]]

_FEISTEL_ROUNDS = 6
_TABULATED = 256  # values of a round function that are always worth a table


@dataclass(frozen=True, slots=True)
class Permutation:
    """A pseudo-random bijection of [0, size), evaluated where asked.

    Args:
        size: N, 1 <= N <= 2**62.
        key: 64-bit key; another key, another permutation.

    Example:
        >>> sorted(Permutation(5, key=1)(np.arange(5)).tolist())
        [0, 1, 2, 3, 4]
    """

    size: int
    key: int

    def __call__(self, positions: Int64[ndarray, "m"]) -> Int64[ndarray, "m"]:
        """Images of ``positions``; O(m) time and memory, at most 4 expected passes of cycle-walking."""
        return self._walked(positions, self._encrypt)

    def inverse(self, images: Int64[ndarray, "m"]) -> Int64[ndarray, "m"]:
        """The positions that have these images, at the same cost.

        Example:
            >>> order = Permutation(5, key=1)
            >>> order.inverse(order(np.arange(5))).tolist()
            [0, 1, 2, 3, 4]
        """
        return self._walked(images, self._decrypt)

    def _walked(self, values: Int64[ndarray, "m"], step: _Step) -> Int64[ndarray, "m"]:
        """Steps of a bijection of a power of four, until each value is below the size again."""
        mix = self._rounds(len(values))
        values = step(np.asarray(values, np.int64), mix)
        while (outside := np.flatnonzero(values >= self.size)).size:
            values[outside] = step(values[outside], mix)
        return values

    @property
    def _half_bits(self) -> int:
        return max(1, ((self.size - 1).bit_length() + 1) // 2)

    def _rounds(self, count: int) -> _Mix:
        """The round function (round, half) -> half; tabulated where it has no more values than will be asked for."""
        key, half = (self.key & 0xFFFFFFFF, self.key >> 32), 1 << self._half_bits

        def mix(feistel_round: int | Int64[ndarray, "m"], right: Int64[ndarray, "m"]) -> Int64[ndarray, "m"]:
            counter = np.zeros((len(right), 4), np.uint32)
            counter[:, 0], counter[:, 1] = right, feistel_round
            mixed: Int64[ndarray, "m"] = philox4x32(counter, key)[:, 0].astype(np.int64) & (half - 1)
            return mixed

        if half > max(_TABULATED, count):
            return mix
        numbers = np.arange(_FEISTEL_ROUNDS * half)
        table = mix(numbers // half, numbers % half).reshape(_FEISTEL_ROUNDS, half)
        return lambda feistel_round, right: table[feistel_round, right]

    def _encrypt(self, values: Int64[ndarray, "m"], mix: _Mix) -> Int64[ndarray, "m"]:
        left, right = self._halves(values)
        for feistel_round in range(_FEISTEL_ROUNDS):
            left, right = right, left ^ mix(feistel_round, right)
        result: Int64[ndarray, "m"] = (left << self._half_bits) | right
        return result

    def _decrypt(self, values: Int64[ndarray, "m"], mix: _Mix) -> Int64[ndarray, "m"]:
        left, right = self._halves(values)
        for feistel_round in reversed(range(_FEISTEL_ROUNDS)):
            left, right = right ^ mix(feistel_round, left), left
        result: Int64[ndarray, "m"] = (left << self._half_bits) | right
        return result

    def _halves(self, values: Int64[ndarray, "m"]) -> tuple[Int64[ndarray, "m"], Int64[ndarray, "m"]]:
        return values >> self._half_bits, values & ((1 << self._half_bits) - 1)
