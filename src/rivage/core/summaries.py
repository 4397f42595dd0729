"""What a run says in a few numbers: means, bottom deciles, clients worse off than with Local, bytes, time, energy.

The same functions feed the report, the command line and ``summary.json``, so that they cannot disagree. A client
whose metric is undefined (``null`` in the record: AUROC of one class, no test records) is left out of every number
and counted; a number over no client is None. All numbers are of the *last* evaluation, never of the best one.

Example:
    >>> bottom_decile([0.9, 0.5, 0.7], higher_is_better=True)
    0.5
    >>> weighted_mean([1.0, 0.0, None], [30, 10, 99])
    0.75
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.spending import budgets, covered, gradients, spent, training_clients

if TYPE_CHECKING:
    from rivage.core.records import RunRecord
    from rivage.core.trial_records import TrialRecord

__all__ = [
    "Value",
    "bottom_decile",
    "local_method",
    "mean_and_std",
    "paired_with_local",
    "share_worse",
    "summarize",
    "weighted_mean",
    "worst_decile_mean",
    "worst_first",
]

Value = float | None
Values = Sequence[Value] | Float64[ndarray, "clients"]


def _array(values: Values) -> Float64[ndarray, "clients"]:
    return np.asarray(values, dtype=np.float64)  # None becomes NaN


def weighted_mean(values: Values, weights: Sequence[float] | Float64[ndarray, "clients"]) -> Value:
    """Σ w v / Σ w over the clients whose value is defined; None if their weights sum to 0.

    Args:
        values: one number per client, None where undefined.
        weights: one non-negative number per client, usually its number of test records.
    """
    v, w = _array(values), np.asarray(weights, dtype=np.float64)
    v, w = v[~np.isnan(v)], w[~np.isnan(v)]
    return float(v @ w / w.sum()) if w.sum() > 0 else None


def worst_first(values: Values, *, higher_is_better: bool) -> Float64[ndarray, "defined"]:
    """The defined values from the worst client to the best: ascending when higher is better."""
    v = _array(values)
    v = np.sort(v[~np.isnan(v)])
    return v if higher_is_better else v[::-1]


def bottom_decile(values: Values, *, higher_is_better: bool) -> Value:
    """The value at position ⌊T/10⌋, counting from 0, of T defined values sorted from the worst; None if T = 0."""
    v = worst_first(values, higher_is_better=higher_is_better)
    return float(v[len(v) // 10]) if len(v) else None


def worst_decile_mean(values: Values, *, higher_is_better: bool) -> Value:
    """The unweighted mean of the ⌈T/10⌉ worst of T defined values; None if T = 0."""
    v = worst_first(values, higher_is_better=higher_is_better)
    return float(v[: -(-len(v) // 10)].mean()) if len(v) else None


def share_worse(values: Values, reference: Values, *, higher_is_better: bool) -> Value:
    """The share, in [0, 1], of clients strictly worse off than with a reference; a tie is not worse.

    Args:
        values: one number per client.
        reference: what the same clients get otherwise, in the same order. Pairs with an undefined side are left out.
        higher_is_better: direction of the metric.
    """
    gain = _array(values) - _array(reference)
    gain = gain[~np.isnan(gain)] * (1 if higher_is_better else -1)
    return float(np.mean(gain < 0)) if len(gain) else None


def mean_and_std(values: Sequence[Value]) -> tuple[Value, Value]:
    """Mean and sample standard deviation (divisor n − 1) of the defined values; None where there are too few."""
    v = [value for value in values if value is not None]
    return (
        float(np.mean(v)) if v else None,
        float(np.std(v, ddof=1)) if len(v) > 1 else None,
    )


def local_method(record: RunRecord) -> str | None:
    """Name of the first method of kind ``local``: what every other method has to beat; None if there is none."""
    return next((trial.method for trial in record.trials if trial.kind == "local"), None)


def paired_with_local(
    record: RunRecord, trial: TrialRecord, group: str = "seen"
) -> tuple[Float64[ndarray, "clients"], Float64[ndarray, "clients"], Float64[ndarray, "clients"]]:
    """Last test values of a trial, those of Local with the same seed, and test sizes, over the clients of both.

    Clients whose value is undefined on either side are left out; empty arrays if there is no Local to compare with.
    """
    local, event = local_method(record), trial.final(group)
    other = next((t.final(group) for t in record.trials if (t.method, t.seed) == (local, trial.seed)), None)
    if event is None or other is None:
        return np.empty(0), np.empty(0), np.empty(0)
    reference = dict(zip(other["clients"], other["test"], strict=True))
    rows = [
        (value, reference[client], size)
        for client, value, size in zip(event["clients"], event["test"], event["test_size"], strict=True)
        if value is not None and reference.get(client) is not None
    ]
    values, references, sizes = np.asarray(rows, dtype=np.float64).reshape(-1, 3).T
    return values, references, sizes


def _over_clients(event: Mapping[str, Any], higher_is_better: bool) -> dict[str, Value]:
    """The numbers of one evaluation."""
    test = event["test"]
    defined = worst_first(test, higher_is_better=higher_is_better)
    return {
        "mean": weighted_mean(test, event["test_size"]),
        "unweighted_mean": float(defined.mean()) if len(defined) else None,
        "bottom_decile": bottom_decile(test, higher_is_better=higher_is_better),
        "worst_decile_mean": worst_decile_mean(test, higher_is_better=higher_is_better),
        "worst": float(defined[0]) if len(defined) else None,
        "client_std": float(defined.std()) if len(defined) else None,
    }


_OVER_CLIENTS = ("mean", "unweighted_mean", "bottom_decile", "worst_decile_mean", "worst", "client_std")


def _over_seeds(events: Sequence[Mapping[str, Any]], higher_is_better: bool) -> dict[str, Value]:
    """Averages of `_over_clients`, and how far the two headline numbers vary between seeds."""
    numbers = [_over_clients(event, higher_is_better) for event in events]
    both = {key: mean_and_std([each[key] for each in numbers]) for key in _OVER_CLIENTS}
    return {key: mean for key, (mean, _) in both.items()} | {
        "std": both["mean"][1],
        "bottom_decile_std": both["bottom_decile"][1],
    }


def _against_local(record: RunRecord, trials: Sequence[TrialRecord], group: str, higher: bool) -> dict[str, Value]:
    """Which share of the clients is worse off than with Local, and which better."""
    pairs = [paired_with_local(record, trial, group) for trial in trials]
    worse, spread = mean_and_std([share_worse(v, r, higher_is_better=higher) for v, r, _ in pairs])
    better, _ = mean_and_std([share_worse(v, r, higher_is_better=not higher) for v, r, _ in pairs])
    return {
        "share_worse_than_local": worse,
        "share_worse_than_local_std": spread,
        "share_better_than_local": better,
    }


def _unseen(record: RunRecord, trials: Sequence[TrialRecord], higher: bool) -> dict[str, Any] | None:
    """The same numbers of the clients that never trained, and what their models took; None where there are none."""
    events = [event for trial in trials if (event := trial.final("unseen")) is not None]
    if not events:
        return None
    return {
        **_over_seeds(events, higher),
        **_against_local(record, trials, "unseen", higher),
        "clients": max(len(event["clients"]) for event in events),
        "training_records": _per_client(events, "train_size"),
        "gradients": _per_client(events, "gradients"),
    }


def _per_client(events: Sequence[Mapping[str, Any]], key: str) -> Value:
    """Mean of a column over clients, then over seeds; None where a record does not have it."""
    return mean_and_std([float(np.mean(event[key])) for event in events if event.get(key)])[0]


def _shares(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How clients mix models, and how far they lean on their neighbours; None where they do not.

    The effective number of models is exp of the entropy of a client's shares: 1 for one model, M for M equal shares.
    """
    mixes = [np.asarray(event["mix"], np.float64) for event in events if event.get("mix")]
    leans = [share for event in events for share in event.get("neighbour_share") or () if share is not None]
    entropies = [float(np.exp(-np.sum(mix * np.log(np.maximum(mix, 1e-300)), axis=1)).mean()) for mix in mixes]
    return {
        "mixed_models": max((mix.shape[1] for mix in mixes), default=None),
        "effective_models": mean_and_std(entropies)[0],
        "neighbour_share": float(np.median(leans)) if leans else None,
        "neighbour_bytes": _per_client(events, "neighbour_bytes"),
    }


def _cost(record: RunRecord, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """Bytes of messages and gradients per client that trains, averaged over seeds."""
    shares = [training_clients(trial) for trial in trials]
    sizes = [float(spent(trial).size[-1]) / share for trial, share in zip(trials, shares, strict=True)]
    taken = [gradients(record, trial) for trial in trials]
    each = [None if count is None else count / share for count, share in zip(taken, shares, strict=True)]
    return {"bytes_per_client": float(np.mean(sizes)), "gradients_per_client": mean_and_std(each)[0]}


def _at_equal_bytes(allowed: Mapping[int, float], trials: Sequence[TrialRecord], higher: bool) -> dict[str, Any] | None:
    """What a method had reached for the bytes of the cheapest one; None where nothing was compared or reached."""
    found = [(t, c) for t in trials if t.seed in allowed and (c := covered(t, allowed[t.seed])) is not None]
    if not found:
        return None
    rows = [
        {
            "rounds": float(c.event["round"]),
            "bytes_per_client": c.size / training_clients(t),
            "budget_per_client": allowed[t.seed] / training_clients(t),
            "gradients_per_client": None if c.gradients is None else c.gradients / training_clients(t),
        }
        for t, c in found
    ]
    means = {key: mean_and_std([row[key] for row in rows])[0] for key in rows[0]}
    return {**_over_seeds([c.event for _, c in found], higher), **means}


def _exchanged(trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """What the settings made of the updates of a method, and what came of it over all seeds."""
    start = trials[0].start
    refusals = sum((trial.refusals for trial in trials), Counter[str]())
    return {
        **{name: start.get(name) for name in ("stages", "collector", "adversary")},
        "played": sum(len(trial.events("round")) for trial in trials),
        "refused": refusals.total(),
        "refusals": dict(refusals.most_common()),
        "forgotten": sum(trial.forgotten for trial in trials),
    }


def _private(trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """What noise promises, and the largest ε of any client and seed; None without noise."""
    spent = [event for trial in trials for event in trial.events("privacy")]
    found = [epsilon for event in spent for epsilon in event["epsilon"]]
    return {
        "privacy": trials[0].start.get("differential_privacy"),
        "epsilon": max(found, default=0.0) if spent else None,
    }


def _summarize_method(record: RunRecord, trials: Sequence[TrialRecord], allowed: Mapping[int, float]) -> dict[str, Any]:
    start = trials[0].start
    higher = bool(start["higher_is_better"])
    seen = {t.seed: event for t in trials if (event := t.final("seen")) is not None}
    unseen = _unseen(record, trials, higher)
    return {
        "kind": start["kind"],
        "metric": start["metric"],
        "higher_is_better": higher,
        **_over_seeds(list(seen.values()), higher),
        **_against_local(record, trials, "seen", higher),
        "unseen_mean": None if unseen is None else unseen["mean"],
        "unseen_std": None if unseen is None else unseen["std"],
        "unseen": unseen,
        "bytes_up": round(np.mean([t.bytes_up for t in trials])),
        "bytes_down": round(np.mean([t.bytes_down for t in trials])),
        **_cost(record, trials),
        "at_equal_bytes": _at_equal_bytes(allowed, trials, higher),
        "seconds": float(np.mean([t.seconds for t in trials])),
        "simulated_s": mean_and_std([t.simulated_s for t in trials])[0],
        "energy_j": mean_and_std([t.energy_j for t in trials])[0],
        "rounds": max(len(t.events("round")) for t in trials),
        **_exchanged(trials),
        **_private(trials),
        **_shares(list(seen.values())),
        "clients": max((len(e["clients"]) for e in seen.values()), default=0),
        "skipped": max((int(e.get("skipped", 0)) for e in seen.values()), default=0),
        "undefined": max((sum(v is None for v in e["test"]) for e in seen.values()), default=0),
        "finished": all(t.finished for t in trials),
        "by_seed": {str(seed): weighted_mean(e["test"], e["test_size"]) for seed, e in seen.items()},
    }


def summarize(record: RunRecord) -> dict[str, dict[str, Any]]:
    """The ``methods`` object of ``summary.json`` and of ``rivage run --json``: method name -> its numbers.

    Per method: ``metric``, ``mean`` (weighted by test size), ``bottom_decile``, ``share_worse_than_local`` (None
    without Local), ``bytes_up``, ``bytes_down`` (set-up messages included), ``seconds`` (wall clock of the machine that
    simulated), ``simulated_s`` and ``energy_j`` (what the rounds would have taken on the devices of the study, and cost
    all of them together; None without devices or without rounds), each averaged over seeds; ``…std`` is the sample
    standard deviation over seeds (None for one seed), except ``client_std``, the population standard deviation over
    clients; ``by_seed`` holds the mean of each seed. ``stages``, ``collector`` and ``adversary`` are the settings of
    the exchange as the record has them (None where it has none). Over all seeds together ``played`` rounds, of which
    ``refused`` were not aggregated, for the reasons counted in ``refusals``, and ``forgotten`` memories of clients.
    ``privacy`` is what the noise of the method promises, ``epsilon`` the most that any client has spent of it (None
    without noise). ``skipped`` clients have no test records, ``undefined`` ones no defined metric. A method that has
    not begun is left out.

    Of the clients also ``unweighted_mean``, ``worst_decile_mean`` (of the worst tenth), ``worst``, ``client_std`` and
    ``share_better_than_local``; the same of clients that never trained in ``unseen``, with the mean number of their
    ``training_records`` and of the ``gradients`` that adapting took. ``bytes_per_client`` (both directions) and
    ``gradients_per_client`` (records differentiated, those that adapt the last models included) are shared among the
    clients that train. ``at_equal_bytes`` holds what a method had reached when it had spent no more than the cheapest
    one (`rivage.core.spending.budgets`; None without two that send, and for a method whose first model costs more):
    the same numbers of the clients, ``rounds``, ``bytes_per_client`` of ``budget_per_client``, and
    ``gradients_per_client`` of these rounds. ``mixed_models``, ``effective_models`` and ``neighbour_share`` (the
    median over clients) tell of mixtures and of neighbours, None for methods without, as is ``neighbour_bytes``, what a
    client stores of its records on average.

    Cost: O(trials x clients log clients) plus reading the records.
    """
    trials, allowed = record.trials, budgets(record)
    return {
        method: _summarize_method(record, [trial for trial in trials if trial.method == method], allowed)
        for method in dict.fromkeys(trial.method for trial in trials)
    }
