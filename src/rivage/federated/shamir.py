"""Shamir's secret sharing: t shares of n determine a secret, t − 1 say nothing about it.

A secret is a number s below the prime p = 2²⁵⁶ + 297, the smallest that is larger than any 32 bytes. It is the constant
term of a polynomial of degree t − 1 with the other coefficients uniform,

    f(x) = s + a_1 x + … + a_{t−1} x^{t−1}  mod p,

and the share of holder x ≠ 0 is f(x). From t shares, s = Σ_i f(x_i) Π_{j≠i} x_j / (x_j − x_i). Coefficients are drawn
as 384 bits modulo p, which misses the uniform law by less than 2⁻¹²⁶.

A share takes 33 bytes. Sharing costs O(n t) products of 256-bit numbers, joining O(t²).

References:
    Shamir. How to share a secret. Communications of the ACM 22 (11), 1979.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rivage.core.errors import ProtocolError

__all__ = ["PRIME", "SECRET_BYTES", "SHARE_BYTES", "join", "split"]

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33
_DRAWN_BYTES = 48  # per coefficient


def split(secret: bytes, holders: Sequence[int], threshold: int, draw: Callable[[int], bytes]) -> list[bytes]:
    """A share for each holder.

    Args:
        secret: 32 bytes.
        holders: distinct numbers, 0 < x < p.
        threshold: t, 1 <= t <= number of holders.
        draw: so many uniform bytes.
    """
    assert len(secret) == SECRET_BYTES, "a secret has 32 bytes"
    assert 1 <= threshold <= len(holders) == len(set(holders)), "at least t distinct holders"
    coefficients = [int.from_bytes(draw(_DRAWN_BYTES)) % PRIME for _ in range(threshold - 1)]
    coefficients.append(int.from_bytes(secret))
    return [_value(coefficients, holder).to_bytes(SHARE_BYTES) for holder in holders]


def _value(coefficients: Sequence[int], x: int) -> int:
    """Horner's rule, highest power first."""
    assert 0 < x < PRIME, "the secret itself is the value at 0"
    total = 0
    for coefficient in coefficients:
        total = (total * x + coefficient) % PRIME
    return total


def join(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret, from the first t of these shares in the order of their holders.

    Args:
        shares: by holder, at least t of them.
        threshold: t.

    Raises:
        ProtocolError: when no secret has these shares, which is seen only if their value at 0 is too large.
    """
    assert len(shares) >= threshold, "fewer than t shares say nothing"
    points = {holder: int.from_bytes(shares[holder]) for holder in sorted(shares)[:threshold]}
    secret = sum(value * _weight(holder, points) for holder, value in points.items()) % PRIME
    if secret >= 2 ** (8 * SECRET_BYTES):
        raise ProtocolError("shares belong to no secret", mend="Find the client that sent a wrong share.")
    return secret.to_bytes(SECRET_BYTES)


def _weight(x: int, points: Mapping[int, int]) -> int:
    """Of the value at x in the value at 0."""
    above = below = 1
    for other in points:
        if other != x:
            above, below = above * other % PRIME, below * (other - x) % PRIME
    return above * pow(below, -1, PRIME)
