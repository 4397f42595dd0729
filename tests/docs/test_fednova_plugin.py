"""The worked example of docs/how-to/add-an-algorithm.md: a plug-in package with one new method."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")

from rivage.core.registry import Registry  # noqa: E402
from rivage.federated import FedAvg, Phase, Trial, run  # noqa: E402
from rivage.federated.collectors import Plain  # noqa: E402
from rivage.testing.conformance import check_algorithm  # noqa: E402
from rivage.testing.toys import linear_clients, linear_task  # noqa: E402

EXAMPLE = Path(__file__).parents[2] / "docs" / "how-to" / "fednova_plugin" / "rivage_fednova.py"


@pytest.fixture
def fednova(plugin: Path) -> Any:
    """The class, found the way rivage finds it: through its entry point."""
    return Registry("rivage.algorithms", "method", {}).get("fednova")


def play(algorithm: Any, clients: list[tuple[float, float, int, int]], rounds: int) -> float:
    """Rounds on F_k(w) = a_k (w − c_k)² / 2 with τ_k exact gradient steps; clients are (a, c, τ, n)."""
    state = {"params": torch.zeros(1, dtype=torch.float64)}
    for _ in range(rounds):
        collector = Plain(each=False)
        for curvature, optimum, steps, records in clients:
            local = algorithm.start(algorithm.broadcast(state, 0, None), {}, None, None, None, None)
            for _ in range(steps):
                local.params = local.params - algorithm.learning_rate * curvature * (local.params - optimum)
            local.steps, local.weight = steps, float(records)
            collector.add(algorithm.finish(local, None))
        state = algorithm.aggregate(state, collector.result(), None)
    return state["params"].item()


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 80


def test_the_class_comes_from_the_installed_package(fednova: Any, plugin: Path) -> None:
    assert fednova.__name__ == "FedNova"
    assert Path(sys.modules[fednova.__module__].__file__ or "").parent == plugin


def test_it_conforms(fednova: Any) -> None:
    battery = check_algorithm(fednova(learning_rate=0.05))
    battery.require()
    assert battery.ran >= 8


def test_equal_steps_are_federated_averaging(fednova: Any) -> None:
    clients = [(1.0, 3.0, 4, 10), (2.0, -1.0, 4, 30)]
    assert play(fednova(), clients, 7) == pytest.approx(play(FedAvg(), clients, 7), abs=1e-12)


def test_the_fixed_point_is_that_of_the_closed_form(fednova: Any) -> None:
    """With r_k = (1 − η a_k)^τ_k the mean direction vanishes at Σ p_k (1−r_k)/τ_k c_k / Σ p_k (1−r_k)/τ_k."""
    rate, clients = 0.1, [(1.0, 3.0, 2, 10), (2.0, -1.0, 20, 30), (0.5, 5.0, 7, 5)]
    pulls = [records * (1 - (1 - rate * a) ** steps) / steps for a, _, steps, records in clients]
    limit = sum(pull * c for pull, (_, c, _, _) in zip(pulls, clients, strict=True)) / sum(pulls)
    assert play(fednova(learning_rate=rate), clients, 400) == pytest.approx(limit, abs=1e-8)


def test_unequal_steps_bias_federated_averaging_and_not_fednova(fednova: Any) -> None:
    rate, clients = 1e-3, [(1.0, 0.0, 1, 1), (1.0, 1.0, 9, 1)]  # the minimiser of the mean is 1/2
    assert play(fednova(learning_rate=rate), clients, 4000) == pytest.approx(0.5, abs=3e-3)
    assert play(FedAvg(learning_rate=rate), clients, 4000) == pytest.approx(0.9, abs=3e-3)


def test_a_client_without_steps_moves_nothing(fednova: Any) -> None:
    assert play(fednova(), [(1.0, 3.0, 0, 10)], 2) == 0.0


def test_the_engine_trains_it(fednova: Any) -> None:
    population = linear_clients((4, 7, 1, 12))

    def final(method: Any, work: Phase, rounds: int) -> Any:
        algorithm = method(learning_rate=0.05, work=work)
        task = linear_task(population)
        return run(Trial(name="m", algorithm=algorithm, population=population, task=task, rounds=rounds, every=rounds))

    def loss(outcome: Any) -> float:
        losses, sizes = (outcome.seen.columns[key] for key in ("test_loss", "test_size"))
        return sum(map(float.__mul__, losses, map(float, sizes))) / sum(sizes)

    one_step, several = Phase(batch_size=None), Phase(epochs=2, batch_size=2)
    torch.testing.assert_close(
        final(fednova, one_step, 5).state["params"],
        final(FedAvg, one_step, 5).state["params"],
        rtol=1e-12,
        atol=1e-12,
    )
    assert not torch.equal(final(fednova, several, 5).state["params"], final(FedAvg, several, 5).state["params"])
    assert loss(final(fednova, several, 40)) < loss(final(fednova, several, 1))
