"""How a run of planners is told: where models go, how far that is from the best there is, what more would buy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from rivage.core.games import Column, Drawing
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.report.games import delivery_figures, placement_figures
from rivage.report.games.delivery_numbers import trials_of
from rivage.report.games.placement_numbers import (
    allocation,
    best_planner,
    routing,
    shadow_prices,
    summarize_placements,
)
from rivage.report.games.sentences import names_of
from rivage.report.tables import human_seconds, number, percent
from rivage.report.theme import Look

__all__ = ["PlacementView"]

_TOP = 3  # nodes named in the answer


class PlacementView:
    """What is told of planners."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.scene: Mapping[str, Any] = record.trials[0].start["scene"] if record.trials else {}

    @cached_property
    def policies(self) -> dict[str, dict[str, Any]]:
        """See `summarize_placements`."""
        return summarize_placements(self.record)

    @cached_property
    def _best(self) -> TrialRecord | None:
        """The first seed of the best planner."""
        name = best_planner(self.policies)
        trial = None if name is None else trials_of(self.record, name)[0]
        return trial if trial is not None and trial.events("placed") else None

    @property
    def more(self) -> dict[str, Any]:
        """The plan of the best planner, the bound, and what resources are worth."""
        if self._best is None:
            return {"scene": dict(self.scene)}
        row = self.policies[str(self._best.start["policy"])]
        return {
            "scene": dict(self.scene),
            "planner": self._best.start["policy"],
            "allocation": allocation(self._best),
            "routing": routing(self._best),
            "cost": row["cost"],
            "lp_bound": row["lp_bound"],
            "gap": row["gap"],
            "shadow_prices": shadow_prices(self._best),
        }

    @property
    def compared(self) -> str:
        """Planners and scene."""
        if not self.scene:
            return "No planner has begun."
        scene, planners = self.scene, len(self.policies)
        return (
            f"{planners} planner{'s' if planners > 1 else ''} for {len(scene['models']):,} models on "
            f"{len(scene['nodes']):,} nodes of {scene['network']}, {scene['types']:,} request types, "
            f"{len(self.record.seeds)} seed{'s' if len(self.record.seeds) > 1 else ''}"
        )

    @property
    def answer(self) -> str:
        """The best plan, its gap, and whose memory is worth most."""
        if self._best is None:
            return "No planner has come to its end: there is no answer to report."
        name = str(self._best.start["policy"])
        row = self.policies[name]
        prices = shadow_prices(self._best)["memory_ms_per_mb"]
        wanted = [node for node in sorted(prices, key=lambda node: -prices[node]) if prices[node] > 0][:_TOP]
        more = f" More memory is worth most on {', '.join(wanted)}." if wanted else " More memory would save nothing."
        return (
            f"{name} is best: {number(row['cost'])} ms per request, {number(row['latency_ms'])} ms latency and "
            f"accuracy {number(row['accuracy'])}; no placement costs less than {number(row['lp_bound'])} ms, a gap of "
            f"{_gap(row['gap'])}.{more}"
        )

    @property
    def progress(self) -> list[str]:
        """Planners without a plan."""
        done = {(str(trial.start["policy"]), trial.seed) for trial in self.record.trials if trial.finished}
        wanted = names_of(self.record, "planners")
        return [f"{name}, seed {seed}: no plan yet" for name, seed in wanted if (name, seed) not in done]

    @property
    def columns(self) -> Sequence[Column]:
        """Of the table."""
        timed = [Column("in_time", "in time")] if self.scene.get("deadlines") else []
        return [
            Column("cost", "cost, ms", headline=True),
            Column("bound", "at least"),
            Column("gap", "gap"),
            Column("latency", "latency, ms"),
            Column("tail", "p99, ms"),
            Column("accuracy", "accuracy"),
            *timed,
            Column("memory", "memory, MB"),
            Column("seconds", "time"),
        ]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """In the order of the study."""
        best = best_planner(self.policies)
        return [
            {
                "policy": name,
                "foresees": False,
                "finished": row["finished"],
                "best": name == best,
                "cost": number(row["cost"]),
                "bound": number(row["lp_bound"]),
                "gap": _gap(row["gap"]),
                "latency": number(row["latency_ms"]),
                "tail": number(row["latency_p99_ms"]),
                "accuracy": number(row["accuracy"]),
                "in_time": percent(row["in_time"]),
                "memory": number(row["memory_mb"]),
                "seconds": human_seconds(row["seconds"]),
            }
            for name, row in self.policies.items()
        ]

    @property
    def note(self) -> str:
        """What the columns mean."""
        return (
            "Per request of the mean slot. Cost: latency and inaccuracy, one point of accuracy, 0.01, counting as "
            f"{number(self.scene.get('alpha'))} ms; requests are served cheapest first. At least: what no placement "
            "and routing can go below, by a linear program. Gap: the cost above it. Memory: what the models take that "
            "were decided about."
        )

    @property
    def facts(self) -> dict[str, str]:
        """Of the scene, and the prices."""
        if not self.scene:
            return {}
        scene = self.scene
        found = {
            "Network": f"{scene['network']}, {len(scene['nodes']):,} nodes",
            "Catalog": f"{scene['catalog']}: {len(scene['models']):,} models for {len(scene['tasks']):,} tasks",
            "Request types": f"{scene['types']:,}, {scene['ways']:,} ways to answer them",
        }
        if self._best is not None:
            prices = shadow_prices(self._best)
            found["A megabyte more saves per slot"] = _listed(prices["memory_ms_per_mb"])
            found["A millisecond less saves per slot"] = _listed(prices["links_ms_per_ms"])
        return found

    def drawings(self, looks: Mapping[str, Look], name: str) -> Iterator[Drawing]:
        """The network with its models, what more memory would buy, latency against accuracy."""
        if self._best is None:
            return
        planner = str(self._best.start["policy"])
        drawn = {
            "The network and its models": (
                delivery_figures.placement(self.record, planner, name=f"{name}-placement"),
                f"The plan of {planner}. Larger dots hold more models.",
            ),
            "What more memory would buy": (
                placement_figures.memory(self._best, name=f"{name}-memory"),
                "Least cost per request when all nodes have so many times their memory, from the linear program.",
            ),
            "Latency and accuracy": (
                placement_figures.trade_off(self._best, name=f"{name}-alpha"),
                "Mean latency and accuracy at the optimum of the linear program, as a point of accuracy is worth more "
                "milliseconds (numbers at the dots).",
            ),
            "Who answers": (
                delivery_figures.tiers(self.policies, name=f"{name}-tiers"),
                "Share of the requests that each tier answers, darkest near the users.",
            ),
        }
        for heading, (svg, caption) in drawn.items():
            if svg is not None:
                yield Drawing(heading, caption, svg)


def _gap(share: float | None) -> str:
    if share is None:
        return "–"
    return f"{100 * round(share, 8) + 0.0:.2g} %"  # below is the solver's own error; 0.0 takes the sign of −0


def _listed(prices: Mapping[str, float]) -> str:
    """The largest ones, in milliseconds."""
    top = sorted((name for name in prices if prices[name] > 0), key=lambda name: -prices[name])[:8]
    return ", ".join(f"{name}: {number(prices[name])} ms" for name in top) or "nothing"
