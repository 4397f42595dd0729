"""The certificate of a run with differential privacy: what its clients have spent, from the record alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rivage.core.certificates import Certificate
from rivage.core.errors import StoreError
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.federated.dp_ftrl import PREFIXES, releases
from rivage.federated.privacy_ledger import CONCENTRATED, EVERYONE, spent

__all__ = ["is_private", "privacy_spent"]


def is_private(trial: TrialRecord) -> bool:
    """Whether a trial has claimed an ε."""
    return bool(trial.events("privacy"))


def privacy_spent(record: RunRecord, *, method: str) -> Certificate:
    """Is the ε told of each client at least what the rounds it took part in add up to?

    Measured is the largest ε, computed again from the rounds; the reference is the largest one told. It fails where a
    client has spent more than was told of it, be it that rounds were left out or that the budget began anew. What the
    record cannot show is the noise itself: an audit looks for it in the messages.

    Raises:
        StoreError: for a method that claims nothing.
        MissingExtra: where sampled noise is accounted for, and dp-accounting is not installed.
    """
    trials = [record.trial(method, seed) for seed in record.seeds]
    told = trials[0].start.get("differential_privacy")
    if told is None:
        raise StoreError(
            f'"{method}" claims no privacy', where=str(record.folder), mend="Set work.noise, and run again."
        )
    pairs = [(_ledger(trial, again=True), _ledger(trial, again=False)) for trial in trials]
    sound = all(
        _covers(before, now) and _complete(trial) and _in_turn(trial, told.get("epoch")) and _as_promised(trial, told)
        for trial, (now, before) in zip(trials, pairs, strict=True)
    )
    measured, claimed = (max([0.0, *(e for pair in pairs for e in pair[way].values())]) for way in (0, 1))
    what = told.get("protects", "what the server reads")
    return Certificate(
        kind="bound",
        claim=f"With {method}, {what} tells of any one {told['unit']} at most what epsilon {claimed:.4g} allows "
        f"at delta {told['delta']:g}.",
        measured=measured,
        reference=claimed,
        method=f"largest epsilon of {sum(len(now) for now, _ in pairs)} ledgers, composed anew over all rounds of "
        f"{len(trials)} trials, against the one told; relation {told['relation']}; the noise itself is not seen here",
        confidence=None,
        verdict="holds" if sound else "fails",
        check="privacy_spent",
        fields={"method": method},
    )


def _ledger(trial: TrialRecord, *, again: bool) -> dict[int, float]:
    """ε by client, as computed again or as told."""
    event = spent(trial.events()) if again else (trial.events("privacy") or ({},))[-1]
    return {} if not event else dict(zip(event["clients"], event["epsilon"], strict=True))


def _covers(told: dict[int, float], found: dict[int, float]) -> bool:
    return all(epsilon <= told.get(client, 0.0) for client, epsilon in found.items())


def _complete(trial: TrialRecord) -> bool:
    """Whether everyone who took part in a round is in its ledger, where the record lists who did."""
    for event in trial.events("round"):
        clients = set(event.get("private", {}).get("clients", ()))
        if EVERYONE in clients or not (isinstance(event["cohort"], list) and isinstance(event["lost"], list)):
            continue
        if not set(event["cohort"]) - set(event["lost"]) <= clients:
            return False
    return True


def _in_turn(trial: TrialRecord, epoch: int | None) -> bool:
    """Whether nobody took part twice in an epoch, where the promise counts on that."""
    if epoch is None:
        return True
    parts = [
        (event["round"] // epoch, client)
        for event in trial.events("round")
        for client in event.get("private", {}).get("clients", ())
    ]
    return len(set(parts)) == len(parts)


def _as_promised(trial: TrialRecord, told: Mapping[str, Any]) -> bool:
    """Whether no round is told to have more noise than the promise gives it; untold, it counts as the promise's own.

    Under masks it depends on who arrived: nobody but they knows it better than the record.
    """
    if told.get("accounting") == CONCENTRATED:
        return True
    rounds = list(trial.events("round"))
    released = [(event["round"], event["private"]) for event in rounds if event.get("private", {}).get("clients")]
    pairs = [(number, private.get("noise", [told["noise_multiplier"]])) for number, private in released]
    return all(z <= _noise(told, number, len(rounds)) * (1 + 1e-9) for number, noises in pairs for z in noises)


def _noise(told: Mapping[str, Any], number: int, rounds: int) -> float:
    """Multiplier of what taking part in a round releases."""
    multiplier = float(told["noise_multiplier"])
    if told.get("noise_on") != PREFIXES:
        return multiplier
    place = number % int(told["epoch"])
    worth = releases(min(int(told["epoch"]), rounds - number + place))
    return multiplier / math.sqrt(worth[place])
