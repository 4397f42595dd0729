"""Secret sharing: joined from any t shares, nothing in fewer, and the edges of the field."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from rivage.core.errors import ProtocolError
from rivage.federated.shamir import PRIME, SECRET_BYTES, SHARE_BYTES, join, split

SECRETS = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)


def shares_of(secret: bytes, holders: list[int], threshold: int, seed: int = 0) -> dict[int, bytes]:
    return dict(zip(holders, split(secret, holders, threshold, np.random.default_rng(seed).bytes), strict=True))


def value(share: bytes) -> int:
    return int.from_bytes(share)


def test_the_modulus_is_prime_and_the_smallest_beyond_any_secret() -> None:
    """Fermat's test to 20 bases: a composite that passes it is unheard of outside Carmichael's numbers."""

    def probably_prime(n: int) -> bool:
        return all(pow(base, n - 1, n) == 1 for base in range(2, 22))

    assert probably_prime(PRIME)
    assert not any(probably_prime(2**256 + offset) for offset in range(297))
    assert PRIME < 2 ** (8 * SHARE_BYTES)


@given(SECRETS, st.lists(st.integers(1, 2**63), min_size=1, max_size=7, unique=True), st.data())
def test_any_t_shares_give_the_secret(secret: bytes, holders: list[int], data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, len(holders)))
    shares = shares_of(secret, holders, threshold)
    for chosen in combinations(holders, threshold):
        assert join({holder: shares[holder] for holder in chosen}, threshold) == secret
    assert join(shares, threshold) == secret


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, bytes(31) + b"\x01"])
def test_extreme_secrets(secret: bytes) -> None:
    assert join(shares_of(secret, [1, 2, 3], 2), 2) == secret


def test_with_threshold_one_every_share_is_the_secret() -> None:
    assert {value(share) for share in shares_of(bytes(31) + b"\x07", [1, 9], 1).values()} == {7}


def test_by_hand() -> None:
    """Coefficients 5 and 7 and secret 3: f(x) = 3 + 7x + 5x² is 15 at 1 and 37 at 2."""
    drawn = iter([5, 7])
    shares = split(bytes(31) + b"\x03", [1, 2], 2, lambda count: next(drawn).to_bytes(count))
    assert [value(share) for share in shares] == [8, 13]  # degree 1: 3 + 5x
    drawn = iter([5, 7])
    shares = split(bytes(31) + b"\x03", [1, 2, 3], 3, lambda count: next(drawn).to_bytes(count))
    assert [value(share) for share in shares] == [15, 37, 69]


def test_fewer_shares_fit_every_secret_and_are_uniform_whatever_it_is() -> None:
    """Two of three shares: any other secret has a polynomial through them; their law does not depend on the secret.

    False alarm: 4 tests at 1e-4.
    """
    holders = [1, 4, 6]
    shares = shares_of(b"\x11" * 32, holders, 3)
    for other in (bytes(32), b"\xfe" * 32):
        points = {0: value(other)} | {holder: value(shares[holder]) for holder in holders[:2]}
        third = sum(y * _lagrange(x, 6, list(points)) for x, y in points.items()) % PRIME
        forged = {1: shares[1], 4: shares[4], 6: int(third).to_bytes(SHARE_BYTES)}
        assert join(forged, 3) == other
    for secret in (bytes(32), b"\xff" * 32):
        drawn = [shares_of(secret, holders, 3, seed) for seed in range(2000)]
        for holder in holders[:2]:
            bins = np.bincount([value(each[holder]) >> 252 for each in drawn], minlength=17)[:16]
            assert chisquare(bins).pvalue > 1e-4


def _lagrange(x: int, at: int, nodes: list[int]) -> int:
    result = 1
    for other in nodes:
        if other != x:
            result = result * (at - other) * pow(x - other, -1, PRIME) % PRIME
    return result


def test_shares_of_nothing_are_seen_when_their_value_is_no_secret() -> None:
    too_large = (PRIME - 1).to_bytes(SHARE_BYTES)
    with pytest.raises(ProtocolError, match="belong to no secret"):
        join({1: too_large, 2: too_large}, 2)


def test_our_own_mistakes_are_caught() -> None:
    draw = np.random.default_rng(0).bytes
    for holders, threshold in (([1, 1], 1), ([1], 2), ([0, 1], 1), ([1], 0)):
        with pytest.raises(AssertionError):
            split(bytes(32), holders, threshold, draw)
    with pytest.raises(AssertionError):
        join({1: bytes(33)}, 2)
