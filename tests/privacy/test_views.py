"""Views of a message log: what they show, and what no attack gets out of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray
from torch import nn

from rivage.core.errors import ConfigError, DataError
from rivage.core.log_reader import Head, LogReader
from rivage.core.message_log import MessageLog
from rivage.core.messages import LogPolicy, Message
from rivage.core.settings import dump, kind_of
from rivage.federated import FedAvg, Outcome, Phase, Trial, run
from rivage.federated.checkpoint import Files
from rivage.federated.clipping import Clip
from rivage.federated.clustered import Clustered
from rivage.federated.fedem import FedEM
from rivage.federated.fedrep import FedRep
from rivage.federated.kinds import STAGES
from rivage.federated.rounding import BFloat16, Float16
from rivage.federated.secagg import SecAgg
from rivage.federated.sparsifying import TopK
from rivage.learning.params import ParameterMap, to_numpy
from rivage.privacy.views import (
    ActiveServer,
    CuriousClient,
    CuriousServer,
    Eavesdropper,
    Exchange,
    Header,
    Recorded,
    Refused,
    SecAggServer,
)
from rivage.testing.toys import layered_task, linear_clients, linear_task

D = 3
HEADER: dict[str, Any] = {
    "parameters": [{"name": "weight", "offset": 0, "shape": [1, 2]}],
    "buffers": [{"name": "mean", "offset": 2, "shape": [1]}],
    "trainable": 2,
    "kept": [],
    "loss": "squared",
    "hyper_parameters": {"learning_rate": 0.1},
    "secure_aggregation": False,
    "differential_privacy": None,
}


def down(round: int, client: int, value: Any, kind: str = "broadcast") -> Message:
    payload = {"params": np.broadcast_to(np.float32(value), D).copy()}
    return Message(round=round, sender="server", receiver=f"client:{client}", kind=kind, payload=payload)


def up(round: int, client: int, value: Any, weight: float = 1.0) -> Message:
    payload = {"params": np.broadcast_to(np.float32(value), D).copy(), "params.weight": np.array([weight])}
    return Message(round=round, sender=f"client:{client}", receiver="server", kind="update", payload=payload)


def logged(path: Path, messages: Sequence[Message], policy: str = "all", **header: Any) -> Recorded:
    with MessageLog.create(path, HEADER | header, LogPolicy.parse(policy)) as log:
        for message in messages:
            log.append(message)
    return Recorded(path)


def seen(exchanges: Any) -> list[tuple[int, int, float, float]]:
    return [(e.round, e.client, float(e.sent[0]), float(e.returned[0])) for e in exchanges]


# --- pairing -------------------------------------------------------------------------------------------------


def test_an_exchange_is_what_was_sent_and_what_came_back(tmp_path: Path) -> None:
    messages = [down(0, 4, 1), down(0, 2, 1), up(0, 2, 5, weight=7.0), up(0, 4, 6), down(1, 2, 8), up(1, 2, 9)]
    log = logged(tmp_path / "log", messages)
    server = CuriousServer(log)
    assert seen(server.exchanges()) == [(0, 2, 1, 5), (0, 4, 1, 6), (1, 2, 8, 9)]
    first = next(server.exchanges())
    assert first.weight == 7.0
    assert first.kind == "model"
    assert np.array_equal(first.pseudo_gradient, [-4.0] * 3)
    assert first.pseudo_gradient.dtype == np.float64
    assert server.clients == (2, 4)
    assert server.participation == {2: 2, 4: 1}
    assert seen(server.of(2).exchanges()) == [(0, 2, 1, 5), (1, 2, 8, 9)]
    assert Eavesdropper(log, 4).rounds == 1
    assert Eavesdropper(log, 4).last().returned[0] == 6
    assert [(r, m[0]) for r, m in CuriousClient(log, 2).models()] == [(0, 1.0), (1, 8.0)]
    assert seen(CuriousClient(log, 4).exchanges()) == [(0, 4, 1, 6)]
    assert seen(ActiveServer(log, lambda client, params, turn: params).exchanges()) == seen(server.exchanges())
    assert server.header.precision == 2.0**-24
    assert log.faults == ()


def brute(messages: Sequence[Message]) -> tuple[list[tuple[int, int, float, float]], int]:
    """Pairs by looking at the whole list, and the number of updates that were replaced."""
    last = [max(each.round for each in messages[: place + 1]) for place in range(len(messages))]
    messages = [each for each, round in zip(messages, last, strict=True) if each.round == round]  # none that is late
    pairs, replaced = [], 0
    for place, message in enumerate(messages):
        if message.kind != "update":
            continue
        same = [i for i, m in enumerate(messages) if (m.round, m.sender) == (message.round, message.sender)]
        if any(i > place for i in same):
            replaced += 1
            continue
        before = [m for m in messages[:place] if (m.round, m.receiver) == (message.round, message.sender)]
        if before:
            sent, returned = (float(m.payload["params"][0]) for m in (before[-1], message))
            pairs.append((message.round, int(message.sender.removeprefix("client:")), sent, returned))
    return pairs, replaced


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Rounds, mostly in ascending order; in each, broadcasts and updates of clients, some repeated, in any order."""
    messages: list[Message] = []
    numbers = draw(st.lists(st.integers(0, 9), max_size=4))
    for round in draw(st.sampled_from([sorted(set(numbers)), numbers])):
        kinds = draw(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=8))
        for is_down, client in kinds:
            value = draw(st.integers(-2, 2))
            messages.append(down(round, client, value) if is_down else up(round, client, value))
    return messages


@given(messages=conversations(), chosen=st.sets(st.integers(0, 4)))
def test_pairs_equal_a_brute_force_pairing(
    tmp_path_factory: pytest.TempPathFactory, messages: list[Message], chosen: set[int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "conversation"
    log = logged(path, messages)
    pairs, replaced = brute(messages)
    assert seen(log.exchanges()) == pairs
    assert seen(log.exchanges(sorted(chosen))) == [pair for pair in pairs if pair[1] in chosen]
    survey, numbers = log.survey, sorted({pair[0] for pair in pairs})
    assert survey.repeated == replaced
    assert survey.exchanges == {c: [p[1] for p in pairs].count(c) for c in sorted({p[1] for p in pairs})}
    assert (survey.first, survey.last) == ((numbers[0], numbers[-1]) if numbers else (-1, -1))
    missing = {round for first, last in survey.gaps for round in range(first, last + 1)}
    assert missing == set(range(survey.first, survey.last + 1)) - set(numbers) - ({-1} if not numbers else set())


def test_who_and_when_is_told_without_reading_a_payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [m for r in range(3) for c in range(4) if (r + c) % 3 for m in (down(r, c, r), up(r, c, c))]
    log = logged(tmp_path / "log", messages)
    monkeypatch.setattr(LogReader, "payload", None)
    assert log.survey.exchanges == {0: 2, 1: 2, 2: 2, 3: 2}
    assert log.survey.clients == (0, 1, 2, 3)
    assert log.survey.gaps == ()


def test_a_shared_broadcast_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = range(50)
    messages = [down(0, c, 1) for c in clients] + [up(0, c, c) for c in clients]
    log = logged(tmp_path / "log", messages)
    _ = log.header
    decoded: list[str] = []
    payload = LogReader.payload

    def noted(self: LogReader, head: Head) -> dict[str, ndarray]:
        decoded.append(head.kind)
        return payload(self, head)

    monkeypatch.setattr(LogReader, "payload", noted)
    exchanges = list(log.exchanges())
    assert (decoded.count("broadcast"), decoded.count("update")) == (1, 50)
    assert all(exchange.sent is exchanges[0].sent for exchange in exchanges)
    with pytest.raises(ValueError, match="read-only"):
        exchanges[0].sent[0] = 0
    decoded.clear()
    assert (len(list(log.exchanges([7]))), len(decoded)) == (1, 2), "other clients' updates are not read"


def test_clients_with_models_of_their_own(tmp_path: Path) -> None:
    """A broadcast is decoded when its update is read, also where clients take turns."""
    messages = [down(0, c, c % 2) for c in range(4)] + [up(0, c, 9) for c in range(4)]
    assert seen(logged(tmp_path / "log", messages).exchanges()) == [(0, c, c % 2, 9) for c in range(4)]


# --- what travels through stages -----------------------------------------------------------------------------

WORK = Phase(epochs=2, batch_size=4)


def trained(folder: Path, algorithm: Any, stages: Sequence[Any] = (), **options: Any) -> tuple[Recorded, Outcome]:
    population = linear_clients()
    task = options.pop("task", linear_task)(population, options.pop("dtype", torch.float32))
    header = {**HEADER, **task.layout.as_json(), "hyper_parameters": dump(algorithm)}
    header["secure_aggregation"] = options.pop("secure_aggregation", False)
    if stages:
        header["stages"] = [{"kind": kind_of(STAGES, stage), **dump(stage)} for stage in stages]
    trial = Trial(
        name="m", algorithm=algorithm, population=population, task=task, stages=tuple(stages), **{"rounds": 3} | options
    )
    with Files(folder, LogPolicy(), header) as files:
        outcome = run(trial, files)
    return Recorded(folder / "messages.rvg"), outcome


@pytest.mark.parametrize(
    ("stages", "unit"),
    [
        ((), 2.0**-24),
        ((Clip(norm=0.01),), 2.0**-24),
        ((Float16(),), 2.0**-11),
        ((BFloat16(),), 2.0**-8),
        ((TopK(share=0.4),), 2.0**-24),
        ((TopK(count=1, feedback=False),), 2.0**-24),
        ((Clip(norm=0.1), TopK(share=0.4), BFloat16()), 2.0**-8),
    ],
    ids=lambda value: "+".join(type(stage).__name__ for stage in value) or "none" if isinstance(value, tuple) else None,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_updates_are_read_as_the_server_reads_them(
    tmp_path: Path, stages: Sequence[Any], unit: float, dtype: torch.dtype
) -> None:
    """The weighted mean of what a view says was returned is the model of the next round, bit for bit."""
    log, outcome = trained(tmp_path / "run", FedAvg(work=WORK), stages, dtype=dtype)
    if unit == 2.0**-24 and dtype == torch.float64:
        unit = 2.0**-24 if any(isinstance(stage, TopK) for stage in stages) else 2.0**-53
    assert log.header.precision == unit
    models: dict[int, ndarray] = {}
    means: dict[int, tuple[torch.Tensor, float]] = {}
    for exchange in log.exchanges():
        models[exchange.round] = exchange.sent
        returned, weight = torch.from_numpy(exchange.returned.copy()), exchange.weight or 0.0
        assert returned.dtype == dtype
        mean, total = means.get(exchange.round, (returned.clone(), 0.0))
        means[exchange.round] = (mean.lerp_(returned, weight / (total + weight)), total + weight)
        assert np.allclose(exchange.pseudo_gradient, exchange.sent - exchange.returned, atol=1e-6)
    assert sorted(models) == [0, 1, 2]
    assert log.faults == ()
    for round in (1, 2):
        assert np.array_equal(to_numpy(means[round - 1][0]), models[round])
    assert torch.equal(means[2][0], outcome.state["params"])


def test_what_top_k_left_out_is_a_zero_of_the_pseudo_gradient(tmp_path: Path) -> None:
    log, _ = trained(tmp_path / "run", FedAvg(work=WORK), (TopK(count=1),))
    assert {int(np.count_nonzero(exchange.pseudo_gradient)) for exchange in log.exchanges()} == {1}


def test_several_models_in_a_round(tmp_path: Path) -> None:
    log, _ = trained(tmp_path / "run", FedEM(components=2, work=WORK), (Float16(),))
    shapes = {
        (exchange.sent.shape, exchange.returned.shape, exchange.pseudo_gradient.shape) for exchange in log.exchanges()
    }
    assert shapes == {((2, D), (2, D), (2, D))}


@pytest.mark.parametrize("stages", [(), (TopK(share=0.5),)], ids=["plain", "top_k"])
def test_a_change_belongs_to_the_model_the_client_took(tmp_path: Path, stages: Sequence[Any]) -> None:
    algorithm = Clustered(eps1=0.9, eps2=0.1, work=WORK)
    log, outcome = trained(tmp_path / "run", algorithm, stages, rounds=4, cohort=3)
    found = list(log.exchanges())
    assert outcome.state["params"].shape[0] > 1
    assert log.faults == ()
    assert {exchange.sent.shape for exchange in found} == {(D,)}
    assert len(found) == 12
    assert all(np.any(exchange.pseudo_gradient) for exchange in found)


def test_methods_that_send_parts_of_a_model_are_refused(tmp_path: Path) -> None:
    log, _ = trained(tmp_path / "run", FedRep(work=WORK), task=layered_task)
    with pytest.raises(Refused, match=r"messages hold body.* no whole model"):
        list(CuriousServer(log).exchanges())


def test_unknown_stages_are_named(tmp_path: Path) -> None:
    log = logged(tmp_path / "log", [down(0, 1, 1), up(0, 1, 2)], stages=[{"kind": "sketch"}])
    with pytest.raises(DataError, match="sketch"):
        list(log.exchanges())


# --- kinds of updates ----------------------------------------------------------------------------------------


def test_differences_and_gradients_of_other_systems(tmp_path: Path) -> None:
    messages = [down(0, 1, 1), up(0, 1, 0.25)]
    delta = next(logged(tmp_path / "delta", messages, kind="delta").exchanges())
    assert np.array_equal(delta.pseudo_gradient, [-0.25] * 3)
    assert np.array_equal(delta.returned, [1.25] * 3)
    log = logged(tmp_path / "gradient", messages, kind="gradient")
    gradient = next(log.exchanges())
    assert np.array_equal(gradient.pseudo_gradient, [0.25] * 3)
    assert gradient.kind == "gradient"
    assert log.header.steps == 1
    assert Header(HEADER).steps is None
    with pytest.raises(Refused, match="client 1, round 0: the log holds gradients"):
        _ = gradient.returned
    with pytest.raises(DataError, match='the kind "weights"'):
        list(logged(tmp_path / "other", messages, kind="weights").exchanges())


def test_a_difference_is_kept_exact() -> None:
    """1 + 1e-9 is 1 in float32; the difference itself is not lost."""
    small = np.full(2, 1e-9, np.float32)
    exchange = Exchange(0, 0, np.ones(2, np.float32), np.ones(2, np.float32) + small, change=small)
    assert np.array_equal(exchange.pseudo_gradient, -small.astype(np.float64))


# --- the header ----------------------------------------------------------------------------------------------


def test_the_trainable_part_leaves_buffers_out() -> None:
    assert Header(HEADER).trainable(np.arange(6.0).reshape(2, 3)).tolist() == [[0, 1], [3, 4]]


def test_a_model_that_is_not_the_one_of_the_log(tmp_path: Path) -> None:
    def layout(*layers: nn.Module) -> ParameterMap:
        return ParameterMap.of(nn.Sequential(*layers))

    header = Header({**HEADER, **layout(nn.Linear(4, 2), nn.Linear(2, 1)).as_json()})
    header.check(layout(nn.Linear(4, 2), nn.Linear(2, 1)))
    with pytest.raises(DataError, match=r'"0.weight" of shape \(3, 4\) where the log has "0.weight" of shape \(2, 4\)'):
        header.check(layout(nn.Linear(4, 3), nn.Linear(3, 1)))
    with pytest.raises(DataError, match="it has 10 numbers, the log 13"):
        header.check(layout(nn.Linear(4, 2)))
    frozen = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 1))
    frozen[1].requires_grad_(False)
    with pytest.raises(DataError, match="10 of its numbers are trained, 13 in the log"):
        header.check(ParameterMap.of(frozen))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"parameters": None}, "no sound parameter map"),
        ({"parameters": [{"name": "w", "offset": 1, "shape": [2]}]}, "starts at 1, not at 0"),
        ({"parameters": [{"name": "w", "offset": 0, "shape": [-2]}]}, "malformed"),
        ({"trainable": 9}, "9 of 3 numbers are trainable"),
        ({"loss": None}, "no loss"),
        ({"hyper_parameters": 3}, "no hyper_parameters"),
    ],
)
def test_a_header_that_does_not_describe_the_training(change: dict[str, Any], told: str) -> None:
    header = Header({**HEADER, **change})
    with pytest.raises(DataError, match=told):
        _ = header.layout, header.loss, header.hyper_parameters


# --- isolation -----------------------------------------------------------------------------------------------


def reachable(thing: object, depth: int = 3) -> list[object]:
    """All that public attributes lead to, methods called where they need no argument."""
    found = [thing]
    if depth and not isinstance(thing, (int, float, str, bytes, ndarray, type, dict)):
        for name in (name for name in dir(thing) if not name.startswith("_")):
            try:
                value = getattr(thing, name)
                value = value() if callable(value) else value
                value = list(value) if hasattr(value, "__next__") else value
            except (TypeError, ConfigError, DataError, Refused, StopIteration, AttributeError):
                continue
            for each in value if isinstance(value, (list, tuple)) else [value]:
                found += reachable(each, depth - 1)
    return found


def test_an_eavesdropper_reaches_no_other_client(tmp_path: Path) -> None:
    """Client 4 was sent 40 and 41 and returned 44; whoever listens to client 3 meets none of these numbers."""
    messages = [
        down(0, 3, 30),
        down(0, 4, 40),
        up(0, 3, 33),
        up(0, 4, 44),
        down(1, 4, 41),
        down(1, 3, 31),
        up(1, 3, 34),
    ]
    view = Eavesdropper(logged(tmp_path / "log", messages), target=3)
    things = reachable(view)
    numbers = {float(number) for thing in things if isinstance(thing, ndarray) for number in thing.reshape(-1)}
    assert {30.0, 33.0, 31.0, 34.0} <= numbers
    assert not {40.0, 41.0, 44.0} & numbers
    assert not any(isinstance(thing, (Path, Recorded)) for thing in things)
    assert str(tmp_path) not in " ".join(map(str, things)), "nor does it learn where the log lies"
    assert not hasattr(view, "log")
    assert repr(view) == "Eavesdropper(target=3)"


@pytest.mark.parametrize("kind", [CuriousServer, SecAggServer, lambda log: CuriousClient(log, 3)])
def test_no_view_hands_out_the_log(tmp_path: Path, kind: Any) -> None:
    view = kind(logged(tmp_path / "log", [down(0, 3, 30), up(0, 3, 33)]))
    assert not any(isinstance(thing, (Path, Recorded)) for thing in reachable(view))


def summed(round: int, value: float) -> Message:
    payload = {"params": np.full(D, value, np.float32), "params.weight": np.array([5.0])}
    return Message(round=round, sender="cohort", receiver="server", kind="sum", payload=payload)


def test_a_secure_aggregation_shows_sums_only(tmp_path: Path) -> None:
    masked = Message(round=0, sender="client:1", receiver="server", kind="secagg_masked", payload={"v": np.ones(9)})
    messages = [down(0, 1, 1), down(0, 2, 1), masked, summed(0, 3), down(1, 1, 3), summed(1, 4)]
    log = logged(tmp_path / "log", messages, secure_aggregation={"threshold": 2})
    sums = list(SecAggServer(log).exchanges())
    assert seen(sums) == [(0, -1, 1, 3), (1, -1, 3, 4)]
    assert sums[0].weight == 5.0
    for single in (
        Eavesdropper(log, 1).exchanges,
        Eavesdropper(log, 1).last,
        CuriousServer(log).exchanges,
        CuriousServer(log).of(2).exchanges,
        CuriousClient(log, 1).exchanges,
        lambda: CuriousServer(log).clients,
        log.exchanges,
    ):
        with pytest.raises(Refused, match="aggregation was secure"):
            single()
    assert [(r, m[0]) for r, m in CuriousClient(log, 1).models()] == [(0, 1.0), (1, 3.0)]
    assert log.survey.sums == 2
    assert log.header.precision == 2.0**-24


def test_sums_are_those_the_server_went_on_with(tmp_path: Path) -> None:
    """A real secure aggregation: the mean of a round is the model of the next one."""
    pytest.importorskip("cryptography", reason="extra privacy")
    log, outcome = trained(tmp_path / "run", FedAvg(work=WORK), collector=SecAgg(), secure_aggregation=True)
    sums = list(SecAggServer(log).exchanges())
    assert [exchange.round for exchange in sums] == [0, 1, 2]
    for one, after in pairwise(sums):
        assert np.array_equal(one.returned, after.sent)
    assert np.array_equal(sums[-1].returned, to_numpy(outcome.state["params"]))
    assert [exchange.weight for exchange in sums] == pytest.approx([24.0] * 3, rel=1e-6), "summed on a grid, too"
    assert log.faults == ()
    with pytest.raises(Refused, match="aggregation was secure"):
        CuriousServer(log).exchanges()


def test_stages_are_for_updates_and_not_for_their_sum(tmp_path: Path) -> None:
    stages = [{"kind": "float16"}]
    log = logged(tmp_path / "log", [down(0, 1, 1), summed(0, 3)], secure_aggregation=True, stages=stages)
    assert seen(log.sums()) == [(0, -1, 1, 3)]


def test_sums_of_single_updates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="holds single updates and no sums"):
        SecAggServer(logged(tmp_path / "log", [down(0, 1, 1), up(0, 1, 2)])).exchanges()


def test_a_sum_over_clients_with_different_models_answers_none(tmp_path: Path) -> None:
    messages = [down(0, 1, 1), down(0, 2, 2), summed(0, 3), down(1, 1, 3), summed(1, 4), summed(1, 5)]
    log = logged(tmp_path / "log", messages, secure_aggregation=True)
    assert seen(log.sums()) == [(1, -1, 3, 5)]
    assert log.survey.repeated == 1
    assert [str(fault) for fault in log.faults] == [
        "sum over clients, round 0: the clients of the round were sent different models, so that their sum answers none"
    ]


# --- memory --------------------------------------------------------------------------------------------------

STREAM = """
import sys
from pathlib import Path
from rivage.privacy.views import CuriousServer, Recorded

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field))) * 1024

Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten; ru_maxrss has that of the parent as well
before = resident("VmRSS")
server = CuriousServer(Recorded(Path(sys.argv[1])))
total = sum(float(exchange.pseudo_gradient[0]) for exchange in server.exchanges())
print(len(server.clients), total, resident("VmHWM") - before)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="peaks are measured on Linux")
def test_a_thousand_exchanges_of_a_hundred_thousand_parameters_need_little_memory(tmp_path: Path) -> None:
    """One cohort of 1,000 clients, 0.4 GB; the benchmark does it with 10^4."""
    dimension, clients = 10**5, 1000
    header = HEADER | {"parameters": [{"name": "w", "offset": 0, "shape": [dimension]}], "buffers": []}
    sent = {"params": np.zeros(dimension, np.float32)}
    with MessageLog.create(tmp_path / "log", header) as log:
        for client in range(clients):
            log.append(Message(round=0, sender="server", receiver=f"client:{client}", kind="broadcast", payload=sent))
        for client in range(clients):
            payload = {"params": np.full(dimension, client, np.float32)}
            log.append(Message(round=0, sender=f"client:{client}", receiver="server", kind="update", payload=payload))
    told = subprocess.run(
        [sys.executable, "-c", STREAM, str(tmp_path / "log")], capture_output=True, text=True, check=True, timeout=120
    )
    (tmp_path / "log").unlink()
    found, total, growth = map(float, told.stdout.split())
    assert (found, total) == (clients, -sum(range(clients)))
    assert 0 < growth < 200e6
