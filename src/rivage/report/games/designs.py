"""How a run of ``rivage design`` is told: which overlay goes round fastest, and how far that is from the best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from rivage.core.games import Column, Drawing
from rivage.core.records import RunRecord
from rivage.report.games import design_figures
from rivage.report.games.design_gantt import ROUNDS, draw_rounds
from rivage.report.games.design_map import draw_maps
from rivage.report.games.design_numbers import (
    CLASSICAL,
    OverlayRecord,
    best_of,
    lower_bound,
    scene_of,
    shown_trial,
    summarize_designs,
    winner,
)
from rivage.report.games.design_words import (
    above,
    circuit,
    design_answer,
    design_compared,
    design_progress,
    human_ms,
    in_ms,
    ms,
)
from rivage.report.tables import MISSING, number
from rivage.report.theme import Look

__all__ = ["DesignView"]


class DesignView:
    """What is told of overlays."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.scene: Mapping[str, Any] = scene_of(record)

    @cached_property
    def policies(self) -> dict[str, dict[str, Any]]:
        """See `summarize_designs`."""
        return summarize_designs(self.record)

    @property
    def more(self) -> dict[str, Any]:
        """The scene, which overlay is fastest, the bound, and how far the fastest is above it at most."""
        best = winner(self.policies)
        return {
            "scene": dict(self.scene),
            "best": best,
            "lower_bound_ms": lower_bound(self.record).get("value_ms"),
            "solver_bound_ms": lower_bound(self.record).get("solver_ms"),
            "gap": None if best is None else self.policies[best]["gap"],
        }

    @property
    def compared(self) -> str:
        """Overlays and network."""
        return design_compared(self.record, self.policies)

    @property
    def answer(self) -> str:
        """The fastest overlay, its gap, and what others take."""
        return design_answer(self.record, self.policies)

    @property
    def progress(self) -> list[str]:
        """What is not designed or not bounded."""
        return design_progress(self.record)

    @property
    def columns(self) -> Sequence[Column]:
        """Of the table."""
        hubs = [Column("hub", "hub", detail=True)] if any(row["hub"] for row in self.policies.values()) else []
        return [
            Column("time", "a round, ms", headline=True),
            Column("gap", "above bound"),
            *self._extra("scattered_ms", Column("scattered", "with stragglers")),
            *self._extra("fair_ms", Column("fair", "links shared", detail=True)),
            Column("agreement", "agree in"),
            Column("spectral_gap", "spectral gap"),
            Column("degree", "degree"),
            Column("arcs", "arcs", detail=True),
            Column("circuit", "slowest circuit", detail=True),
            *hubs,
        ]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """In the order of the study."""
        best = winner(self.policies)
        return [self._row(name, row, name == best) for name, row in self.policies.items()]

    def _extra(self, key: str, column: Column) -> list[Column]:
        """A column, if any overlay has a number for it."""
        return [column] if any(row[key] is not None for row in self.policies.values()) else []

    def _row(self, name: str, row: Mapping[str, Any], best: bool) -> dict[str, Any]:
        known = row["cycle_time_ms"] is not None
        return {
            "policy": name,
            "foresees": False,
            "finished": row["finished"],
            "best": best,
            "time": _time(row),
            "gap": above(self._gap(row)),
            "scattered": in_ms((row["scattered_ms"] or {}).get("mean"), _half(row["scattered_ms"])),
            "fair": in_ms(row["fair_ms"]),
            "agreement": human_ms(row["agreement_ms"]) if known else MISSING,
            "spectral_gap": number(row["spectral_gap"]),
            "degree": str(row["max_degree"]) if known else MISSING,
            "arcs": str(row["num_arcs"]) if known else MISSING,
            "circuit": "drawn anew" if row["drawn"] else circuit(row["critical_circuit"] or ()),
            "hub": row["hub"] or MISSING,
        }

    def _gap(self, row: Mapping[str, Any]) -> float | None:
        """Of the mean over seeds."""
        bound, mean = lower_bound(self.record).get("value_ms"), row["mean_ms"]
        return mean / bound - 1 if bound and mean is not None and not row["drawn"] else None

    @property
    def note(self) -> str:
        """What the columns mean."""
        bound = lower_bound(self.record)
        proved = f"The bound, {ms(bound['value_ms'])}, holds for all of this network and work. " if bound else ""
        return (
            "A round: its mean time in the long run, in which every silo trains, sends its model to those that "
            "the overlay names and waits for theirs; with a standard error where rounds are drawn and were measured. "
            "Above bound: at most so much above the least time of an overlay that is the same in every round; one that "
            f"is drawn may be faster. {proved}{self._extras}Agree in: time until models "
            "differ 1000 times less if nobody trains, predicted from the spectral gap of the mixing weights alone; it "
            "is no time of training. Degree: the most silos that one sends to or receives from. Slowest circuit: silos "
            "that wait for each other in turn and set the pace."
        )

    @property
    def _extras(self) -> str:
        """What the columns mean that not every run has."""
        told = {
            "scattered_ms": "With stragglers: the mean time of a round when times scatter, ± half its 95 % interval. ",
            "fair_ms": "Links shared: the time of a round if the messages of the overlay share every link fairly. ",
        }
        return "".join(text for key, text in told.items() if self._extra(key, Column(key, key)))

    @property
    def _marks(self) -> str:
        """What the marks on the bars are."""
        told = {
            "scattered_ms": " Diamonds: with stragglers, and the 95 % interval of the mean.",
            "fair_ms": " Triangles: if messages share links fairly.",
        }
        return "".join(text for key, text in told.items() if self._extra(key, Column(key, key)))

    @property
    def facts(self) -> dict[str, str]:
        """Of the network and the work."""
        if not self.scene:
            return {}
        scene, bound = self.scene, lower_bound(self.record)
        found = {
            "Network": f"{scene['network']}, {len(scene['names']):,} silos",
            "Model": f"{scene['model_bits']:,.0f} bits",
            "Local steps a round": f"{scene['local_steps']:,}",
            "A local step": _range(scene["step_ms"], "ms"),
            "Uplinks of silos": _range([_gbps(rate) for rate in scene["access_up_bps"]], "Gbit/s"),
            "Downlinks of silos": _range([_gbps(rate) for rate in scene["access_down_bps"]], "Gbit/s"),
        }
        if bound:
            looked = "all silos" if bound["complete"] else "some silos, until time was up"
            if "solver_ms" in bound:
                found["Lower bound by a solver"] = f"{ms(bound['solver_ms'])}, which OR-tools proves and nothing checks"
            found["Lower bound"] = f"{ms(bound['value_ms'])}, by circuits through {bound['silo']}; {looked} looked at"
        return found

    def drawings(self, looks: Mapping[str, Look], name: str) -> Iterator[Drawing]:
        """The map, the times of a round, the first rounds, agreement."""
        bound = lower_bound(self.record).get("value_ms")
        maps, fixed = self._shown(_map_rivals), self._shown(_round_rivals)
        drawn = {
            "Who sends to whom": (
                draw_maps(self.record, maps, looks, name=f"{name}-map"),
                f"{_placed(self.scene)} Arrows: models sent in every round. Black and thick: the slowest circuit, "
                f"which sets the pace. {_beneath(self.scene)}",
            ),
            "Time of a round": (
                design_figures.cycle_times(self.policies, bound, looks, name=f"{name}-times"),
                "Mean time of a round in the long run. Dashed: no overlay that is the same in every round goes below; "
                "one that is drawn may, since its rounds need not join all silos. Whiskers: one standard error where "
                f"rounds are drawn; of several seeds the fastest and the slowest.{self._marks}",
            ),
            "Rounds in the long run": (
                draw_rounds(fixed, looks, name=f"{name}-rounds"),
                f"{ROUNDS} rounds of {fixed[0].name if fixed else 'the best'}, and what happens in the same time over "
                "others. Dark: a silo works; light: its models are under way or it waits for those of others; stroke: "
                "it starts the next round. Bold: silos on the slowest circuit. Black line: the chain of messages that "
                "silos had waited for last; it runs round that circuit.",
            ),
            "Fast rounds or few": (
                design_figures.agreement(self.policies, looks, name=f"{name}-agreement"),
                "Rounds until models differ 1000 times less if nobody trains, ln 1000 / −ln(1 − spectral gap), at "
                "least one, against the time of a round. The product, at the names, is equal along the dotted lines: "
                "lower left is better. It is a prediction for averaging alone; training also depends on how different "
                "the data of the silos are.",
            ),
        }  # fmt: skip
        for heading, (svg, caption) in drawn.items():
            if svg is not None:
                yield Drawing(heading, caption, svg)

    def _shown(self, rivals: Any) -> list[OverlayRecord]:
        """The best overlay and its rivals, as their trials tell them."""
        if not self.scene:
            return []
        return [
            OverlayRecord.of(shown_trial(self.record, name, self.policies), self.scene["names"])
            for name in rivals(self.policies)
        ]


def _map_rivals(summary: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The best overlay, and the fastest classical one of another kind that is the same in every round."""
    best = winner(summary)
    second = None if best is None else _other(summary, best, CLASSICAL)
    return [name for name in (best, second) if name is not None]


def _round_rivals(summary: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The best overlay that is the same in every round; RING, or what is fastest if RING is best; STAR."""
    best = best_of(summary, fixed=True)
    if best is None:
        return []
    ring = _other(summary, best, ("ring",)) or _other(summary, best, ("mst", "delta_mbst"))
    found = (best, ring, _other(summary, best, ("star",)))
    return [name for name in found if name is not None]


def _other(summary: Mapping[str, Mapping[str, Any]], best: str, kinds: Sequence[str]) -> str | None:
    """The fastest of some kinds that is the same in every round and of another kind than the best."""
    return best_of(summary, [kind for kind in kinds if kind != summary[best]["kind"]], fixed=True)


def _time(row: Mapping[str, Any]) -> str:
    """Mean over seeds with its spread; of one seed with the error of what was measured."""
    if row["std_ms"] is not None:
        return in_ms(row["mean_ms"], row["std_ms"] or None)
    return in_ms(row["cycle_time_ms"], row["error_ms"] or None)


def _half(interval: Mapping[str, float] | None) -> float | None:
    return None if interval is None else (interval["high"] - interval["low"]) / 2


def _gbps(rate: float | None) -> float:
    return float("inf") if rate is None else rate / 1e9


def _range(values: Sequence[float], unit: str) -> str:
    low, high = min(values), max(values)
    if low == float("inf"):
        return "never the bottleneck"
    return f"{low:g} {unit}" if low == high else f"{low:g} to {high:g} {unit}".replace("inf", "∞")


def _placed(scene: Mapping[str, Any]) -> str:
    if scene.get("places"):
        return "Silos are where their coordinates say."
    return "Silos are placed so that distances follow the latencies between them, as well as paper can."


def _beneath(scene: Mapping[str, Any]) -> str:
    links, silos = scene.get("links"), len(scene.get("names", ()))
    if not links:
        return ""
    every = len(links) >= silos * (silos - 1) // 2
    return "Every two silos have a link, which is not drawn." if every else "Faint: links of the network underneath."
