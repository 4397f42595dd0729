"""How a run of inference delivery is told: numbers, sentences, table and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from rivage.core.games import Column, Drawing
from rivage.core.records import RunRecord
from rivage.report.games import delivery_figures as figures
from rivage.report.games.delivery_numbers import summarize_delivery
from rivage.report.games.sentences import count, tied, unfinished
from rivage.report.tables import number, percent, speed, with_spread
from rivage.report.theme import Look

__all__ = ["DeliveryView"]

Row = Mapping[str, Any]


class DeliveryView:
    """What is told of policies that place models."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.scene: Mapping[str, Any] = record.trials[0].start["scene"] if record.trials else {}

    @cached_property
    def policies(self) -> dict[str, dict[str, Any]]:
        """See `summarize_delivery`."""
        return summarize_delivery(self.record)

    @property
    def more(self) -> dict[str, Any]:
        """What was played on."""
        return {"scene": dict(self.scene)}

    @property
    def compared(self) -> str:
        """Policies, requests, network, seeds."""
        if not self.scene:
            return "No policy has begun."
        scene, seeds = self.scene, len(self.record.seeds)
        return (
            f"{count(len(self.policies), 'policy', 'policies')} on {scene['requests']:,.0f} requests in "
            f"{count(scene['slots'], 'slot')}, {count(len(scene['models']), 'model')} for "
            f"{count(len(scene['nodes']), 'node')} of {scene['network']}, {count(seeds, 'seed')}"
        )

    @property
    def answer(self) -> str:
        """Who gains most, how that compares with any fixed allocation, and who promised what."""
        rivals = {name: row for name, row in self.policies.items() if not row["foresees"] and row["gain"] is not None}
        if not rivals:
            return "No policy without foresight has been played: there is no answer to report."
        best = max(rivals, key=lambda name: rivals[name]["gain"])
        row = rivals[best]
        text = (
            f"{best} is best, {with_spread(row['gain'], row['gain_std'] or None)} ms gained per request"
            f"{tied(rivals, best, 'gain')}: {number(row['latency_ms'])} ms and accuracy {number(row['accuracy'])} on "
            "average"
        )
        if row["most_gain"] is not None:
            side = "above" if row["gain"] > row["most_gain"] else "below"
            gap = number(abs(row["gain"] - row["most_gain"]))
            text += f", {gap} {side} what no fixed allocation exceeds"
        return f"{text}. {_promised(rivals)}"

    @property
    def progress(self) -> list[str]:
        """Policies that have not been played to the end."""
        return unfinished(self.record, "slot")

    @property
    def columns(self) -> Sequence[Column]:
        """Of the table."""
        timed = [Column("in_time", "in time")] if self.scene.get("deadlines") else []
        return [
            Column("gain", "gain", headline=True),
            Column("most", "any fixed", detail=False),
            Column("latency", "latency, ms"),
            Column("tail", "p99, ms"),
            Column("accuracy", "accuracy"),
            *timed,
            Column("fetched", "MB per slot"),
            Column("regret", "regret"),
            Column("bound", "bound"),
            Column("speed", "slots/s", detail=True),
        ]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """In the order of the study."""
        gains = [row["gain"] for row in self.policies.values() if not row["foresees"] and row["gain"] is not None]
        best = max(gains, default=None)
        return [
            {
                "policy": name,
                "foresees": row["foresees"],
                "finished": row["finished"],
                "best": not row["foresees"] and best is not None and row["gain"] == best,
                "gain": with_spread(row["gain"], row["gain_std"] or None),
                "most": number(row["most_gain"]),
                "latency": number(row["latency_ms"]),
                "tail": number(row["latency_p99_ms"]),
                "accuracy": number(row["accuracy"]),
                "in_time": percent(row["in_time"]),
                "fetched": number(row["update_mb"]),
                "regret": number(_each(row["regret"], row["requests"])),
                "bound": number(_each(row["regret_bound"], row["requests"])),
                "speed": speed(row["slots_per_s"]),
            }
            for name, row in self.policies.items()
        ]

    @property
    def note(self) -> str:
        """What the columns mean."""
        alpha = number(self.scene.get("alpha"))
        return (
            "Gain: cost saved per request against pinned models alone, in milliseconds; one point of accuracy, 0.01, "
            f"counts as {alpha} ms. Any fixed: no allocation that stays gains more; who follows the requests may. "
            "Latency: network and inference, mean and 99th percentile. In time: within the deadline. MB per slot: "
            "models fetched, the first filling too. Regret: what the fractions lost at most to any fixed ones, in "
            "milliseconds per request; bound: what that cannot exceed, whatever comes. (foresees): told all "
            "requests beforehand, a yardstick and no rival."
        )

    @property
    def facts(self) -> dict[str, str]:
        """Of the scene."""
        if not self.scene:
            return {}
        scene = self.scene
        return {
            "Network": f"{scene['network']}, {len(scene['nodes']):,} nodes",
            "Catalog": f"{scene['catalog']}: {len(scene['models']):,} models for {len(scene['tasks']):,} tasks",
            "Request types": f"{scene['types']:,}, {scene['ways']:,} ways to answer them",
            "Requests": f"{scene['requests']:,.0f} in {scene['slots']:,} slots",
        }

    def drawings(self, looks: Mapping[str, Look], name: str) -> Iterator[Drawing]:
        """Gain, latency against accuracy, who answered, traffic, the network under the best policy."""
        record = self.record
        drawn = {
            "Gain over time": (
                figures.gain_over_time(record, looks, name=f"{name}-gain"),
                "Gain per request since the last point. Dashed: what no fixed allocation exceeds, over all slots.",
            ),
            "Latency and accuracy": (
                figures.latency_and_accuracy(record, looks, name=f"{name}-latency"),
                "Means over all requests; bars: over seeds.",
            ),
            "Who answered": (
                figures.tiers(self.policies, name=f"{name}-tiers"),
                "Share of the requests that each tier answered, darkest near the users.",
            ),
            "Model updates": (
                figures.traffic(record, looks, name=f"{name}-traffic"),
                "Size of the models fetched per slot, since the last point.",
            ),
        }
        for heading, (svg, caption) in drawn.items():
            if svg is not None:
                yield Drawing(heading, caption, svg)
        best = next((row["policy"] for row in self.rows if row["best"]), None)
        svg = None if best is None else figures.placement(self.record, best, name=f"{name}-placement")
        if svg is not None:
            caption = f"What {best} had loaded at the end. Larger dots hold more models."
            yield Drawing("The network and its models", caption, svg)


def _promised(rivals: Mapping[str, Row]) -> str:
    sworn = {name: row for name, row in rivals.items() if row["regret_bound"] is not None}
    if not sworn:
        return "No policy here promises anything."
    name = max(sworn, key=lambda name: sworn[name]["gain"])
    row = sworn[name]
    regret, bound = _each(row["regret"], row["requests"]), _each(row["regret_bound"], row["requests"])
    if regret is None or bound is None:
        return f"{name} promises a regret of at most {number(bound)} ms per request."
    kept = "at most" if regret <= bound else "MORE than the"
    return (
        f"{name} promises for any requests: its fractions are at most {number(regret)} ms per request behind the best "
        f"fixed ones, {kept} {number(bound)} ms promised."
    )


def _each(total: float | None, requests: float) -> float | None:
    return None if total is None or not requests else round(total / requests, 9)  # below are rounding errors
