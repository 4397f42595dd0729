from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rivage.core.records import RunRecord
from rivage.report import shares
from rivage.report.series import trials_of
from rivage.report.theme import looks

MakeRun = Callable[..., RunRecord]


def _drawn(record: RunRecord) -> tuple[str | None, str | None]:
    styles = looks((trial.method, trial.kind) for trial in record.trials)
    return shares.mixtures(record, styles, name="m"), shares.neighbour_shares(record, styles, name="n")


def test_clients_are_grouped_by_the_model_they_use_most(make_run: MakeRun) -> None:
    mix = [[0.1, 0.9], [0.6, 0.4], [0.5, 0.5], [0.8, 0.2], [0.3, 0.7]]
    record = make_run(methods={"fedem": "fedem"}, clients=5, rounds=1, columns=lambda *_: {"mix": mix})
    found = shares.mixture(trials_of(record, "fedem"))
    assert found is not None
    assert found.seen.tolist() == [[0.8, 0.2], [0.6, 0.4], [0.5, 0.5], [0.1, 0.9], [0.3, 0.7]]
    assert found.unseen.shape == (0, 2)


def test_shares_are_of_one_seed_because_models_have_no_order(make_run: MakeRun) -> None:
    mixes = {0: [[1.0, 0.0]], 1: [[0.0, 1.0]], 100: [[0.5, 0.5]], 101: [[0.2, 0.8]]}
    record = make_run(
        methods={"fedem": "fedem"}, clients=1, unseen=1, seeds=(0, 1), rounds=1,
        columns=lambda kind, seed, clients: {"mix": mixes[seed]},
    )  # fmt: skip
    found = shares.mixture(trials_of(record, "fedem"))
    assert found is not None
    assert (found.seen.tolist(), found.unseen.tolist()) == ([[1.0, 0.0]], [[0.5, 0.5]])


@given(st.lists(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), min_size=1, max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
def test_grouping_loses_and_changes_no_client(rows: Sequence[Sequence[float]]) -> None:
    mix = np.asarray(rows) / np.sum(rows, axis=1, keepdims=True)
    grouped = shares._grouped(mix)
    assert sorted(map(tuple, grouped)) == sorted(map(tuple, mix))
    most = grouped.argmax(axis=1)
    assert (np.diff(most) >= 0).all()


def test_weights_of_neighbours_are_joined_over_seeds(make_run: MakeRun) -> None:
    given = {0: [0.2, None], 1: [0.4, 0.6]}
    record = make_run(
        methods={"knnper": "knnper"}, clients=2, seeds=(0, 1), rounds=1,
        columns=lambda kind, seed, clients: {"neighbour_share": given[seed], "train_size": [30, 40]},
    )  # fmt: skip
    found = shares.leaning(trials_of(record, "knnper"), "seen")
    assert found is not None
    assert (found.share.tolist(), found.records.tolist(), found.seeds) == ([0.2, 0.4, 0.6], [30, 30, 40], 2)
    assert shares.leaning(trials_of(record, "knnper"), "unseen") is None


def test_every_client_is_in_the_histogram(make_personal_run: MakeRun) -> None:
    record = make_personal_run(rounds=1, columns=lambda *_: {"neighbour_share": np.linspace(0, 1, 20).tolist()})
    lean = shares.leaning(trials_of(record, "knnper"), "seen")
    assert lean is not None
    assert np.histogram(lean.share, shares._BINS)[0].sum() == 60, "0 and 1 included"
    assert np.isnan(lean.records).all(), "a record that does not tell"


@pytest.mark.parametrize("options", [{}, {"unseen": 3}, {"clients": 1, "cohort": 1}, {"clients": 200}, {"seeds": (4,)}])
def test_figures_say_what_they_show(make_personal_run: MakeRun, options: dict[str, object]) -> None:
    mixed, leaning = _drawn(make_personal_run(rounds=2, **options))
    assert mixed is not None
    assert leaning is not None
    assert "fedem: mean shares" in mixed.partition(">")[0]
    assert "knnper: median" in leaning.partition(">")[0]
    assert ("unseen" in mixed) == ("unseen" in options)
    assert "training records of the client" in leaning


def test_without_mixtures_or_neighbours_nothing_is_drawn(make_run: MakeRun) -> None:
    assert _drawn(make_run(rounds=1)) == (None, None)
    never = make_run(name="none", rounds=1, columns=lambda kind, seed, clients: {"neighbour_share": [None] * clients})
    assert _drawn(never) == (None, None), "no client has a neighbour"
