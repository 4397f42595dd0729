"""How many neighbours secure aggregation needs: with masks between all clients n − 1, on a circle of neighbours few."""

from __future__ import annotations

from rivage.federated.secagg_graph import chances, threshold
from rivage.studies.claims.claim import Claim, Outcome

__all__ = ["CLAIMS"]

_CLIENTS, _DENSE = 10**9, 1000
_SHARE = 0.2  # of the clients leaves, and as many collude with the server
_READ, _HIDDEN = 2.0**-30, 2.0**-40  # chances that a round cannot be read, that a client is exposed


def _neighbours(clients: int) -> int:
    """The fewest, an even number, with which both chances are below what is asked."""
    count = int(_SHARE * clients)
    for k in range(2, clients, 2):
        unread, exposed = chances(clients, k, threshold(0.5, k), lost=count, colluding=count)
        if unread <= _READ and exposed <= _HIDDEN:
            return k
    return clients - 1


def _billion() -> Outcome:
    needed = {clients: _neighbours(clients) for clients in (10**3, 10**4, 10**6, _CLIENTS)}
    detail = ", ".join(f"{k} of {clients:.0e}" for clients, k in needed.items())
    measured = needed[_CLIENTS] / (_DENSE - 1)
    return Outcome(measured, "holds" if measured <= 1 else "fails", f"neighbours needed: {detail}")


CLAIMS = (
    Claim(
        name="secagg-billion-clients",
        paper="bell20",
        where="abstract",
        statement="A client among a billion exchanges keys, shares and masks with no more others than one among a "
        "thousand does when all do with all, while a fifth leaves and a fifth colludes with the server (share of 999 "
        "neighbours; rounds unread below 2^-30, clients exposed below 2^-40).",
        expected="at most 1",
        tolerance=0.0,
        cost="quick",
        run=_billion,
    ),
)
