"""Certificates of a federated run, computed from its record alone.

Checks import no training code and touch no data: `rivage verify` runs them on a folder.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.certificates import Certificate
from rivage.core.errors import StoreError
from rivage.core.message_log import LOG_NAME, MessageLog
from rivage.core.records import RunRecord
from rivage.federated.selection import choose

__all__ = ["choice_gap", "guard", "paired_difference", "wire_bytes"]

_ONE_ERROR = 1 + 1e-9  # a choice exactly one standard error away may come out above 1 by rounding


def paired_difference(
    record: RunRecord, *, method: str, reference: str, group: str = "seen", confidence: float = 0.95
) -> Certificate:
    """Does ``method`` serve clients better or worse than ``reference``, on their test records?

    One-sided paired t tests at level (1 − confidence) in both directions, one pair per client: its mean difference over
    seeds, because the same client under several seeds is not several clients. The claim names the direction the data
    point to; where neither test rejects, the data cannot tell. Conditional on the trained models: all pairs share them.
    """
    from scipy.stats import t

    metric, pairs = _paired(record, method, reference, group)
    seeds = len(record.seeds)
    count = len(pairs)
    mean = float(pairs.mean()) if count else 0.0
    error = float(pairs.std(ddof=1)) / count**0.5 if count > 1 else math.inf
    margin = float(t.ppf(confidence, count - 1)) * error if count > 1 else math.inf
    interval = f"[{mean - margin:+.4f}, {mean + margin:+.4f}]" if count > 1 else "unbounded"
    direction = "worse" if mean < 0 else "better"
    return Certificate(
        kind="test",
        claim=f"{method} serves the average client {direction} than {reference} ({metric}, {group} clients).",
        measured=mean,
        reference=0.0,
        method=f"mean difference over {count} clients, each averaged over {seeds} seeds, positive where {method} is "
        f"better; one-sided paired t tests, {100 * (2 * confidence - 1):.4g} % interval {interval}; given the trained "
        "models, not adjusted for other comparisons",
        confidence=confidence,
        verdict="holds" if abs(mean) > margin else "no_power",
        check="paired_difference",
        fields={"method": method, "reference": reference, "group": group, "confidence": confidence},
    )


def guard(record: RunRecord, *, method: str, group: str = "seen") -> Certificate:
    """Was every client's guarded model chosen as the rule says?

    Measured is the largest excess of the chosen model's validation loss over the smallest, in standard errors of the
    smallest, over all clients and seeds whose validation records could tell.
    """
    excess, honest, told = 0.0, True, 0
    for trial in record.trials:
        for choice in trial.events("choice") if trial.method == method else ():
            if choice["group"] != group:
                continue
            among = choice["among"]
            losses, errors = (
                _columns(record, among, trial.seed, group, key) for key in ("validation_loss", "validation_se")
            )
            columns = np.array([among.index(name) for name in choice["chosen"]], np.int64)
            honest &= bool((columns == choose(losses, errors)).all())
            rows = np.flatnonzero(np.isfinite(losses).all(axis=1) & np.isfinite(errors).all(axis=1))
            best = losses[rows].argmin(axis=1)
            gap = losses[rows, columns[rows]] - losses[rows, best]
            scale = errors[rows, best]
            ratio = np.divide(gap, scale, out=np.where(gap > 0, np.inf, 0.0), where=scale > 0)
            excess, told = max(excess, float(ratio.max(initial=0.0))), told + len(rows)
    return Certificate(
        kind="bound",
        claim="On its validation records no client's guarded model is worse than its best candidate by more than one "
        "standard error.",
        measured=excess,
        reference=1.0,
        method=f"largest excess loss in standard errors over {told} client-seed pairs, all choices recomputed",
        confidence=None,
        verdict="no_power" if honest and not told else "holds" if honest and excess <= _ONE_ERROR else "fails",
        check="guard",
        fields={"method": method, "group": group},
    )


def choice_gap(record: RunRecord, *, method: str, group: str = "seen") -> Certificate:
    """What choosing on validation records costs against the best choice in hindsight, an upper bound for any rule."""
    guarded, oracle = [np.empty(0)], [np.empty(0)]
    higher = True
    for trial in record.trials:
        for choice in trial.events("choice") if trial.method == method else ():
            if choice["group"] != group:
                continue
            higher = bool(trial.events("start")[0]["higher_is_better"])
            scores = _columns(record, choice["among"], trial.seed, group, "test")
            chosen = [choice["among"].index(name) for name in choice["chosen"]]
            rows = np.isfinite(scores).all(axis=1)
            best = scores.max(axis=1) if higher else scores.min(axis=1)
            guarded.append(scores[np.arange(len(scores)), chosen][rows])
            oracle.append(best[rows])
    count = sum(map(len, guarded))
    taken, bound = (float(np.concatenate(v).sum() / max(count, 1)) for v in (guarded, oracle))
    return Certificate(
        kind="gap",
        claim=f"The guarded models are within {abs(bound - taken):.4f} of the best choice per client in hindsight.",
        measured=taken,
        reference=bound,
        method="mean test metric per client, each client counting the same; the reference picks each client's best "
        "candidate on the test records, which no rule can beat",
        confidence=None,
        verdict="no_power" if not count else "holds" if (taken <= bound if higher else taken >= bound) else "fails",
        check="choice_gap",
        fields={"method": method, "group": group},
    )


def wire_bytes(record: RunRecord, *, method: str) -> Certificate:
    """Do the bytes in the record equal those of the serialised messages in the logs, over all seeds?"""
    trials = [trial for trial in record.trials if trial.method == method]
    messages = [
        message.nbytes
        for trial in trials
        for message in MessageLog.read(trial.folder / LOG_NAME, payloads=False)
        if message.kind != "sum"  # read off the messages of all, sent by nobody
    ]
    recorded = sum(trial.bytes_up + trial.bytes_down for trial in trials)
    counted = sum(messages)
    return Certificate(
        kind="bound",
        claim=f"{method} sent no byte beyond those reported.",
        measured=float(counted),
        reference=float(recorded),
        method=f"sum over the {len(messages)} serialised messages in the logs against the sum in the record",
        confidence=None,
        verdict="holds" if counted == recorded else "fails",
        check="wire_bytes",
        fields={"method": method},
    )


def _columns(
    record: RunRecord, methods: list[str], seed: int, group: str, key: str
) -> Float64[ndarray, "clients methods"]:
    """One column of the last evaluation of several methods; NaN where it is undefined."""
    return np.array([_last(record, name, seed, group)[key] for name in methods], np.float64).T


def _last(record: RunRecord, method: str, seed: int, group: str) -> dict[str, Any]:
    event = record.trial(method, seed).final(group)
    if event is None:
        raise StoreError(
            f'no evaluation of "{method}", seed {seed}, {group} clients',
            where=str(record.folder),
            mend="Finish the run first: start it again, it resumes.",
        )
    return dict(event)


def _paired(record: RunRecord, method: str, reference: str, group: str) -> tuple[str, Float64[ndarray, "clients"]]:
    """Mean difference of each client over seeds, positive where ``method`` is better."""
    differences: dict[int, list[float]] = {}
    start = record.trial(method, record.seeds[0]).events("start")[0]
    sign = 1.0 if start["higher_is_better"] else -1.0
    for seed in record.seeds:
        a, b = (_columns(record, [name], seed, group, "test")[:, 0] for name in (method, reference))
        clients = _last(record, method, seed, group)["clients"]
        for client, difference in zip(clients, (sign * (a - b)).tolist(), strict=True):
            if math.isfinite(difference):
                differences.setdefault(client, []).append(difference)
    return str(start["metric"]), np.array([np.mean(values) for values in differences.values()], np.float64)
