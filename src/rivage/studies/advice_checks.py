"""Which method serves the average client best, and how sure that is; computed from the record of a run alone.

A client's value under a method is its test metric, averaged over seeds; signs are such that larger is better. For all
pairs (a, b) of M methods at once, the mean difference over n clients has the simultaneous interval

    mean(d) ± c · se(d) ,   d_k = value_k(a) − value_k(b) ,   se² = variance(d) / n + variance of seeds / S .

c is the 95 % quantile of max over pairs of |t*|, where t* is the t statistic of the centred differences after every
client's sign was drawn anew, the same sign for all pairs: clients are the units, hence the records and seeds of one
client may depend on each other, and what methods have in common is used. With at most 12 clients all 2^n signs are
taken, else 9,999 draws. Up to five clients have too few signs; there c is Student's quantile at 5 % divided by the
number of pairs, for differences that are normal.

The clients of a seed share its models, whose luck is no client's: what the S seeds differ by, beyond what clients and
records explain, is a second variance (two crossed factors): that of the pair, or the mean over pairs if that is larger,
for few seeds make some pair look lucky. Clients that all differ by the same, but for rounding, say nothing of their
spread: with accuracies of few records that is chance, and the interval is infinite.

A method is *better* than another if this interval is above 0 and its mean is higher with every seed. Of the methods
that are better than Local, by what is worth the trouble (half a point of accuracy; 1 % of Local's error), the best in
the mean is held against simpler ones: the simplest that it does not beat, or beats by less than that, is recommended.
Where that one leads Local with every seed but not beyond doubt, the data cannot tell. Personalisation is thus never
recommended for being luckily ahead of what is simpler, but with probability 5 % at most, as far as so few clients and
seeds can say.

References:
    Westfall, Young. Resampling-based multiple testing. 1993 (maximum statistics).
    Canay, Romano, Shaikh. Randomization tests under an approximate symmetry assumption. Econometrica 2017 (signs of few
    clusters).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.certificates import Certificate
from rivage.core.errors import StoreError
from rivage.core.records import RunRecord
from rivage.core.seeding import Streams

__all__ = ["Decision", "Difference", "Values", "advised", "decide", "nothing_beats", "values_of"]

CONFIDENCE = 0.95
_ALL_SIGNS = 12
"""Clients up to which all signs are taken."""
_DRAWS = 9_999
_FEW = 6
"""Clients from which on signs can tell at 5 %."""
_WORTH = 0.005
_WORTH_OF_ERROR = 0.01


@dataclass(frozen=True, slots=True)
class Values:
    """What clients get from methods, larger being better.

    Args:
        names: of the methods, Local first, then from simple to complicated.
        every: by seed and client, ``[seeds, clients, methods]``; NaN in all methods where one of them is undefined. No
            seed and no client is undefined throughout.
        metric: its name.
        worth: differences below this are not worth a more complicated method.
    """

    names: tuple[str, ...]
    every: Float64[ndarray, "seeds clients methods"]
    metric: str
    worth: float

    @property
    def clients(self) -> Float64[ndarray, "clients methods"]:
        """Means over seeds."""
        return _mean(self.every, 0)

    @property
    def seeds(self) -> Float64[ndarray, "seeds methods"]:
        """Means over clients."""
        return _mean(self.every, 1)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one method is ahead of another, positive where it is better.

    Args:
        method: the one.
        reference: the other.
        mean: over clients.
        low: end of the simultaneous interval.
        high: the other end.
        always: whether the mean has the same sign with every seed.
    """

    method: str
    reference: str
    mean: float
    low: float
    high: float
    always: bool

    @property
    def equal(self) -> bool:
        """Whether no client tells the two apart."""
        return self.low == self.mean == self.high == 0

    @property
    def better(self) -> bool:
        """Whether the one is better beyond doubt."""
        return self.low > 0 and self.always


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do.

    Args:
        verdict: ``better``: a method is better than Local; ``local``: nothing beats Local; ``cannot_tell``.
        method: recommended; the guarded one where the data cannot tell.
        best: the most promising method beside Local.
        against_local: that of the method, or of ``best``, with Local.
        runner_up: that of the method (or of ``best``) with the next best in the mean, or with the simpler one that it
            cannot be told from; None where nothing was found.
        most: what no method can be better than Local by.
    """

    verdict: Literal["better", "local", "cannot_tell"]
    method: str
    best: str
    against_local: Difference
    runner_up: Difference | None
    most: float


def values_of(record: RunRecord, methods: Sequence[str], group: str = "seen") -> Values:
    """What the clients of a run get from methods; those are left out for whom one of them is undefined.

    Raises:
        StoreError: if a method has not been evaluated.
    """
    found: dict[tuple[int, int], list[float]] = {}
    higher, metric = True, ""
    for place, seed in enumerate(record.seeds):
        columns = []
        for name in methods:
            trial = record.trial(name, seed)
            event = trial.final(group)
            if event is None:
                raise StoreError(
                    f'no evaluation of "{name}", seed {seed}', where=str(record.folder), mend="Finish the run first."
                )
            higher, metric = bool(trial.start["higher_is_better"]), str(trial.start["metric"])
            columns.append(dict(zip(event["clients"], event["test"], strict=True)))
        for client in columns[0]:
            row = [math.nan if column[client] is None else float(column[client]) for column in columns]
            if all(map(math.isfinite, row)):
                found[place, client] = row
    seeds, clients = (sorted({key[axis] for key in found}) for axis in (0, 1))
    every = np.full((len(seeds), len(clients), len(methods)), np.nan)
    for (place, client), row in found.items():
        every[seeds.index(place), clients.index(client)] = row
    worth = _WORTH if higher else _WORTH_OF_ERROR * float(np.mean(_mean(every, 0)[:, 0])) if clients else 0.0
    return Values(tuple(methods), every if higher else -every, metric, worth)


def _mean(values: Float64[ndarray, "..."], axis: int) -> Float64[ndarray, "..."]:
    """Along an axis, of what is defined."""
    known = np.isfinite(values)
    result: ndarray = np.where(known, values, 0.0).sum(axis=axis) / np.maximum(known.sum(axis=axis), 1)
    return result


def _differences(values: Values, confidence: float) -> dict[tuple[str, str], Difference]:
    """All ordered pairs of methods with their simultaneous intervals."""
    pairs = list(combinations(range(len(values.names)), 2))
    every = np.stack([values.every[..., a] - values.every[..., b] for a, b in pairs], axis=-1)
    means, widths = _intervals(every, confidence)
    found = {}
    for (a, b), mean, width in zip(pairs, means.tolist(), widths.tolist(), strict=True):
        moved = values.seeds[:, a] - values.seeds[:, b]
        always = bool((moved > 0).all() or (moved < 0).all())
        one, other = values.names[a], values.names[b]
        found[one, other] = Difference(one, other, mean, mean - width, mean + width, always)
        found[other, one] = Difference(other, one, -mean, -mean - width, -mean + width, always)
    return found


def _intervals(
    every: Float64[ndarray, "seeds clients pairs"], confidence: float
) -> tuple[Float64[ndarray, "pairs"], Float64[ndarray, "pairs"]]:
    """Means over clients, and how far the intervals reach to each side."""
    gaps = _mean(every, 0)
    count, pairs = gaps.shape
    equal = (np.nan_to_num(every) == 0).all(axis=(0, 1))
    if count < 2:
        return _mean(gaps, 0), np.where(equal & (count > 0), 0.0, math.inf)
    means, people, seeds = gaps.mean(axis=0), gaps.var(axis=0, ddof=1) / count, _of_seeds(every)
    told = people > (1e-9 * np.abs(gaps).max(axis=0)) ** 2  # else alike but for rounding
    tail = 1 - (1 - confidence) / (2 * pairs)
    widths = np.where(equal, 0.0, math.inf)
    widths[told] = _factor(gaps[:, told] - means[told], tail, confidence) * np.sqrt(people + seeds)[told]
    return means, widths


def _of_seeds(every: Float64[ndarray, "seeds clients pairs"]) -> Float64[ndarray, "pairs"]:
    """Variance of a mean over seeds that comes from their models: beyond what clients and records make of it.

    Of so few seeds some pair is always lucky: none has less than the mean over pairs.
    """
    count = len(every)
    if count < 2:
        return np.zeros(every.shape[-1])
    within = every - _mean(every, 0)
    shifts = _mean(within, 1)
    left, known = within - shifts[:, None], np.isfinite(every[..., 0]).sum()
    noise = np.nansum(left**2, axis=(0, 1)) / max(known - every.shape[1] - count + 1, 1)
    found: Float64[ndarray, "pairs"] = shifts.var(axis=0, ddof=1) - noise * count / known
    result: ndarray = np.maximum(found, found.mean().clip(0.0)) / count
    return result


def _factor(centred: Float64[ndarray, "clients pairs"], tail: float, confidence: float) -> float:
    """How many standard errors an interval reaches to each side, for all pairs to be covered at once."""
    from scipy.stats import t

    count = len(centred)
    if count < _FEW:
        return float(t.ppf(tail, count - 1))
    if not centred.size:
        return 0.0
    means, spread = _signs(count) @ centred / count, (centred**2).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # all clients alike after a draw: infinitely many errors
        drawn = np.abs(means) / np.sqrt(np.maximum(spread - means**2, 0.0) / (count - 1))
    most = np.sort(np.nan_to_num(drawn, nan=0.0, posinf=math.inf).max(axis=1))
    return float(most[min(math.ceil(confidence * len(most)), len(most) - 1)])


def _signs(count: int) -> Float64[ndarray, "draws clients"]:
    if count <= _ALL_SIGNS:
        return np.array(list(product((1.0, -1.0), repeat=count)))
    return Streams(0).numpy("advice", "signs").choice([-1.0, 1.0], size=(_DRAWS, count))


def decide(values: Values, fallback: str, confidence: float = CONFIDENCE) -> Decision:
    """Recommend a method, Local, or the fallback where these data cannot tell.

    Args:
        values: what clients get.
        fallback: the guarded method.
        confidence: that all intervals hold.
    """
    local, *others = values.names
    found = _differences(values, confidence)
    means = dict(zip(values.names, values.clients.mean(axis=0).tolist(), strict=True)) if len(values.clients) else {}
    ranked = sorted(others, key=lambda name: -means.get(name, 0.0))
    most = max(found[name, local].high for name in others)
    winners = [name for name in others if _worth_it(found[name, local], values.worth)]
    if not winners:
        sure = most < 2 * values.worth
        return Decision(
            "local" if sure else "cannot_tell",
            local if sure else fallback,
            ranked[0],
            found[ranked[0], local],
            found[local, ranked[0]] if sure else None,
            most,
        )
    top = next(name for name in ranked if name in winners)
    promising = [
        name for name in others if name in winners or (found[name, local].always and means[name] > means[local])
    ]
    method = next(name for name in promising if name == top or not _worth_it(found[top, name], values.worth))
    if method not in winners:  # simpler than all that are better than Local, and perhaps as good
        return Decision("cannot_tell", fallback, top, found[top, local], found[top, method], most)
    second = next(name for name in sorted(values.names, key=lambda name: -means[name]) if name != method)
    return Decision("better", method, top, found[method, local], found[method, second], most)


def _worth_it(ahead: Difference, worth: float) -> bool:
    return ahead.better and ahead.mean >= worth


def _compared(record: RunRecord, named: Sequence[str], methods: Sequence[str]) -> Sequence[str]:
    """The methods of a certificate, which names some of them.

    Raises:
        StoreError: if they are not different methods of the run, or lack one that is named.
    """
    if len(set(methods)) < max(len(methods), 2) or set(methods) - set(record.methods) or set(named) - set(methods):
        raise StoreError(
            f"compares {', '.join(named)} among {', '.join(methods)}",
            where=str(record.folder / "certificates.json"),
            mend=f"Name different methods of the run: {', '.join(record.methods)}. Or run rivage advise again.",
        )
    return methods


def advised(
    record: RunRecord, *, method: str, reference: str, methods: Sequence[str], confidence: float = CONFIDENCE
) -> Certificate:
    """Is ``method`` better than ``reference``, all pairs of ``methods`` having been compared?"""
    values = values_of(record, _compared(record, [method, reference], methods))
    found = _differences(values, confidence)[method, reference]
    direction = "worse" if found.mean < 0 else "better"
    holds = found.equal or found.better or (found.high < 0 and found.always)
    said = f"the average client {direction} than {reference}, by {found.low:+.4f} to {found.high:+.4f}"
    said = f"every client as well as {reference}" if found.equal else said
    return Certificate(
        kind="test",
        claim=f"{method} serves {said} ({values.metric}; all pairs of {len(methods)} methods compared).",
        measured=found.mean,
        reference=0.0,
        method=f"mean difference over {len(values.clients)} clients, each averaged over {len(values.seeds)} seeds, "
        f"positive where {method} is better; {100 * confidence:.4g} % intervals of all pairs at once, by "
        f"{'signs of clients' if len(values.clients) >= _FEW else 'Student and Bonferroni'}; the same sign with every "
        f"seed: {'yes' if found.always else 'no'}",
        confidence=confidence,
        verdict="holds" if holds else "no_power",
        check="advised",
        fields={"method": method, "reference": reference, "methods": list(methods), "confidence": confidence},
    )


def nothing_beats(
    record: RunRecord, *, local: str, methods: Sequence[str], confidence: float = CONFIDENCE
) -> Certificate:
    """Is no method better than Local by more than is worth it?"""
    values = values_of(record, _compared(record, [local], methods))
    found = _differences(values, confidence)
    others = [name for name in methods if name != local]
    most = max(found[name, local].high for name in others)
    return Certificate(
        kind="bound",
        claim=f"Nothing of {', '.join(others)} serves the average client better than {local} by {2 * values.worth:.3g} "
        f"or more ({values.metric}).",
        measured=most,
        reference=2 * values.worth,
        method=f"largest upper end of the {100 * confidence:.4g} % intervals of {len(others)} methods less "
        f"{local}, over {len(values.clients)} clients and {len(values.seeds)} seeds, all pairs at once",
        confidence=confidence,
        verdict="holds" if most < 2 * values.worth else "no_power",
        check="nothing_beats",
        fields={"local": local, "methods": list(methods), "confidence": confidence},
    )
