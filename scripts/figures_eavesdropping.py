"""The figure of docs/explanation/eavesdropping.md, from real runs; about a minute.

.venv/bin/python scripts/figures_eavesdropping.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rivage.privacy.affine_map import collect, condition, fit
from rivage.privacy.local_model import reconstruct
from rivage.report.theme import looks, to_svg
from rivage.studies.claims.eavesdropping import heard, relative

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

NAME = "eavesdropping"
FEATURES, MOST = 20, 130
SETTINGS: dict[str, dict[str, Any]] = {
    "float64, full batch": {},
    "float32, full batch": {"dtype": torch.float32},
    "float32, batches of 32": {"dtype": torch.float32, "batch_size": 32},
}
COHORTS: dict[str, int | None] = {"10 of 10": None, "8 of 10": 8, "5 of 10": 5}
SIZES = (1, 2, 3, 4, 6, 8, 12, 20)


def by_messages() -> tuple[dict[str, list[tuple[int, float]]], float]:
    """Setting -> (messages, relative error) where a model is returned, and the error of the last returned model."""
    found, last = {}, 0.0
    for name, settings in SETTINGS.items():
        told, truth = heard(FEATURES, MOST, **settings)
        counts = sorted({FEATURES, *range(FEATURES + 1, FEATURES + 8), *range(FEATURES + 8, MOST + 1, 6)})
        errors = [(count, relative(reconstruct(told[:count]), truth)) for count in counts]
        found[name] = [(count, error) for count, error in errors if np.isfinite(error)]
        last = last or float(np.linalg.norm(told[-1].returned - truth) / np.linalg.norm(truth))
    return found, last


def by_condition() -> dict[str, list[tuple[float, float]]]:
    """Who takes part -> (condition number, relative error of least squares), refusals ignored."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name, cohort in COHORTS.items():
        for features in SIZES:
            for seed in range(2):
                told, truth = heard(features, features + 2, cohort=cohort, seed=seed)
                answers = collect(told)
                optimum = fit(answers, "least_squares", np.random.default_rng(0), 1).optimum
                error = float(np.linalg.norm(optimum - truth) / np.linalg.norm(truth))
                found.setdefault(name, []).append((condition(answers), error))
    return found


def powers(axis: Axis, exponents: Iterable[int]) -> None:
    """Marks at powers of ten, whose exponents are written above the line."""
    above = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    from matplotlib.ticker import NullLocator

    marks = list(exponents)
    axis.set_ticks([10.0**e for e in marks], [f"10{str(e).translate(above)}" for e in marks])
    axis.set_minor_locator(NullLocator())


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    lines, last = by_messages()
    points = by_condition()

    def messages(axes: Axes) -> None:
        styles = looks((name, name) for name in lines)
        for name, values in lines.items():
            look = styles[name]
            axes.plot(*zip(*values, strict=True), color=look.color, linestyle=look.line, label=name)
        axes.axhline(last, color="0.5", linewidth=0.8)
        axes.text(MOST, last * 1.6, "last returned model", ha="right", fontsize=7, color="0.35")
        axes.axvline(FEATURES + 2, color="0.5", linewidth=0.6, linestyle=":")
        axes.set(xlabel="messages heard", ylabel="relative error", yscale="log", ylim=(1e-14, 30), xlim=(15, MOST))
        powers(axes.yaxis, range(-14, 2, 2))
        axes.set_title(f"{FEATURES} features; dotted: D + 1 messages")
        axes.legend(frameon=False, fontsize=7, loc="lower right", bbox_to_anchor=(1.0, 0.2))

    def conditions(axes: Axes) -> None:
        styles = looks((name, name) for name in points)
        unit = float(np.finfo(np.float64).eps)
        for name, values in points.items():
            look = styles[name]
            axes.plot(*zip(*values, strict=True), color=look.color, marker="o", linestyle="", markersize=4, label=name)
        axes.axvspan(0.1 / unit, 1e19, color="0.9", linewidth=0)
        axes.text(1.5e15, 1e-13, "refused", fontsize=7, color="0.35")
        axes.set(xlabel="condition number of [g 1]", xscale="log", yscale="log", ylim=(1e-16, 1e3), xlim=(1, 1e19))
        powers(axes.xaxis, range(0, 19, 3))
        powers(axes.yaxis, range(-15, 4, 3))
        axes.set_title("D + 1 messages, float64")
        axes.legend(frameon=False, fontsize=7, loc="upper left", title="clients a round", title_fontsize=7)

    def fill(canvas: Figure) -> None:
        left, right = canvas.subplots(1, 2)
        messages(left)
        conditions(right)

    label = (
        "Left: relative error of the reconstructed local model against the number of messages, for 20 features. Below "
        "22 messages no model is returned; in float64 the error drops to rounding, in float32 below 1e-4, with "
        "mini-batches to about a tenth. Right: the error of least squares from D + 1 messages grows with the condition "
        "number, which stays small when 5 of 10 clients take part and passes 1e15 when all do."
    )
    return standalone(to_svg(fill, size=(7.0, 3.6), name=NAME, label=label))


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "_figures")
