"""The fast model of characters learns Shakespeare's roles together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rivage.data import build_population
from rivage.data.text import Shakespeare
from rivage.federated import FedAvg, Phase, Trial, run
from rivage.learning.task import TaskSettings, make_task


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_n_grams_of_36_roles(data_root: Path) -> None:
    """About a sixth of the characters are spaces, which is what a model without context gets right."""
    population = build_population(Shakespeare(min_characters=10_000), seed=0)
    assert population.size == 36
    task = make_task(TaskSettings(model="char_ngram"), population.schema)
    method = FedAvg(learning_rate=10.0, work=Phase(batch_size=8))
    trial = Trial(name="m", algorithm=method, population=population, task=task, rounds=4, every=99)
    columns = run(trial).seen.columns
    assert np.average(columns["test"], weights=columns["test_size"]) > 0.3
