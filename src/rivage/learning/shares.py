"""How much the neighbours of a client count beside its model: chosen on its own records, with or without its peers.

Every share on a grid is scored on records that the neighbours have not seen, by the metric that is reported where that
is a mean over records, else by the loss. One client's records say little, and what all clients say together is a good
prior: with S_m(λ) the sum of client m's scores and S̄(λ) the mean score of a record of all clients, the share is

    argmax_λ  S_m(λ) + κ S̄(λ) ,

κ records' worth of trust in the peers. κ = 0 asks nobody. A client without records to choose with takes the median of
the shares of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float64, Shaped
from numpy import ndarray
from torch import Tensor

from rivage.learning.losses import Loss
from rivage.learning.metrics import Metric
from rivage.learning.params import to_numpy

__all__ = ["SHARES", "Evidence", "Peers", "score"]

SHARES: tuple[float, ...] = tuple(step / 20 for step in range(21))
"""What is tried."""

_LEVEL = 1e-9  # a smaller share is taken where scores differ by less, relatively: rounding must not decide


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What some records say of every share in `SHARES`.

    Args:
        total: sum of their scores; the higher, the better.
        records: how many they are.
    """

    total: Float64[ndarray, "shares"]
    records: int

    @property
    def mean(self) -> Float64[ndarray, "shares"]:
        """Score of one record; there is one."""
        result: ndarray = self.total / self.records
        return result

    def share(self, prior: Evidence | None = None, trust: float = 0.0) -> float:
        """The best share, the smallest of equals; with ``trust`` records' worth of a prior."""
        total = self.total if prior is None else self.total + trust * prior.mean
        best = float(total.max())
        return SHARES[int(np.flatnonzero(total >= best - _LEVEL * max(1.0, abs(best)))[0])]


def score(
    predictions: Float[Tensor, "n *output"],
    remembered: Float[Tensor, "n *output"],
    y: Shaped[Tensor, "n *target"],
    metric: Metric,
    loss: Loss,
) -> Evidence:
    """Score every share; O(shares · n).

    Args:
        predictions: of the model, on records that are not for test.
        remembered: of the neighbours, who have not seen these records.
        y: their targets.
        metric: of predictions; used if it is additive.
        loss: of predictions; used otherwise.
    """
    mixtures = ((1 - share) * predictions + share * remembered for share in SHARES)
    if metric.kind == "additive":
        sign, target = (1 if metric.higher_is_better else -1), to_numpy(y)
        totals = [sign * float(metric.per_record(to_numpy(mixture), target).sum()) for mixture in mixtures]
    else:
        totals = [-float(loss.of_predictions(mixture, y).double().sum()) for mixture in mixtures]
    return Evidence(np.array(totals), len(y))


@dataclass(slots=True)
class Peers:
    """What clients have said of shares so far.

    Args:
        chosen: shares that clients chose by themselves.
        said: their evidence, all together; None while there is none.
    """

    chosen: list[float] = field(default_factory=list)
    said: Evidence | None = None

    def hear(self, evidence: Sequence[Evidence]) -> None:
        """Take in what further clients say."""
        self.chosen += [each.share() for each in evidence]
        for each in evidence:
            self.said = (
                each if self.said is None else Evidence(self.said.total + each.total, self.said.records + each.records)
            )

    def share(self, evidence: Evidence | None, trust: float) -> float:
        """For a client with this evidence; 0 where nobody can tell."""
        if evidence is not None:
            return evidence.share(self.said, trust)
        if trust and self.said is not None:
            return self.said.share()
        return float(np.median(self.chosen)) if self.chosen else 0.0
