"""Philox4x32-10, a counter-based generator, vectorised over ids.

Whatever is drawn for many ids at once (attributes, availability, batch order) is a pure function of
(seed, id, time, stream): nothing is stored, and any single value can be replayed alone.

Counter words are (id low, id high, t, stream), the key is the 64-bit seed.

References:
    Salmon, Moraes, Dror, Shaw. Parallel random numbers: as easy as 1, 2, 3. SC 2011, section 4.3.
"""

from __future__ import annotations

import sys

import numpy as np
from jaxtyping import Float64, Int64, UInt32
from numpy import ndarray

__all__ = ["philox4x32", "uniforms"]

_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
_KEY_INCREMENTS = np.array([[0x9E3779B9], [0xBB67AE85]], np.uint32)
_ROUNDS = 10
_LOW, _HIGH = (0, 1) if sys.byteorder == "little" else (1, 0)  # where the halves of a 64-bit product lie

Key = tuple[int, int] | tuple[UInt32[ndarray, "*n"], UInt32[ndarray, "*n"]]


def philox4x32(counter: UInt32[ndarray, "*n 4"], key: Key) -> UInt32[ndarray, "*n 4"]:
    """Ten rounds of Philox4x32 on every counter block.

    Args:
        counter: four 32-bit words per block.
        key: two 32-bit words, the same for all blocks or own ones for each.

    Returns:
        Four random 32-bit words per block. O(n) time, a few temporaries of the size of the input.
    """
    words = np.ascontiguousarray(counter.reshape(-1, 4).T)
    even, odd = words[0::2], words[1::2]  # two words side by side: half as many array operations
    keys = np.array([np.asarray(half, np.uint32).reshape(-1) for half in key])
    for _ in range(_ROUNDS):
        halves = np.multiply(even, _MULTIPLIERS, dtype=np.uint64)[::-1].view(np.uint32)  # of each product
        even = halves[:, _HIGH::2] ^ odd
        even ^= keys
        odd = halves[:, _LOW::2]
        keys = keys + _KEY_INCREMENTS  # modulo 2^32
    result = np.empty((len(even[0]), 4), np.uint32)
    result[:, 0::2], result[:, 1::2] = even.T, odd.T
    return result.reshape(counter.shape)


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
    counter[..., 0] = words & np.uint64(0xFFFFFFFF)
    counter[..., 1] = words >> np.uint64(32)
    counter[..., 2] = t
    counter[..., 3] = stream
    block = philox4x32(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)).astype(np.uint64)
    high, low = block[..., 0::2] >> np.uint64(5), block[..., 1::2] >> np.uint64(6)
    result: Float64[ndarray, "*n 2"] = (high * 67108864.0 + low) / 9007199254740992.0
    return result
