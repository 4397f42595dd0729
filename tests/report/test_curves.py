from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rivage.core.records import RunRecord
from rivage.report import curves
from rivage.report.series import Curve, learning_curve, trials_of
from rivage.report.theme import looks

MakeRun = Callable[..., RunRecord]


def _drawn(record: RunRecord, budget: float | None = None) -> tuple[str | None, str | None]:
    styles = looks((trial.method, trial.kind) for trial in record.trials)
    return curves.learning_curves(record, styles, name="c", budget=budget), curves.server_numbers(
        record, styles, name="s"
    )


def test_a_panel_for_rounds_for_bytes_and_for_gradients(make_run: MakeRun, make_personal_run: MakeRun) -> None:
    learning, server = _drawn(make_personal_run(rounds=10), budget=1e5)
    assert learning is not None
    assert "by rounds, by bytes and by gradients" in learning
    for axis in (">rounds<", "traffic per client, kB", "gradients per client"):
        assert axis in learning
    assert server is not None
    assert ">kappa<" in server
    plain, nothing = _drawn(make_run(rounds=10))
    assert plain is not None
    assert "gradients" not in plain, "the record does not count them"
    assert nothing is None
    silent, _ = _drawn(make_run(methods={"local": "local"}, rounds=5))
    assert silent is not None
    assert "Mean accuracy by rounds: local from" in silent


def test_what_has_one_point_does_not_squeeze_the_others(make_personal_run: MakeRun) -> None:
    record = make_personal_run(methods={"fedavg": "fedavg", "fedem": "fedem"}, rounds=10)
    found = {m: learning_curve(trials_of(record, m)) for m in record.methods}
    assert curves._reach(found, "size") == found["fedem"].size[-1] > 2.5 * found["fedavg"].size[-1]
    once = Curve(*(np.array([value]) for value in (10, 1e9, np.nan, 0.5, 0.5, 0.5)))
    assert curves._reach(found | {"lone": once}, "size") == found["fedem"].size[-1]
    assert curves._reach({"lone": once}, "size") == 1e9
    assert curves._reach({"lone": once}, "gradients") == 0, "unknown"


def test_gradients_are_those_of_one_client(make_personal_run: MakeRun) -> None:
    record = make_personal_run(methods={"fedem": "fedem"}, rounds=10, every=5, unseen=5)
    curve = learning_curve(trials_of(record, "fedem"))
    assert curve.gradients.tolist() == [0, 5 * 3 * 500 / 20, 10 * 3 * 500 / 20]


@pytest.mark.parametrize(
    ("against", "reach", "words", "scale"),
    [
        ("rounds", None, "rounds", 1),
        ("size", 999, "traffic per client, B", 1),
        ("size", 1_200_000, "traffic per client, MB", 1e6),
        ("gradients", 999, "gradients per client", 1),
        ("gradients", 52_000, "thousand gradients per client", 1e3),
    ],
)
def test_axes_have_units(against: str, reach: float | None, words: str, scale: float) -> None:
    assert curves._axis(against, reach) == (words, scale)


def test_numbers_of_the_server_over_seeds(make_run: MakeRun) -> None:
    def told(kind: str, seed: int, done: int) -> dict[str, float]:
        odd = {"wild": float("nan"), "late": 1.0} if done == 2 else {"wild": float("inf")}
        return {"kappa": done + 10.0 * seed} | odd

    record = make_run(methods={"fedstream": "fedavg"}, seeds=(0, 1), rounds=3, server=told)
    found = curves._numbers(trials_of(record, "fedstream"))
    assert list(found) == ["kappa", "late"], "what is not a number is not drawn"
    kappa = found["kappa"]
    assert (kappa.rounds.tolist(), kappa.mean.tolist()) == ([0, 1, 2], [5, 6, 7])
    assert (kappa.low.tolist(), kappa.high.tolist()) == ([0, 1, 2], [10, 11, 12])
    assert found["late"].rounds.tolist() == [2]
    assert _drawn(record)[1] is not None


def test_many_numbers_of_the_server_are_cut(make_run: MakeRun) -> None:
    record = make_run(
        methods={"a": "fedavg"}, seeds=(0,), rounds=2, server=lambda *_: {f"n{k:02}": float(k) for k in range(20)}
    )
    drawn = _drawn(record)[1]
    assert drawn is not None
    assert ">n07<" in drawn
    assert ">n08<" not in drawn
