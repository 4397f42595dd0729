"""Statements about personalised federated learning on small data: the studies in ``rivage/studies/grid``.

Every study plays the same methods with settings that `rivage train --tune` chose on validation records, each method
among equally many; ``scripts/tune_grid.py`` chooses them anew. The ``grid-*`` claims play one seed with the stored
settings; ``grid-tuned-*`` tune first and play three seeds.

The orders that are expected are those of the project's own measurements and of the papers; only that FedEM leads on its
own mixture is published as such.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from rivage.core.errors import DataError
from rivage.studies.claims.claim import Claim, Outcome
from rivage.studies.pipeline import run_study
from rivage.studies.settings import Study, parse_study
from rivage.studies.tuning import run_tuned

__all__ = ["CLAIMS", "GRID", "grid_study"]

GRID = ("digits-dirichlet", "digits-pathological", "digits-iid", "mnist", "mixture", "heart", "text")
"""The quick studies, by name."""

_SEEDS = (0, 1, 2)
_NOT_PERSONAL = ("local", "fedavg", "fedprox", "afl", "qffl")
_CLEAR = 0.05  # by how much FedEM leads on its mixture
_HARMLESS = 0.01  # what the best personalised method may gain where clients are alike


def grid_study(name: str) -> Study:
    """A study of the grid."""
    return parse_study((files("rivage.studies.grid") / f"{name}.toml").read_text("utf-8"), f"{name} of the grid")


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a study.

    Args:
        means: accuracy of each method, clients weighted by test records, mean over seeds.
        deciles: accuracy at the bottom decile of clients.
        seconds: what it took.
    """

    means: Mapping[str, float]
    deciles: Mapping[str, float]
    seconds: float

    def table(self) -> str:
        """From the best to the worst."""
        order = sorted(self.means, key=lambda name: -self.means[name])
        return ", ".join(f"{name} {self.means[name]:.3f} / {self.deciles[name]:.3f}" for name in order)


@cache
def played(name: str, tuned: bool) -> Played:
    """Play a study of the grid: once, with the stored settings; or on three seeds, tuned before."""
    study, started = grid_study(name), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        if tuned:
            study = replace(study, run=replace(study.run, seeds=_SEEDS))
            record = run_tuned(study, out=Path(folder))
        else:
            record = run_study(study, out=Path(folder))
        rows: Mapping[str, Any] = record.summary["methods"]
    return Played(
        {method: row["mean"] for method, row in rows.items()},
        {method: row["bottom_decile"] for method, row in rows.items()},
        time.perf_counter() - started,
    )


def _judged(name: str, tuned: bool) -> Outcome:
    """The margin by which a study's order holds, and all figures."""
    try:
        found = played(name, tuned)
    except DataError as error:
        return Outcome(None, "not tested", str(error))
    margins = dict(_MARGINS[name](found.means))
    worst = min(margins, key=lambda order: margins[order])
    detail = f"{worst} by {margins[worst]:+.3f}; mean / bottom decile: {found.table()}; {found.seconds:.0f} s"
    return Outcome(margins[worst], "holds" if margins[worst] >= 0 else "fails", detail)


Margins = Iterator[tuple[str, float]]
Means = Mapping[str, float]


def _skewed(means: Means) -> Margins:
    yield "FedAvg+ over FedAvg", means["fedavg+"] - means["fedavg"]
    yield "kNN-Per over FedAvg", means["knnper"] - means["fedavg"]
    yield "FedAvg over Local", means["fedavg"] - means["local"]


def _sorted_labels(means: Means) -> Margins:
    yield "FedAvg+ over FedAvg", means["fedavg+"] - means["fedavg"]
    yield "kNN-Per over FedAvg", means["knnper"] - means["fedavg"]
    yield "Local over FedAvg", means["local"] - means["fedavg"]


def _alike(means: Means) -> Margins:
    best = max((value, name) for name, value in means.items() if name not in (*_NOT_PERSONAL, "guarded"))
    yield f"FedAvg over {best[1]}, less {_HARMLESS}", means["fedavg"] - best[0] + _HARMLESS


def _mixed(means: Means) -> Margins:
    for other in ("fedavg", "fedavg+", "local"):
        yield f"FedEM over {other}, less {_CLEAR}", means["fedem"] - means[other] - _CLEAR


def _safe(means: Means) -> Margins:
    yield "guarded over Local", means["guarded"] - means["local"]


_MARGINS = {
    "digits-dirichlet": _skewed,
    "digits-pathological": _sorted_labels,
    "digits-iid": _alike,
    "mnist": _skewed,
    "mixture": _mixed,
    "heart": _safe,
    "text": _safe,
    "text-gru": _safe,
}

_STATEMENTS = {
    _skewed: "Where labels are skewed FedAvg+ and kNN-Per serve clients better than FedAvg, and FedAvg better than "
    "training alone.",
    _sorted_labels: "Where a client has two classes, telling them apart is easy: FedAvg+, kNN-Per and training alone "
    "serve clients better than FedAvg.",
    _alike: "Where clients are alike no personalised method gains more than a point over FedAvg.",
    _mixed: "On a mixture of three classifiers FedEM leads FedAvg, FedAvg+ and Local by five points.",
    _safe: "The guarded models are no worse than training alone.",
}


def _claim(name: str, *, tuned: bool) -> Claim:
    order = _MARGINS[name]
    return Claim(
        name=f"grid-tuned-{name}" if tuned else f"grid-{name}",
        paper="Marfoq et al., NeurIPS 2021" if order is _mixed else "own measurement",
        where=f"study {name}, {'tuned, three seeds' if tuned else 'stored settings, one seed'}",
        statement=_STATEMENTS[order],
        expected="the smallest margin is at least 0",
        tolerance=0.0,
        cost="slow",
        run=partial(_judged, name, tuned),
    )


CLAIMS = (
    *(_claim(name, tuned=False) for name in (*GRID, "text-gru")),
    *(_claim(name, tuned=True) for name in GRID),
)
