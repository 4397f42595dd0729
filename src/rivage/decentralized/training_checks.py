"""Certificates of decentralised training, computed from its record alone: no training code, no torch.

`rivage verify` runs them on a folder. Bytes on the arcs are held against the message log by
`rivage.federated.checks.wire_bytes`, as those of federated methods are.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.certificates import Certificate
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord

__all__ = ["is_timed", "round_times"]

_SAME = 1e-9


def is_timed(record: RunRecord, method: str) -> bool:
    """Whether the rounds of a method take simulated times that follow from the delays in its record."""
    overlay = next(trial.start.get("overlay", {}) for trial in record.trials if trial.method == method)
    return "delays_ms" in overlay and not overlay["drawn"] and "times" not in record.settings


def round_times(record: RunRecord, *, method: str) -> Certificate:
    """Did the rounds of a method take the time that the delays of its overlay say?

    Measured is the largest relative difference, over rounds and seeds, between the recorded mean time at which silos
    start the next round and the max-plus recursion over the recorded arcs and delays, of a star its two transfers.
    """
    trials = [trial for trial in record.trials if trial.method == method]
    worst, rounds, pace = 0.0, 0, 0.0
    for trial in trials:
        told = np.array([event["clock_ms"] for event in trial.events("round")], np.float64)
        again = _clock_ms(trial, len(told))
        worst = max(worst, float(np.abs(told / again - 1).max(initial=0.0)))
        rounds, pace = rounds + len(told), float(trial.start["overlay"]["cycle_time_ms"])
    return Certificate(
        kind="bound",
        claim=f"The simulated rounds of {method} take the time that the delays of its overlay say.",
        measured=worst,
        reference=_SAME,
        method=f"largest relative difference from the max-plus recursion over {rounds} rounds; in the long run a round "
        f"takes the cycle time, {pace:.5g} ms",
        confidence=None,
        verdict="no_power" if not rounds else "holds" if worst <= _SAME else "fails",
        check="round_times",
        fields={"method": method},
    )


def _clock_ms(trial: TrialRecord, rounds: int) -> Float64[ndarray, "rounds"]:
    """The mean start times of the rounds after each, by the recorded delays."""
    overlay, names = trial.start["overlay"], list(trial.start["silos"]["names"])
    place = {name: k for k, name in enumerate(names)}
    arcs = np.array([[place[one], place[other]] for one, other in overlay["arcs"]], np.int64).reshape(-1, 2)
    work, delays = (np.array(overlay[key], np.float64) for key in ("work_ms", "delays_ms"))
    hub = None if overlay["hub"] is None else place[overlay["hub"]]
    starts, means = np.zeros(len(names)), np.empty(rounds)
    for round in range(rounds):
        starts = _after(starts, arcs, work, delays, hub)
        means[round] = starts.mean()
    return means


def _after(starts: ndarray, arcs: ndarray, work: ndarray, delays: ndarray, hub: int | None) -> ndarray:
    """Start times of the next round."""
    ends: ndarray = starts + work
    if hub is None or not len(arcs):
        np.maximum.at(ends, arcs[:, 1], starts[arcs[:, 0]] + delays)
        return ends
    up, down = arcs[:, 1] == hub, arcs[:, 0] == hub
    mean = max(float((starts[arcs[up, 0]] + delays[up]).max()), float(ends[hub]))
    after: ndarray = np.full(len(starts), mean)
    after[arcs[down, 1]] += delays[down] - work[hub]
    return after
