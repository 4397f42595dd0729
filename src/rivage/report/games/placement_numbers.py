"""What a run of planners says in a few numbers: cost, bound, gap, and what each resource is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rivage.core.games import spread
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.report.games.delivery_numbers import by_tier, trials_of

__all__ = ["allocation", "best_planner", "routing", "shadow_prices", "summarize_placements"]


def summarize_placements(record: RunRecord) -> dict[str, dict[str, Any]]:
    """The ``policies`` object of ``summary.json``: planner -> its numbers, means over seeds.

    Per planner ``cost`` per request, in milliseconds with inaccuracy; ``lp_bound``, below which no placement costs;
    ``gap``, the cost above the bound as a share of the bound; ``gain`` per request and ``cost_saved``, against pinned
    models alone; ``latency_ms``, ``accuracy``, ``in_time``; ``memory_mb`` used; ``tiers``; ``seconds`` of wall clock.
    """
    return {
        name: _row(trials_of(record, name)) for name in dict.fromkeys(str(t.start["policy"]) for t in record.trials)
    }


def _row(trials: tuple[TrialRecord, ...]) -> dict[str, Any]:
    ends = [(trial, points[-1]) for trial in trials if (points := trial.events("point"))]
    asked = [end["requests"] for _, end in ends]
    costs = [end["cost"] / count if count else None for (_, end), count in zip(ends, asked, strict=True)]
    bounds = [
        trial.events("relaxation")[0]["least"] / count if count else None
        for (trial, _), count in zip(ends, asked, strict=True)
    ]
    means = {
        "cost": costs,
        "lp_bound": bounds,
        "gap": [(c - b) / b if c is not None and b else None for c, b in zip(costs, bounds, strict=True)],
        "gain": [end["gain"] / count if count else None for (_, end), count in zip(ends, asked, strict=True)],
        "cost_saved": [end["gain"] / end["base"] if end["base"] else None for _, end in ends],
        "latency_ms": [end["latency_ms"] for _, end in ends],
        "latency_p99_ms": [end["latency_quantiles_ms"][2] for _, end in ends],
        "accuracy": [end["accuracy"] for _, end in ends],
        "in_time": [end["in_time"] for _, end in ends],
        "memory_mb": [sum(trial.events("placed")[0]["used"]) for trial, _ in ends if trial.events("placed")],
    }
    tiers = [by_tier(trial, end) for trial, end in ends]
    return {
        "kind": trials[0].start["kind"],
        "foresees": False,
        **{key: spread(values)[0] for key, values in means.items()},
        "tiers": {label: sum(each[label] for each in tiers) / len(tiers) for label in (tiers[0] if tiers else {})},
        "seconds": sum(timing["seconds"] for trial in trials for timing in trial.timings) / len(trials),
        "finished": all(trial.finished for trial in trials),
    }


def best_planner(summary: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The one with the least cost; the first of equals."""
    costs = {name: row["cost"] for name, row in summary.items() if row["cost"] is not None}
    return min(costs, key=lambda name: costs[name]) if costs else None


def allocation(trial: TrialRecord) -> dict[str, list[str]]:
    """Node -> models that it holds, pinned ones too."""
    scene = trial.start["scene"]
    loaded = trial.events("placed")[0]["loaded"]
    return {
        node: [scene["models"][model] for model in models] for node, models in zip(scene["nodes"], loaded, strict=True)
    }


def routing(trial: TrialRecord) -> list[dict[str, Any]]:
    """Who answers what: one row per request type, node and model that is used."""
    scene = trial.start["scene"]
    return [
        {
            "task": scene["tasks"][task],
            "entry": scene["nodes"][entry],
            "node": scene["nodes"][node],
            "model": scene["models"][model],
            "requests": count,
            "latency_ms": latency,
            "cost": cost,
        }
        for task, entry, node, model, count, latency, cost in trial.events("point")[0]["routing"]
    ]


def shadow_prices(trial: TrialRecord) -> dict[str, dict[str, float]]:
    """What a unit more would save, milliseconds over the requests of a slot: a megabyte on a node, a ms on a link."""
    scene, found = trial.start["scene"], trial.events("relaxation")[0]
    nodes = zip(scene["nodes"], found["memory_prices"], found["budgets"], strict=True)
    return {
        "memory_ms_per_mb": {name: price for name, price, budget in nodes if budget is not None},
        "links_ms_per_ms": {f"{scene['nodes'][a]} – {scene['nodes'][b]}": count for a, b, count in found["links"]},
    }
