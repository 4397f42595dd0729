"""The figure and the tables of docs/explanation/similarity-caching.md, from real runs; about a minute.

.venv/bin/python scripts/figures_similarity.py [table]

Without ``table`` the figure is written, with it the rows of the table of roundings are printed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rivage.core.seeding import Streams
from rivage.online.acai import ACAI
from rivage.online.similarity import SimilarityPolicy, play_similarity
from rivage.online.similarity_rivals import BestFixed
from rivage.report.theme import looks, to_svg
from rivage.studies.claims.similarity import STEP, Game, rivals, saved, similarity_game

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "similarity-caching"
CAPACITIES = (10, 20, 40, 80, 160)
PARTS = 40
POLICIES: Mapping[str, Sequence[SimilarityPolicy]] = {
    "best fixed contents": (BestFixed(),),
    f"AÇAI, {STEP:g} times the step": (ACAI(scale=STEP),),
    "AÇAI, the theory's step": (ACAI(),),
    "SIM-LRU or LRU, composed": rivals(composed=True),
    "SIM-LRU or LRU": rivals(composed=False),
}


def by_capacity() -> dict[str, list[float]]:
    """Shares of the cost saved, of each policy at its best setting."""
    games = [similarity_game("stationary", 0, capacity=capacity) for capacity in CAPACITIES]
    return {name: [max(saved(policy, game) for policy in each) for game in games] for name, each in POLICIES.items()}


def over_time() -> dict[str, np.ndarray]:
    """Shares saved of the cost of every fortieth of the requests, where popularity is permuted four times."""
    game = similarity_game("changing", 0, count=8000)
    best = {name: max(each, key=lambda policy: saved(policy, game)) for name, each in POLICIES.items()}
    return {name: _parts(policy, game) for name, policy in best.items()}


def _parts(policy: SimilarityPolicy, game: Game) -> np.ndarray:
    points = play_similarity(
        policy, game.instance, game.requests, streams=Streams(0), every=len(game.requests) // PARTS
    )
    gain, empty = (np.diff([0.0, *(point[key] for point in points)]) for key in ("gain", "empty"))
    return np.asarray(gain / empty)


def roundings() -> list[str]:
    """What each rounding saves and moves."""
    rows = []
    for rounding in ("dep_round", "poisson", "coupled"):
        for every in (1, 50):
            game = similarity_game("stationary", 0)
            policy = ACAI(scale=STEP, rounding=rounding, every=every)  # type: ignore[arg-type]
            last = [
                play_similarity(policy, game.instance, game.requests, streams=Streams(seed), every=2000)[-1]
                for seed in range(3)
            ]
            share = np.mean([each["gain"] / each["empty"] for each in last])
            moved = np.mean([each["inserted"] - each["occupancy"] for each in last]) / 2000
            held = [each["occupancy"] for each in last]
            fraction = last[0]["fractional_gain"] / last[0]["empty"]
            rows.append(
                f"| `{rounding}` | {every} | {share:.3f} | {fraction:.3f} | {moved:.3f} | {min(held)}–{max(held)} |"
            )
    return rows


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    rooms, times = by_capacity(), over_time()
    styles = looks((name, name) for name in POLICIES)

    def fill(canvas: Figure) -> None:
        left, right = canvas.subplots(1, 2)
        for name in POLICIES:
            style = styles[name]
            left.plot(CAPACITIES, rooms[name], color=style.color, linestyle=style.line, marker=style.marker, label=name)
            right.plot(np.arange(1, PARTS + 1) * (8000 // PARTS), times[name], color=style.color, linestyle=style.line)
        left.set(xscale="log", xlabel="objects in the cache, of 500", ylabel="share of the cost saved")
        left.set_xticks(CAPACITIES, [str(each) for each in CAPACITIES])
        left.minorticks_off()
        left.set_title("stationary popularity")
        left.legend(frameon=False, fontsize=8)
        right.set(xlabel="requests", ylabel="share of the cost saved, last 200 requests")
        right.set_title("popularity permuted four times, 40 objects in the cache")

    label = (
        "Left: share of the cost saved against the capacity; AÇAI is below the best fixed contents, and above LRU "
        "and SIM-LRU but for 80 objects. Right: the same over time while popularity changes four times."
    )
    return standalone(to_svg(fill, size=(10.0, 4.0), name=NAME, label=label))


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["table"]:
        print("\n".join(roundings()))
    else:
        draw(Path(__file__).parents[1] / "docs" / "_figures")
