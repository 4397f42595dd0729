"""The network as a drawing: who holds how much, and who would have answered how much of what was asked for.

Nodes are placed so that distances on paper follow the links between them: classical scaling of path lengths, then
stress majorisation.

References:
    Gansner, Koren, North. Graph drawing by stress majorization. Graph Drawing, 2004.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.report.games.network_numbers import summarize_network, trials_of
from rivage.report.theme import INK, LABEL, MUTED, PAPER, Look, to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_map", "layout", "spread_out"]

_ROUNDS = 200  # of majorisation, more than enough for a few hundred nodes
_NAMED = 40  # nodes whose names and numbers still find room


def layout(nodes: int, links: Int64[ndarray, "links 2"]) -> Float64[ndarray, "nodes 2"]:
    """A place for each node of a connected network, in the unit square; the same links give the same places."""
    return spread_out(_hops(nodes, links))


def spread_out(far: Float64[ndarray, "nodes nodes"]) -> Float64[ndarray, "nodes 2"]:
    """Places in the unit square whose distances follow ``far``, symmetric and > 0, as well as paper can."""
    if len(far) == 1:
        return np.full((1, 2), 0.5)
    places = _scaled(far)
    weights = np.divide(1.0, far**2, out=np.zeros_like(far), where=far > 0)
    pull = np.linalg.pinv(np.diag(weights.sum(axis=1)) - weights)
    for _ in range(_ROUNDS):
        apart = np.linalg.norm(places[:, None] - places[None], axis=2)
        ratio = np.divide(weights * far, apart, out=np.zeros_like(far), where=apart > 1e-9)
        places = pull @ (np.diag(ratio.sum(axis=1)) - ratio) @ places
    places -= places.min(axis=0)
    spread: Float64[ndarray, "nodes 2"] = places / max(float(places.max()), 1e-9)
    return spread


def _hops(nodes: int, links: Int64[ndarray, "links 2"]) -> Float64[ndarray, "nodes nodes"]:
    """Links between every two nodes; those out of reach are put beyond the farthest."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import shortest_path

    one, other = links.reshape(-1, 2).T
    matrix = coo_array((np.ones(len(one)), (one, other)), (nodes, nodes)).tocsr()
    far: Float64[ndarray, "nodes nodes"] = shortest_path(matrix, directed=False, unweighted=True)
    far[np.isinf(far)] = far[np.isfinite(far)].max() + 1
    return far


def _scaled(far: Float64[ndarray, "nodes nodes"]) -> Float64[ndarray, "nodes 2"]:
    """Classical scaling; a little of the node's number sets apart those that are alike, such as leaves of a star."""
    squares = far**2
    centred = squares - squares.mean(axis=0) - squares.mean(axis=1)[:, None] + squares.mean()
    values, vectors = np.linalg.eigh(-centred / 2)
    places = vectors[:, [-1, -2]] * np.sqrt(np.maximum(values[[-1, -2]], 0.0))
    places *= np.where(places[np.abs(places).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)  # eigenvectors have no sign
    turn = 2.4 * np.arange(len(far))
    return np.asarray(places + 0.05 * np.stack([np.cos(turn), np.sin(turn)], axis=1))


def _shown(record: RunRecord) -> TrialRecord | None:
    """The first finished trial of the policy that saves most."""
    summary = summarize_network(record)
    order = sorted(summary, key=lambda name: -(summary[name]["cost_saved"] or 0.0))
    trials = [trial for name in order for trial in trials_of(record, name)]
    return next((trial for trial in trials if trial.events("placement") and trial.events("network")), None)


def draw_map(record: RunRecord, looks: Mapping[str, Look], *, name: str) -> str | None:
    """The network with what its nodes hold and answer; None where it was too large to be kept."""
    trial = _shown(record)
    if trial is None:
        return None
    network, placed = trial.events("network")[0], trial.events("placement")[0]
    names = list(network["names"])
    places = layout(len(names), np.array(network["links"], np.int64))
    shares = np.array(placed["answered"], np.float64) / max(trial.start["trace"]["requests"], 1)
    color = looks[trial.method].color

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_axis_off()
        axes.margins(0.08)
        for one, other in network["links"]:
            axes.plot(*places[[one, other]].T, color=MUTED, alpha=0.5, linewidth=1.0, zorder=1)
        _nodes(axes, network, places)
        axes.scatter(
            places[:, 0],
            places[:, 1],
            s=1200 * shares / max(shares.max(), 1e-9),
            color=color,
            alpha=0.55,
            linewidth=0,
            zorder=3,
        )
        if len(names) <= _NAMED:
            for node, (x, y) in enumerate(places):
                text = f"{names[node]}: {placed['held'][node]}"
                axes.annotate(text, (x, y), (0, 8), textcoords="offset points", ha="center", color=LABEL, zorder=5)

    busiest = sorted(range(len(names)), key=lambda node: -shares[node])[:5]
    told = "; ".join(f"{names[node]} {100 * shares[node]:.3g} %" for node in busiest)
    label = f"The network under {trial.method}; most requests would be answered at {told}."
    return to_svg(fill, size=(10.0, 5.6), name=name, label=label)


def _nodes(axes: Any, network: Mapping[str, Any], places: Float64[ndarray, "nodes 2"]) -> None:
    """A dot for each node, a square where items are served, a ring where requests enter."""
    serves = np.array(network["serves"]) > 0
    all_serve = bool(serves.all())
    for marker, chosen in (("o", ~serves | all_serve), ("s", serves & (not all_serve))):
        axes.scatter(*places[chosen].T, s=18, marker=marker, color=MUTED, linewidth=0, zorder=4)
    entering = places[np.array(network["origins"], np.int64)]
    axes.scatter(*entering.T, s=90, facecolors="none", edgecolors=INK, linewidth=1.2, zorder=4)
    axes.scatter(*places[~serves & (np.array(network["capacities"]) == 0)].T, s=6, color=PAPER, linewidth=0, zorder=4.5)
