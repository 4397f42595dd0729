"""From fractions to whole items: random 0/1 arrays z with E[z] = x.

=====================  ================  ==============  =============================================================
function               size Σ z          draws           use
=====================  ================  ==============  =============================================================
`madow`                exactly Σ x       1               one sample; a fresh draw each slot moves much (a baseline)
`Coupled`              exactly Σ x       1 in all        the same draw in every slot: moves little when x moves little
`dep_round`            exactly Σ x       one per entry   negatively correlated; unequal sizes
`elementary_jump`      1                 2 per slot      k = 1 and distributions: moves as rarely as possible
`poisson`              Σ x on average    one per entry   independent items; with permanent draws moves ‖x' − x‖₁
`poisson_hard`         at most capacity  one per entry   the same without what does not fit
=====================  ================  ==============  =============================================================

Results are int8. Entries of x must lie in [0, 1] (to 1e-9, clipped); fixed sizes need an integer Σ x, to
1e-6 or 1e-9 relative, whichever is more: what long sums leave over goes to one entry. Draws are uniform on [0, 1).

References:
    Madow. On the theory of systematic sampling, II. Annals of Mathematical Statistics, 1949.
    Srinivasan. Distributions on level-sets with applications to approximation algorithms. FOCS 2001.
    Gandhi, Khuller, Parthasarathy, Srinivasan. Dependent rounding and its applications to approximation algorithms.
    Journal of the ACM, 2006.
    Brewer, Early, Joyce. Selecting several samples from a single population. Australian Journal of Statistics, 1972
    (Poisson sampling with permanent random numbers).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int8, Int64
from numba import njit
from numpy import ndarray

from rivage.core.errors import ConfigError, DataError, ShapeError

__all__ = ["Coupled", "Hard", "dep_round", "elementary_jump", "madow", "pipage", "poisson", "poisson_hard"]

Vector = Float64[ndarray, "n"]
Choice = Int8[ndarray, "n"]

_TOLERANCE = 1e-9
_SUM_TOLERANCE = 1e-6  # of sums up to 1000, 1e-9 relative above


class Hard(NamedTuple):
    """What `poisson_hard` decided.

    Args:
        chosen: 0/1 array with at most ``capacity`` ones.
        refused: items that were drawn and did not fit.
    """

    chosen: Choice
    refused: Int64[ndarray, "m"]


def madow(x: Vector, xi: float) -> Choice:
    """Systematic sampling: item i is chosen iff ξ plus some integer lies in (S_(i−1), S_i], S_i = x_1 + … + x_i.

    Exactly Σ x items, each with probability x_i. Entries 1 are always and entries 0 never chosen: they would move S by
    whole steps, so only the others are summed. The order of the items is arbitrary. O(n).

    Args:
        x: inclusion probabilities with an integer sum.
        xi: the draw ξ; 0 stands for 1.

    Raises:
        DataError: for entries outside [0, 1] and for sums that are not integers.
    """
    x = _probabilities(x)
    size = _size(x)
    chosen: Choice = (x == 1).astype(np.int8)
    open_items = np.flatnonzero((x > 0) & (x < 1))
    left = size - int(chosen.sum())
    chosen[_systematic(x[open_items], xi if xi > 0 else 1.0, open_items, left)] = 1
    return chosen


@dataclass(frozen=True, slots=True)
class Coupled:
    """`madow` with one draw for all slots.

    A move from x to x' costs E‖z' − z‖₁ <= 2 Σ_i abs(S'_i − S_i) <= (n − 1) ‖x' − x‖₁: an item enters or leaves only
    where some S_i crosses ξ plus an integer. Its expected gain is that of x in every slot, so against requests that do
    not depend on ξ regret and movement stay within O(√T).

    Args:
        xi: the draw ξ, kept.

    Example:
        >>> coupled = Coupled(0.3)
        >>> coupled.round(np.array([0.5, 0.5, 1.0])).tolist(), coupled.round(np.array([0.45, 0.55, 1.0])).tolist()
        ([1, 0, 1], [1, 0, 1])
    """

    xi: float

    def __post_init__(self) -> None:
        if not 0 <= self.xi <= 1:
            raise ConfigError(f"xi is {self.xi}", mend="Give a uniform draw from [0, 1].")

    @classmethod
    def draw(cls, generator: np.random.Generator) -> Coupled:
        """With a draw of its own."""
        return cls(generator.random())

    def round(self, x: Vector) -> Choice:
        """The items for fractions x. O(n)."""
        return madow(x, self.xi)


def dep_round(x: Vector, draws: np.random.Generator | Vector, sizes: Vector | None = None) -> Choice:
    """Dependent rounding: two fractional entries at a time trade mass until one of them is whole.

    With α what i can gain and j can give, β the reverse (both in units of i): i gains α with probability β/(α + β),
    otherwise loses β. So every E[z_i] = x_i and E[z_i z_j] <= x_i x_j, and Σ s_i z_i never changes while two entries
    are fractional. One that is left over at the end is chosen with the probability it then has: Σ s_i z_i is within one
    item of Σ s_i x_i, and Σ z = Σ x exactly when sizes are equal and Σ x is an integer (else ⌊Σ x⌋ or ⌈Σ x⌉). O(n).

    Args:
        x: inclusion probabilities.
        draws: a generator, of which one draw per fractional entry is taken; or one draw for each entry, kept from slot
            to slot: the same x then gives the same items.
        sizes: s_i > 0; all equal when not given.

    Raises:
        DataError: for entries outside [0, 1].
        ShapeError: when sizes or draws are not one for each entry.
    """
    x = _probabilities(x)
    if sizes is not None and sizes.shape != x.shape:
        raise ShapeError(f"{len(x)} entries, sizes of shape {sizes.shape}", mend="Give one size for each entry.")
    if sizes is not None and not (sizes > 0).all():
        raise DataError("a size is not above 0", mend="Leave out entries without a size.")
    open_items = np.flatnonzero((x > 0) & (x < 1))
    weights = np.ones(len(open_items)) if sizes is None else np.asarray(sizes, np.float64)[open_items]
    whole = sizes is None and _is_whole(float(x.sum()))
    chosen: Choice = (x == 1).astype(np.int8)
    if isinstance(draws, np.random.Generator):
        taken = draws.random(len(open_items))
    else:
        _require_draws(x, draws)
        taken = draws[open_items]
    chosen[open_items] = pipage(x[open_items], weights, taken, whole)
    return chosen


def elementary_jump(old: Vector, new: Vector, state: int, generator: np.random.Generator) -> int:
    """Turn a sample of ``old`` into one of ``new``, moving with the least possible probability ½ ‖new − old‖₁.

    State i is left with probability (old_i − new_i)₊/old_i, for j with probability proportional to (new_j − old_j)₊.
    Two draws whatever happens, so that later ones stay the same. O(n).

    Args:
        old: distribution that the state was drawn from.
        new: distribution wanted.
        state: the sample, 0 <= state < n.
        generator: of the two draws.

    Raises:
        ShapeError: when the distributions have different lengths.
        DataError: for entries outside [0, 1], unequal sums, and states that ``old`` excludes.
    """
    if old.shape != new.shape:
        raise ShapeError(f"distributions of shapes {old.shape} and {new.shape}", mend="Give two of one length.")
    change = _probabilities(new) - _probabilities(old)
    if abs(change.sum()) > _SUM_TOLERANCE:
        raise DataError(f"the sums differ by {change.sum():g}", mend="Give two distributions.")
    if not old[state] > 0:
        raise DataError(f"state {state} has probability {old[state]}", mend="Give a state drawn from the old one.")
    leave, where = generator.random(2)
    arriving = np.cumsum(np.maximum(change, 0.0))
    if leave * old[state] >= -change[state] or arriving[-1] == 0:
        return int(state)
    return int(np.searchsorted(arriving, where * arriving[-1], side="right"))


def poisson(x: Vector, u: Vector) -> Choice:
    """Item i iff u_i < x_i: the number of items is Σ x on average, with variance Σ x_i (1 − x_i) <= Σ x.

    With the same u in every slot, items come and go only as x_i crosses u_i: the expected movement is ‖x' − x‖₁, least
    of all couplings. O(n).

    Args:
        x: inclusion probabilities.
        u: one uniform per item.
    """
    x = _probabilities(x)
    _require_draws(x, u)
    return (u < x).astype(np.int8)


def poisson_hard(x: Vector, u: Vector, capacity: int) -> Hard:
    """`poisson` without the items that do not fit: those with the least x_i − u_i, ties by number, are refused.

    E[z] <= x, less by what is refused. With Σ x = C − c √C the chance of a refusal is about that of a normal beyond c.
    O(n) unless some are refused, then O(n log n).

    Args:
        x: inclusion probabilities.
        u: one uniform per item.
        capacity: at most so many ones, >= 0.
    """
    if capacity < 0:
        raise ConfigError(f"capacity is {capacity}", mend="Give at least 0.")
    chosen = poisson(x, u)
    drawn = np.flatnonzero(chosen)
    if len(drawn) <= capacity:
        return Hard(chosen, drawn[:0])
    order = np.argsort((u - x)[drawn], kind="stable")
    refused = np.sort(drawn[order[capacity:]])
    chosen[refused] = 0
    return Hard(chosen, refused)


def _probabilities(x: Vector) -> Vector:
    """The entries clipped to [0, 1], refused when they are not nearly there."""
    x = np.asarray(x, np.float64)
    bad = ~((x >= -_TOLERANCE) & (x <= 1 + _TOLERANCE))
    if bad.any():
        i = int(bad.argmax())
        raise DataError(f"entry {i} is {x[i]}", mend="Give probabilities: project onto a capped simplex first.")
    clipped: Vector = np.clip(x, 0.0, 1.0)
    return clipped


def _is_whole(total: float) -> bool:
    return abs(total - round(total)) <= _SUM_TOLERANCE * max(1.0, total / 1000.0)


def _size(x: Vector) -> int:
    total = float(x.sum())
    if not _is_whole(total):
        raise DataError(
            f"the entries sum to {total}, which is no number of items", mend="Round down first, or use dep_round."
        )
    return round(total)


def _require_draws(x: Vector, u: Vector) -> None:
    if u.shape != x.shape:
        raise ShapeError(f"{len(x)} entries, draws of shape {u.shape}", mend="Give one draw for each entry.")


def _systematic(x: Vector, xi: float, items: Int64[ndarray, "n"], size: int) -> Int64[ndarray, "k"]:
    """Those of the items, with fractions x in (0, 1), whose interval holds a tick; exactly ``size`` of them."""
    ends = np.cumsum(x)
    ticks = np.clip(np.floor(ends - xi) + 1.0, 0.0, size)  # how many of ξ, ξ + 1, … lie at or before each end
    picked = np.diff(ticks, prepend=0.0) > 0.0
    # Rounding may let the sum end before the last tick, or put two ticks into one interval: the last items left out
    # make up for that.
    missing = size - int(picked.sum())
    if missing > 0:
        picked[np.flatnonzero(~picked)[-missing:]] = True
    return items[picked]


@njit(cache=True)
def pipage(x: Vector, sizes: Vector, draws: Vector, whole: bool) -> Choice:
    """`dep_round` of entries in [0, 1], compiled: trades between the one entry that is still fractional and the next.

    Args:
        x: inclusion probabilities.
        sizes: s_i > 0.
        draws: one for each entry.
        whole: whether sizes are equal and Σ x is an integer: rounding then decides nothing by chance.
    """
    x = x.copy()
    i = 0
    for j in range(1, len(x)):
        ratio = sizes[j] / sizes[i]
        gives, takes = x[j] * ratio, (1.0 - x[j]) * ratio  # of j, in units of i
        up, down = min(1.0 - x[i], gives), min(x[i], takes)
        sign = 1.0 if draws[j] * (up + down) < down else -1.0
        amount = up if sign > 0 else down
        fills = amount == (1.0 - x[i] if sign > 0 else x[i])
        empties = amount == (gives if sign > 0 else takes)
        new_i, new_j = x[i] + sign * amount, x[j] - sign * amount / ratio
        if fills:
            new_i = 1.0 if sign > 0 else 0.0
        if empties:
            new_j = 0.0 if sign > 0 else 1.0
        x[i], x[j] = min(1.0, max(0.0, new_i)), min(1.0, max(0.0, new_j))
        if fills:
            i = j  # also when both are whole now: the next trade then has nothing to give, and passes on
    if len(x):
        x[i] = round(x[i]) if whole else (1.0 if draws[0] < x[i] else 0.0)
    return x.astype(np.int8)
