"""Runs the studies behind the figures and tables of the documentation, and writes them.

    .venv/bin/python scripts/figures.py [NAME...]

Without names: everything, in a few minutes. Figures become ``docs/_figures/NAME.svg``. A table replaces what stands
between ``<!-- table NAME -->`` and ``<!-- end -->`` in the pages that hold it. Nothing here depends on wall clock: the
same code, settings and versions on the same machine give the same bytes.
"""

from __future__ import annotations

import html
import os
import re
import runpy
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rivage.core.records import RunRecord
from rivage.core.summaries import bottom_decile, summarize
from rivage.core.trial_records import TrialRecord
from rivage.data.partition import IID, Dirichlet, Hand, Pachinko, Partition, Pathological, Quantity
from rivage.report import client_tables, figures, series, tables
from rivage.report.theme import INK, LABEL, MUTED, looks, theme_css, to_svg
from rivage.simulation.availability import Markov

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "_figures"
WIDTH = 10.0  # inches, as in the report
MARGIN = 8  # points around a figure, because it brings its own background


class Runs:
    """The runs that figures and tables are made of, each played when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def digits(self) -> RunRecord:
        """The study of `rivage run` without a file."""
        from rivage.studies.pipeline import built_in, run_study

        return run_study(built_in(), out=self.folder)

    @cached_property
    def fedavg(self) -> RunRecord:
        """The study of docs/explanation/fedavg.toml."""
        from rivage.studies.pipeline import run_study
        from rivage.studies.settings import load_study

        return run_study(load_study(ROOT / "docs" / "explanation" / "fedavg.toml"), out=self.folder)

    @cached_property
    def silos(self) -> RunRecord:
        """The study of docs/explanation/decentralised-training.toml."""
        from rivage.studies.pipeline import run_study
        from rivage.studies.settings import load_study

        return run_study(load_study(ROOT / "docs" / "explanation" / "decentralised-training.toml"), out=self.folder)


# --- files ----------------------------------------------------------------------------------------------------------


def standalone(*drawings: str) -> str:
    """An SVG file of drawings by `to_svg`, one below the other, with a background of its own in both themes."""
    top, width, body, words = float(MARGIN), 0.0, [], []
    for drawing in drawings:
        opening, _, inside = drawing.partition(">")
        box = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opening)[0]
        words += re.findall(r'aria-label="([^"]*)"', opening)
        body.append(f'<g transform="translate({MARGIN} {top:g})">{inside.removesuffix("</svg>")}</g>')
        width, top = max(width, float(box[0])), top + float(box[1])
    width, top = width + 2 * MARGIN, top + MARGIN
    label = html.escape(html.unescape(" ".join(filter(None, words))))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}" viewBox="0 0 {width:g} {top:g}" '
        f'width="{width * 4 / 3:g}" height="{top * 4 / 3:g}" font-family="system-ui, sans-serif">'
        f'<style>{theme_css()}</style><rect width="100%" height="100%" fill="var(--paper)"/>{"".join(body)}</svg>\n'
    )


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; columns after the first are set flush right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def replace_table(page: Path, name: str, table: str) -> None:
    """Put a table between its marks.

    Raises:
        LookupError: when the page has no such marks.
    """
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- table {name} -->\n", "<!-- end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise LookupError(f"{page} has no marks for the table {name}")
    page.write_text(f"{before}{begin}\n{table}\n\n{end}{after}", encoding="utf-8")


# --- figures --------------------------------------------------------------------------------------------------------


def _trials_by_method(record: RunRecord) -> dict[str, tuple[TrialRecord, ...]]:
    return {method: series.trials_of(record, method) for method in record.methods}


def _deciles(trials: Sequence[TrialRecord]) -> dict[int, list[float]]:
    """Rounds done -> bottom decile with each seed."""
    found: dict[int, list[float]] = {}
    for trial in trials:
        for event in trial.events("evaluation"):
            value = bottom_decile(event["test"], higher_is_better=trial.start["higher_is_better"])
            if event["group"] == "seen" and value is not None:
                found.setdefault(event["round"], []).append(value)
    return found


def fedavg_curves(runs: Runs) -> str:
    """Mean accuracy and bottom decile against rounds."""
    trials = _trials_by_method(runs.fedavg)
    styles = looks((trial.method, trial.kind) for trial in runs.fedavg.trials)
    names = {"fedavg": "FedAvg", "fedprox": "FedProx, mu = 1", "fedsgd": "FedSGD"}

    def fill(figure: Figure) -> None:
        mean, worst = figure.subplots(1, 2)
        for method, own in trials.items():
            curve, deciles = series.learning_curve(own), _deciles(own)
            low, high = ([pick(values) for values in deciles.values()] for pick in (min, max))
            _band(mean, (curve.rounds, curve.mean, curve.low, curve.high), styles[method], names[method])
            points = ([*deciles], [float(np.mean(v)) for v in deciles.values()], low, high)
            _band(worst, points, styles[method], names[method])
        mean.set(xlabel="rounds", ylabel="accuracy", title="mean over clients")
        worst.set(xlabel="rounds", title="bottom decile")
        worst.legend(frameon=False, labelcolor=INK, loc="lower right")

    return standalone(
        to_svg(fill, size=(WIDTH, 3.6), name="curves", label="Accuracy of FedAvg, FedProx and FedSGD against rounds.")
    )


def _band(axes: Axes, points: tuple[Any, Any, Any, Any], look: Any, label: str) -> None:
    x, mean, low, high = points
    axes.fill_between(x, low, high, color=look.color, alpha=0.14, linewidth=0)
    axes.plot(x, mean, color=look.color, linestyle=look.line, label=label)


def fixed_point(runs: Runs) -> str:
    """Where FedAvg ends on three quadratic losses, by the number of local steps: closed form and trained."""
    rate, curvatures, optima = 0.1, np.array([0.5, 1.0, 4.0]), np.array([3.0, -1.0, 2.0])
    steps = np.arange(1, 61)
    pulls = 1 - (1 - rate * curvatures) ** steps[:, None]
    limits = pulls @ optima / pulls.sum(axis=1)
    trained = {int(count): _trained(rate, curvatures, optima, int(count)) for count in (1, 2, 3, 5, 8, 13, 21, 34, 55)}
    color = looks([("fedavg", "fedavg")])["fedavg"].color

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        marks = (
            (curvatures @ optima / curvatures.sum(), "minimiser of the mean loss", "top"),
            (optima.mean(), "mean of the clients' own minimisers", "bottom"),
        )
        for height, text, side in marks:
            axes.axhline(height, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
            axes.annotate(text, (60, height), (0, -3 if side == "top" else 3), textcoords="offset points", fontsize=8.5,
                          color=LABEL, va=side, ha="right")  # fmt: skip
        axes.plot(steps, limits, color=color, label="closed form")
        axes.plot([*trained], [*trained.values()], "o", color=color, markersize=6, label="trained, 100 rounds")
        axes.set(xlabel="local steps per round", ylabel="limit of w", xlim=(0, 61))
        axes.legend(frameon=False, labelcolor=INK, loc="upper right", bbox_to_anchor=(1, 0.85))

    label = "The limit of FedAvg on quadratic losses leaves the minimiser as local steps grow."
    return standalone(to_svg(fill, size=(WIDTH, 3.2), name="fixed-point", label=label))


def _trained(rate: float, curvatures: np.ndarray, optima: np.ndarray, steps: int) -> float:
    from rivage.federated import FedAvg, Phase, Trial, run
    from rivage.testing.toys import quadratic_clients, quadratic_task

    clients = quadratic_clients(curvatures.tolist(), optima.tolist())
    trial = Trial(
        name="fedavg",
        algorithm=FedAvg(learning_rate=rate, work=Phase(updates=steps, batch_size=None)),
        population=clients,
        task=quadratic_task(clients),
        rounds=100,
        every=100,
    )
    return float(run(trial).state["params"].item())


def clients_against_local(runs: Runs) -> str:
    """A panel per method of the built-in study: every client against Local."""
    record = runs.digits
    drawing = figures.scatter_against_local(record, _looks(record), name="scatter")
    assert drawing is not None, "the study has Local"
    return standalone(drawing)


def sorted_clients(runs: Runs) -> str:
    """Clients of the built-in study from worst to best."""
    record = runs.digits
    drawing = figures.sorted_clients(record, _looks(record), name="sorted")
    assert drawing is not None, "the study was evaluated"
    return standalone(_legend(record), drawing)


def cost_by_capacity(runs: Runs) -> str:
    """How much cache to buy: the run of the tutorial."""
    from figures_caching import shop

    return standalone(shop(runs.folder))


def city_plan(runs: Runs) -> str:
    """Which model goes on which node: the plan of the tutorial."""
    from figures_placement import city_plan

    return standalone(city_plan(runs.folder))


def fastest_overlay(runs: Runs) -> str:
    """Who sends to whom, and what happens in some rounds: the overlay of the tutorial."""
    from figures_sites import fastest_overlay

    return standalone(*fastest_overlay(runs.folder))


def _looks(record: RunRecord) -> Mapping[str, Any]:
    return looks((trial.method, trial.kind) for trial in record.trials)


def _legend(record: RunRecord) -> str:
    """One line that says how each method is drawn."""

    def fill(figure: Figure) -> None:
        from matplotlib.lines import Line2D

        handles = [
            Line2D([], [], color=look.color, linestyle=look.line, marker="o" if look.marker == "_" else look.marker,
                   markeredgewidth=0, label=method)
            for method, look in _looks(record).items()
        ]  # fmt: skip
        figure.legend(handles=handles, loc="center", ncols=len(handles), frameon=False, labelcolor=INK, handlelength=3)

    return to_svg(fill, size=(WIDTH, 0.35), name="legend", label="")


def partitions(runs: Runs) -> str:
    """Records of each class at each client, for each way to split the digits."""
    from rivage.data.readers import Digits

    labels = Digits().load(0).records.labels
    hand = Hand(size=len(labels), labels=labels, coarse=(labels >= 5).astype(np.int64))
    cases: dict[str, Partition] = {
        "iid": IID(clients=20),
        "quantity, sigma = 1": Quantity(clients=20, sigma=1.0),
        "pathological, 2 shards": Pathological(clients=20, shards=2),
        "dirichlet, alpha = 0.3": Dirichlet(clients=20, alpha=0.3),
        "dirichlet, alpha = 3": Dirichlet(clients=20, alpha=3.0),
        "pachinko, alpha = 0.4, beta = 10": Pachinko(clients=20, alpha=0.4, beta=10.0),
    }
    parts = {name: partition.deal(hand, np.random.default_rng(0)) for name, partition in cases.items()}
    counts = {
        name: np.stack([np.bincount(labels[rows], minlength=10) for rows in part.values()])
        for name, part in parts.items()
    }
    styles = looks((name, name) for name in cases)

    def fill(figure: Figure) -> None:
        panels = figure.subplots(2, 3, sharex=True, sharey=True)
        for axes, (name, count) in zip(panels.flat, counts.items(), strict=True):
            _draw_counts(axes, count, styles[name].color)
            axes.set(title=name, xlim=(-1, 20), ylim=(-0.9, 9.9), yticks=range(0, 10, 3), xticks=range(0, 20, 5))
            axes.grid(True, axis="both")
        figure.supxlabel("client", fontsize=9, color=MUTED)
        figure.supylabel("digit", fontsize=9, color=MUTED)

    label = "Records of each digit at each of 20 clients, for six ways to split 1,797 digits."
    return standalone(to_svg(fill, size=(WIDTH, 5.2), name="partitions", label=label))


def _draw_counts(axes: Axes, count: np.ndarray, color: str) -> None:
    """A dot per client and digit; areas in steps of 10 records, because dots of one size are stored once."""
    area = np.ceil(count / 10)
    for step in np.unique(area[area > 0]):
        client, digit = np.nonzero(area == step)
        axes.scatter(client, digit, s=15 * step, color=color, alpha=0.75, linewidths=0)


def availability(runs: Runs) -> str:
    """When twelve clients are there, for three correlations of the same mean."""
    rounds, clients = np.arange(120), np.arange(12)
    cases = {-0.4: "alternating", 0.0: "a coin per round", 0.9: "long periods"}

    def fill(figure: Figure) -> None:
        panels = figure.subplots(3, 1, sharex=True)
        color = looks([("on", "on")])["on"].color
        for axes, (correlation, text) in zip(panels, cases.items(), strict=True):
            law = Markov(mean=0.7, correlation=correlation)
            there = np.stack([law.available(1, clients, int(r)) for r in rounds], axis=1)
            axes.plot(*_stripes(there), color=color, linewidth=5.5, solid_capstyle="butt")
            share = f"{100 * there.mean():.0f} % of these rounds on"
            axes.set_title(f"correlation {correlation:g}: {text}, {share}".replace("-", "−"))
            axes.set(ylim=(-0.8, 11.8), yticks=[0, 5, 10], ylabel="client")
            axes.grid(False)
        panels[-1].set(xlabel="round", xlim=(0, 120))

    label = "Rounds in which twelve clients are available, mean 0.7, for correlations −0.4, 0 and 0.9."
    return standalone(to_svg(fill, size=(WIDTH, 5.6), name="availability", label=label))


def _stripes(there: np.ndarray) -> tuple[list[float], list[float]]:
    """One broken line: for each client a stripe over every stretch of rounds in which it is there."""
    x: list[float] = []
    y: list[float] = []
    for client, row in enumerate(there):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        for begin, end in edges.reshape(-1, 2).tolist():
            x += [begin, end, np.nan]
            y += [client, client, np.nan]
    return x, y


def elsewhere(name: str) -> Callable[[Runs], str]:
    """The drawing of a file of its own, which says what it runs and needs."""

    def drawing(runs: Runs) -> str:
        result: str = runpy.run_path(str(ROOT / "scripts" / f"{name}.py"))["figure"](standalone)
        return result

    return drawing


def delivery_compared(runs: Runs) -> str:
    """Policies of inference delivery, paired differences as stored; the drawing is in a file of its own."""
    file = runpy.run_path(str(ROOT / "scripts" / "figures_delivery.py"))
    drawing: str = file["differences"](file["load"](FOLDER / file["STORED"]), standalone)
    return drawing


def delivery_tracking(runs: Runs) -> str:
    """The same over time, and latency against accuracy."""
    drawing: str = runpy.run_path(str(ROOT / "scripts" / "figures_delivery.py"))["tracking"](standalone)
    return drawing


def topology_matters(runs: Runs) -> str:
    """Loss over graphs, and slowdowns as a probe predicts them; the drawing is in a file of its own."""
    file = runpy.run_path(str(ROOT / "scripts" / "figures_topology.py"))
    drawing: str = file["figure"](file["load"](FOLDER / file["STORED"]), standalone)
    return drawing


def decentralised_training(runs: Runs) -> str:
    """Accuracy by rounds and by simulated seconds over six overlays; the drawing is in a file of its own."""
    drawing: str = runpy.run_path(str(ROOT / "scripts" / "figures_training.py"))["figure"](standalone, runs.silos)
    return drawing


# --- tables ---------------------------------------------------------------------------------------------------------


def results(runs: Runs) -> str:
    """What the methods of the built-in study reach."""
    record = runs.digits
    rows = [
        (row["method"], row["mean"], row["bottom_decile"], row["worse"], row["unseen_mean"], row["up"])
        for row in tables.result_rows(record, summarize(record))
    ]
    header = ("method", "mean accuracy", "bottom decile", "worse than local", "unseen clients", "uploaded")
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    seeds = ", ".join(map(str, record.seeds))
    note = f"`rivage run`: means over seeds {seeds} ± standard deviation; bytes per seed. {versions}."
    return f"{markdown(header, rows)}\n\n{textwrap.fill(note, 120)}"


def choices(runs: Runs) -> str:
    """Which models the guarded clients took."""
    trials = series.trials_of(runs.digits, "guarded")
    counts = {group: series.choice_counts(trials, group) for group in ("seen", "unseen")}
    taken = [method for method in runs.digits.methods if any(method in count for count in counts.values())]
    rows = [(method, *(f"{counts[group].get(method, 0):.1f}" for group in counts)) for method in taken]
    return markdown(("model", "seen clients that took it", "unseen clients that took it"), rows)


def costs(runs: Runs) -> str:
    """What methods of the built-in study cost, and what the bytes of the cheapest one buy."""
    summary = summarize(runs.digits)
    budget = client_tables.budget(summary)
    assert budget is not None, "FedEM sends three models"
    keys = ("method", "size", "gradients", "mean", "rounds_then", "mean_then", "decile_then")
    rows = [tuple(row[key] for key in keys) for row in client_tables.cost_rows(summary)]
    size = tables.human_bytes(budget)
    header = ("method", "traffic per client", "gradients per client", "mean at the end", f"rounds for {size}",
              "mean then", "bottom decile then")  # fmt: skip
    return markdown(header, rows)


def certificates(runs: Runs) -> str:
    """The certificates of the built-in study."""
    rows = [
        (f"{row['verdict'].replace('_', ' ')}", row["claim"], row["measured"], row["reference"], row["confidence"])
        for row in tables.certificate_rows(runs.digits.certificates)
    ]
    table = markdown(("verdict", "claim", "measured", "reference", "confidence"), rows)
    return table.replace("| --- | ---: |", "| --- | --- |", 1)


EXPLANATION = ROOT / "docs" / "explanation"
FIGURES: Mapping[str, Callable[[Runs], str]] = {
    "fixed-point": fixed_point,
    "partitions": partitions,
    "availability": availability,
    "fedavg-curves": fedavg_curves,
    "clients-against-local": clients_against_local,
    "sorted-clients": sorted_clients,
    "cost-by-capacity": cost_by_capacity,
    "city-plan": city_plan,
    "fastest-overlay": fastest_overlay,
    "secure-aggregation": elsewhere("figures_secagg"),
    "audited-epsilon": elsewhere("figures_epsilon"),
    "audit-clinics": elsewhere("figures_audit"),
    "long-term-fairness": elsewhere("figures_fairness"),
    "cache-networks": elsewhere("figures_cache_networks"),
    "no-regret-steps": elsewhere("figures_no_regret"),
    "inference-delivery": elsewhere("figures_inference"),
    "similarity-caching": elsewhere("figures_similarity"),
    "overlay-design": elsewhere("figures_overlays"),
    "stragglers-and-degree": elsewhere("figures_stragglers"),
    "personalisation-compared": elsewhere("figures_grid"),
    "recovered-mixture": elsewhere("figures_mixtures"),
    "neighbours-and-model": elsewhere("figures_neighbours"),
    "topology-matters": topology_matters,
    "decentralised-training": decentralised_training,
    "data-streams": elsewhere("figures_streams"),
    "membership-inference": elsewhere("figures_membership"),
    "attribute-inference": elsewhere("figures_attributes"),
    "eavesdropping": elsewhere("figures_eavesdropping"),
    "shadow-models": elsewhere("figures_shadows"),
    "differential-privacy": elsewhere("figures_privacy"),
    "dp-ftrl": elsewhere("figures_dp_ftrl"),
    "delivery-compared": delivery_compared,
    "delivery-tracking": delivery_tracking,
}
TABLES: Mapping[str, tuple[Callable[[Runs], str], tuple[Path, ...]]] = {
    "results": (results, (ROOT / "README.md", EXPLANATION / "personalisation.md")),
    "choices": (choices, (EXPLANATION / "personalisation.md",)),
    "costs": (costs, (EXPLANATION / "personalisation.md",)),
    "certificates": (certificates, (EXPLANATION / "certificates.md",)),
}


def main(names: Sequence[str]) -> int:
    """Write the named figures and tables, or all."""
    known = [*FIGURES, *TABLES]
    unknown = [name for name in names if name not in known]
    os.environ["RIVAGE_TILE_BYTES"] = "4194304"  # what is measured on this machine must not change a figure
    if unknown:
        print(f"unknown: {', '.join(unknown)}. Known are: {', '.join(known)}.", file=sys.stderr)
        return 2
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder))
        for name in names or known:
            print(name, file=sys.stderr)
            if name in FIGURES:
                (FOLDER / f"{name}.svg").write_text(FIGURES[name](runs), encoding="utf-8")
                continue
            make, pages = TABLES[name]
            for page in pages:
                replace_table(page, name, make(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
