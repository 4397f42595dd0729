"""The simulated engine: equal to the plain recursion, to itself resumed, on every executor, in any order of silos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rivage.core.errors import ConfigError, ProtocolError
from rivage.core.messages import encoded_size
from rivage.data.population import ClientData, Schema
from rivage.decentralized import Overlay, Silos, matcha_law, star, start_times_ms
from rivage.decentralized.dfedem import DFedEM
from rivage.decentralized.dpsgd import DPASGD, DPSGD
from rivage.decentralized.exact_diffusion import ExactDiffusion
from rivage.decentralized.gossip import GossipAlgorithm, initial
from rivage.decentralized.gradient_tracking import GradientTracking, PushDIGing
from rivage.decentralized.mixing_plan import Cycled, Drawn, Exact, Fixed, MixingPlan, arcs_of, fixed
from rivage.decentralized.pace import Pace
from rivage.decentralized.push_sum import PushSum
from rivage.decentralized.session import SiloSession, run
from rivage.decentralized.silo_trial import SiloTrial
from rivage.federated.algorithm import Phase
from rivage.federated.checkpoint import Notebook
from rivage.federated.execution import Execution
from rivage.graphs.mixing import push_weights
from rivage.learning.losses import CROSS_ENTROPY
from rivage.learning.metrics import ACCURACY
from rivage.learning.task import Task
from rivage.testing.gossip import Quadratics, descend, doubly_stochastic
from rivage.testing.toys import Clients, linear_clients, linear_task

CLIENTS = linear_clients((9, 7, 12, 6, 8, 10, 5, 11), 3, seed=3)
RING = Cycled(matrices=[(np.eye(8) + np.roll(np.eye(8), 1, 0) + np.roll(np.eye(8), -1, 0)) / 3])
STAR = Exact(silos=8, hub=3)
SHORTCUTS = np.roll(np.eye(8), 1, axis=1)
SHORTCUTS[[2, 4, 5], 0] = 1
UNEVEN = Cycled(matrices=[push_weights(SHORTCUTS)])

METHODS: dict[str, tuple[GossipAlgorithm, MixingPlan]] = {
    "combine": (DPSGD(batch_size=None), RING),
    "adapt": (DPSGD(batch_size=None, order="adapt_then_combine"), RING),
    "star": (DPSGD(batch_size=None, order="adapt_then_combine"), STAR),
    "tracking": (GradientTracking(learning_rate=0.05, batch_size=None), RING),
    "push_diging": (PushDIGing(learning_rate=0.02, batch_size=None), UNEVEN),
    "exact": (ExactDiffusion(batch_size=None), doubly_stochastic(8)),
    "push": (PushSum(work=Phase(updates=1, batch_size=None)), UNEVEN),
}
STOCHASTIC: dict[str, tuple[GossipAlgorithm, MixingPlan]] = {
    "combine": (DPSGD(batch_size=3), RING),
    "local steps": (DPASGD(learning_rate=0.05, work=Phase(epochs=2, batch_size=4)), RING),
    "endless": (DPASGD(learning_rate=0.05, work=Phase(updates=3, batch_size=4, batches="endless")), STAR),
    "poisson": (DPSGD(batch_size=3, batches="poisson"), RING),
    "tracking": (GradientTracking(learning_rate=0.05, batch_size=4), RING),
    "push_diging": (PushDIGing(learning_rate=0.05, batch_size=4), RING),
    "exact": (ExactDiffusion(batch_size=4), doubly_stochastic(8)),
    "push": (PushSum(learning_rate=0.05, work=Phase(batch_size=5)), UNEVEN),
    "mixed": (DFedEM(learning_rate=0.05, work=Phase(epochs=2, batch_size=4), count_by="records"), RING),
    "mixed star": (DFedEM(learning_rate=0.05, work=Phase(updates=3, batch_size=4, batches="endless")), STAR),
}


def trial(algorithm: GossipAlgorithm, plan: MixingPlan, clients: Any = CLIENTS, **changes: Any) -> SiloTrial:
    given = {"name": "m", "population": clients, "rounds": 6, "every": 2}
    given["task"] = changes.pop("task", None) or linear_task(clients)
    return SiloTrial(algorithm=algorithm, plan=plan, **{**given, **changes})


def played(trial: SiloTrial, **options: Any) -> tuple[SiloSession, Notebook]:
    notebook = Notebook(**options)
    with SiloSession(trial, notebook) as session:
        for _ in session:
            pass
        session.outcome()
    return session, notebook


# --- equality of paths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_the_engine_plays_the_plain_recursion(name: str) -> None:
    algorithm, plan = METHODS[name]
    session, _ = played(trial(algorithm, plan))
    start = trial(algorithm, plan).task.initial(_model_seed()).expand(8, -1)
    expected = descend(algorithm, plan, Quadratics.of(CLIENTS).gradient, start, 6)
    assert session.state.keys() == expected.keys()
    for key, values in expected.items():
        torch.testing.assert_close(session.state[key], values, rtol=0, atol=1e-12)


def _model_seed() -> int:
    from rivage.core.seeding import Streams

    return Streams(0).seed("model")


@pytest.mark.parametrize("name", STOCHASTIC)
def test_resumed_is_uninterrupted(name: str) -> None:
    algorithm, plan = STOCHASTIC[name]
    playing = trial(algorithm, plan, rounds=7, clock=_clock(plan))
    whole, noted = played(playing, keep_messages=True)
    for stop in range(1, 8):  # after 7 all that is left is the end
        notebook = Notebook(keep_messages=True)
        with SiloSession(playing, notebook) as session:
            for _, _ in zip(range(stop), session, strict=False):
                pass
        with SiloSession(playing, notebook) as session:
            for _ in session:
                pass
            session.outcome()
        assert notebook.events == noted.events
        assert len(notebook.messages) == len(noted.messages)
        for key, values in whole.state.items():
            assert torch.equal(session.state[key], values)
        assert torch.equal(session.average, whole.average)


def _clock(plan: MixingPlan) -> Pace:
    from rivage.graphs import Connectivity

    rng = np.random.default_rng(0)
    latency = rng.uniform(1, 50, (8, 8)) * (1 - np.eye(8))
    between = Connectivity(
        names=tuple("abcdefgh"), latency_ms=latency, available_bps=np.where(np.eye(8) > 0, np.inf, 1e9)
    )
    return Pace(silos=Silos.of(between, model_bits=1e6, step_ms=rng.uniform(1, 9, 8), access_bps=1e8), plan=plan)


class Network(nn.Sequential):
    def __init__(self, schema: Schema) -> None:
        super().__init__(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def classes(seed: int = 0) -> Clients:
    rng = np.random.default_rng(seed)
    records = tuple((rng.normal(size=(n, 6)), rng.integers(0, 3, n)) for n in (9, 14, 5, 11, 8, 7, 12, 10))
    return Clients(records, Schema(input_shape=(6,), target="class", num_classes=3))


@pytest.mark.parametrize("name", STOCHASTIC)
def test_the_executors_agree(name: str) -> None:
    algorithm, plan = STOCHASTIC[name]
    clients = classes()
    task = Task(Network, CROSS_ENTROPY, ACCURACY, clients.schema, dtype=torch.float64)
    ends = []
    for kind in ("functional", "tiled"):
        execution = Execution(executor=kind, workers=1)  # type: ignore[arg-type]
        session, notebook = played(trial(algorithm, plan, clients, task=task, execution=execution))
        ends.append((session.state["params"], [event.get("gradients") for event in notebook.events]))
    torch.testing.assert_close(ends[0][0], ends[1][0], rtol=0, atol=1e-10)
    assert ends[0][1] == ends[1][1]


def test_the_number_of_workers_changes_nothing() -> None:
    algorithm, plan = STOCHASTIC["local steps"]
    records = [played(trial(algorithm, plan, execution=Execution(workers=w)))[1].events for w in (1, 2)]
    assert records[0] == records[1]


# --- invariances ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_silos_changes_nothing(name: str) -> None:
    """With full gradients; batches are keyed by the number of a client."""
    algorithm, plan = METHODS[name]
    order = np.array([5, 2, 7, 0, 3, 6, 1, 4])
    moved = Clients(tuple(CLIENTS.records[k] for k in order), CLIENTS.schema)
    other: MixingPlan = (
        Exact(silos=8, hub=int(np.argsort(order)[plan.hub]))
        if plan.hub is not None
        else Cycled(matrices=[plan.weights(0)[np.ix_(order, order)]])
    )
    here, there = (played(each)[0] for each in (trial(algorithm, plan), trial(algorithm, other, moved)))
    torch.testing.assert_close(here.state["params"][torch.as_tensor(order)], there.state["params"], rtol=0, atol=1e-12)
    torch.testing.assert_close(here.average, there.average, rtol=0, atol=1e-12)


def test_a_complete_graph_with_equal_weights_is_a_star() -> None:
    complete = Cycled(matrices=[np.full((8, 8), 1 / 8)])
    for algorithm, _ in STOCHASTIC.values():
        here, there = (played(trial(algorithm, plan))[0] for plan in (STAR, complete))
        torch.testing.assert_close(here.state["params"], there.state["params"], rtol=0, atol=1e-12)


def test_all_silos_start_from_the_model_that_federated_methods_start_from() -> None:
    with SiloSession(trial(DPSGD(), RING, rounds=0)) as session:
        assert bool((session.state["params"] == session.trial.task.initial(_model_seed())).all())


# --- what is measured -----------------------------------------------------------------------------------------------


def test_the_average_is_taken_between_local_steps_and_mixing() -> None:
    """Over an uneven overlay it is not what it is after mixing; silos are judged with what they hold in the end."""
    plan = UNEVEN
    session, notebook = played(trial(PushSum(work=Phase(updates=1, batch_size=None)), plan, rounds=4, every=10))
    before = descend(
        PushSum(),
        plan,
        Quadratics.of(CLIENTS).gradient,
        session.trial.task.initial(_model_seed()).expand(8, -1),
        3,
    )["params"]
    trained = before - 0.1 * Quadratics.of(CLIENTS).gradient(before)
    torch.testing.assert_close(session.average, trained.mean(dim=0), rtol=0, atol=1e-12)
    assert float((session.average - session.state["params"].mean(dim=0)).abs().max()) > 1e-6
    last = [event for event in notebook.events if event["event"] == "round"][-1]
    assert last["consensus"] == pytest.approx(float((trained - trained.mean(dim=0)).square().mean()), rel=1e-9)
    own, shared = (
        next(e for e in notebook.events if e["event"] == "evaluation" and e["group"] == group)
        for group in ("seen", "average")
    )
    for silo, (x, y) in enumerate(CLIENTS.records):
        for event, model in ((own, session.state["params"][silo]), (shared, session.average)):
            errors = x @ model.numpy() - y[:, 0]
            assert event["test"][silo] == pytest.approx(np.abs(errors).mean())
            assert event["test_loss"][silo] == pytest.approx((errors**2).mean() / 2)


def test_clients_that_never_train_get_the_average() -> None:
    plan = Cycled(matrices=[np.full((6, 6), 1 / 6)])
    session, notebook = played(trial(DPSGD(), plan, unseen=np.array([2, 5])))
    assert session.silos == [0, 1, 3, 4, 6, 7]
    unseen = [e for e in notebook.events if e["event"] == "evaluation" and e["group"] == "unseen"]
    assert [event["round"] for event in unseen] == [2, 4, 6]
    assert unseen[-1]["clients"] == [2, 5]
    x, y = CLIENTS.records[5]
    assert unseen[-1]["test"][1] == pytest.approx(np.abs(x @ session.average.numpy() - y[:, 0]).mean())


@pytest.mark.parametrize("name", STOCHASTIC)
def test_every_byte_is_counted_once_and_logged(name: str) -> None:
    algorithm, plan = STOCHASTIC[name]
    session, notebook = played(trial(algorithm, plan), keep_messages=True)
    zero = {key: np.zeros(values.shape[1:]) for key, values in _sent(algorithm, session.trial.task).items()}
    one = encoded_size(zero)
    rounds = [event for event in notebook.events if event["event"] == "round"]
    for event in rounds:
        sent = [message for message in notebook.messages if message.round == event["round"]]
        ups = [m for m in sent if plan.hub is None or m.receiver == f"client:{plan.hub}"]
        assert event["bytes_up"] == sum(m.nbytes for m in ups) == one * len(ups)
        assert event["bytes_down"] == sum(m.nbytes for m in sent) - event["bytes_up"]
        pairs = sorted((m.sender, m.receiver) for m in sent)
        assert pairs == sorted((f"client:{a}", f"client:{b}") for a, b in plan.arcs(event["round"]).tolist())


def _sent(algorithm: GossipAlgorithm, task: Task) -> dict[str, Tensor]:
    start = initial(algorithm, task, 0)[None]
    return dict(algorithm.send(algorithm.start(start), start, 0.1))


def test_messages_hold_what_was_sent_and_the_hub_sends_means() -> None:
    session, notebook = played(
        trial(DPSGD(batch_size=None, order="adapt_then_combine"), STAR, rounds=1), keep_messages=True
    )
    start = session.trial.task.initial(_model_seed()).expand(8, -1)
    trained = start - 0.1 * Quadratics.of(CLIENTS).gradient(start)
    for message in notebook.messages:
        sender = int(message.sender.removeprefix("client:"))
        assert message.kind == ("update" if message.receiver == "client:3" else "broadcast")
        expected = trained.mean(dim=0) if sender == 3 else trained[sender]
        np.testing.assert_allclose(message.payload["params"], expected.numpy(), rtol=0, atol=1e-12)
    kinds = [message.kind for message in notebook.messages]
    assert kinds == ["update"] * 7 + ["broadcast"] * 7


# --- time -----------------------------------------------------------------------------------------------------------


def clocks(playing: SiloTrial) -> list[float]:
    return [event["clock_ms"] for event in played(playing)[1].events if event["event"] == "round"]


@pytest.mark.parametrize("access", [np.inf, 1e8])
def test_rounds_over_an_overlay_take_what_the_max_plus_recursion_says(
    square_of: Callable[..., Silos], access: float
) -> None:
    silos = square_of(1, 8, access_bps=access, symmetric=False)
    for overlay in (Overlay.ring(silos, range(8)), Overlay.links(silos, [(0, k) for k in range(1, 8)])):
        plan = fixed(overlay)
        playing = trial(DPSGD(), plan, rounds=9, clock=Pace(silos=silos, plan=plan))
        expected = start_times_ms(overlay, 9).mean(axis=1)[1:]
        np.testing.assert_allclose(clocks(playing), expected, rtol=1e-12)


@pytest.mark.parametrize("access", [np.inf, 1e8])
def test_rounds_over_a_star_take_its_cycle_time_from_the_second_on(
    square_of: Callable[..., Silos], access: float
) -> None:
    silos = square_of(1, 8, access_bps=access)
    design = star(silos)
    assert design.hub is not None
    plan = Exact(silos=8, hub=silos.names.index(design.hub))
    times = clocks(trial(DPSGD(), plan, rounds=6, clock=Pace(silos=silos, plan=plan)))
    assert np.diff(times) == pytest.approx([design.cycle_time_ms] * 5, rel=1e-12)


def test_rounds_that_are_drawn_take_their_slowest_link(square_of: Callable[..., Silos]) -> None:
    silos = square_of(1, 8, access_bps=3e8)
    law = matcha_law(silos)
    plan = Drawn(law=law, seed=4)
    times = clocks(trial(DPSGD(), plan, rounds=12, clock=Pace(silos=silos, plan=plan, together=True)))
    links = [plan.arcs(k) for k in range(12)]
    slowest = [
        silos.delay_ms(
            arcs, sending=np.bincount(arcs[:, 0])[arcs[:, 0]], receiving=np.bincount(arcs[:, 1])[arcs[:, 1]]
        ).max()
        for arcs in links
    ]
    np.testing.assert_allclose(times, np.cumsum(slowest), rtol=1e-12)
    sooner = clocks(trial(DPSGD(), plan, rounds=12, clock=Pace(silos=silos, plan=plan)))
    assert all(one <= other + 1e-9 for one, other in zip(sooner, times, strict=True)), "waiting for neighbours only"


def test_simulated_seconds_add_up_to_the_clock(square_of: Callable[..., Silos]) -> None:
    silos = square_of(2, 8)
    plan = fixed(Overlay.ring(silos, range(8)))
    rounds = [
        event
        for event in played(trial(DPSGD(), plan, clock=Pace(silos=silos, plan=plan)))[1].events
        if event["event"] == "round"
    ]
    assert sum(event["simulated_s"] for event in rounds) == pytest.approx(rounds[-1]["clock_ms"] / 1000)
    assert "clock_ms" not in played(trial(DPSGD(), plan))[1].events[2], "nothing said of time, nothing told"


def test_a_pace_says_the_same_of_a_star_worked_out_by_hand(square_of: Callable[..., Silos]) -> None:
    silos = replace(square_of(0, 3), step_ms=np.array([1.0, 2.0, 3.0]))
    pace = Pace(silos=silos, plan=Exact(silos=3, hub=1))
    starts = np.array([5.0, 0.0, 2.0])
    up = silos.delay_ms(np.array([[0, 1], [2, 1]]), receiving=2)
    down = silos.delay_ms(np.array([[1, 0], [1, 2]]), sending=2) - 2.0
    mean = max(5.0 + up[0], 2.0 + up[1], 0.0 + 2.0)
    np.testing.assert_allclose(pace.after(0, starts), [mean + down[0], mean, mean + down[1]])


# --- refusals -------------------------------------------------------------------------------------------------------


def test_training_that_runs_away_says_whose_and_when() -> None:
    playing = trial(DPSGD(learning_rate=50.0, batch_size=None), RING, rounds=1000, every=1000)
    with pytest.raises(ProtocolError, match=r'method "m", seed 0, round \d+, client \d: the model is not finite'):
        run(playing)


def test_an_overlay_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="the overlay is for 8 silos, and 4 clients train"):
        trial(DPSGD(), RING, linear_clients())


def test_a_checkpoint_of_another_overlay_is_refused(tmp_path: Any) -> None:
    one, other = trial(DPSGD(), RING), trial(DPSGD(), STAR)
    assert one.identity != other.identity
    assert one.identity == trial(DPSGD(), Fixed(matrix=RING.weights(0), pairs=arcs_of(RING.weights(0)))).identity
    assert one.identity != trial(DPSGD(), RING, seed=1).identity
    assert one.identity != trial(DPSGD(), RING, clock=_clock(RING)).identity


class Shifting(Clients):
    """Records that change with the round."""

    def client(self, id: int, round: int = 0) -> ClientData:
        return super().client((id + round) % self.size, 0)


def test_silos_train_on_what_they_hold_in_the_round() -> None:
    moving = Shifting(CLIENTS.records, CLIENTS.schema)
    alone = Cycled(matrices=[np.eye(8)])
    session, _ = played(trial(DPSGD(batch_size=None), alone, moving, rounds=2))
    start = session.trial.task.initial(_model_seed()).expand(8, -1)
    losses = Quadratics.of(CLIENTS)
    first = start - 0.1 * losses.gradient(start)
    moved = Quadratics(np.roll(losses.hessians, -1, axis=0), np.roll(losses.linear, -1, axis=0))
    torch.testing.assert_close(session.state["params"], first - 0.1 * moved.gradient(first), rtol=0, atol=1e-12)
