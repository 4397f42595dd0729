"""The figure of docs/explanation/shadow-models.md, from real runs; about a minute.

.venv/bin/python scripts/figures_shadows.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rivage.privacy.roc import clopper_pearson, roc
from rivage.report.theme import MUTED, looks, to_svg
from rivage.studies.claims.reference_attacks import attacked, trained
from rivage.studies.claims.shadow_clients import CLIENTS, areas, federation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "shadow-models"
DRAWN = ("LiRA", "RMIA", "LiRA offline", "RMIA offline, 4 references", "loss")
LEAST = 1e-4
TICKS = (1e-4, 1e-3, 1e-2, 1e-1, 1)
COLUMNS: Mapping[int, tuple[int, ...]] = {1: (9,), 2: (4, 9), 5: (1, 3, 5, 7, 9), 10: tuple(range(10))}
"""Of ten observed rounds, those that are used."""


def pooled() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Scores of 39 models attacked in turn, and who is a member."""
    models = trained(39, 0.2)
    each = [attacked(models, target) for target in range(len(models.inside))]
    return {name: np.concatenate([scores[name] for scores in each]) for name in DRAWN}, models.inside.ravel()


def band(scores: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, ...]:
    """False alarms on a logarithmic grid, share found there, and its interval."""
    curve, members = roc(scores, member), int(member.sum())
    grid = np.logspace(np.log10(LEAST), 0, 60)
    found = np.array([curve.tpr[curve.fpr <= share * (1 + 1e-9)].max() for share in grid])
    limits = np.array([clopper_pearson(round(share * members), members) for share in found])
    return grid, found, limits[:, 0], limits[:, 1]


def by_rounds() -> tuple[dict[str, list[float]], float]:
    """Mean area over the clients, of each attack by the rounds that it reads; and that of the final model's loss."""
    means: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        played = federation(0, Path(folder))
        final = float(np.mean([played.of_final(client) for client in range(CLIENTS)]))
        for models in (64, 16):
            signals = [played.signals(client, models, 10) for client in range(CLIENTS)]
            for columns in COLUMNS.values():
                found = [areas(each, played.member, columns) for each in signals]
                for attack in ("LiRA", "RMIA"):
                    name = f"{attack}, {models} clients"
                    means.setdefault(name, []).append(float(np.mean([area[attack] for area in found])))
                means["loss"] = [float(np.mean([area["loss"] for area in found]))]
    return means, final


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    (scores, member), (means, final) = pooled(), by_rounds()
    styles = looks((name, name) for name in DRAWN)

    def fill(canvas: Figure) -> None:
        left, right = canvas.subplots(1, 2)
        for name in DRAWN:
            style = styles[name]
            grid, found, low, high = band(scores[name], member)
            left.plot(grid, found, color=style.color, linestyle=style.line, label=name)
            left.fill_between(grid, low, high, color=style.color, alpha=0.15, linewidth=0)
        left.plot([LEAST, 1], [LEAST, 1], color=MUTED, linewidth=0.8)
        left.set(xscale="log", yscale="log", xlim=(LEAST, 1), ylim=(LEAST, 1.05))
        left.set(xlabel="share of others called members", ylabel="share of members found")
        left.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
        left.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
        left.set_title("released models, 38 reference models each")
        left.legend(frameon=False, fontsize=8, loc="lower right")
        for name, values in means.items():
            if name == "loss":
                continue
            style = styles[name.split(",")[0]]
            few = name.endswith("16 clients")
            right.plot(
                list(COLUMNS), values, color=style.color, linestyle=":" if few else "-", marker=style.marker, label=name
            )
        right.axhline(means["loss"][0], color=styles["loss"].color, linestyle=styles["loss"].line)
        right.axhline(final, color=MUTED, linestyle="--")
        right.text(10, means["loss"][0] + 0.002, "loss, client's last model", ha="right", va="bottom", fontsize=8)
        right.text(10, final + 0.002, "loss, final model", ha="right", va="bottom", fontsize=8)
        right.set(
            xscale="log", xlabel="observed rounds that are repeated", ylabel="area under the curve, mean of 4 clients"
        )
        right.set_xticks(list(COLUMNS), [str(each) for each in COLUMNS])
        right.minorticks_off()
        right.set_title("one client's messages, reference clients")
        right.legend(frameon=False, fontsize=8, loc="center right")

    label = (
        "Left: members found against false alarms, both logarithmic, on digits with redrawn labels; LiRA and RMIA lie "
        "far above the loss, most at few false alarms. Right: area against the number of repeated rounds of a client's "
        "messages; both attacks lie above the losses of the client's last and of the final model and grow with rounds."
    )
    return standalone(to_svg(fill, size=(10.0, 4.2), name=NAME, label=label))


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "_figures")
