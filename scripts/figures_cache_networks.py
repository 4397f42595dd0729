"""The figure of docs/explanation/cache-networks.md, from real runs; about 20 seconds.

.venv/bin/python scripts/figures_cache_networks.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rivage.core.seeding import Streams
from rivage.online.cache_network_setups import Demand, Setup, published_setup
from rivage.online.cache_networks import NetworkPlayed, NetworkPolicy, play_network
from rivage.online.network_baselines import GRD, PGA
from rivage.online.network_optimum import relaxed_optimum
from rivage.online.path_replication import PathReplication
from rivage.online.tabular_greedy import DistributedTGOnline
from rivage.report.theme import INK, looks, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "cache-networks"
CASES: Mapping[str, tuple[str, Demand]] = {
    "Abilene, oscillator": ("abilene", "oscillator"),
    "GEANT, changing popularity": ("geant", "changing"),
}
POINTS = 60


def candidates(setup: Setup) -> Mapping[str, Sequence[NetworkPolicy]]:
    """GRD and PGA with every setting of the published grids, the others without tuning."""
    pace = setup.per_time
    return {
        "TGOnline": [DistributedTGOnline()],
        "PGA": [PGA(gain=g, every=max(1, round(pace)), per_time=pace) for g in (0.005, 0.05, 0.5, 1.0, 5.0)],
        "GRD": [GRD(forgetting=rate, per_time=pace) for rate in (0.005, 0.01, 0.05, 0.1)],
        "LRU": [PathReplication()],
    }


def games(setup: Setup) -> dict[str, NetworkPlayed]:
    """One game of each policy, with the setting that turns out best."""
    every = -(-len(setup.requests) // POINTS)
    found = {}
    for name, policies in candidates(setup).items():
        played = [play_network(p, setup.instance, setup.requests, streams=Streams(0), every=every) for p in policies]
        found[name] = max(played, key=lambda game: game.last["gain"])
    return found


def moves(setup: Setup) -> dict[str, NetworkPlayed]:
    """Both kinds of arms."""
    every = -(-len(setup.requests) // POINTS)
    kinds = {name: DistributedTGOnline(arms=name) for name in ("independent", "correlated")}  # type: ignore[arg-type]
    return {
        name: play_network(policy, setup.instance, setup.requests, streams=Streams(0), every=every)
        for name, policy in kinds.items()
    }


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    setups = {title: published_setup(*case, Streams(0)) for title, case in CASES.items()}
    found = {title: games(setup) for title, setup in setups.items()}
    arms = moves(setups["GEANT, changing popularity"])
    styles = looks((name, name) for name in (*next(iter(found.values())), *arms))

    def shares(axes: Axes, title: str) -> None:
        setup = setups[title]
        most = relaxed_optimum(setup.instance, setup.instance.counts(setup.requests)).value / len(setup.requests)
        for name, game in found[title].items():
            x = [point["requests"] for point in game.points]
            y = [100 * point["gain"] / point["requests"] / most for point in game.points]
            axes.plot(x, y, color=styles[name].color, linestyle=styles[name].line, label=name)
        axes.set(title=title, xlabel="requests", ylim=(-3, 118))

    def fill(canvas: Figure) -> None:
        left, middle, right = canvas.subplots(1, 3)
        for axes, title in zip((left, middle), CASES, strict=True):
            shares(axes, title)
        left.set(ylabel="% of the upper bound")
        middle.legend(frameon=False, labelcolor=INK, loc="lower right")
        for name, game in arms.items():
            x, y = ([point[key] for point in game.points] for key in ("requests", "moves"))
            right.plot(x, y, color=styles[name].color, linestyle=styles[name].line, label=f"{name} arms")
        right.set(title="moves of TGOnline on GEANT", xlabel="requests", yscale="log")
        right.legend(frameon=False, labelcolor=INK, loc="center right")

    label = (
        "Gain of four policies as a share of what no fixed placement exceeds, on Abilene under an adversary and on "
        "GEANT under changing popularity; and items moved by independent and correlated arms."
    )
    return standalone(to_svg(fill, size=(10.0, 3.4), name=NAME, label=label))


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "_figures")
