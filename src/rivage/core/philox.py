"""Philox4x32-10, a counter-based generator, vectorised over ids.

Whatever is drawn for many ids at once (attributes, availability, batch order) is a pure function of
(seed, id, time, stream): nothing is stored, and any single value can be replayed alone.

Counter words are (id low, id high, t, stream), the key is the 64-bit seed.

References:
    Salmon, Moraes, Dror, Shaw. Parallel random numbers: as easy as 1, 2, 3. SC 2011, section 4.3.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64, UInt32
from numpy import ndarray

__all__ = ["philox4x32", "uniforms"]

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_INCREMENTS = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


Key = tuple[int, int] | tuple[UInt32[ndarray, "*n"], UInt32[ndarray, "*n"]]


def philox4x32(counter: UInt32[ndarray, "*n 4"], key: Key) -> UInt32[ndarray, "*n 4"]:
    """Ten rounds of Philox4x32 on every counter block.

    Args:
        counter: four 32-bit words per block.
        key: two 32-bit words, the same for all blocks or own ones for each.

    Returns:
        Four random 32-bit words per block. O(n) time, a few temporaries of the size of the input.
    """
    c0, c1, c2, c3 = (counter[..., word].astype(np.uint64) for word in range(4))
    k0, k1 = (np.asarray(word, np.uint64) for word in key)
    for _ in range(_ROUNDS):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = (product1 >> _HALF) ^ c1 ^ k0, (product0 >> _HALF) ^ c3 ^ k1
        c1, c3 = product1 & _LOW, product0 & _LOW
        k0, k1 = (k0 + _KEY_INCREMENTS[0]) & _LOW, (k1 + _KEY_INCREMENTS[1]) & _LOW
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def uniforms(
    seed: int, ids: Int64[ndarray, "*n"], t: int | Int64[ndarray, "*n"], stream: int
) -> Float64[ndarray, "*n 2"]:
    """Two independent uniforms on [0, 1) with 53 bits for every (id, t) of one stream.

    Args:
        seed: 64-bit key.
        ids: client or record numbers, 0 <= id < 2**63.
        t: round or position, below 2**32; one for all or one per id.
        stream: which consumer, below 2**32.
    """
    ids = np.asarray(ids, np.int64)
    words = ids.astype(np.uint64)
    counter = np.empty((*ids.shape, 4), np.uint32)
    counter[..., 0] = words & _LOW
    counter[..., 1] = words >> _HALF
    counter[..., 2] = t
    counter[..., 3] = stream
    block = philox4x32(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)).astype(np.uint64)
    high, low = block[..., 0::2] >> np.uint64(5), block[..., 1::2] >> np.uint64(6)
    result: Float64[ndarray, "*n 2"] = (high * 67108864.0 + low) / 9007199254740992.0
    return result
