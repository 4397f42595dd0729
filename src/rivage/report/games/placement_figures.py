"""The figures of a plan: what more memory would buy, and how latency and accuracy trade."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rivage.core.trial_records import TrialRecord
from rivage.report.theme import INK, MUTED, to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["memory", "trade_off"]

_SIZE = (6.0, 3.4)  # inches


def memory(trial: TrialRecord, *, name: str) -> str | None:
    """Least cost per request against multiples of all budgets."""
    curve = np.array(trial.events("relaxation")[0]["memory"])
    if not curve.size:
        return None
    requests = trial.events("point")[-1]["requests"]
    times, cost = curve[:, 0], curve[:, 1] / requests

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(times, cost, color=INK, marker="o", markersize=4)
        axes.axvline(1.0, color=MUTED, linewidth=0.8)
        axes.set(xlabel="memory, as a multiple of the study's", ylabel="least cost per request, ms")

    label = "; ".join(f"{c:.4g} at {t:g}" for t, c in zip(times, cost, strict=True))
    return to_svg(fill, size=_SIZE, name=name, label=f"Least cost per request by memory: {label}.")


def trade_off(trial: TrialRecord, *, name: str) -> str | None:
    """Latency and accuracy of the relaxation as accuracy is worth more."""
    curve = np.array(trial.events("relaxation")[0]["alphas"])
    if not curve.size:
        return None
    alpha, latency, accuracy = curve.T

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(latency, accuracy, color=INK, marker="o", markersize=4)
        for worth, x, y in curve.tolist():
            axes.annotate(f"{worth:g}", (x, y), fontsize=7, color=MUTED, xytext=(4, -8), textcoords="offset points")
        axes.set(xlabel="mean latency, ms", ylabel="mean accuracy")

    label = "; ".join(f"{a:g}: {x:.4g} ms, {y:.3g}" for a, x, y in zip(alpha, latency, accuracy, strict=True))
    return to_svg(fill, size=_SIZE, name=name, label=f"Latency and accuracy by the worth of accuracy: {label}.")
