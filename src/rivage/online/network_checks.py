"""Certificates of caching networks: the promised regret, and the gap to what no placement can exceed.

The best fixed placement of a network is NP-hard to find, so the regret is held against two sides of it: the maximum of
the relaxation, a linear program that lies above it, and the placement that greed finds, which lies below. Both stand in
the record, in the event ``optimum`` of every trial, so that checks compute nothing but sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.certificates import Certificate
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.core.trials import finished_trials
from rivage.online.chance import in_expectation

__all__ = ["network_gap", "network_regret"]

_ROUNDING = 1e-6  # relative, of the linear program

Seeds = Float64[ndarray, "seeds"]


@dataclass(frozen=True, slots=True, eq=False)
class _Games:
    """The games of one policy, one number per seed; NaN is what is not known.

    Args:
        factor: the share of the best placement that is promised.
        gain: of the policy.
        bound: what is promised about its regret.
        asked: cost of all requests without caches.
        relaxed: no placement gains more.
        placed: some placement gains this.
    """

    factor: Seeds
    gain: Seeds
    bound: Seeds
    asked: Seeds
    relaxed: Seeds
    placed: Seeds

    @classmethod
    def of(cls, record: RunRecord, method: str) -> _Games:
        """Those of a record.

        Raises:
            StoreError: when they have not been played to the end.
        """
        trials = finished_trials(record, method)
        ends = [trial.events("point")[-1] for trial in trials]
        best = [_optimum(trial) for trial in trials]
        return cls(
            factor=_column([trial.start["factor"] for trial in trials]),
            gain=_column([end["gain"] for end in ends]),
            bound=_column([end["bound"] for end in ends]),
            asked=_column([end["asked"] for end in ends]),
            relaxed=_column([each["relaxed"] for each in best]),
            placed=_column([each["placed"] for each in best]),
        )

    @property
    def seeds(self) -> str:
        """How many, in words."""
        return f"{len(self.gain)} seed{'s' * (len(self.gain) > 1)}"


def _optimum(trial: TrialRecord) -> dict[str, float | None]:
    return dict(trial.events("optimum")[0])


def _column(values: Sequence[float | None]) -> Seeds:
    return np.array([nan if value is None else value for value in values], np.float64)


def network_regret(record: RunRecord, *, method: str, confidence: float = 0.95) -> Certificate:
    """Is the expected gain at least factor times the best placement's, minus the bound?

    It holds when the mean over seeds stays within the bound of the relaxation, which is never below the best placement.
    It fails when it does not even stay within that of the greedy placement, and a one-sided t test over the seeds says
    that this is no chance. Between the two nobody can tell, nor where no more is promised than that less is lost than
    there is.
    """
    games = _Games.of(record, method)
    assert np.isfinite(games.factor).all(), "only for policies that promise something"
    above, below = (games.factor * best - games.gain for best in (games.relaxed, games.placed))
    allowed = games.bound + _ROUNDING * np.fmax(games.relaxed, games.placed)
    empty = bool((games.factor * games.relaxed).mean() <= games.bound.mean())
    kept, broken = (in_expectation((regret - allowed)[:, None], confidence) for regret in (above, below))
    known, factor = bool(np.isfinite(above).all()), float(games.factor.mean())
    return Certificate(
        kind="bound",
        claim=f"{method} gains {factor:.3g} of what the best fixed placement gains, or less by no more than it "
        "promises.",
        measured=float(above.mean()),
        reference=float(games.bound.mean()),
        method=f"{factor:.3g} times the maximum of the concave relaxation (a linear program, never below the best "
        f"placement), minus the gain, mean over {games.seeds}; against the bound from the feedback that "
        f"selectors were given. With the greedy placement instead: {below.mean():.6g}, of which a t test says whether "
        "it is above by chance. The promise is in expectation"
        + ("; it promises nothing here: nobody can lose as much" if empty else "")
        + ("" if known else "; the program is too large to be solved"),
        confidence=confidence,
        verdict="fails" if broken == "fails" else "no_power" if empty or kept != "holds" else "holds",
        check="network_regret",
        fields={"method": method, "confidence": confidence},
    )


def network_gap(record: RunRecord, *, method: str) -> Certificate:
    """How far is the gain from what no fixed placement can exceed?

    Both are shares of the cost without caches, means over seeds. A policy that changes its placement may come out
    above; a placement cannot: where greed found one above the relaxation, the reference is wrong, and the check fails.
    """
    games = _Games.of(record, method)
    wrong = bool((games.placed > games.relaxed + _ROUNDING * abs(games.relaxed)).any())
    gained, most, greedy = (float((each / games.asked).mean()) for each in (games.gain, games.relaxed, games.placed))
    known = bool(np.isfinite(most))
    return Certificate(
        kind="gap",
        claim=f"{method} saves {100 * gained:.3g} % of the cost, and "
        + (f"no fixed placement more than {100 * most:.3g} %." if known else "what a placement can save is not known."),
        measured=gained,
        reference=most if known else nan,
        method=f"mean gain over {games.seeds}"
        + (", and the maximum of the concave relaxation, both" if known else "; the program is too large to be solved;")
        + " over the cost without caches; greedy placement in hindsight saves "
        + (f"{100 * greedy:.3g} %" if np.isfinite(greedy) else "an unknown share"),
        confidence=None,
        verdict="fails" if wrong else "holds" if known else "no_power",
        check="network_gap",
        fields={"method": method},
    )
