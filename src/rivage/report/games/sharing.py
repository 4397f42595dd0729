"""How a run of fair sharing is told: numbers, sentences, table and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from rivage.core.games import Column, Drawing
from rivage.core.records import RunRecord
from rivage.report.games import sharing_figures as figures
from rivage.report.games.sentences import unfinished
from rivage.report.games.sharing_numbers import fairest_fixed, summarize_sharing
from rivage.report.games.sharing_words import sharing_answer, sharing_compared
from rivage.report.tables import number, speed, with_spread
from rivage.report.theme import Look

__all__ = ["SharingView"]

_FEW = 4  # agents that have a column on the terminal
_MANY = 12  # agents that have one on the page


class SharingView:
    """What is told of agents that share something, and of policies that share it out."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.start: Mapping[str, Any] = record.trials[0].start if record.trials else {}
        self.scene: Mapping[str, Any] = self.start.get("scene", {})

    @cached_property
    def policies(self) -> dict[str, dict[str, Any]]:
        """See `summarize_sharing`."""
        return summarize_sharing(self.record)

    @property
    def more(self) -> dict[str, Any]:
        """What is shared, and the fairest fixed allocation."""
        return {
            "sharing": dict(self.scene),
            "alpha": self.start.get("judge"),
            "fairest_fixed": fairest_fixed(self.record),
        }

    @property
    def compared(self) -> str:
        """Policies, agents, slots, seeds."""
        return sharing_compared(self.record)

    @property
    def answer(self) -> str:
        """Who is fairest."""
        return sharing_answer(self.record)

    @property
    def progress(self) -> list[str]:
        """Policies that have not been played to the end."""
        return unfinished(self.record, "slot")

    @property
    def columns(self) -> Sequence[Column]:
        """Of the table."""
        agents = self.scene.get("agents", [])
        each = [
            Column(f"agent {n}", agent, detail=len(agents) > _FEW, verbatim=True)
            for n, agent in enumerate(agents[:_MANY])
        ]
        return [
            Column("welfare", "welfare", headline=True),
            Column("regret", "regret"),
            Column("bound", "bound"),
            *each,
            *([Column("least", "who has least")] if len(agents) > _FEW else []),
            Column("gain", "sum"),
            Column("price", "price of fairness"),
            Column("jain", "Jain's index", detail=True),
            Column("outside", "out of range", detail=True),
            Column("speed", "slots/s"),
        ]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """In the order of the study."""
        found = [row["welfare"] for row in self.policies.values() if not row["foresees"]]
        best = max((each for each in found if each is not None), default=None)
        return [self._row(name, row, best) for name, row in self.policies.items()]

    def _row(self, policy: str, row: Mapping[str, Any], best: float | None) -> dict[str, Any]:
        utilities = list(row["utilities"].values())
        return {
            "policy": policy,
            "foresees": bool(row["foresees"]),
            "finished": row["finished"],
            "best": not row["foresees"] and best is not None and row["welfare"] == best,
            "welfare": with_spread(row["welfare"], row["welfare_std"] or None),
            "regret": number(row["regret"]),
            "bound": number(row["regret_bound"]),
            **{f"agent {n}": number(utility) for n, utility in enumerate(utilities)},
            **({} if utilities else {column.key: number(None) for column in self.columns if " " in column.key}),
            "least": f"{row['worst_agent']}, {number(row['least_utility'])}" if utilities else number(None),
            "gain": with_spread(row["gain"], row["gain_std"] or None),
            "price": _percent(row["price_of_fairness"]),
            "jain": number(row["jain"]),
            "outside": _percent(row["outside"]),
            "speed": speed(row["slots_per_s"]),
        }

    @property
    def note(self) -> str:
        """What the columns mean."""
        judge = self.start.get("judge")
        alpha = "" if judge is None else f" (α = {judge:g})"
        return (
            f"After all slots. Welfare: α-fair welfare of the mean utilities{alpha}, above all points of disagreement; "
            "a dash where an agent has no more than that. Regret: that of the fairest fixed allocation minus the "
            "policy's. Bound: what the regret cannot exceed for these utilities, by what the policy left; a dash where "
            "nothing is promised. Under the agents' names, or the first of them: mean utility. Sum: of mean utilities. "
            "Price of fairness: what the sum lacks of the largest one of a fixed allocation. Jain's index: 1 where all "
            "have the same. Out of range: utilities beyond least and most of the study. (foresees): told all slots "
            "beforehand, a yardstick and no rival. Slots/s: in policy and utilities, on the machine of the run."
        )

    @property
    def facts(self) -> dict[str, str]:
        """Of what is shared."""
        if not self.scene:
            return {}
        best = fairest_fixed(self.record)
        agents, resources = self.scene["agents"], self.scene["resources"]
        found = {
            "Demand": self.scene["name"],
            "Slots": f"{self.scene['slots']:,}",
            "Agents": ", ".join(agents[:_MANY]) + (f" and {len(agents) - _MANY} more" if len(agents) > _MANY else ""),
            "Inequality aversion": f"α = {self.start['judge']:g}",
        }
        if resources:
            found["Resources"] = ", ".join(resources)
        if best:
            found["Fairest fixed allocation"] = (
                f"welfare {number(best['welfare'])}, none has more than {number(best['upper'])}"
            )
        return found

    def drawings(self, looks: Mapping[str, Look], name: str) -> Iterator[Drawing]:
        """What agents have, welfare and weights over time."""
        seeds = " Line: mean over seeds, band: smallest to largest." if len(self.record.seeds) > 1 else ""
        figure = {
            "What each agent has": (
                figures.utilities_over_time,
                "Mean utility from the beginning to here. Dashed: what the fairest fixed allocation gives over all "
                f"slots.{seeds}",
            ),
            "Welfare over time": (
                figures.welfare_over_time,
                "Welfare of the mean utilities from the beginning to here. Dashed: that of the fairest fixed "
                "allocation over all slots.",
            ),
            "Weights of the agents": (
                figures.weights_over_time,
                "What a policy counts an agent's gain for, in the slot of the point. Who has had less gains weight.",
            ),
        }
        for heading, (draw, caption) in figure.items():
            svg = draw(self.record, looks, name=f"{name}-{draw.__name__.replace('_', '-')}")
            if svg is not None:
                yield Drawing(heading, caption, svg)


def _percent(share: float | None) -> str:
    """Two digits, and a true minus."""
    return number(None) if share is None else f"{100 * share:.2g} %".replace("-", "−")
