"""Learning from streams: recursions written out, FedAvg and one-pass SGD as ends, shares, the estimate of kappa."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.data.streams import Stream, StreamPopulation, Volumes
from rivage.data.streams_memory import FirstIn, Fixed, OneBatch, Reservoir
from rivage.federated import Execution, FedAvg, FedStream, Notebook, Phase, Trial, run
from rivage.federated.executors.jobs import Job
from rivage.federated.rounding import Float16
from rivage.studies.claims.streams import BATCH, QUADRATICS, ROUNDS, best_share, blocks_of, expected_error
from rivage.studies.pipeline import run_study
from rivage.studies.settings import dump_study, parse_study
from rivage.testing.conformance import check_algorithm
from rivage.testing.toys import linear_clients, linear_task

WORK = Phase(epochs=2, batch_size=3)
STEP = Phase(updates=1, batch_size=None)
CLIENTS = linear_clients((9, 12, 8, 15))


def streaming(base: Any = CLIENTS, rounds: int = 6, **table: Any) -> StreamPopulation:
    return Stream(**{"historical": ("0", "3"), **table}).population(base, rounds=rounds, seed=0)


def trial_of(algorithm: Any, population: Any, rounds: int = 6, **options: Any) -> Trial:
    task = linear_task(CLIENTS, options.pop("dtype", torch.float64))
    return Trial(name="m", algorithm=algorithm, population=population, task=task, rounds=rounds, every=999, **options)


def played(algorithm: Any, population: Any, rounds: int = 6, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
    notebook = Notebook()
    outcome = run(trial_of(algorithm, population, rounds, **options), notebook)
    return outcome, [event for event in notebook.events if event["event"] == "round"]


def start_of(dtype: torch.dtype = torch.float64, seed: int = 0) -> np.ndarray:
    result: np.ndarray = linear_task(CLIENTS, dtype).initial(Streams(seed).seed("model")).numpy()
    return result


def step(w: np.ndarray, data: ClientData, rate: float) -> np.ndarray:
    """One step on the weighted loss of what is in memory."""
    x, y = data.train.x, data.train.y[:, 0]
    weights = np.ones(len(x)) if data.importance is None else data.importance
    result: np.ndarray = w - rate * x.T @ (weights * (x @ w - y)) / weights.sum()
    return result


# --- the recursion --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [OneBatch(), FirstIn(5), Reservoir(5)])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("executor", ["functional", "tiled"])
def test_every_round_is_the_weighted_mean_of_weighted_steps(memory: Any, share: float, executor: str) -> None:
    """λ, p_m^t and the server's step, written out."""
    population, rate, server = streaming(memory=memory), 0.1, 0.7
    method = FedStream(learning_rate=rate, server_rate=server, strategy="grid", share=share, work=STEP)
    outcome, _ = played(method, population, execution=Execution(executor=executor))  # type: ignore[arg-type]
    volumes, w = population.volumes(), start_of()
    total = volumes.historical + volumes.fresh
    for t in range(6):
        moved, weights = [], []
        for id in range(4):
            data = population.client(id, t)
            factor = (
                share * total / volumes.historical if population.historical[id] else (1 - share) * total / volumes.fresh
            )
            importance = np.ones(len(data.train)) if data.importance is None else data.importance
            weights.append(factor * importance.sum())
            moved.append(step(w, data, rate) - w)
        w = w + server * sum(p * delta for p, delta in zip(np.array(weights) / sum(weights), moved, strict=True))
    np.testing.assert_allclose(outcome.state["params"].numpy(), w, atol=1e-12)


@pytest.mark.parametrize(("historical", "rate"), QUADRATICS)
def test_the_error_on_a_quadratic_is_the_formula(historical: int, rate: float) -> None:
    """C1 with 50 problems in one run; `rivage reproduce streams-quadratic` has 4,000."""
    for share in (historical / (historical + BATCH * ROUNDS), best_share(historical, rate), 1.0):
        found = blocks_of(historical, rate, share, blocks=50)
        error = found.std(ddof=1) / len(found) ** 0.5
        assert abs(found.mean() - expected_error(historical, rate, share)) < 4 * error


@pytest.mark.parametrize(
    ("historical", "rate", "share", "expected"),
    [(200, 0.05, 1 / 3, 0.03412), (200, 0.05, 0.565, 0.02804), (50, 0.05, 1.0, 0.19778), (800, 0.05, 0.838, 0.0105)],
)
def test_the_formula_has_the_published_values(historical: int, rate: float, share: float, expected: float) -> None:
    assert expected_error(historical, rate, share) == pytest.approx(expected, abs=1e-5)
    best = best_share(historical, rate)
    assert expected_error(historical, rate, best) <= expected_error(historical, rate, share)


# --- FedAvg and one-pass SGD ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["uniform", "historical", "rule"])
@pytest.mark.parametrize("cohort", [None, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_arrivals_it_is_fedavg_bit_for_bit(strategy: Any, cohort: int | None, dtype: torch.dtype) -> None:
    plain, _ = played(FedAvg(work=WORK), CLIENTS, cohort=cohort, dtype=dtype)
    for population in (CLIENTS, streaming(historical=1.0, memory=Fixed())):
        found, rounds = played(FedStream(work=WORK, strategy=strategy), population, cohort=cohort, dtype=dtype)
        assert torch.equal(found.state["params"], plain.state["params"])
        assert found.seen.columns == plain.seen.columns
        assert {event["server"]["historical"] for event in rounds} == {1.0}


def test_a_memory_of_one_batch_is_one_pass_of_sgd() -> None:
    """C = b, one client: every record serves one step, in the order of arrival."""
    population = streaming(linear_clients((20,)), rounds=5, historical=0.0, memory=FirstIn(4), batch=4, order="given")
    found, _ = played(FedStream(learning_rate=0.1, strategy="fresh", work=STEP), population, rounds=5)
    x, y = linear_clients((20,)).records[0]
    w = start_of()
    for rows in np.arange(20).reshape(5, 4):
        w = w - 0.1 * x[rows].T @ (x[rows] @ w - y[rows, 0]) / 4
    np.testing.assert_allclose(found.state["params"].numpy(), w, atol=1e-13)


def test_on_a_stream_the_uniform_strategy_weighs_as_fedavg_does() -> None:
    population = streaming(memory=OneBatch())
    plain, _ = played(FedAvg(work=WORK), population)
    found, _ = played(FedStream(work=WORK, strategy="uniform"), population)
    assert torch.equal(found.state["params"], plain.state["params"])


# --- shares ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9, 1.0])
def test_the_imposed_share_is_that_of_every_round_where_arrivals_are_even(share: float) -> None:
    population = streaming(linear_clients((9, 12, 8, 12)), memory=OneBatch(), historical=("0", "2"))
    _, rounds = played(FedStream(strategy="grid", share=share, work=STEP), population)
    assert [event["server"]["historical"] for event in rounds] == pytest.approx([share] * 6)


def test_over_the_run_the_imposed_share_holds_whatever_arrives_when() -> None:
    """Σ_t of historical weight over Σ_t of all weight; N_eff from the weights is the formula's."""
    population, share = streaming(memory=FirstIn(5)), 0.3
    method, volumes = FedStream(strategy="grid", share=share), population.volumes()
    factors = method._factors({}, volumes)
    ids = np.arange(4)
    piled = [np.zeros(len(CLIENTS.records[id][0])) for id in ids]
    for t in range(6):
        for id in ids.tolist():
            data = population.client(id, t)
            importance = 1.0 if data.importance is None else data.importance
            piled[id][data.train.index] += factors[0 if population.historical[id] else 1] * importance
    total = sum(part.sum() for part in piled)
    assert sum(piled[id].sum() for id in ids if population.historical[id]) / total == pytest.approx(share)
    squares = sum(((part / total) ** 2).sum() for part in piled)
    assert squares == pytest.approx(share**2 / volumes.historical + (1 - share) ** 2 / volumes.fresh)


def test_clients_that_would_count_nothing_are_not_asked() -> None:
    for strategy, expected in (("historical", {0, 3}), ("fresh", {1, 2})):
        _, rounds = played(FedStream(strategy=strategy, work=STEP), streaming(), cohort=2)  # type: ignore[arg-type]
        assert all(set(event["cohort"]) == expected for event in rounds)


def test_a_client_whose_memory_is_empty_is_not_asked() -> None:
    population = streaming(memory=OneBatch(), batch=4)  # clients 1 and 2 have records for three and two rounds
    _, rounds = played(FedStream(strategy="uniform", work=STEP), population)
    assert [event["cohort"] for event in rounds[1:4]] == [[0, 1, 2, 3], [0, 1, 3], [0, 3]]


def test_unseen_clients_do_not_count_among_the_records() -> None:
    method, population = FedStream(strategy="grid", share=0.5, work=STEP), streaming(memory=OneBatch())
    _, rounds = played(method, population, unseen=np.array([3]))
    assert population.volumes(np.array([3])) != population.volumes()
    assert np.mean([event["server"]["historical"] for event in rounds]) == pytest.approx(0.5, abs=0.05)


@given(st.floats(1, 1e4), st.floats(1, 1e4), st.floats(0, 3), st.floats(0, 1))
def test_the_rule_lies_between_uniform_and_historical(old: float, new: float, kappa: float, drift: float) -> None:
    volumes = Volumes(old, new, drift)
    found = FedStream(kappa=kappa).wanted(kappa, volumes)
    assert old / (old + new) * (1 - 1e-9) <= found <= 1
    assert FedStream(kappa=0.0).wanted(0.0, volumes) == FedStream(strategy="uniform").wanted(0.0, volumes)
    assert FedStream().wanted(1e9, Volumes(old, new, 1.0)) == 1.0


# --- kappa ----------------------------------------------------------------------------------------------------------


def test_the_parts_of_kappa_by_hand() -> None:
    """Validation records are the training records here: their losses are equal, so the gap is one standard error."""
    population = streaming(memory=OneBatch())
    outcome, rounds = played(FedStream(learning_rate=0.1, every=2, work=STEP), population, rounds=3)
    w, before = start_of(), None
    for t in range(3):
        before = w
        volumes, weights, moved = population.volumes(), [], []
        for id in range(4):
            data = population.client(id, t)
            weights.append(data.weight)
            moved.append(step(w, data, 0.1))
        w = sum(p * part for p, part in zip(np.array(weights) / sum(weights), moved, strict=True))
    assert [event["server"]["noise"] for event in rounds[:2]] == [0.0, 0.0]
    noise, variance, count = 0.0, 0.0, 0
    for id in (0, 3):
        x, y = CLIENTS.records[id]
        residual = x @ before - y[:, 0]
        noise += len(x) * (residual[:, None] * x).var(axis=0, ddof=1).sum()
        variance += len(x) * (0.5 * residual**2).var(ddof=1)
        count += len(x)
    noise, gap = noise / count, (variance / count / count) ** 0.5
    distance = np.linalg.norm(w - start_of())
    found = rounds[2]["server"]
    assert found["noise"] == pytest.approx(noise)
    assert found["gap"] == pytest.approx(gap)
    assert found["distance"] == pytest.approx(distance)
    kappa = FedStream().kappa_of(outcome.state, volumes)
    assert kappa == pytest.approx(0.1 * distance * noise**0.5 / (gap * volumes.historical**0.5))


def test_no_caution_is_uniform_and_all_caution_is_historical() -> None:
    population = streaming(memory=OneBatch())
    uniform, _ = played(FedStream(strategy="uniform", work=STEP), population)
    free, _ = played(FedStream(caution=0.0, work=STEP), population)
    assert torch.equal(free.state["params"], uniform.state["params"])
    _, rounds = played(FedStream(caution=1e9, every=1, work=STEP), population)
    assert [event["server"]["historical"] for event in rounds[2:]] == [1.0] * 4


def test_without_a_gap_there_is_nothing_to_weigh() -> None:
    state = {name: torch.tensor(value) for name, value in {"noise": 1.0, "distance": 1.0, "gap": 0.0}.items()}
    volumes = Volumes(10.0, 40.0, 1.0)
    assert FedStream().kappa_of(state, volumes) == float("inf")
    assert FedStream().wanted(float("inf"), volumes) == 1.0


def test_fresh_clients_measure_nothing() -> None:
    task, method = linear_task(CLIENTS), FedStream()
    down = {"params": task.initial(0), "rounds": torch.tensor(5)}
    for id, measured in ((0, True), (1, False)):
        local = method.start(down, {}, streaming().client(id), None, Streams(0), task)
        assert bool(local.keep["noise"] > 0) is measured
        assert bool(local.keep["historical"] == 1) is measured


# --- Θ and the output -----------------------------------------------------------------------------------------------


def test_the_average_of_the_models_sent_is_weighted_by_rounds() -> None:
    population = streaming(memory=OneBatch(), batch=4)
    averaged, _ = played(FedStream(strategy="uniform", output="average", work=STEP), population)
    sent, weights, state = [], [], start_of()
    for t in range(6):
        sent.append(state)
        weights.append(population.sizes(np.arange(4), t).sum())
        outcome, _ = played(FedStream(strategy="uniform", work=STEP), population, rounds=t + 1)
        state = outcome.state["params"].numpy()
    expected = np.average(sent, axis=0, weights=weights)
    np.testing.assert_allclose(averaged.state["average"].numpy(), expected, atol=1e-12)
    assert torch.equal(averaged.seen.predictors[0].params[0], averaged.state["average"])


def test_the_model_stays_within_its_ball() -> None:
    free, _ = played(FedStream(work=STEP, strategy="uniform"), CLIENTS, rounds=30)
    held, _ = played(FedStream(work=STEP, strategy="uniform", radius=0.05), CLIENTS, rounds=30)
    assert np.linalg.norm(free.state["params"].numpy() - start_of()) > 0.06
    assert np.linalg.norm(held.state["params"].numpy() - start_of()) <= 0.05 * (1 + 1e-12)


# --- the engine -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        FedStream(learning_rate=0.05, work=WORK),
        FedStream(learning_rate=0.05, work=WORK, output="average", radius=1.0, server_rate=0.7, strategy="uniform"),
        FedStream(learning_rate=0.05, work=WORK, every=1, caution=1.0),
    ],
)
def test_conformance(method: FedStream) -> None:
    battery = check_algorithm(method)
    battery.require()
    assert battery.ran >= 11


@settings(deadline=None, max_examples=8)
@given(st.sampled_from([OneBatch(), FirstIn(5), Reservoir(5)]), st.sampled_from(["rule", "uniform"]), st.integers(1, 5))
def test_a_stopped_run_goes_on_where_it_was(memory: Any, strategy: Any, stop: int) -> None:
    method = FedStream(learning_rate=0.05, work=WORK, every=2, strategy=strategy, output="average")
    whole, _ = played(method, streaming(memory=memory))
    notebook = Notebook()
    run(trial_of(method, streaming(memory=memory), stop), notebook)
    resumed = run(trial_of(method, streaming(memory=memory), 6), notebook)
    assert all(torch.equal(resumed.state[name], value) for name, value in whole.state.items())


def test_both_executors_train_on_weighted_memories() -> None:
    method = FedStream(learning_rate=0.05, work=WORK, every=1)
    found = [
        played(method, streaming(memory=Reservoir(5)), execution=Execution(executor=kind))[0]  # type: ignore[arg-type]
        for kind in ("functional", "tiled")
    ]
    for name, value in found[0].state.items():
        torch.testing.assert_close(found[1].state[name], value, rtol=1e-10, atol=1e-10)


def test_weights_have_mean_one_and_are_left_out_where_equal() -> None:
    task, method = linear_task(CLIENTS), FedStream(strategy="uniform")
    for memory in (Reservoir(5), OneBatch()):
        data = streaming(memory=memory).client(1, 3)
        local = method.start({"params": task.initial(0)}, {}, data, None, Streams(0), task)
        if isinstance(memory, OneBatch):
            assert local.weights is None
        else:
            assert local.weights is not None
            assert float(local.weights.mean()) == pytest.approx(1)
            np.testing.assert_allclose(local.weights[:, 0] * data.importance.mean(), data.importance)  # type: ignore[union-attr]
        assert Job(1, local, data.train).samples is data.train


def test_updates_may_be_compressed() -> None:
    exact, _ = played(FedStream(work=WORK), streaming())
    rounded, _ = played(FedStream(work=WORK), streaming(), stages=(Float16(),))
    torch.testing.assert_close(rounded.state["params"], exact.state["params"], rtol=0.01, atol=0.01)


# --- settings and studies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 1.2}, "share is 1.2"),
        ({"kappa": -1.0}, "kappa is -1"),
        ({"caution": -0.1}, "caution is -0.1"),
        ({"every": 0}, "every is 0"),
        ({"server_rate": 0.0}, "server_rate is 0"),
        ({"radius": 0.0}, "radius is 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FedStream(**settings)


@pytest.mark.parametrize(
    ("method", "population", "kind"),
    [
        (FedStream(strategy="fresh"), CLIENTS, "fresh"),
        (FedStream(strategy="grid", share=0.5), CLIENTS, "fresh"),
        (FedStream(strategy="historical"), streaming(historical=0.0), "historical"),
    ],
)
def test_data_that_nobody_has_are_asked_for_in_vain(method: FedStream, population: Any, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"learns from {kind} data, but no client has any"):
        played(method, population)


STUDY = """
name = "stream"
[data]
kind = "digits"
[partition]
kind = "iid"
clients = 6
[stream]
historical = 0.5
batch = 10
memory = { kind = "fifo", capacity = 20 }
[run]
rounds = 8
seeds = [0]
[evaluation]
every = 4
unseen_clients = 0.4
[[methods]]
kind = "fedstream"
[[methods]]
name = "fresh"
kind = "fedstream"
strategy = "fresh"
[[methods]]
kind = "fedavg"
[[methods]]
kind = "fedavg+"
"""


def test_a_study_with_a_stream(tmp_path: Path) -> None:
    study = parse_study(STUDY)
    assert dump_study(study)["stream"]["memory"] == {"kind": "fifo", "capacity": 20}
    record = run_study(study, out=tmp_path)
    trial = record.trial("fedstream", 0)
    assert trial.start["population"]["notes"]["stream"]["drift"] < 1
    assert all("historical" in event["server"] for event in trial.events("round"))
    assert all("server" not in event for event in record.trial("fedavg", 0).events("round"))
    assert all(event["server"]["historical"] == 0 for event in record.trial("fresh", 0).events("round"))
    found = {c.fields["method"]: c for c in record.certificates if c.check == "stream_share"}
    assert found.keys() == {"fedstream", "fresh"}
    stream, notes = trial.start["stream"], trial.start["population"]["notes"]["stream"]
    both = stream["historical"] + stream["fresh"]
    assert both < notes["historical_records"] + notes["fresh_records"]  # which count unseen clients too
    assert found["fresh"].measured == pytest.approx(stream["fresh"] ** -0.5)
    assert found["fresh"].reference == pytest.approx(both**-0.5)
    assert "share 0.000" in found["fresh"].claim
    assert all(c.verdict == "holds" for c in found.values())


def test_a_method_without_server_is_not_for_streams() -> None:
    with pytest.raises(ConfigError, match=r'\[stream\]: "dpsgd" trains without a server, on records that stay'):
        parse_study(STUDY + '[[methods]]\nkind = "dpsgd"\n')


def test_a_study_says_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match=r'\[\[methods\]\] 2.*strategy "fresh"'):
        run_study(replace(parse_study(STUDY), stream=None))
