"""The best of several starts: chosen by the training likelihood, which is what brute force says it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rivage.data.mixture_clients import MixtureOnDemand
from rivage.data.synthetic import MixtureTruth
from rivage.federated import FedAvg, FedEM, Phase, Trial, run
from rivage.federated.checkpoint import Notebook
from rivage.studies.claims.mixtures import drawn, mean_and_decile, mixture_trial, recovery, true_accuracy
from rivage.studies.starts import best_start, judge, play
from rivage.testing.toys import linear_clients, linear_task

LAW = MixtureOnDemand(clients=40, features=3, max_records=60, test_records=30)
METHOD = FedEM(learning_rate=1.0, components=2, work=Phase(updates=2, batch_size=None))


def trial(method: Any = METHOD, rounds: int = 4, unseen: tuple[int, ...] = (5,)) -> Trial:
    return mixture_trial(method, drawn(LAW, 0), rounds, 0, unseen)


def test_the_likelihood_is_that_of_brute_force() -> None:
    """Mean over the training records of all clients but the unseen one, under its client's shares."""
    one = trial()
    played = play(one)
    w, values = played.state["params"].numpy().astype(float), []
    for client in range(40):
        if client != 5:
            data = one.population.client(client).train
            (memory,) = played.recall([client])
            losses = np.logaddexp(0, np.where(data.y == 1, -1, 1)[:, None] * (data.x @ w.T))
            values.append(np.log(np.exp(-losses) @ memory.values["shares"].numpy()))
    assert played.likelihoods == (pytest.approx(np.concatenate(values).mean(), abs=1e-6),)


def test_noise_is_in_the_likelihood_of_a_regression() -> None:
    population = linear_clients()
    method = FedEM(learning_rate=0.05, components=2, noise=0.5)
    played = play(Trial(name="m", algorithm=method, population=population, task=linear_task(population), rounds=2))
    total = 0.0
    for client, (x, y) in enumerate(population.records):
        (memory,) = played.recall([client])
        losses = 0.5 * (y - x @ played.state["params"].numpy().T) ** 2 / 0.25
        total += float(np.log(np.exp(-losses) @ memory.values["shares"].numpy()).sum())
    assert played.likelihoods[0] == pytest.approx(total / 24, abs=1e-9)


def test_the_likeliest_start_is_kept() -> None:
    each = [play(trial(replace(METHOD, restart=restart))) for restart in range(3)]
    best = max(each, key=lambda played: played.likelihoods[-1])
    kept = best_start(trial(), 3)
    assert len({played.likelihoods for played in each}) == 3
    assert kept.trial.algorithm == best.trial.algorithm
    assert kept.likelihoods == best.likelihoods
    later = best_start(trial(replace(METHOD, restart=1)), 2)
    assert later.likelihoods[0] == max(played.likelihoods[0] for played in each[1:])


def test_a_watched_start_tells_the_likelihood_of_every_round() -> None:
    watched = play(trial(rounds=3), watch=True)
    assert watched.likelihoods == tuple(play(trial(rounds=rounds)).likelihoods[-1] for rounds in (1, 2, 3))


def test_judging_a_few_clients_at_a_time_gives_the_columns_of_the_engine() -> None:
    one = trial(unseen=())
    outcome, ours = run(one, Notebook()), judge(play(one), range(40))
    assert ours["clients"] == list(range(40)), "more than a block of them"
    for name in ("test", "test_loss", "test_size"):
        np.testing.assert_allclose(ours[name], outcome.seen.columns[name], rtol=1e-6)


def test_newcomers_are_judged_with_the_setting_that_is_asked_for() -> None:
    played = play(trial(rounds=20))
    whole, once = (judge(played, [5], method)["test_loss"][0] for method in (None, replace(METHOD, iterations=1)))
    assert whole != once


def test_other_methods_have_no_likelihood() -> None:
    assert play(trial(FedAvg(learning_rate=1.0))).likelihoods == ()
    with pytest.raises(AssertionError, match="no restarts"):
        best_start(trial(FedAvg()), 2)


def test_recovery_finds_the_matching_order() -> None:
    """Components in another order and of other lengths, one of them turned by 60 degrees."""
    true = np.array([[1.0, 0.0], [0.0, 2.0]])
    weights = np.array([[0.75, 0.25], [0.5, 0.5]])
    turned = np.array([[0.5 * 3**0.5, 0.5 * 1.0]]) * 7  # 30 degrees from the first, 60 from the second
    found = recovery(np.concatenate([[[0.0, 5.0]], turned]), [[0.25, 0.75], [0.6, 0.4]], MixtureTruth(true, weights))
    np.testing.assert_allclose(found.cosines, [3**0.5 / 2, 1.0])
    np.testing.assert_allclose(found.shares, [[0.75, 0.25], [0.4, 0.6]])
    np.testing.assert_allclose(found.distances, [0.0, 0.1])


def test_the_true_predictor_knows_what_there_is_to_know() -> None:
    """Clients of one component and no noise are predicted without error; the decile is at position floor(T / 10)."""
    law = MixtureOnDemand(clients=10, components=1, features=3, noise=0.0, test_records=50, max_records=60)
    assert true_accuracy(drawn(law, 0), range(10)) == [1.0] * 10
    assert mean_and_decile([0.5, 0.9, 0.1, 0.3, 0.7, 0.2, 0.4, 0.6, 0.8, 1.0]) == (pytest.approx(0.55), 0.2)
