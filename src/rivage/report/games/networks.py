"""How a run of a network of caches is told: numbers, sentences, table and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from rivage.core.games import Column, Drawing
from rivage.core.records import RunRecord
from rivage.report.games import network_figures as figures
from rivage.report.games.network_map import draw_map
from rivage.report.games.network_numbers import most_saved, summarize_network
from rivage.report.games.network_words import network_answer, network_compared
from rivage.report.games.sentences import unfinished
from rivage.report.tables import number, speed, whole, with_spread
from rivage.report.theme import Look

__all__ = ["NetworkView"]


class NetworkView:
    """What is told of a network of caches and its policies."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        start: Mapping[str, Any] = record.trials[0].start if record.trials else {}
        self.trace: Mapping[str, Any] = start.get("trace", {})
        self.network: Mapping[str, Any] = start.get("network", {})

    @cached_property
    def policies(self) -> dict[str, dict[str, Any]]:
        """See `summarize_network`."""
        return summarize_network(self.record)

    @property
    def more(self) -> dict[str, Any]:
        """Trace and network of the first seed, and what fixed placements save, as shares of the cost."""
        above, below = most_saved(self.record)
        best = {"relaxed_saved": above, "placed_saved": below}
        return {"trace": dict(self.trace), "network": dict(self.network), "placements": best}

    @property
    def compared(self) -> str:
        """Policies, requests, items, network, seeds."""
        return network_compared(self.record)

    @property
    def answer(self) -> str:
        """Who saves most."""
        return network_answer(self.record)

    @property
    def progress(self) -> list[str]:
        """Policies that have not been played to the end."""
        return unfinished(self.record, "request")

    @property
    def columns(self) -> Sequence[Column]:
        """Of the table."""
        return [
            Column("cost_saved", "cost saved", headline=True),
            Column("relaxed_saved", "upper bound"),
            Column("placed_saved", "greedy", detail=True),
            Column("hit_ratio", "hit ratio"),
            Column("regret", "regret"),
            Column("bound", "bound"),
            Column("moves", "moves"),
            Column("messages", "messages"),
            Column("speed", "req/s"),
        ]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """In the order of the study."""
        saved = [row["cost_saved"] for row in self.policies.values() if not row["foresees"]]
        best = max((each for each in saved if each is not None), default=None)
        return [self._row(name, row, best) for name, row in self.policies.items()]

    def _row(self, policy: str, row: Mapping[str, Any], best: float | None) -> dict[str, Any]:
        return {
            "policy": policy,
            "foresees": bool(row["foresees"]),
            "finished": row["finished"],
            "best": not row["foresees"] and best is not None and row["cost_saved"] == best,
            "cost_saved": with_spread(row["cost_saved"], row["cost_saved_std"] or None),
            "relaxed_saved": number(row["relaxed_saved"]),
            "placed_saved": number(row["placed_saved"]),
            "hit_ratio": with_spread(row["hit_ratio"], row["hit_ratio_std"] or None),
            "regret": whole(row["regret"]),
            "bound": whole(row["regret_bound"]),
            "moves": whole(row["update_items"]),
            "messages": whole(row["control_messages"]),
            "speed": speed(row["requests_per_s"]),
        }

    @property
    def note(self) -> str:
        """What the columns mean."""
        return (
            "After all requests. Cost saved: share of the cost of the responses without caches. Upper bound: the share "
            "that no unchanging placement exceeds, by a linear program that knows all requests. Greedy: the share that "
            "the placement found by greed in hindsight saves. Hit ratio: requests that a cache answered. Regret: what "
            "is promised of the upper bound, minus what was gained, as a cost. Bound: what that cannot exceed in "
            "expectation, with the best placement in place of the upper bound; a dash where nothing is promised. "
            "Moves: items brought into a cache. Messages: links crossed by messages other than requests and responses. "
            "Req/s: requests per second, in the policy alone, on the machine of the run."
        )

    @property
    def facts(self) -> dict[str, str]:
        """Of network and trace."""
        network = {"name": "Network", "nodes": "Nodes", "links": "Links", "slots": "Slots", "servers": "Servers"}
        entering = {"origins": "Nodes where requests enter"}
        trace = {"name": "Trace", "requests": "Requests", "items": "Items", "distinct": "Asked for"}
        found = {label: self.network[key] for key, label in {**network, **entering}.items() if key in self.network}
        found |= {label: self.trace[key] for key, label in trace.items() if key in self.trace}
        return {label: f"{value:,}" if isinstance(value, int) else str(value) for label, value in found.items()}

    def drawings(self, looks: Mapping[str, Look], name: str) -> Iterator[Drawing]:
        """Savings and moves over time, then the network."""
        seeds = " Line: mean over seeds, band: smallest to largest." if len(self.record.seeds) > 1 else ""
        figure = {
            "Cost saved over time": (
                figures.saved_over_time,
                "Cost saved from the beginning to here, as a share of the cost without caches. Dashed: what no "
                "unchanging placement exceeds over all requests; dotted: what the placement that greed finds in "
                f"hindsight saves.{seeds}",
            ),
            "Moves over time": (
                figures.moves_over_time,
                "Items brought into a cache since the last point, for every 100 requests.",
            ),
            "Who answers": (
                draw_map,
                "The network of the first seed, and what its nodes held in the end under the best policy that has been "
                "played. Area: the share of all requests that a node would have answered with that; rings: nodes where "
                "requests enter; squares: nodes that serve items for good. Numbers: items held.",
            ),
        }
        for heading, (draw, caption) in figure.items():
            svg = draw(self.record, looks, name=f"{name}-{draw.__name__.replace('_', '-')}")
            if svg is not None:
                yield Drawing(heading, caption, svg)
