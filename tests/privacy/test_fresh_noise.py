"""Noise is drawn anew in every round, for every client and for every seed: what repeats can be subtracted."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy import ndarray

from rivage.data.population import Schema
from rivage.federated import FedAvg, Phase, Trial
from rivage.federated.checkpoint import Notebook
from rivage.federated.clipping import Clip
from rivage.federated.engine import Session
from rivage.federated.local_noise import GaussianNoise
from rivage.federated.secagg import SecAgg
from rivage.federated.user_privacy import PrivateMean
from rivage.testing.toys import Clients, linear_task

D = 400
SCHEMA = Schema(input_shape=(D,), target="real", num_outputs=1)
SILENT = Clients(tuple((np.zeros((4, D)), np.zeros((4, 1))) for _ in range(3)), SCHEMA)
"""Inputs that are 0 have no gradient: whatever moves is noise."""

PRIVATE = Phase(batch_size=None, batches="poisson", denominator="expected", clip=1.0, noise=1.0)
PLAIN = Trial(
    name="silent",
    algorithm=FedAvg(learning_rate=0.5, work=Phase(batch_size=None)),
    population=SILENT,
    task=linear_task(SILENT),
    rounds=3,
)
OF_THE_SERVER = {
    "of the server": {"collector": PrivateMean(noise=1.0)},
    "under masks": {"collector": SecAgg(clip=0.5, noise_multiplier=1.0, survivors=2)},
}
OF_CLIENTS = {
    "of updates": {"stages": (Clip(norm=1.0), GaussianNoise(deviation=0.5))},
    "of records": {"algorithm": FedAvg(learning_rate=0.5, work=PRIVATE)},
}


def moves(trial: Trial, seed: int = 0) -> list[ndarray]:
    """Of the shared model, by round."""
    with Session(replace(trial, seed=seed), Notebook()) as session:
        states = [session.state["params"].numpy().copy()]
        states += [session.state["params"].numpy().copy() for _ in session]
    return [after - before for before, after in itertools.pairwise(states)]


def updates(trial: Trial) -> list[ndarray]:
    """Of every client in every round, as differences to the broadcast."""
    notebook, found = Notebook(keep_messages=True), []
    with Session(trial, notebook) as session:
        for _ in session:
            pass
    sent = {m.round: m.payload["params"] for m in notebook.messages if m.kind == "broadcast"}
    for message in notebook.messages:
        if message.kind == "update":
            base = 0 if trial.stages else sent[message.round]
            found.append((message.payload["params"] - base).reshape(-1))
    return found


def require_unlike(noises: list[ndarray]) -> None:
    """Correlations of independent noise in 400 coordinates are normal with deviation 1/20."""
    assert all(noise.std() > 1e-3 for noise in noises)
    apart = np.corrcoef(np.stack(noises))[np.triu_indices(len(noises), 1)]
    assert np.abs(apart).max() < 5.5 / np.sqrt(D)


@pytest.mark.parametrize("changes", OF_THE_SERVER.values(), ids=OF_THE_SERVER)
def test_no_two_rounds_or_seeds_have_the_same_noise(changes: dict[str, object]) -> None:
    trial = replace(PLAIN, **changes)  # type: ignore[arg-type]
    require_unlike([*moves(trial), *moves(trial, seed=1)])
    assert all(np.array_equal(one, again) for one, again in zip(moves(trial), moves(trial), strict=True))


@pytest.mark.parametrize("changes", OF_CLIENTS.values(), ids=OF_CLIENTS)
def test_no_two_clients_rounds_or_seeds_have_the_same_noise(changes: dict[str, object]) -> None:
    trial = replace(PLAIN, **changes)  # type: ignore[arg-type]
    found = [*updates(trial), *updates(replace(trial, seed=1))]
    assert len(found) == 2 * 3 * 3
    require_unlike(found)


def test_a_second_step_of_a_round_has_noise_of_its_own() -> None:
    """Two steps move by √2 of one, not by 2 of it."""
    one, two = (
        np.std(updates(replace(PLAIN, algorithm=FedAvg(learning_rate=0.5, work=replace(PRIVATE, epochs=epochs)))))
        for epochs in (1, 2)
    )
    assert two / one == pytest.approx(np.sqrt(2), rel=0.05)
