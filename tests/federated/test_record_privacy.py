"""Noise for single records: its moments, what one record can change, equality of paths, refusals, and the ledger."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chi2, norm
from torch import nn

from rivage.core.errors import ConfigError
from rivage.core.records import RunRecord
from rivage.core.seeding import Streams
from rivage.core.store import write_text
from rivage.data.population import Samples
from rivage.federated import FedAvg, Notebook, Phase, Trial, run
from rivage.federated.accounting import Release, epsilon_of
from rivage.federated.algorithm import Local, LocalWork
from rivage.federated.batches import Position, batches
from rivage.federated.ditto import Ditto
from rivage.federated.engine import Session
from rivage.federated.execution import Execution
from rivage.federated.executors.executor import Executor
from rivage.federated.executors.jobs import Job
from rivage.federated.executors.noise import Noise
from rivage.federated.executors.per_record import PerRecord
from rivage.federated.fedem import FedEM
from rivage.federated.privacy_checks import privacy_spent
from rivage.federated.privacy_ledger import coarsened, epsilons, releases_of, spent
from rivage.federated.promises import entry_of, promise, promise_faults
from rivage.federated.record_privacy import SOUND, UNSOUND, sampling_rate, vouched
from rivage.federated.registry import ALGORITHMS
from rivage.federated.scaffold import Scaffold
from rivage.federated.secagg import SecAgg
from rivage.federated.user_privacy import PrivateMean
from rivage.report.exchanges import exchange
from rivage.studies.pipeline import run_study
from rivage.studies.settings import parse_study
from rivage.testing.toys import Clients, layered_task, linear_clients, linear_task

EXECUTORS = [Execution(executor="functional", workers=1), Execution(executor="tiled", workers=1)]
PRIVATE = Phase(batch_size=4, batches="poisson", denominator="expected", clip=0.5, noise=1.0)
WHOLE = replace(PRIVATE, batch_size=None)
RATE = 0.1


def clones(count: int, records: int = 6) -> Clients:
    """Clients that all hold the same records: what differs between them is chance alone."""
    one = linear_clients((records,))
    return Clients(one.records * count, one.schema)


def trained(
    population: Clients,
    phase: Phase,
    execution: Execution,
    *,
    groups: int = 1,
    round: int = 0,
    algorithm: Any = None,
    task: Any = None,
) -> np.ndarray:
    """Where clients that start at 0 end: [clients, groups, D]."""
    task = task or linear_task(population)
    data = [population.client(client) for client in range(population.size)]
    jobs = [Job(held.id, Local(torch.zeros(groups, task.dimension, dtype=torch.float64)), held.train) for held in data]
    with Executor(task, execution) as executor:
        executor.train(algorithm or FedAvg(), LocalWork((phase,), RATE), jobs, Streams(3), round)
    return np.stack([job.local.params.numpy() for job in jobs])


def clipped(population: Clients, clip: float) -> np.ndarray:
    """Clipped gradients at 0 of the first client's records, by hand."""
    x, y = population.records[0]
    gradients: np.ndarray = -y * x
    scaled: np.ndarray = gradients * np.minimum(1, clip / np.linalg.norm(gradients, axis=1, keepdims=True))
    return scaled


# --- moments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("execution", EXECUTORS, ids=lambda e: e.executor)
def test_mean_and_variance_of_a_step_are_those_of_the_formula(execution: Execution) -> None:
    """−η (Σ clipped + N(0, (z C)²)) / n over 500 clients; both tests err with probability 10⁻⁴ or less."""
    population = clones(500)
    moves = trained(population, replace(WHOLE, noise=2.0), execution)[:, 0] / -RATE
    wanted, deviation = clipped(population, 0.5).sum(axis=0) / 6, 2.0 * 0.5 / 6
    count, size = moves.shape
    scores = (moves.mean(axis=0) - wanted) * math.sqrt(count) / deviation
    assert (np.abs(scores) < norm.isf(1e-5)).all()
    spread = ((moves - wanted) ** 2).sum() / deviation**2
    assert chi2.ppf(5e-5, count * size) < spread < chi2.isf(5e-5, count * size)
    correlation = np.asarray(np.corrcoef(moves.T))[np.triu_indices(size, 1)]
    assert (np.abs(correlation) < norm.isf(1e-5) / math.sqrt(count)).all()


@pytest.mark.parametrize("execution", EXECUTORS, ids=lambda e: e.executor)
def test_the_mean_of_poisson_batches_divides_by_the_expected_size(execution: Execution) -> None:
    """E = q Σ clipped / B; per coordinate the variance is (q (1 − q) Σ clipped² + (z C)²) / B²."""
    population = clones(500)
    phase = replace(PRIVATE, batch_size=2, updates=1)
    moves = trained(population, phase, execution)[:, 0] / -RATE
    each, q = clipped(population, 0.5), 2 / 6
    variance = (q * (1 - q) * (each**2).sum(axis=0) + 0.5**2) / 2**2
    scores = (moves.mean(axis=0) - q * each.sum(axis=0) / 2) * np.sqrt(len(moves) / variance)
    assert (np.abs(scores) < norm.isf(1e-5)).all()
    np.testing.assert_allclose(moves.var(axis=0), variance, rtol=0.32)  # 5 standard deviations of a variance


@pytest.mark.parametrize("execution", EXECUTORS, ids=lambda e: e.executor)
def test_an_empty_batch_gets_noise_like_any_other(execution: Execution) -> None:
    """With a clip near 0 only noise moves the model; a batch of 1 out of 40 is empty with probability 0.36."""
    population = clones(200, records=40)
    phase = Phase(updates=3, batch_size=1, batches="poisson", denominator="expected", clip=1e-9, noise=1e9)
    moves = trained(population, phase, execution)[:, 0] / RATE  # 3 steps of variance 1
    assert chi2.ppf(1e-4, moves.size) < (moves**2).sum() / 3 < chi2.isf(1e-4, moves.size)


@pytest.mark.parametrize("execution", EXECUTORS, ids=lambda e: e.executor)
@pytest.mark.parametrize("groups", [1, 3])
def test_noise_near_zero_is_clipped_descent(execution: Execution, groups: int) -> None:
    population, phase = linear_clients((9, 3, 14)), replace(PRIVATE, epochs=2)
    found = trained(population, replace(phase, noise=1e-12), execution, groups=groups)
    np.testing.assert_allclose(
        found, trained(population, replace(phase, noise=None), execution, groups=groups), atol=1e-10, rtol=0
    )


@pytest.mark.parametrize("execution", EXECUTORS, ids=lambda e: e.executor)
def test_no_noise_is_drawn_twice(execution: Execution) -> None:
    """Clients, groups, steps and rounds all differ: equal noise in two places would cancel in their difference."""
    population = clones(20)
    phase = Phase(batch_size=None, batches="poisson", denominator="expected", clip=1e-9, noise=1e9)
    rounds = [trained(population, phase, execution, groups=2, round=r).reshape(-1) for r in range(3)]
    steps = trained(population, replace(phase, epochs=2), execution, groups=2, round=0).reshape(-1) - rounds[0]
    drawn = np.concatenate([*rounds, steps])
    assert len(np.unique(drawn.round(9))) == len(drawn)
    np.testing.assert_array_equal(rounds[0], trained(population, phase, execution, groups=2).reshape(-1))


# --- sensitivity -----------------------------------------------------------------------------------------------------

VALUES = st.floats(-1e3, 1e3, allow_subnormal=False)
RECORDS = st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=2, max_size=6)


@settings(max_examples=30, deadline=None)
@given(RECORDS, st.floats(1e-3, 10), st.sampled_from([0, 1]), st.integers(1, 3))
def test_one_record_changes_the_sum_by_at_most_the_clip(rows: Any, clip: float, which: int, groups: int) -> None:
    """Over all groups together; Σ is read off a step without noise, times its expected denominator."""
    table, schema = np.array(rows), linear_clients((2,), features=2).schema
    phase = Phase(batch_size=None, batches="poisson", denominator="expected", clip=clip)

    def total(part: np.ndarray) -> np.ndarray:
        population = Clients(((part[:, :2], part[:, 2:]),), schema)
        found: np.ndarray = trained(population, phase, EXECUTORS[which], groups=groups)[0] * len(part) / RATE
        return found

    assert np.linalg.norm(total(table) - total(table[1:])) <= clip * (1 + 1e-6)


class Twice:
    """Asks for the gradient of every batch twice."""

    def step(self, extra: dict[str, Any], params: Any, gradient: Any, rate: float) -> tuple[Any, dict[str, Any]]:
        return params - rate * (gradient(params) + gradient(params)), extra


@pytest.mark.parametrize("execution", EXECUTORS, ids=["functional", "tiled"])
@pytest.mark.parametrize("algorithm", [FedAvg(), Twice()], ids=["apart", "together"])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("side_by_side", [True, False])
def test_a_record_without_a_finite_gradient_counts_as_zero(
    execution: Execution, algorithm: Any, groups: int, side_by_side: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the update would be unusable, and its being so would tell of one record. Inputs of 0 have no gradient."""
    if not side_by_side:
        monkeypatch.setattr(PerRecord, "has_room", False)
    one = linear_clients((7, 12))
    work, ends = replace(PRIVATE, epochs=2), []
    for wrong in (math.nan, math.inf, 0.0):
        (x, y), other = one.records
        x = x.copy()
        x[2, 1], x[5] = wrong, wrong
        x[[2, 5]] = x[[2, 5]] if wrong else 0.0
        ends.append(trained(Clients(((x, y), other), one.schema), work, execution, groups=groups, algorithm=algorithm))
    np.testing.assert_allclose(ends[0], ends[2], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ends[1], ends[2], rtol=0, atol=1e-12)
    assert np.isfinite(ends).all()


def test_it_counts_as_zero_as_often_as_it_is_read() -> None:
    """With biases, inputs of 0 have a gradient: the record must stay out of both gradients of a step."""
    one, ends = linear_clients((7, 12)), []
    x, y = one.records[0]
    x = x.copy()
    x[[0, 2]] = math.nan
    population = Clients(((x, y), one.records[1]), one.schema)
    for execution in EXECUTORS:
        ends.append(trained(population, PRIVATE, execution, algorithm=Twice(), task=layered_task(population)))
    assert np.isfinite(ends).all()
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-12)


def test_without_noise_such_a_record_makes_the_update_unusable() -> None:
    one = linear_clients((7,))
    x, y = one.records[0]
    poisoned = Clients(((np.full_like(x, np.nan), y),), one.schema)
    for execution in EXECUTORS:
        assert not np.isfinite(trained(poisoned, replace(WHOLE, noise=None), execution)).all()


@pytest.mark.parametrize("execution", EXECUTORS)
def test_other_settings_get_other_noise(execution: Execution) -> None:
    """Two methods on the same data with the same noise would be told apart from none by their difference."""
    one = linear_clients((12, 12))
    loud, quiet = replace(PRIVATE, noise=100.0), replace(PRIVATE, noise=50.0)
    ends = [trained(one, phase, execution, algorithm=FedAvg(work=phase)) for phase in (loud, quiet)]
    again = trained(one, loud, execution, algorithm=FedAvg(work=loud))
    np.testing.assert_array_equal(ends[0], again)
    assert np.linalg.norm(ends[0] - 2 * ends[1]) > 0.3 * np.linalg.norm(ends[0])


def test_without_the_clip_one_record_changes_it_by_more() -> None:
    """The property above bites."""
    x, y = np.array([[100.0, 0.0], [1.0, 1.0]]), np.array([[50.0], [1.0]])
    schema = linear_clients((2,), features=2).schema
    free = Phase(batch_size=None, batches="poisson", denominator="expected")
    both, one = (trained(Clients(((x[i:], y[i:]),), schema), free, EXECUTORS[1])[0] * (2 - i) / RATE for i in (0, 1))
    assert np.linalg.norm(both - one) > 1000


# --- equality of paths -----------------------------------------------------------------------------------------------


def trial(
    algorithm: Any, execution: Execution = EXECUTORS[1], sizes: Sequence[int] = (9, 4, 14, 6), **more: Any
) -> Trial:
    population = linear_clients(sizes)
    given = {"name": "m", "population": population, "task": layered_task(population), "rounds": 4, "cohort": 3, **more}
    return Trial(algorithm=algorithm, execution=execution, every=100, **given)


METHODS = [
    FedAvg(learning_rate=RATE, work=PRIVATE),
    Ditto(learning_rate=RATE, work=PRIVATE),
    Scaffold(learning_rate=RATE, work=PRIVATE),
]


@pytest.mark.parametrize("algorithm", METHODS, ids=lambda a: type(a).__name__)
def test_executors_workers_and_tiles_draw_the_same_noise(algorithm: Any) -> None:
    wanted = run(trial(algorithm)).state["params"]
    for execution in (
        EXECUTORS[0],
        Execution(executor="functional", workers=3),
        Execution(executor="tiled", workers=2, tile_bytes=1),
    ):
        found = run(trial(algorithm, execution)).state["params"]
        torch.testing.assert_close(found, wanted, atol=1e-10, rtol=0)


@pytest.mark.parametrize("algorithm", METHODS, ids=lambda a: type(a).__name__)
def test_resumed_is_uninterrupted(algorithm: Any) -> None:
    whole, broken = Notebook(), Notebook()
    run(trial(algorithm), whole)
    with Session(trial(algorithm), broken) as session:
        for _event in zip(range(2), session, strict=False):
            pass
    run(trial(algorithm), broken)
    assert broken.events == whole.events
    assert releases_of(told(broken.events)) == releases_of(told(whole.events))


def test_single_precision_gets_the_same_noise() -> None:
    population = linear_clients((9, 4))
    states = [
        run(trial(METHODS[0], population=population, task=linear_task(population, dtype), cohort=None)).state["params"]
        for dtype in (torch.float32, torch.float64)
    ]
    torch.testing.assert_close(states[0].double(), states[1], atol=1e-5, rtol=0)


# --- sampling --------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 60), st.integers(1, 80), st.integers(0, 2**32))
def test_records_are_drawn_with_the_rate_that_is_accounted(records: int, size: int, seed: int) -> None:
    """All records over 400 steps: binomial, within limits that err with probability 10⁻⁶."""
    phase = replace(PRIVATE, updates=400, batch_size=size)
    (drawn, _), rate = batches(phase, seed, [0], [records], 0, [Position()])[0], sampling_rate(phase, records)
    low, high = binom.ppf(1e-6, 400 * records, rate), binom.isf(1e-6, 400 * records, rate)
    assert low <= len(drawn.rows) <= high
    assert rate == pytest.approx(min(1, size / records), abs=2**-32)


def test_sampling_edges() -> None:
    assert sampling_rate(PRIVATE, 0) == 0
    assert sampling_rate(replace(PRIVATE, batch_size=None), 7) == 1
    assert sampling_rate(PRIVATE, 3) == 1
    assert sampling_rate(PRIVATE, 3_000) * 2**32 == round(4 / 3_000 * 2**32)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"clip": None}, "noise without clip"),
        ({"batches": "shuffle"}, "shuffle batches"),
        ({"batches": "endless", "updates": 3}, "endless batches"),
        ({"denominator": "rows"}, "denominator rows"),
        ({"noise": 0.0}, "noise is 0"),
        ({"noise": -1.0}, "noise is -1"),
        ({"noise": math.nan}, "noise is nan"),
        ({"delta": 0.0}, "delta is 0"),
        ({"delta": 1.0}, "delta is 1"),
    ],
)
def test_noise_that_promises_nothing_is_refused(change: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        replace(PRIVATE, **change)


WORK = 'batches = "poisson"\ndenominator = "expected"\nclip = 1.0\nnoise = 1.0\nbatch_size = 8'
STUDY = """
[data]
kind = "digits"
[partition]
kind = "iid"
clients = 6
[task]
model = "mlp"
[work]
{work}
[[methods]]
{method}
[run]
rounds = 3
cohort = 3
seeds = [0, 1]
"""


def study(method: str, work: str = WORK) -> Any:
    return parse_study(f'name = "s"\n{STUDY.format(work=work, method=method)}')


def takes_work(kind: str) -> bool:
    return any(field.name == "work" and field.init for field in fields(ALGORITHMS.get(kind)))


def test_every_method_has_been_looked_at() -> None:
    """A new method is neither sound nor unsound until somebody decides."""
    for kind in filter(takes_work, ALGORITHMS):
        cls = ALGORITHMS.get(kind)
        named = f"{cls.__module__}:{cls.__qualname__}"
        federates = getattr(cls, "federates", False)
        assert (named in SOUND) + (named in UNSOUND) == (1 if federates else 0), kind


@pytest.mark.parametrize("kind", [kind for kind in ALGORITHMS if takes_work(kind)])
def test_settings_refuse_methods_that_send_more_than_noisy_gradients(kind: str) -> None:
    cls = ALGORITHMS.get(kind)
    text = f'kind = "{kind}"' + ('\noverlay = { kind = "ring" }' if hasattr(cls, "overlay") else "")
    if kind == "local" or f"{cls.__module__}:{cls.__qualname__}" in SOUND:
        study(text)
        return
    with pytest.raises(ConfigError, match=r"work\.noise cannot protect"):
        study(text)


def test_a_method_of_a_plug_in_must_vouch_for_itself() -> None:
    class Mine(FedAvg):
        pass

    class Vouched(FedAvg):
        record_private = True

    class SendsMore(Vouched):
        def finish(self, local: Any, task: Any) -> Any:
            update = super().finish(local, task)
            return replace(update, payload={**update.payload, "records": local.params})

    class VouchedAgain(SendsMore):
        record_private = True

    with pytest.raises(ConfigError, match="nobody has checked"):
        trial(Mine(work=PRIVATE))
    with pytest.raises(ConfigError, match="nobody has checked"):
        trial(SendsMore(work=PRIVATE))
    trial(Vouched(work=PRIVATE))
    trial(VouchedAgain(work=PRIVATE))
    trial(Mine())


def test_a_subclass_inherits_no_word_about_what_it_sends() -> None:
    class Mine(FedAvg):
        private_entry, counts_alike, record_private = "params", True, True

    class SendsMore(Mine):
        pass

    assert entry_of(FedAvg()) == entry_of(Mine()) == "params"
    assert entry_of(SendsMore()) is None
    assert [vouched(kind(), "counts_alike") for kind in (Mine, SendsMore)] == [True, None]
    for collector in (PrivateMean(noise=1.0), SecAgg(clip=0.5, noise_multiplier=1.0, survivors=3)):
        assert not list(promise_faults(Mine(), "mine", (), collector))
        assert list(promise_faults(SendsMore(), "more", (), collector))


def test_fedem_lets_one_record_decide_how_others_count() -> None:
    """Why it is refused: without one record, the weights of all the others differ by far more than it could change."""
    population = linear_clients((6,), features=3)
    task = linear_task(population)
    algorithm, state = FedEM(components=2), None
    state = algorithm.init(task, 1, Streams(0))
    x, y = population.records[0]
    weights = []
    for first in (0, 1):
        held = replace(population.client(0), train=Samples(x[first:], 30 * y[first:], np.arange(6 - first)))
        losses = Executor(task).losses([(state["params"], held.train)])[0]
        local = algorithm.start(state, {}, held, losses, Streams(0), task)
        again = algorithm.start(state, {"shares": local.keep["shares"]}, held, losses, Streams(0), task)
        assert again.weights is not None
        weights.append(again.weights[1 - first :])
    assert float((weights[0] - weights[1]).abs().max()) > 1e-3


def test_batch_statistics_are_refused() -> None:
    from rivage.studies.stage import Stage

    text = STUDY.format(work=WORK, method='kind = "fedavg"').replace(
        'model = "mlp"', 'model = "tests.federated.test_record_privacy:BatchNormed"'
    )
    with pytest.raises(ConfigError, match="batch statistics"):
        Stage.build(parse_study(f'name = "s"\n{text}'), 0)


class BatchNormed(nn.Module):
    """A model whose records depend on one another."""

    def __init__(self, schema: Any, outputs: int = 10) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)  # type: ignore[no-any-return]


def test_local_training_that_sends_nothing_has_no_noise() -> None:
    algorithm = study('kind = "local"').methods[0].algorithm
    assert algorithm.work.noise == 1
    assert algorithm.adaptation.phases[0].noise is None
    assert promise(algorithm, (), study('kind = "fedavg"').methods[0].collector) is None


# --- the ledger ------------------------------------------------------------------------------------------------------


def told(events: Sequence[Any]) -> list[Any]:
    """Events of a notebook with the promise that a study's facts would add."""
    statement = promise(METHODS[0], (), trial(METHODS[0]).collector)
    return [{**e, "differential_privacy": statement} if e["event"] == "start" else e for e in events]


def test_a_client_pays_for_the_rounds_it_took_part_in() -> None:
    notebook = Notebook()
    run(trial(METHODS[0]), notebook)
    sizes = (9, 4, 14, 6)
    joined = {c: sum(c in e["cohort"] for e in notebook.events if e["event"] == "round") for c in range(4)}
    wanted = {
        c: (Release(1.0, sampling_rate(PRIVATE, n), joined[c] * -(-n // 4)),) for c, n in enumerate(sizes) if joined[c]
    }
    assert releases_of(told(notebook.events)) == wanted
    event = spent(told(notebook.events))
    assert event is not None
    for client, steps, epsilon in zip(event["clients"], event["steps"], event["epsilon"], strict=True):
        assert steps == wanted[client][0].steps
        assert 0 <= epsilon - epsilon_of(wanted[client], 1e-5) <= 1e-4


def test_the_budget_does_not_start_anew_after_a_restart() -> None:
    notebook = Notebook()
    for _ in range(4):  # a process that dies after every round
        with Session(trial(METHODS[0], cohort=None), notebook) as session:
            next(iter(session))
    run(trial(METHODS[0], cohort=None), notebook)
    assert releases_of(told(notebook.events))[1] == (Release(1.0, 1.0, 4),)


def test_an_update_that_was_lost_is_not_counted() -> None:
    population = replace(linear_clients((4, 4)), absent=frozenset({(1, 0), (1, 2)}))
    notebook = Notebook()
    run(trial(METHODS[0], population=population, task=linear_task(population), cohort=None), notebook)
    found = releases_of(told(notebook.events))
    assert [found[client][0].steps for client in (0, 1)] == [4, 2]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.floats(1e-4, 0.99), st.integers(1, 10_000)), min_size=33, max_size=200))
def test_many_ledgers_are_rounded_up_and_never_down(pairs: list[tuple[float, int]]) -> None:
    releases = {client: (Release(2.0, *pair),) for client, pair in enumerate(pairs)}
    coarse = coarsened(releases)
    assert sum(own[0].sampling < 1 for own in set(coarse.values())) <= 32
    for client, (own,) in releases.items():
        (up,) = coarse[client]
        assert up.sampling >= own.sampling
        assert up.steps >= own.steps
    few = dict(list(releases.items())[:32])
    assert coarsened(few) == few
    whole = {client: (Release(2.0, 1.0, client + 1),) for client in range(100)}  # the exact formula costs nothing
    assert coarsened(whole) == whole
    assert list(epsilons(whole, 1e-5)) == list(whole)


@given(st.floats(0.05, 30.0), st.integers(1, 40))
def test_epsilon_in_a_record_is_rounded_up_and_by_little(noise: float, steps: int) -> None:
    own = (Release(noise, 1.0, steps),)
    exact, told = epsilon_of(own, 1e-5), epsilons({3: own}, 1e-5)[3]
    assert exact <= told < exact + 1.01e-4
    assert told == round(told, 4)


def test_streams_change_the_rate_from_round_to_round() -> None:
    """Two rounds of a client that holds more records in the second: two entries, composed."""
    start = {"event": "start", "differential_privacy": {"noise_multiplier": 1.0, "unit": "record", "delta": 1e-5}}
    events = [{"event": "round", "private": {"clients": [3], "sampling": [q], "steps": [5]}} for q in (0.5, 0.25, 0.5)]
    assert releases_of([start, *events]) == {3: (Release(1.0, 0.25, 5), Release(1.0, 0.5, 10))}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    pytest.importorskip("dp_accounting", reason="the extra privacy is not installed")
    return run_study(study('kind = "fedavg"'), out=tmp_path_factory.mktemp("private"))


def test_a_study_certifies_what_was_spent(finished: RunRecord) -> None:
    (certificate,) = [c for c in finished.certificates if c.check == "privacy_spent"]
    assert certificate.verdict == "holds"
    assert certificate.measured == certificate.reference > 1
    for trial_ in finished.trials:
        assert trial_.start["differential_privacy"]["unit"] == "record"
        assert trial_.events("privacy")[0]["epsilon"]


def tampered(record: RunRecord, folder: Path, change: Any) -> RunRecord:
    """A copy in which one seed's events were changed."""
    import shutil

    from rivage.core.encoding import dumps

    shutil.copytree(record.folder, folder / record.folder.name)
    copy = RunRecord(folder / record.folder.name)
    path = copy.trials[0].folder / "record.jsonl"
    write_text(path, "".join(f"{dumps(change(dict(event)))}\n" for event in copy.trials[0].events()))
    return RunRecord(copy.folder)


def one_round_only(event: dict[str, Any]) -> dict[str, Any]:
    """A budget that began anew in every round."""
    if event["event"] != "privacy":
        return event
    each = [epsilon_of([Release(1.0, sampling_rate(replace(PRIVATE, batch_size=8), 195), 25)], 1e-5)]
    return {**event, "epsilon": each * len(event["clients"])}


def a_round_left_out(event: dict[str, Any]) -> dict[str, Any]:
    """Nobody is said to have spent anything in round 1."""
    if event.get("event") == "round" and event["round"] == 1:
        return {**event, "private": {"clients": [], "sampling": [], "steps": []}}
    return event


@pytest.mark.parametrize("change", [one_round_only, a_round_left_out])
def test_a_record_that_tells_too_little_fails(finished: RunRecord, tmp_path: Path, change: Any) -> None:
    assert privacy_spent(tampered(finished, tmp_path / "same", lambda e: e), method="fedavg").verdict == "holds"
    assert privacy_spent(tampered(finished, tmp_path / "less", change), method="fedavg").verdict == "fails"


def test_a_quarter_of_the_noise_can_be_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults for the audit are planted from outside: the package has no switch for them."""
    draw = Noise.draw
    honest = trained(clones(30), replace(WHOLE, clip=1e-9, noise=1e9), EXECUTORS[1])
    monkeypatch.setattr(Noise, "draw", lambda self: [part / 4 for part in draw(self)])
    less = trained(clones(30), replace(WHOLE, clip=1e-9, noise=1e9), EXECUTORS[1])
    np.testing.assert_allclose(less, honest / 4, atol=1e-9, rtol=0)


def test_the_summary_tells_the_largest_epsilon(finished: RunRecord) -> None:
    row = finished.summary["methods"]["fedavg"]
    told = [epsilon for one in finished.trials for epsilon in one.events("privacy")[0]["epsilon"]]
    assert row["epsilon"] == max(told)
    assert row["privacy"]["delta"] == 1e-5
    assert exchange(row) == f"of any one record at most epsilon {max(told):.3g} at delta 1e-05 (add-remove)"
