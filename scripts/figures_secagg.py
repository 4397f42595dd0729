"""The figure of docs/explanation/secure-aggregation.md, from real rounds; about 15 seconds.

.venv/bin/python scripts/figures_secagg.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rivage.core.messages import encoded_size
from rivage.core.seeding import Streams
from rivage.federated.algorithm import Cohort, Mean, Update
from rivage.federated.secagg import SecAgg
from rivage.federated.secagg_graph import chances, degree, neighbours, threshold
from rivage.report.theme import LABEL, MUTED, looks, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "secure-aggregation"
COHORTS = (4, 8, 16, 32, 64, 128, 256)
STAGES = {"secagg_keys": "keys", "secagg_shares": "sealed shares", "secagg_unmask": "last questions and answers"}
CLIENTS, DEGREES, DRAWS = 100, (10, 20, 40, 99), 400
SHARES = np.arange(0.0, 0.62, 0.04)


class _Counting:
    """Carries messages and counts bytes by kind."""

    number = 0

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter()

    def say(self, client: int, kind: str, payload: Any, *, up: bool) -> Any:
        """Deliver a message."""
        self.bytes[kind] += encoded_size(payload)
        return payload

    def sum(self, means: Mapping[str, Mean]) -> None:
        """Nothing is logged."""


def overhead(clients: int) -> dict[str, float]:
    """Bytes of each stage per client, up and down together, in a round in which nobody leaves."""
    collector, post, ids = SecAgg().collector(each=False), _Counting(), np.arange(clients)
    downs = {client: {"params": torch.zeros(8)} for client in range(clients)}
    collector.open(Cohort(ids, np.ones(clients), None), np.ones(clients, bool), downs, post, Streams(0))
    for client in range(clients):
        update = Update({"params": (torch.ones(8), 1.0)}, client=client)
        assert collector.fault(update) is None
        collector.add(update)
    collector.close()
    assert collector.refusal is None
    return {name: post.bytes[kind] / clients for kind, name in STAGES.items()}


def refused(k: int, lost: int) -> float:
    """Share of rounds in which some secret has too few holders left, over drawn circles and lost clients."""
    random, t = np.random.default_rng((k, lost)), threshold(0.5, k)
    return float(np.mean([_fails(random, k, t, lost) for _ in range(DRAWS)]))


def _fails(random: np.random.Generator, k: int, t: int, lost: int) -> bool:
    gone = set(random.choice(CLIENTS, lost, replace=False).tolist())
    circles = neighbours(random.permutation(CLIENTS), k).items()
    return any(k + (client not in gone) - len(gone.intersection(others)) < t for client, others in circles)


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    sizes = [overhead(clients) for clients in COHORTS]
    names = {k: f"{k} neighbours" if k < CLIENTS - 1 else "all others" for k in DEGREES}
    styles = looks((name, name) for name in (*STAGES.values(), *names.values()))

    def fill(canvas: Figure) -> None:
        left, right = canvas.subplots(1, 2)
        _overhead(left, sizes, styles)
        for k, name in names.items():
            lost = np.unique(np.round(SHARES * CLIENTS).astype(int))
            style = styles[name]
            bound = [chances(CLIENTS, k, threshold(0.5, k), lost=int(count))[0] for count in lost]
            right.plot(lost, bound, color=style.color, linewidth=0.8, alpha=0.6)
            shares = [refused(k, int(count)) for count in lost]
            right.plot(lost, shares, color=style.color, marker="o", markersize=3, linestyle="", label=name)
        right.set(xlabel="of 100 clients that left", ylabel="rounds that cannot be read")
        right.set_title("Drawn rounds (points) and bounds (lines)")
        right.legend(frameon=False, fontsize=8, loc="center left")

    label = (
        "Left: bytes of the protocol per client and round against the size of the cohort; they grow with the number of "
        "neighbours, to 15,000 bytes at 256 clients. Right: share of rounds that cannot be read against the number of "
        "clients that leave; more neighbours turn the slope into a step at one half."
    )
    return standalone(to_svg(fill, size=(10.0, 4.0), name=NAME, label=label))


def _overhead(axes: Axes, sizes: list[dict[str, float]], styles: Mapping[str, Any]) -> None:
    for name in STAGES.values():
        values = [row[name] / 1000 for row in sizes]
        axes.plot(COHORTS, values, color=styles[name].color, linestyle=styles[name].line, marker="o", label=name)
    axes.plot(COHORTS, [sum(row.values()) / 1000 for row in sizes], color=MUTED, linewidth=1.0)
    top = (COHORTS[-1], sum(sizes[-1].values()) / 1000)
    axes.annotate("all", top, (-4, -14), textcoords="offset points", fontsize=8, color=LABEL)
    for clients, row in zip(COHORTS, sizes, strict=True):
        if clients in (16, 64, 256):
            text = f"{degree(clients)} neighbours"
            place = (clients, sum(row.values()) / 1000)
            axes.annotate(text, place, (-52, 6), textcoords="offset points", fontsize=7, color=LABEL)
    axes.set(xscale="log", xlabel="clients in the cohort", ylabel="kB per client, both directions")
    axes.set_xticks(COHORTS, [str(count) for count in COHORTS])
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_ylim(bottom=0)
    axes.set_title("What the protocol adds to a masked update")
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "_figures")
