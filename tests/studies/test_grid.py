"""The studies of the grid: every method is in each, and plays with the settings that are stored."""

from __future__ import annotations

import pytest

from rivage.federated.registry import ALGORITHMS
from rivage.studies.claims.personalised_grid import GRID, grid_study
from rivage.studies.settings import dump_study
from rivage.studies.study_faults import is_decentralized

ELSEWHERE = {"fedadagrad", "fedadam", "fedavgm", "fedyogi", "fedsgd", "scaffold", "fedstream", "fedem_heads"}
DECENTRALISED = {"dfedem", "dpasgd", "dpsgd", "exact_diffusion", "gradient_tracking", "push_diging", "push_sum"}
NO_BODY = {"mixture", "heart"}


@pytest.mark.parametrize("name", GRID)
def test_every_personalised_method_is_compared(name: str) -> None:
    wanted = {kind for kind in ALGORITHMS} - ELSEWHERE - DECENTRALISED
    if name in NO_BODY:  # a linear model is all head
        wanted -= {"fedrep"}
    study = grid_study(name)
    assert {method.kind for method in study.methods} == wanted
    assert study.run.seeds == (0,)
    assert study.tuning is not None


def test_stored_settings_are_read() -> None:
    study = grid_study("heart")
    assert not any(is_decentralized(method.algorithm) for method in study.methods)
    rates = {method["kind"]: method.get("learning_rate") for method in dump_study(study)["methods"]}
    assert len(set(rates.values())) > 2, "no tuning has left a trace"
