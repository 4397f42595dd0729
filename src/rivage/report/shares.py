"""How personal models are composed: the shares of shared models, and the weight of a client's own neighbours.

Each drawing function takes a record and the looks of its methods and returns one inline SVG, or None when the record
holds nothing to draw. The same record gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.report.series import trials_of
from rivage.report.theme import LABEL, MUTED, Look, to_svg
from rivage.report.ticks import whole_numbers
from rivage.report.words import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Leaning", "Mixture", "leaning", "mixture", "mixtures", "neighbour_shares"]

Looks = Mapping[str, Look]
Array = Float64[ndarray, "clients"]
WIDTH = 10.0  # inches: 960 px, the width of the text column
MAX_BARS = 60  # clients whose bars are set apart
_FEWEST = 8  # clients for whom there is room: the bar of a single one is no block
MAX_DOTS = 1500  # dots in one panel; of more, every k-th is drawn
_BINS = np.linspace(-0.05, 1.05, 12)  # one bin around each tenth: weights come from a grid


@dataclass(frozen=True, slots=True)
class Mixture:
    """In which shares clients mix the models of a method, at the last evaluation of the first seed that has them.

    Other seeds number their models otherwise, so that no mean over seeds has a meaning.

    Args:
        seen: a row per client that trains; grouped by the model that it uses most, the largest share first.
        unseen: the same of clients that never trained; no rows where there are none.
    """

    seen: Float64[ndarray, "clients models"]
    unseen: Float64[ndarray, "unseen models"]


def mixture(trials: Sequence[TrialRecord]) -> Mixture | None:
    """The shares of a method; None where no client mixes."""
    for trial in trials:
        seen, unseen = (_mix(trial.final(group)) for group in ("seen", "unseen"))
        if seen is not None:
            empty = np.empty((0, seen.shape[1]))
            return Mixture(_grouped(seen), empty if unseen is None else _grouped(unseen))
    return None


def _mix(event: Mapping[str, Any] | None) -> Float64[ndarray, "clients models"] | None:
    return np.asarray(event["mix"], np.float64) if event is not None and event.get("mix") else None


def _grouped(mix: Float64[ndarray, "clients models"]) -> Float64[ndarray, "clients models"]:
    most = mix.argmax(axis=1)
    return mix[np.lexsort((-mix.max(axis=1), most))]


@dataclass(frozen=True, slots=True)
class Leaning:
    """How far the models of clients lean on their neighbours, at the last evaluation; all seeds joined.

    Args:
        share: weight of the neighbours, in [0, 1], of each client that has any.
        records: training records of the same client; NaN where the record does not tell.
        seeds: number of seeds joined.
    """

    share: Array
    records: Array
    seeds: int


def leaning(trials: Sequence[TrialRecord], group: str) -> Leaning | None:
    """The neighbours' weights of a group of clients; None where a method has no neighbours."""
    events = [e for trial in trials if (e := trial.final(group)) is not None and e.get("neighbour_share")]
    rows = [
        (share, size if size is not None else np.nan)
        for event in events
        for share, size in zip(
            event["neighbour_share"], event.get("train_size") or [None] * len(event["clients"]), strict=True
        )
        if share is not None
    ]
    if not rows:
        return None
    share, records = np.asarray(rows, np.float64).T
    return Leaning(share, records, len(events))


# --- shares of shared models ----------------------------------------------------------------------------------------


def mixtures(record: RunRecord, looks: Looks, *, name: str) -> str | None:
    """A panel per method that mixes: a bar per client, cut into its shares; those that never trained on the right."""
    found = {m: mixed for m in record.methods if (mixed := mixture(trials_of(record, m))) is not None}
    if not found:
        return None

    def fill(figure: Figure) -> None:
        panels = figure.subplots(len(found), 1, squeeze=False)[:, 0]
        for axes, (method, mixed) in zip(panels, found.items(), strict=True):
            _draw_mixture(axes, mixed, looks[method])
            axes.set_title(shown(method, 100), color=looks[method].color)
            axes.set(ylim=(0, 1), ylabel="share")
        panels[-1].set_xlabel("clients, grouped by the model that they use most")

    label = "; ".join(f"{m}: {_spread(mixed.seen)}" for m, mixed in found.items())
    return to_svg(fill, size=(WIDTH, 0.4 + 1.7 * len(found)), name=name, label=f"Shares of the models. {label}.")


def _spread(mix: Float64[ndarray, "clients models"]) -> str:
    means = ", ".join(f"{share:.2f}" for share in mix.mean(axis=0))
    return f"mean shares {means}; the largest of a client {mix.max(axis=1).mean():.2f} on average"


def _draw_mixture(axes: Axes, mixed: Mixture, look: Look) -> None:
    count, others = len(mixed.seen), len(mixed.unseen)
    gap = max(1, (count + others) // 40)
    _stack(axes, mixed.seen, 0, look, count + others)
    end = count
    if others:
        _stack(axes, mixed.unseen, count + gap, look, count + others)
        end = count + gap + others
        axes.text(count + gap, 1.03, "unseen", fontsize=8.5, color=LABEL, va="bottom")
    axes.set_xlim(0, max(end, _FEWEST))
    axes.set_xticks([])
    axes.grid(False)


def _stack(axes: Axes, mix: Float64[ndarray, "clients models"], left: int, look: Look, total: int) -> None:
    """Shares above one another, model 1 at the bottom and darkest; each a tint of the method's colour."""
    tops = np.column_stack([np.zeros(len(mix)), np.cumsum(mix, axis=1)])
    models = mix.shape[1]
    x = left + np.arange(len(mix)) + 0.5
    for model in range(models):
        alpha = 0.9 - 0.72 * model / max(models - 1, 1)
        low, high = tops[:, model], tops[:, model + 1]
        if total <= MAX_BARS:
            axes.bar(x, high - low, bottom=low, width=0.86, color=look.color, alpha=alpha, linewidth=0)
        else:
            edges = left + np.arange(len(mix) + 1)
            axes.stairs(high, edges, baseline=low, fill=True, color=look.color, alpha=alpha, linewidth=0)


# --- the weight of neighbours ---------------------------------------------------------------------------------------


def neighbour_shares(record: RunRecord, looks: Looks, *, name: str) -> str | None:
    """A row per method with neighbours: how many clients give them which weight, and the weight by records held."""
    found = {m: lean for m in record.methods if (lean := leaning(trials_of(record, m), "seen")) is not None}
    if not found:
        return None
    unseen = {m: leaning(trials_of(record, m), "unseen") for m in found}
    known = any(np.isfinite(lean.records).any() for lean in found.values())

    def fill(figure: Figure) -> None:
        rows = figure.subplots(len(found), 2 if known else 1, squeeze=False)
        for panels, (method, lean) in zip(rows, found.items(), strict=True):
            _draw_histogram(panels[0], lean, unseen[method], looks[method])
            panels[0].set_title(shown(method, 50), color=looks[method].color)
            if known:
                _draw_by_records(panels[1], lean, looks[method])
        rows[-1][0].set_xlabel("weight of the neighbours")
        if known:
            rows[-1][1].set_xlabel("training records of the client")

    medians = "; ".join(f"{m}: median {np.median(lean.share):.2g}" for m, lean in found.items())
    size = (WIDTH if known else WIDTH / 2, 0.4 + 2.3 * len(found))
    return to_svg(fill, size=size, name=name, label=f"Weight of the neighbours. {medians}.")


def _draw_histogram(axes: Axes, lean: Leaning, unseen: Leaning | None, look: Look) -> None:
    counts = np.histogram(lean.share, _BINS)[0] / lean.seeds
    center = (_BINS[1:] + _BINS[:-1]) / 2
    axes.bar(center, counts, width=0.08, color=look.color, linewidth=0)
    if unseen is not None:
        more = np.histogram(unseen.share, _BINS)[0] / unseen.seeds
        axes.bar(center, more, bottom=counts, width=0.08, color=look.color, alpha=0.4, linewidth=0)
    axes.axvline(float(np.median(lean.share)), color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set(xlim=(-0.06, 1.06), ylabel="clients", xticks=np.linspace(0, 1, 6))


def _draw_by_records(axes: Axes, lean: Leaning, look: Look) -> None:
    every = -(-len(lean.share) // MAX_DOTS)
    x, y = lean.records[::every], lean.share[::every]
    alpha = 0.6 if len(x) < 200 else 0.25
    axes.scatter(x, y, s=18, color=look.color, marker=look.marker, alpha=alpha, linewidths=0)
    axes.set(ylim=(-0.06, 1.06), ylabel="weight")
    whole_numbers(axes)
