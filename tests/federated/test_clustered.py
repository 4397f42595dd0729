"""Clustered FL: true clusters are found, by client and not by place, and never where clients agree."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data import build_population
from rivage.data.partition import IID
from rivage.data.readers import Digits
from rivage.data.shifts import ConceptShift
from rivage.federated import Clustered, FedAvg, Notebook, Outcome, Phase, Session, Trial, run
from rivage.federated.algorithm import State, Update
from rivage.federated.clustered import _CHUNK, _gram, bipartition
from rivage.federated.execution import Execution
from rivage.federated.robust import Krum
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.testing.conformance import check_algorithm
from rivage.testing.toys import Clients, linear_clients, linear_task

WORK = Phase(epochs=2, batch_size=3)
WHOLE = Phase(updates=3, batch_size=None)
TRUTHS = np.array([[3.0, 0.0, 0.0], [-1.0, 2.0, 0.0], [-1.0, -1.0, 3.0]])
OWNERS = (0, 1, 0, 2, 0, 1, 0, 1, 2, 0)  # three clusters of 5, 3 and 2 clients, mingled


def absolute(**settings: Any) -> Clustered:
    """With thresholds that are lengths."""
    return Clustered(**{"relative": False, **settings})


def played(algorithm: Any, population: Clients, task: Task, rounds: int, **options: Any) -> Outcome:
    trial = Trial(name="m", algorithm=algorithm, population=population, task=task, rounds=rounds, every=999, **options)
    return run(trial)


def true_clusters(owners: tuple[int, ...] = OWNERS, records: int = 20, noise: float = 0.01) -> Clients:
    """Least squares with the true vector of the client's cluster."""
    generator = np.random.default_rng(0)
    found = []
    for owner in owners:
        x = generator.normal(size=(records, 3))
        found.append((x, (x @ TRUTHS[owner] + noise * generator.normal(size=records))[:, None]))
    return replace(linear_clients(), records=tuple(found))


def members(state: State) -> dict[int, int]:
    return dict(zip(state["clients"].tolist(), state["clusters"].tolist(), strict=True))


def groups(state: State) -> set[frozenset[int]]:
    found: dict[int, set[int]] = {}
    for client, number in members(state).items():
        found.setdefault(number, set()).add(client)
    return {frozenset(some) for some in found.values()}


TRUE = {frozenset(k for k, owner in enumerate(OWNERS) if owner == c) for c in range(3)}


# --- bipartition ---------------------------------------------------------------------------------------------


def complete_linkage(distances: np.ndarray) -> set[frozenset[int]]:
    """As the textbook has it: join the two groups whose farthest members are nearest, until two are left."""
    parts = [frozenset([i]) for i in range(len(distances))]
    while len(parts) > 2:
        pairs = [(a, b) for i, a in enumerate(parts) for b in parts[i + 1 :]]
        a, b = min(pairs, key=lambda pair: max(distances[i, j] for i in pair[0] for j in pair[1]))
        parts = [part for part in parts if part not in (a, b)] + [a | b]
    return set(parts)


def cosine_distances(vectors: np.ndarray) -> np.ndarray:
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(1 - units @ units.T)


def parts_of(vectors: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(part) for part in bipartition(vectors @ vectors.T)}


@pytest.mark.parametrize("seed", range(20))
def test_the_split_is_that_of_complete_linkage(seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(3 + seed % 7, 4))
    assert parts_of(vectors) == complete_linkage(cosine_distances(vectors))


@settings(max_examples=60)
@given(
    arrays(np.float64, st.tuples(st.integers(2, 8), st.just(3)), elements=st.floats(-5, 5)),
    st.lists(st.floats(0.01, 100), min_size=8, max_size=8),
)
def test_a_split_has_two_parts_whatever_the_lengths(vectors: np.ndarray, scales: list[float]) -> None:
    """Equal vectors, vectors of length 0 and all."""
    gram = vectors @ vectors.T
    first, second = bipartition(gram)
    assert sorted(first + second) == list(range(len(vectors)))
    assert first[0] == 0
    assert second
    assert first == sorted(first)
    assert second == sorted(second)


@pytest.mark.parametrize("seed", range(5))
def test_a_split_looks_at_directions_and_not_at_order(seed: int) -> None:
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(7, 4))
    longer = vectors * generator.uniform(0.1, 10, (7, 1))
    assert parts_of(longer) == parts_of(vectors)
    order = generator.permutation(7)
    moved = {frozenset(int(order[i]) for i in part) for part in parts_of(vectors[order])}
    assert moved == parts_of(vectors)


def test_inner_products_of_long_vectors_are_added_up_in_pieces() -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 2 * _CHUNK + 5)).astype(np.float32)
    whole = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    np.testing.assert_allclose(_gram([torch.from_numpy(vector) for vector in vectors]), whole, rtol=1e-12, atol=1e-9)


# --- training ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cohort", [None, 2])
def test_without_a_split_it_is_fedavg(cohort: int | None) -> None:
    population = linear_clients()
    task = linear_task(population)
    plain = played(FedAvg(work=WORK), population, task, 6, cohort=cohort)
    found = played(absolute(eps2=1e9, work=WORK), population, task, 6, cohort=cohort)
    assert found.state["params"].shape == (1, 3)
    torch.testing.assert_close(found.state["params"][0], plain.state["params"], rtol=0, atol=1e-12)
    for client, predictor in found.seen.predictors.items():
        torch.testing.assert_close(predictor.params, plain.seen.predictors[client].params, rtol=0, atol=1e-12)


def test_three_uneven_clusters_are_found_in_two_splits() -> None:
    """Code in circulation keeps places within a cluster, and its second split takes them for clients."""
    population = true_clusters()
    method = absolute(learning_rate=0.1, eps1=0.1, eps2=0.2, work=WHOLE)
    outcome = played(method, population, linear_task(population), 60)
    assert groups(outcome.state) == TRUE
    for client, number in members(outcome.state).items():
        own, truth = outcome.state["params"][number], torch.from_numpy(TRUTHS[OWNERS[client]])
        torch.testing.assert_close(own, truth, rtol=0, atol=0.02)
        assert torch.equal(outcome.seen.predictors[client].params[0], own)


def test_clusters_are_found_one_after_the_other_and_never_merged() -> None:
    population = true_clusters()
    method = absolute(learning_rate=0.1, eps1=0.1, eps2=0.2, work=WHOLE)
    trial = Trial(name="m", algorithm=method, population=population, task=linear_task(population), rounds=30, every=999)
    with Session(trial) as session:
        found = [groups(session.state) for _ in session]
    counts = [len(some) for some in found]
    assert counts == sorted(counts)
    assert set(counts) == {1, 2, 3}
    assert all(any(part <= whole for whole in before) for before, after in pairwise(found) for part in after)


def test_a_cluster_trains_as_if_it_were_alone() -> None:
    """From where it was split off, FedAvg among its members."""
    population = true_clusters((0, 1, 0, 1, 0))
    task = linear_task(population)
    method = absolute(learning_rate=0.1, eps1=0.1, eps2=0.2, work=WHOLE)
    book = Notebook()
    trial = Trial(name="m", algorithm=method, population=population, task=task, rounds=30, every=999)
    run(replace(trial, rounds=20), book)
    assert book.snapshot is not None
    before = book.snapshot.state
    assert groups(before) == {frozenset({0, 2, 4}), frozenset({1, 3})}
    params = before["params"][members(before)[1]]
    for _ in range(10):
        ends = []
        for client in (1, 3):
            x, y = (torch.from_numpy(part) for part in population.records[client])
            w = params.clone()
            for _ in range(3):
                w = w - 0.1 * x.T @ (x @ w - y[:, 0]) / len(x)
            ends.append(w)
        params = torch.stack(ends).mean(dim=0)
    after = run(trial, book).state
    torch.testing.assert_close(after["params"][members(after)[1]], params, rtol=0, atol=1e-12)


def test_clients_that_agree_are_never_split() -> None:
    population = true_clusters((1,) * 6)
    method = absolute(learning_rate=0.1, eps1=0.1, eps2=0.2, work=WHOLE)
    assert len(played(method, population, linear_task(population), 40).state["params"]) == 1


# --- the conditions ------------------------------------------------------------------------------------------


def answers(changes: Any, weights: Any = None) -> list[Update]:
    found = []
    for client, change in enumerate(np.asarray(changes, np.float64)):
        weight = 1.0 if weights is None else weights[client]
        payload = {"change": (torch.from_numpy(change), weight), "cluster": (torch.tensor([-1]), 1.0)}
        found.append(Update(payload, client=client))
    return found


def fresh(method: Clustered, clients: int = 8) -> tuple[Task, State]:
    task = linear_task(linear_clients())
    state = dict(method.init(task, clients, Streams(0)))
    return task, {**state, "clients": torch.arange(clients), "clusters": torch.zeros(clients, dtype=torch.int64)}


OPPOSED = [[1.0, 0.1, 0], [-1.0, 0, 0.1], [1.0, -0.1, 0], [-1.0, 0, -0.1]]


@pytest.mark.parametrize(
    ("changes", "changed", "clusters"),
    [
        (OPPOSED, {}, 2),
        (OPPOSED, {"eps2": 1.1}, 1),  # nobody moves that far
        ([[1.0, 0, 0], [0.9, 0, 0], [1.1, 0, 0]], {}, 1),  # all are still on their way
        (OPPOSED[:2], {}, 1),  # two clients are no reason to split
        (OPPOSED[:3], {"eps1": 0.4}, 2),  # the mean is 1/3 long
        (OPPOSED[:3], {"eps1": 0.3}, 1),
    ],
)
def test_when_a_cluster_is_split(changes: Any, changed: dict[str, Any], clusters: int) -> None:
    values: dict[str, Any] = {"eps1": 0.1, "eps2": 0.9, **changed}
    method = absolute(**values)
    task, state = fresh(method)
    state = method.aggregate(state, answers(changes), task)
    assert len(state["params"]) == clusters
    if clusters == 2:
        assert groups(state) == {frozenset(range(0, len(changes), 2)), frozenset(range(1, len(changes), 2))}


def test_the_mean_that_stands_still_is_the_weighted_one() -> None:
    """With 3 records against 1 the model moves by half a unit; with equal ones it does not."""
    method = absolute(eps1=0.4, eps2=0.9)
    task, state = fresh(method)
    assert len(method.aggregate(state, answers(OPPOSED), task)["params"]) == 2
    weighted = method.aggregate(state, answers(OPPOSED, [3.0, 1.0, 3.0, 1.0]), task)
    assert len(weighted["params"]) == 1
    moved = (weighted["params"][0] - state["params"][0]).tolist()
    assert moved == pytest.approx([0.5, 0.0, 0.0], abs=1e-12)
    nothing = method.aggregate(state, answers(OPPOSED, [0.0] * 4), task)
    assert torch.equal(nothing["params"], state["params"]), "clients without weight neither move nor split"


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_relative_thresholds_do_not_depend_on_the_unit(scale: float) -> None:
    """The longest update so far is the yardstick; absolute thresholds from elsewhere never fire, or at once."""
    method = Clustered(eps1=0.1, eps2=0.2)
    task, state = fresh(method)
    first = np.array([[1.0, 0.5, 0.0]] * 4) * 2 * scale
    state = method.aggregate(state, answers(first), task)
    assert len(state["params"]) == 1
    length = np.linalg.norm(first[0])
    assert method.report(state)["longest_update"] == pytest.approx(length)
    short = np.array(OPPOSED) / np.linalg.norm(OPPOSED[0]) * length
    for share, clusters in ((0.19, 1), (0.21, 2)):
        assert len(method.aggregate(state, answers(share * short), task)["params"]) == clusters
    fixed = absolute(eps1=0.1, eps2=0.2)
    found = len(fixed.aggregate(state, answers(0.21 * short), task)["params"])
    assert found == (2 if scale == 1e3 else 1 if scale == 1e-3 else found)


# --- who belongs where ---------------------------------------------------------------------------------------


def test_newcomers_get_the_cluster_that_fits_their_records() -> None:
    population = true_clusters()
    task = linear_task(population)
    method = absolute(learning_rate=0.1, eps1=0.1, eps2=0.2, work=WHOLE)
    outcome = played(method, population, task, 60, unseen=np.array([1, 3, 9]))
    assert outcome.unseen is not None
    assert set(members(outcome.state)) == set(range(10)) - {1, 3, 9}
    for client, predictor in outcome.unseen.predictors.items():
        truth = torch.from_numpy(TRUTHS[OWNERS[client]])
        torch.testing.assert_close(predictor.params[0], truth, rtol=0, atol=0.02)


def test_a_client_that_misses_the_split_belongs_nowhere_until_it_is_asked() -> None:
    method = absolute(eps1=0.1, eps2=0.9, work=WHOLE)
    task, state = fresh(method, 5)
    state = method.aggregate(state, answers(OPPOSED), task)
    assert members(state) == {0: 0, 1: 1, 2: 0, 3: 1}
    assert method.broadcast(state, 1, task)["params"].shape == (3,)
    down = method.broadcast(state, 4, task)["params"]
    assert torch.equal(down, state["params"])
    data = linear_clients().client(3)
    for number in (0, 1):
        losses = torch.ones(12, 2).double()
        losses[:, number] = 0.5
        local = method.start({"params": down}, {}, data, losses, Streams(0), task)
        assert torch.equal(local.params, down[number : number + 1])
        update = replace(method.finish(local, task), client=4)
        after = method.aggregate(state, [update], task)
        assert members(after)[4] == number
        assert torch.equal(after["params"], state["params"]), "it did not move"


def test_what_a_client_of_a_cluster_tells_is_not_heard() -> None:
    """And a number that there is not does no harm."""
    method = absolute(eps1=0.1, eps2=0.9)
    task, state = fresh(method, 5)
    state = method.aggregate(state, answers(OPPOSED), task)
    for client, told, cluster in ((0, 1, 0), (4, 99, 1), (4, -5, 0)):
        payload = {"change": (torch.zeros(3).double(), 1.0), "cluster": (torch.tensor([told]), 1.0)}
        assert members(method.aggregate(state, [Update(payload, client=client)], task))[client] == cluster


def test_partial_cohorts_end_in_the_true_clusters() -> None:
    """Twenty clients, eight a round: some miss every split."""
    owners = OWNERS + OWNERS
    population = true_clusters(owners)
    method = absolute(learning_rate=0.1, eps1=0.4, eps2=0.5, work=WHOLE)
    outcome = played(method, population, linear_task(population), 80, cohort=8)
    for client, predictor in outcome.seen.predictors.items():
        truth = torch.from_numpy(TRUTHS[owners[client]])
        torch.testing.assert_close(predictor.params[0], truth, rtol=0, atol=0.05)


def test_a_client_without_records_and_the_general_model() -> None:
    method = absolute(eps1=0.3, eps2=0.9)
    task, state = fresh(method, 5)
    general: Tensor = method.predictor(state, {}, None, task).params
    assert torch.equal(general, state["params"])
    state = method.aggregate(state, [*answers(OPPOSED), *answers([OPPOSED[1]] * 5)[4:]], task)
    assert members(state) == {0: 0, 1: 1, 2: 0, 3: 1, 4: 1}
    assert torch.equal(method.predictor(state, {}, None, task).params[0], state["params"][1]), "the largest cluster"
    local = method.adapt(state, {}, replace(linear_clients().client(0), id=7), torch.ones(0, 2), Streams(0), task)
    assert torch.equal(local.params[0], state["params"][0])


@pytest.mark.parametrize("seed", [0, 1])
def test_the_defaults_tell_hospitals_with_other_labels_apart(seed: int) -> None:
    """Digits, twelve clients as they are and eight whose classes are three further; thresholds 0.4, 1.6 never fire."""
    shift = ConceptShift(share=0.4, offset=3)
    population = build_population(Digits(), partition=IID(clients=20), shift=shift, seed=seed)
    task = make_task(TaskSettings(model="linear"), population.schema)
    scores, work = {}, Phase(batch_size=10)
    for name, method in (("relative", Clustered(work=work)), ("absolute", absolute(eps1=0.4, eps2=1.6, work=work))):
        trial = Trial(name=name, algorithm=method, population=population, task=task, rounds=25, seed=seed, every=999)
        outcome = run(trial)
        clusters = groups(outcome.state)
        scores[name] = float(np.mean(outcome.seen.columns["test"]))
        assert (len(clusters) > 1) is (name == "relative")
    assert scores["relative"] > scores["absolute"] + 0.2


@pytest.mark.parametrize("executor", ["functional", "tiled"])
def test_executors_split_alike(executor: Any) -> None:
    population = true_clusters()
    method = absolute(learning_rate=0.1, eps1=0.1, eps2=0.2, work=Phase(epochs=2, batch_size=20))
    outcome = played(method, population, linear_task(population), 30, execution=Execution(executor=executor))
    assert groups(outcome.state) == TRUE


def test_rules_that_combine_updates_are_refused() -> None:
    population = linear_clients()
    with pytest.raises(ConfigError, match="combines single updates itself"):
        played(absolute(), population, linear_task(population), 1, collector=Krum())


def test_what_it_reports() -> None:
    method = absolute(eps1=0.1, eps2=0.9)
    task, state = fresh(method)
    assert method.report(state) == {"clusters": 1.0, "shortest_mean_update": 0.0, "longest_update": 0.0}
    report = method.report(method.aggregate(state, answers(OPPOSED), task))
    assert report == pytest.approx(
        {"clusters": 2.0, "shortest_mean_update": 0.0, "longest_update": 1.01**0.5}, abs=1e-12
    )


@pytest.mark.parametrize("eps1", [1e9, 0.4])
def test_conformance(eps1: float) -> None:
    """With splits and without."""
    check_algorithm(Clustered(learning_rate=0.05, eps1=eps1, eps2=0.0, work=WORK)).require()


@pytest.mark.parametrize("wrong", [{"learning_rate": 0.0}, {"eps1": 0.0}, {"eps2": -0.1}, {"eps1": float("inf")}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r" is .*Give a (finite )?number"):
        absolute(**wrong)
