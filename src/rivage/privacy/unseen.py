"""Is an attack better on the records that were trained on than on others of the same clients?

Clients differ in how easily they are guessed and in how many of their records are held out. Pooled, the trained records
may therefore fare better where no client's do (Simpson's paradox). Both tests compare within clients only:

- **right or wrong**: if training makes no difference, how many of a client's k right guesses fall on its n trained
  records, and not on its m others, is hypergeometric; their sum over clients has the convolution of these laws. The
  p-value is exact, and that of Fisher's test where there is one client;
- **errors**: the mean difference within clients, weighted by nm / (n + m) (least variance where all deviations are
  equal), over its deviation, which is estimated in either part of every client; degrees of freedom by Welch and
  Satterthwaite. With one client it is Welch's test. Clients with one record in either part have no deviation and are
  left out.

Cost: O(N²) for N trained records of right or wrong, O(N) for errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from scipy.stats import hypergeom, t

__all__ = ["as_guessed", "errors_test", "rights_test"]

Strata = Sequence[tuple[Float64[ndarray, "n"], Float64[ndarray, "m"]]]
"""Per client how far off its trained records are, and its others; of right or wrong 0 or 1."""


def rights_test(strata: Strata) -> float:
    """P-value of "no more often right on trained records".

    Example:
        >>> round(rights_test([(np.zeros(10), np.array([0.0, 1.0]))]), 4)  # 10 of 10 against 1 of 2
        0.1667
    """
    law, least, found = np.ones(1), 0, 0
    for trained, others in strata:
        n, m, right = len(trained), len(others), int((trained == 0).sum())
        both = right + int((others == 0).sum())
        low = max(0, both - m)
        law = np.convolve(law, hypergeom.pmf(np.arange(low, min(n, both) + 1), n + m, both, n))
        least, found = least + low, found + right
    return min(float(law[found - least :].sum()), 1.0)


def errors_test(strata: Strata) -> float:
    """P-value of "no smaller errors on trained records"; 1 where nothing varies."""
    gain = spread = wobble = 0.0
    for trained, others in strata:
        n, m = len(trained), len(others)
        if min(n, m) < 2:
            continue
        weight, parts = n * m / (n + m), (trained.var(ddof=1) / n, others.var(ddof=1) / m)
        gain += weight * float(others.mean() - trained.mean())
        spread += weight**2 * float(sum(parts))
        wobble += weight**4 * float(parts[0] ** 2 / (n - 1) + parts[1] ** 2 / (m - 1))
    return float(t.sf(gain / math.sqrt(spread), spread**2 / wobble)) if wobble > 0 else 1.0


def as_guessed(guess: Float64[ndarray, "n"], size: int) -> Float64[ndarray, "size"]:
    """So many records that a baseline guesses as it does those of ``guess``: evenly spaced quantiles."""
    result: ndarray = np.quantile(guess, (np.arange(size) + 0.5) / size, method="inverted_cdf")
    return result
