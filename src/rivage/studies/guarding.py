"""Guarded trials: composed of the evaluations of others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.federated.guarded import Guarded, compose, preference
from rivage.studies.models import save_chosen
from rivage.studies.stage import Stage

__all__ = ["guard"]


def guard(stage: Stage, name: str, guarded: Guarded, record: RunRecord) -> None:
    """The guarded trial: composed of the evaluations of others, in no time and at no further cost."""
    trial = TrialRecord.open(record.trial_folder(name, stage.seed))
    if trial.finished:
        return
    others = (m.name for m in stage.study.methods if not isinstance(m.algorithm, Guarded))
    candidates = {method: record.trial(method, stage.seed) for method in guarded.among or others}
    evaluations = {group: _last(candidates, group) for group in ("seen", "unseen")}
    among = guarded.among or preference(evaluations["seen"])
    trial.truncate(0)
    method = next(m for m in stage.study.methods if m.name == name)
    trial.append(
        {
            "event": "start",
            "method": name,
            "seed": stage.seed,
            "rounds": 0,
            "parameters": stage.task.dimension,
            **stage.facts(method),
        }
    )
    trial.append(_cost(candidates))
    for events in filter(None, evaluations.values()):
        for event in compose(events, among):
            trial.append(event)
    save_chosen(stage, method, trial, candidates)
    trial.append_timing({"evaluation": 0, "seconds": sum(t.seconds for t in candidates.values())})
    trial.append({"event": "end", "rounds": 0})


def _last(candidates: Mapping[str, TrialRecord], group: str) -> dict[str, Any]:
    return {name: event for name, trial in candidates.items() if (event := trial.final(group)) is not None}


def _cost(candidates: Mapping[str, TrialRecord]) -> dict[str, Any]:
    """Bytes of all candidates together, and what their rounds took on the devices; the set-up is needed once."""
    setups = [trial.events("setup")[0] for trial in candidates.values()]
    spent = {key: [getattr(trial, key) for trial in candidates.values()] for key in ("simulated_s", "energy_j")}
    known = {key: [value for value in values if value is not None] for key, values in spent.items()}
    return {
        "event": "setup",
        "messages": 0,
        "bytes_up": sum(t.bytes_up for t in candidates.values()) - sum(s["bytes_up"] for s in setups[1:]),
        "bytes_down": sum(t.bytes_down for t in candidates.values()) - sum(s["bytes_down"] for s in setups[1:]),
        **{key: math.fsum(values) for key, values in known.items() if values},
    }
