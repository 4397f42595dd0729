"""Who exchanges masks with whom, and what may go wrong by chance.

Clients stand on a circle in random order; each is connected to the k/2 nearest on either side (a Harary graph, the
densest connection for its degree). With k = n − 1 everyone is connected to everyone.

Every secret of a client is shared among itself and its k neighbours, and t of these k + 1 recover it. Of n clients, let
L be lost and C collude with the server, anywhere. The k neighbours of a client are a uniform sample of the n − 1
others, so the number of lost ones among them is hypergeometric, and with the union bound

    P[some secret cannot be recovered]    ≤ (n − L) P[Hyp(n − 1, L, k) > k + 1 − t] + L P[Hyp(n − 1, L − 1, k) > k − t]
    P[a client's secrets are all exposed] ≤ n P[Hyp(n − 1, C, k) ≥ t].

A lost client's own share is lost with it. The second line is what an honest but curious server may hope for; that the
graph falls apart with the colluders left out is less likely by far and is not counted.

References:
    Bell, Bonawitz, Gascón, Lepoint, Raykova. Secure single-server aggregation with (poly)logarithmic overhead. CCS
    2020 (the graph, and the conditions on it).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from jaxtyping import Int64
from numpy import ndarray

__all__ = ["chances", "degree", "neighbours", "threshold"]

_PER_BIT = 6  # neighbours per binary digit of the number of clients, our rule: see the chances it gives


def degree(clients: int, wanted: int | None = None) -> int:
    """Neighbours of each client.

    Args:
        clients: n, >= 1.
        wanted: k, rounded up to an even number; None takes 6 log₂ n.
    """
    k = math.ceil(_PER_BIT * math.log2(clients)) if wanted is None else wanted
    return min(k + k % 2, clients - 1)


def threshold(share: float, k: int) -> int:
    """Shares that recover a secret: more than this share of its k + 1 holders."""
    return math.floor(share * (k + 1)) + 1


def neighbours(order: Int64[ndarray, "n"], k: int) -> Mapping[int, tuple[int, ...]]:
    """The neighbours of every client, ascending.

    Args:
        order: clients as they stand on the circle.
        k: even, or n − 1.
    """
    ring, n = order.tolist(), len(order)
    if k >= n - 1:
        return {client: tuple(sorted(other for other in ring if other != client)) for client in ring}
    steps = [step for step in range(-k // 2, k // 2 + 1) if step]
    return {client: tuple(sorted(ring[(place + step) % n] for step in steps)) for place, client in enumerate(ring)}


def chances(clients: int, k: int, t: int, *, lost: int = 0, colluding: int = 0) -> tuple[float, float]:
    """Bounds of the two probabilities above, at most 1.

    Args:
        clients: n.
        k: neighbours of each.
        t: shares that recover a secret.
        lost: L, clients that leave before the last stage.
        colluding: C, clients that tell the server all they know.
    """
    from scipy.stats import hypergeom

    others = clients - 1
    of_a_survivor, of_a_lost_one = (hypergeom.sf(k + own - t, others, lost - 1 + own, k) for own in (1, 0))
    unrecovered = (clients - lost) * of_a_survivor + lost * of_a_lost_one if lost else 0.0
    exposed = clients * hypergeom.sf(t - 1, others, colluding, k) if colluding else 0.0
    return min(1.0, float(unrecovered)), min(1.0, float(exposed))
