"""D-FedEM: FedEM where averages are exact, DPASGD with one component, its rounds written out, what is never sent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float64
from numpy import ndarray
from torch import Tensor, nn

from rivage.core.errors import ConfigError
from rivage.core.messages import LogPolicy
from rivage.core.records import RunRecord
from rivage.core.seeding import Streams
from rivage.data.population import Schema
from rivage.decentralized.dfedem import DFedEM
from rivage.decentralized.dpsgd import DPASGD
from rivage.decentralized.exchange import Exchange
from rivage.decentralized.gossip import CountBy, initial, play
from rivage.decentralized.mixing_plan import Cycled, Exact, MixingPlan, fixed
from rivage.decentralized.overlays import Overlay
from rivage.decentralized.session import SiloSession
from rivage.decentralized.silo_trial import SiloTrial
from rivage.decentralized.silos import Silos
from rivage.federated.algorithm import Phase
from rivage.federated.checkpoint import Files, Notebook
from rivage.federated.engine import Outcome, Session
from rivage.federated.execution import Execution
from rivage.federated.fedem import FedEM
from rivage.federated.trial import Trial
from rivage.graphs import Connectivity
from rivage.graphs.mixing import contraction, metropolis
from rivage.learning.bundle import ModelBundle
from rivage.learning.losses import SQUARED
from rivage.learning.metrics import MAE
from rivage.learning.task import Task
from rivage.studies.pipeline import run_study
from rivage.studies.settings import parse_study
from rivage.testing.toys import Clients, linear_clients, linear_task

WORK = Phase(epochs=2, batch_size=3)
EQUAL = linear_clients((6, 6, 6, 6), seed=1)
UNEQUAL = linear_clients((9, 7, 12, 6, 8, 10, 5, 11), 3, seed=3)


def ring(silos: int) -> MixingPlan:
    """Metropolis weights, both ways around: 1/3 for oneself and each neighbour."""
    return Cycled(matrices=[metropolis(around(silos))])


def around(silos: int) -> Float64[ndarray, "silos silos"]:
    one = np.eye(silos)
    result: ndarray = np.roll(one, 1, axis=0) + np.roll(one, -1, axis=0)
    return result


def trial(algorithm: Any, plan: MixingPlan, clients: Clients = UNEQUAL, **changes: Any) -> SiloTrial:
    task = changes.pop("task", None) or linear_task(clients)
    given = {"name": "m", "population": clients, "task": task, "rounds": 6, "every": 3}
    return SiloTrial(algorithm=algorithm, plan=plan, **{**given, **changes})


def played(playing: SiloTrial, **options: Any) -> tuple[SiloSession, Notebook, Outcome]:
    notebook = Notebook(**options)
    with SiloSession(playing, notebook) as session:
        for _ in session:
            pass
        return session, notebook, session.outcome()


# --- A3 (a): exact averages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [Exact(silos=3, hub=1), Cycled(matrices=[np.full((3, 3), 1 / 3)])], ids=["star", "J"])
@pytest.mark.parametrize("executor", ["functional", "tiled"])
def test_with_exact_averages_and_equal_silos_it_is_fedem(plan: MixingPlan, executor: Any) -> None:
    """Round for round; shares, scores and those of a client that never trains as well."""
    common: dict[str, Any] = {"population": EQUAL, "task": linear_task(EQUAL), "rounds": 12, "every": 99}
    common |= {"unseen": np.array([2]), "seed": 3, "execution": Execution(executor=executor, workers=1)}
    settings: dict[str, Any] = {"learning_rate": 0.05, "work": WORK, "noise": 0.7, "restart": 1, "iterations": 9}
    central = Trial(name="f", algorithm=FedEM(**settings), **common)
    silos = SiloTrial(name="s", algorithm=DFedEM(**settings), plan=plan, **common)
    with Session(central) as one, SiloSession(silos) as other:
        for _, _ in zip(one, other, strict=True):
            assert float((one.state["params"] - other.state["params"]).abs().max()) < 1e-10
            assert float((one.state["params"] - other.average).abs().max()) < 1e-10
        expected, found = one.outcome(), other.outcome()
    assert expected.unseen is not None
    assert found.unseen is not None
    for here, there in ((expected.seen, found.seen), (expected.unseen, found.unseen)):
        assert here.columns.keys() == there.columns.keys() >= {"mix"}
        for name, values in here.columns.items():
            np.testing.assert_allclose(there.columns[name], values, rtol=0, atol=1e-10)
    assert float((one.state["params"] - initial(silos.algorithm, silos.task, 3)).abs().max()) > 0.1


def test_silos_that_count_by_records_have_the_objective_of_fedem() -> None:
    """One full step a round: the mean of steps n_t T / n times as long is the mean weighted by records."""
    work, rounds = Phase(updates=1, batch_size=None), 8
    central = Trial(
        name="f",
        algorithm=FedEM(learning_rate=0.05, work=work),
        population=UNEQUAL,
        task=linear_task(UNEQUAL),
        rounds=rounds,
    )
    ends: dict[CountBy, Any] = {}
    for count_by in get_args(CountBy):
        method = DFedEM(learning_rate=0.05, work=work, count_by=count_by)
        ends[count_by] = played(trial(method, Exact(silos=8, hub=0), rounds=rounds))[0].state
    with Session(central) as session:
        for _ in session:
            pass
    assert float((ends["records"]["params"] - session.state["params"]).abs().max()) < 1e-10
    assert float((ends["silos"]["params"] - session.state["params"]).abs().max()) > 1e-4


# --- one component --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [Exact(silos=8, hub=3), ring(8)], ids=["star", "ring"])
@pytest.mark.parametrize("count_by", ["silos", "records"])
@pytest.mark.parametrize("executor", ["functional", "tiled"])
def test_one_component_is_dpasgd_bit_for_bit(plan: MixingPlan, count_by: Any, executor: Any) -> None:
    execution = Execution(executor=executor, workers=1)
    methods = (
        DPASGD(learning_rate=0.05, work=WORK, count_by=count_by),
        DFedEM(learning_rate=0.05, work=WORK, count_by=count_by, components=1),
    )
    (plain, noted, _), (mixed, told, _) = (
        played(trial(method, plan, execution=execution, unseen=np.array([], np.int64))) for method in methods
    )
    assert torch.equal(mixed.state["params"][:, 0], plain.state["params"])
    assert bool((mixed.state["shares"] == 1).all())
    assert [_plain(event) for event in told.events] == [_plain(event) for event in noted.events]


def _plain(event: dict[str, Any]) -> dict[str, Any]:
    """Without bytes: a matrix of one row has one more number in its head."""
    return {name: value for name, value in event.items() if not name.startswith("bytes")}


# --- several components ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Placed(DFedEM):
    """Components that start where a test wants them."""

    first: tuple[tuple[float, ...], ...] = ()

    def initial(self, task: Task, streams: Streams) -> Tensor:
        return torch.tensor(self.first, dtype=task.dtype)


FIRST = ((0.1, -0.2, 0.3), (-0.5, 0.4, 0.2))


def written_out(rounds: int, rate: float, factors: ndarray) -> tuple[ndarray, ndarray]:
    """Models and shares of all silos on a ring, two full steps a round, silo t's loss multiplied by its factor."""
    w, shares = np.stack([np.array(FIRST)] * 8), np.full((8, 2), 0.5)
    for _ in range(rounds):
        for silo, (x, y) in enumerate(UNEQUAL.records):
            joint = shares[silo] * np.exp(-0.5 * (y - x @ w[silo].T) ** 2)
            q = joint / joint.sum(axis=1, keepdims=True)
            shares[silo] = q.mean(axis=0)
            for _ in range(2):
                w[silo] = w[silo] - rate * factors[silo] * (q * (x @ w[silo].T - y)).T @ x / len(x)
        w = np.einsum("ts,smd->tmd", ring(8).weights(0), w)
    return w, shares


@pytest.mark.parametrize("count_by", ["silos", "records"])
def test_rounds_follow_the_algorithm_written_out(count_by: Any) -> None:
    method = Placed(components=2, work=Phase(updates=2, batch_size=None), first=FIRST, count_by=count_by)
    session, notebook, outcome = played(trial(method, ring(8), rounds=5))
    sizes = np.array([len(x) for x, _ in UNEQUAL.records])
    factors = np.ones(8) if count_by == "silos" else 8 * sizes / sizes.sum()
    models, shares = written_out(5, 0.1, factors)
    np.testing.assert_allclose(session.state["params"], models, rtol=0, atol=1e-12)
    np.testing.assert_allclose(session.state["shares"], shares, rtol=0, atol=1e-12)
    for silo in range(8):
        predictor = outcome.seen.predictors[silo]
        np.testing.assert_allclose(predictor.params, models[silo], rtol=0, atol=1e-12)
        np.testing.assert_allclose(predictor.mix, shares[silo], rtol=0, atol=1e-12)
    average = [event for event in notebook.events if event.get("group") == "average"][-1]
    mean = session.average.numpy()  # mixed by each silo in its own shares
    errors = [np.abs(y[:, 0] - x @ mean.T @ own).mean() for (x, y), own in zip(UNEQUAL.records, shares, strict=True)]
    np.testing.assert_allclose(average["test"], errors, rtol=0, atol=1e-12)


def test_permuted_components_stay_permuted() -> None:
    order = [2, 0, 1]
    first = (*FIRST, (0.9, 0.1, -0.6))
    one, other = (
        played(trial(Placed(work=WORK, first=start), ring(8))) for start in (first, tuple(first[m] for m in order))
    )
    torch.testing.assert_close(other[0].state["params"], one[0].state["params"][:, order], rtol=0, atol=1e-12)
    torch.testing.assert_close(other[0].state["shares"], one[0].state["shares"][:, order], rtol=0, atol=1e-12)
    for here, there in zip(one[1].events, other[1].events, strict=True):
        if "test" in here:
            np.testing.assert_allclose(there["test_loss"], here["test_loss"], atol=1e-12)


@pytest.mark.parametrize("sizes", [(1, 1, 4, 3), (0, 5, 4, 3)], ids=["one record", "no records"])
def test_silos_with_hardly_any_records_take_part(sizes: tuple[int, ...]) -> None:
    session, _, _ = played(trial(DFedEM(work=WORK), ring(4), linear_clients(sizes, seed=2)))
    assert bool(torch.isfinite(session.state["params"]).all())
    assert torch.allclose(session.state["shares"].sum(dim=1), torch.ones(4, dtype=torch.float64))
    if not sizes[0]:
        assert torch.equal(session.state["shares"][0], torch.full((3,), 1 / 3, dtype=torch.float64))


# --- A3 (b): gossip -------------------------------------------------------------------------------------------------

RING = ring(16)
SHRINKS = contraction(RING.weights(0)) ** 2


def test_a_ring_of_sixteen_shrinks_as_its_spectrum_says() -> None:
    """Circulant with 1/3 on three diagonals: eigenvalues (1 + 2 cos(2 π k / 16)) / 3."""
    assert pytest.approx(((1 + 2 * np.cos(2 * np.pi / 16)) / 3) ** 2, abs=1e-12) == SHRINKS


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([torch.float32, torch.float64]))
def test_gossip_keeps_the_mean_and_brings_silos_together(seed: int, components: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    trained = torch.randn(16, components, 20, dtype=dtype, generator=generator)
    shares = torch.rand(16, components, dtype=dtype, generator=generator)
    method = DFedEM(components=components)
    exchange = Exchange(RING, Notebook(), range(16), 0, np.zeros(16))
    after = play(method, {"params": trained + 1, "shares": shares}, trained, 0.1, exchange.mix)
    assert float((after["params"].mean(dim=0) - trained.mean(dim=0)).abs().max()) < 1e-6
    assert spread(after["params"]) <= SHRINKS * spread(trained) * (1 + 1e-5)
    assert torch.equal(after["shares"], shares)


def spread(params: Tensor) -> float:
    """Squared consensus distance."""
    return float((params - params.mean(dim=0)).double().square().sum())


def test_the_bound_is_tight_along_the_slowest_wave() -> None:
    wave = torch.from_numpy(np.cos(2 * np.pi * np.arange(16) / 16))[:, None, None].expand(16, 2, 3)
    exchange = Exchange(RING, Notebook(), range(16), 0, np.zeros(16))
    held = {"params": wave, "shares": torch.ones(16, 2, dtype=torch.float64)}
    after = play(DFedEM(components=2), held, wave, 0.1, exchange.mix)
    assert spread(after["params"]) == pytest.approx(SHRINKS * spread(wave), rel=1e-12)


def test_so_does_training() -> None:
    """In every round of the engine: what silos hold after it, against the average before mixing and ``consensus``."""
    clients = linear_clients(tuple(5 + k % 4 for k in range(16)), 3, seed=2)
    rounds = 0
    with SiloSession(trial(DFedEM(work=WORK), RING, clients, rounds=8)) as session:
        for event in session:
            params = session.state["params"]
            assert float((params.mean(dim=0) - session.average).abs().max()) < 1e-12
            assert 0 < spread(params) <= SHRINKS * event["consensus"] * params.numel() * (1 + 1e-9)
            rounds += 1
    assert rounds == 8


# --- weights --------------------------------------------------------------------------------------------------------


def test_the_fastest_weights_keep_something_for_oneself() -> None:
    """On a ring of 6 a matrix without diagonal alternates for ever: its spectrum has −1. FMMC weights have one."""
    silos = Silos.of(
        Connectivity(
            names=tuple("abcdef"), latency_ms=10 * (1 - np.eye(6)), available_bps=np.full((6, 6), 1e6), name="six"
        ),
        model_bits=1e4,
        step_ms=1,
    )
    links = [(k, (k + 1) % 6) for k in range(6)]
    fast, plain = (fixed(Overlay.links(silos, links), weighting=way).weights(0) for way in ("fmmc", "metropolis"))
    assert contraction(around(6) / 2) == pytest.approx(1.0)
    assert bool((np.diag(fast) > 0.1).all())
    assert contraction(fast) < contraction(plain) - 0.05
    assert contraction(fast) == pytest.approx(0.6, abs=1e-6)  # w on each arc: max(1 − w, 4 w − 1) is least at w = 2/5


# --- what stays with a silo -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [Exact(silos=8, hub=3), ring(8)], ids=["star", "ring"])
def test_nothing_but_components_is_in_the_message_log(plan: MixingPlan, tmp_path: Path) -> None:
    playing = trial(DFedEM(work=WORK), plan)
    session, notebook, _ = played(playing, keep_messages=True)
    assert len(notebook.messages) == 6 * len(plan.arcs(0))
    for message in notebook.messages:
        assert list(message.payload) == ["params"]
        assert message.payload["params"].shape == (3, 3)
    with Files(tmp_path, LogPolicy("all"), {}) as journal, SiloSession(playing, journal) as again:
        for _ in again:
            pass
    log, checkpoint = ((tmp_path / name).read_bytes() for name in ("messages.rvg", "checkpoint.sqlite"))
    assert torch.equal(again.state["shares"], session.state["shares"])
    mine = session.state["shares"].numpy().tobytes()
    assert mine in checkpoint, "a checkpoint has them"
    parts = [values.tobytes() for values in session.state["shares"].numpy()]
    assert not any(part in log for part in parts)
    assert session.trial.algorithm.send(session.state, session.state["params"], 0.1).keys() == {"params"}


def test_other_shares_are_another_result_after_a_break() -> None:
    """They are what the next round depends on, so a checkpoint must have them."""
    playing, notebook = trial(DFedEM(work=WORK), ring(8)), Notebook()
    with SiloSession(playing, notebook) as session:
        next(iter(session))
    assert notebook.snapshot is not None
    shares = notebook.snapshot.state["shares"]
    assert float((shares - 1 / 3).abs().max()) > 0.01
    whole = played(playing)[0].state["params"]
    with SiloSession(playing, notebook) as session:
        session.state = {**session.state, "shares": torch.full_like(shares, 1 / 3)}
        for _ in session:
            pass
    assert float((session.state["params"] - whole).abs().max()) > 1e-6


# --- refusals -------------------------------------------------------------------------------------------------------


class Zero(nn.Linear):
    """Starts at 0 whatever the seed."""

    def __init__(self, schema: Schema) -> None:
        super().__init__(3, 1, bias=False)
        nn.init.zeros_(self.weight)


def test_equal_starts_are_refused() -> None:
    task = Task(model=Zero, loss=SQUARED, metric=MAE, schema=EQUAL.schema)
    with pytest.raises(ConfigError, match="equal parameters"):
        SiloSession(trial(DFedEM(), ring(4), EQUAL, task=task))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"components": 0}, "components is 0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"noise": 0.0}, "noise is 0.0"),
        ({"restart": -1}, "restart is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"count_by": "size"}, 'count_by is "size"'),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        DFedEM(**settings)


def test_it_starts_where_fedem_starts() -> None:
    task = linear_task(EQUAL)
    for restart in (0, 2):
        central = FedEM(restart=restart).init(task, 4, Streams(5))["params"]
        assert torch.equal(DFedEM(restart=restart).initial(task, Streams(5)), central)


# --- in a study -----------------------------------------------------------------------------------------------------

STUDY = """
name = "mixed"
data = { kind = "digits" }
partition = { kind = "dirichlet", clients = 5, alpha = 0.5 }
evaluation = { every = 3, unseen_clients = 0.2 }
[silos]
step_ms = 5.0
access_bps = 1e8
paths = "published"
[underlay]
kind = "cities"
places = ["Paris", "Lyon", "Marseille", "Nice"]
ms_per_km = 0.005
links = "mesh"
[run]
rounds = 4
[[methods]]
name = "one"
kind = "dpasgd"
[[methods]]
name = "ring"
kind = "dfedem"
count_by = "records"
[[methods]]
name = "fast"
kind = "dfedem"
overlay = { kind = "mst" }
mixing = "fmmc"
[[methods]]
name = "drawn"
kind = "dfedem"
overlay = { kind = "matcha" }
[[methods]]
name = "family"
kind = "dfedem"
overlay = { kind = "family" }
[[methods]]
name = "star"
kind = "dfedem"
overlay = { kind = "star", hub = "Lyon" }
"""


def test_a_study_trains_over_designed_drawn_and_generated_overlays(tmp_path: Path) -> None:
    record: RunRecord = run_study(parse_study(STUDY), out=tmp_path)
    checked = [c for c in record.certificates if c.check in ("wire_bytes", "round_times")]
    assert len(checked) > 6
    assert {c.verdict for c in checked} == {"holds"}
    plain = record.trial("one", 0)
    for name in ("ring", "fast", "drawn", "family", "star"):
        done = record.trial(name, 0)
        assert done.finished
        assert done.start["silos"]["model_bits"] == 3 * plain.start["silos"]["model_bits"]
        assert done.start["silos"]["step_ms"] == [3 * step for step in plain.start["silos"]["step_ms"]]
        seen, _, unseen = done.events("evaluation")[-3:]
        assert np.shape(seen["mix"]) == (4, 3)
        assert np.shape(unseen["mix"]) == (1, 3)
        bundle = ModelBundle.load(done.folder / "models.safetensors")
        params, mix = bundle.parts(None)
        assert params.shape[0] == 3
        np.testing.assert_allclose(mix, 1 / 3)
        np.testing.assert_allclose(bundle.parts(unseen["clients"][0])[1], unseen["mix"][0], atol=1e-6)
