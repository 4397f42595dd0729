"""How a run of one cache is told: numbers, sentences, table and figures of policies on a request trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from rivage.core.games import Column, Drawing
from rivage.core.records import RunRecord
from rivage.report.games import cache_figures as figures
from rivage.report.games.cache_numbers import capacities, optima, summarize_policies
from rivage.report.games.cache_words import game_answer, game_compared, game_progress
from rivage.report.tables import number, speed, whole, with_spread
from rivage.report.theme import Look

__all__ = ["CacheView"]

Row = Mapping[str, Any]


class CacheView:
    """What is told of one cache and its policies."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.trace: Mapping[str, Any] = record.trials[0].start["trace"] if record.trials else {}

    @cached_property
    def policies(self) -> dict[str, dict[str, Any]]:
        """See `summarize_policies`."""
        return summarize_policies(self.record)

    @property
    def more(self) -> dict[str, Any]:
        """The trace, and what the best fixed set saves with each capacity."""
        static = [{"capacity": size, "cost_saved": saved} for size, saved in optima(self.record).items()]
        return {"trace": dict(self.trace), "static": static}

    @property
    def compared(self) -> str:
        """Policies, requests, items, capacities, seeds."""
        return game_compared(self.record)

    @property
    def answer(self) -> str:
        """Who saves most at the first capacity."""
        return game_answer(self.record)

    @property
    def progress(self) -> list[str]:
        """Policies and capacities that have not been played to the end."""
        return game_progress(self.record)

    @property
    def columns(self) -> Sequence[Column]:
        """Of the table."""
        weighted = bool(self.trace.get("weighted"))
        saved = [Column("cost_saved", "cost saved", headline=True)] if weighted else []
        windowed = [Column("windowed_saved", "best set per window", detail=True)] if self._window else []
        return [
            Column("capacity", "capacity"),
            Column("hit_ratio", "hit ratio", detail=weighted, headline=not weighted),
            *saved,
            Column("static_saved", "best fixed set"),
            *windowed,
            Column("regret", "regret"),
            Column("bound", "bound"),
            Column("fetched", "fetched"),
            Column("speed", "req/s"),
        ]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """By capacity, in the order of the study."""
        rows = list[dict[str, Any]]()
        for place in range(max((len(policy["capacities"]) for policy in self.policies.values()), default=0)):
            here = {n: p["capacities"][place] for n, p in self.policies.items() if place < len(p["capacities"])}
            saved = [r["cost_saved"] for n, r in here.items() if not self._foresees(n) and r["cost_saved"] is not None]
            rows += [self._row(name, row, max(saved, default=None)) for name, row in here.items()]
        return rows

    def _foresees(self, policy: str) -> bool:
        return bool(self.policies[policy]["foresees"])

    def _row(self, policy: str, row: Row, best: float | None) -> dict[str, Any]:
        return {
            "policy": policy,
            "foresees": self._foresees(policy),
            "finished": row["finished"],
            "best": not self._foresees(policy) and best is not None and row["cost_saved"] == best,
            "capacity": whole(row["capacity"]),
            "hit_ratio": with_spread(row["hit_ratio"], row["hit_ratio_std"] or None),
            "cost_saved": with_spread(row["cost_saved"], row["cost_saved_std"] or None),
            "static_saved": number(row["static_saved"]),
            "windowed_saved": number(row["windowed_saved"]),
            "regret": whole(row["regret"]),
            "bound": whole(row["regret_bound"]),
            "fetched": whole(row["update_items"]),
            "speed": speed(row["requests_per_s"]),
        }

    @property
    def note(self) -> str:
        """What the columns mean."""
        weighted = self.trace.get("weighted")
        windowed = f"; per window: with other contents for every {self._window} requests" if self._window else ""
        return (
            f"After all requests. {'Cost saved: share of the cost without a cache. ' if weighted else ''}Best fixed "
            f"set: what the best unchanging contents, chosen in hindsight, would have saved{windowed}. Regret: that of "
            f"the best fixed set minus what the policy saved, in {'cost' if weighted else 'hits'}; for policies with a "
            "fractional state, of that state. Bound: what the regret cannot exceed, whatever is asked; a dash where "
            "nothing is promised. Fetched: items, the first filling too. (foresees): told all requests beforehand, "
            "a yardstick and no rival. Req/s: requests per second, in the policy alone, on the machine of the run."
        )

    @property
    def facts(self) -> dict[str, str]:
        """Of the trace."""
        labels = {"name": "Trace", "requests": "Requests", "items": "Items", "distinct": "Asked for"}
        found = {label: self.trace[key] for key, label in labels.items() if key in self.trace}
        if "weighted" in self.trace:
            same = "the same for all items: hits are counted"
            found["Costs"] = "one for each item" if self.trace["weighted"] else same
        return {label: f"{value:,}" if isinstance(value, int) else str(value) for label, value in found.items()}

    @property
    def _window(self) -> str:
        window = self.record.settings.get("run", {}).get("window")
        return f"{window:,}" if window else ""

    def drawings(self, looks: Mapping[str, Look], name: str) -> Iterator[Drawing]:
        """Cost against capacity, then over time at the first one."""
        sizes = capacities(self.record)
        size = f"{sizes[0]:,}" if sizes else ""
        ratio = "" if self.trace.get("weighted") else ", which is the miss ratio"
        seeds = " Line: mean over seeds, band: smallest to largest." if len(self.record.seeds) > 1 else ""
        figure = {
            "How much cache to buy": (
                figures.cost_by_capacity,
                "Cost that is left after all requests, as a share of the cost without a cache, against the capacity. "
                "Dashed: the best fixed set in hindsight.",
            ),
            "Cost over time": (
                figures.cost_over_time,
                f"With {size} items: cost from the beginning to here, as a share of the cost without a cache{ratio}. "
                f"Dashed: the best fixed set for the requests so far.{seeds}",
            ),
            "Regret and what was promised": (
                figures.regret_and_bound,
                f"With {size} items, policies that promise something. Solid line: regret against the best fixed set "
                "for the requests so far; dotted, and shaded below: what it cannot exceed. Below zero a policy did "
                "better than any fixed set.",
            ),
            "Items in the cache": (
                figures.occupancy,
                f"With a capacity of {size} items, the dashed line. Policies that keep to it only in expectation waver "
                "around it.",
            ),
            "Update traffic": (
                figures.traffic,
                f"Items brought into the cache since the last point, for every 100 requests; with {size} items.",
            ),
        }
        for heading, (draw, caption) in figure.items():
            svg = draw(self.record, looks, name=f"{name}-{draw.__name__.replace('_', '-')}")
            if svg is not None:
                yield Drawing(heading, caption, svg)
