"""Certificates of caching networks: the promised regret, and the gap to what no placement can exceed.

The best fixed placement of a network is NP-hard to find, so the regret is held against two sides of it: the maximum of
the relaxation, a linear program that lies above it, and the placement that greed finds, which lies below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.certificates import Certificate
from rivage.online.cache_networks import CacheNetwork, NetworkPlayed
from rivage.online.chance import in_expectation
from rivage.online.network_optimum import relaxed_optimum, tabular_greedy

__all__ = ["NetworkRecord", "network_gap", "network_regret"]

_ROUNDING = 1e-6  # relative, of the linear program


@dataclass(frozen=True, slots=True, eq=False)
class NetworkRecord:
    """What the certificates read: games of one policy with the same requests and different seeds.

    Args:
        method: name of the policy.
        factor: the share of the best placement that it promises; None for policies that promise nothing.
        gains: of each seed.
        bounds: what each seed promises about its regret; NaN where it promises nothing.
        relaxed: no placement gains more.
        placed: some placement gains this.
        asked: cost of all requests without caches.
    """

    method: str
    factor: float | None
    gains: Float64[ndarray, "seeds"]
    bounds: Float64[ndarray, "seeds"]
    relaxed: float
    placed: float
    asked: float

    @classmethod
    def of(
        cls,
        method: str,
        policy: object,
        instance: CacheNetwork,
        requests: Int64[ndarray, "n"],
        games: Sequence[NetworkPlayed],
    ) -> NetworkRecord:
        """From games of these requests; solves the program and places greedily."""
        counts = instance.counts(requests)
        factor = getattr(policy, "factor", None)
        bounds = [np.nan if game.last["bound"] is None else float(game.last["bound"]) for game in games]
        return cls(
            method=method,
            factor=None if factor is None else float(factor(instance)),
            gains=np.array([float(game.last["gain"]) for game in games]),
            bounds=np.array(bounds),
            relaxed=relaxed_optimum(instance, counts).value,
            placed=tabular_greedy(instance, counts).value,
            asked=float(counts @ instance.costs),
        )


def network_regret(record: NetworkRecord, *, confidence: float = 0.95) -> Certificate:
    """Is the expected gain at least factor times the best placement's, minus the bound?

    It holds when the mean over seeds stays within the bound of the relaxation, which is never below the best placement.
    It fails when it does not even stay within that of the greedy placement, and a one-sided t test over the seeds says
    that this is no chance. Between the two nobody can tell, nor where the promise is that no more is lost than there is.
    """
    assert record.factor is not None, "only for policies that promise something"
    above, below = (record.factor * best - record.gains for best in (record.relaxed, record.placed))
    slack = record.bounds + _ROUNDING * record.relaxed
    empty = record.factor * record.relaxed <= record.bounds.mean()
    kept, broken = (in_expectation((regret - slack)[:, None], confidence) for regret in (above, below))
    return Certificate(
        kind="bound",
        claim=f"{record.method} gains {record.factor:.3g} of what the best fixed placement gains, or less by no more "
        "than it promises.",
        measured=float(above.mean()),
        reference=float(record.bounds.mean()),
        method=f"{record.factor:.3g} times the maximum of the concave relaxation (a linear program, never below the "
        f"best placement), minus the mean gain over {len(record.gains)} seeds; against the bound from the feedback "
        f"that selectors were given. With the greedy placement instead: {below.mean():.6g}, of which a t test says "
        "whether it is above by chance. The promise is in expectation"
        + ("; it promises nothing here: nobody can lose as much" if empty else ""),
        confidence=confidence,
        verdict="no_power" if empty else kept if kept == "holds" else broken if broken == "fails" else "no_power",
        check="network_regret",
        fields={"method": record.method, "confidence": confidence},
    )


def network_gap(record: NetworkRecord) -> Certificate:
    """How far is the gain from what no fixed placement can exceed?

    Both are shares of the cost without caches. A policy that changes its placement may come out above.
    """
    gained, most = float(record.gains.mean() / record.asked), record.relaxed / record.asked
    return Certificate(
        kind="gap",
        claim=f"{record.method} saves {100 * gained:.3g} % of the cost, and no fixed placement more than "
        f"{100 * most:.3g} %.",
        measured=gained,
        reference=most,
        method=f"mean gain over {len(record.gains)} seeds, and the maximum of the concave relaxation, both over the "
        f"cost without caches; greedy placement in hindsight saves {100 * record.placed / record.asked:.3g} %",
        confidence=None,
        verdict="holds",
        check="network_gap",
        fields={"method": record.method},
    )
