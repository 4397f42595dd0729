"""The same results on a GPU, to the rounding of its products; skipped where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rivage.core.errors import ConfigError
from rivage.federated.algorithm import Phase
from rivage.federated.apfl import APFL
from rivage.federated.ditto import Ditto
from rivage.federated.engine import run
from rivage.federated.execution import Execution
from rivage.federated.fedavg import FedAvg
from rivage.federated.fedem import FedEM
from rivage.federated.scaffold import Scaffold
from rivage.federated.trial import Trial
from rivage.learning.losses import SQUARED
from rivage.learning.metrics import MAE
from rivage.learning.task import Task
from rivage.testing.toys import linear_clients

WORK = Phase(epochs=2, batch_size=4)
HERE = torch.cuda.is_available()
gpu = pytest.mark.skipif(not HERE, reason="torch sees no GPU")


def final(algorithm: Any, executor: Any, device: str) -> np.ndarray:
    population = linear_clients((9, 4, 1, 17))
    task = Task(lambda s: torch.nn.Linear(3, 1), SQUARED, MAE, population.schema, dtype=torch.float64, device=device)
    trial = Trial(
        name="m",
        algorithm=algorithm,
        population=population,
        task=task,
        rounds=3,
        every=3,
        execution=Execution(executor=executor, device=device),
    )
    outcome = run(trial)
    assert outcome.state["params"].device.type == task.device.type
    return outcome.state["params"].cpu().numpy()


@gpu
@pytest.mark.parametrize("executor", ["functional", "tiled"])
@pytest.mark.parametrize(
    "algorithm", [FedAvg(work=WORK), Scaffold(work=WORK), Ditto(work=WORK), APFL(work=WORK), FedEM()]
)
def test_a_gpu_gives_what_the_processor_gives(algorithm: Any, executor: Any) -> None:
    found, expected = final(algorithm, executor, "cuda:0"), final(algorithm, executor, "cpu")
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_auto_takes_what_is_there() -> None:
    assert Execution().resolved_device.type == ("cuda" if HERE else "cpu")
    assert Execution(device="cpu").resolved_device == torch.device("cpu")


@pytest.mark.skipif(HERE, reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match=r"\[run\] device: .*torch sees no GPU"):
        _ = Execution(device="cuda:0").resolved_device


def test_what_is_no_device_is_told() -> None:
    with pytest.raises(ConfigError, match='"abacus" is no device'):
        _ = Execution(device="abacus").resolved_device
