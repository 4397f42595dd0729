"""Logs with faults: each is named with its place, and all the rest is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import DataError, StoreError
from rivage.core.message_log import MessageLog
from rivage.core.messages import LogPolicy, Message
from rivage.decentralized.dpsgd import DPASGD
from rivage.decentralized.mixing_plan import Cycled, Exact, MixingPlan
from rivage.decentralized.session import SiloSession
from rivage.decentralized.silo_trial import SiloTrial
from rivage.federated.checkpoint import Files
from rivage.privacy.views import CuriousServer, Eavesdropper, Fault, Recorded, Refused, SecAggServer
from rivage.testing.toys import linear_clients, linear_task

D = 3
HEADER: dict[str, Any] = {
    "parameters": [{"name": "weight", "offset": 0, "shape": [1, D]}],
    "buffers": [],
    "trainable": D,
    "kept": [],
    "loss": "squared",
    "hyper_parameters": {},
    "secure_aggregation": False,
    "differential_privacy": None,
}


def down(round: int, client: int, value: Any = 1.0, **payload: Any) -> Message:
    payload = payload or {"params": np.broadcast_to(np.float32(value), D).copy()}
    return Message(round=round, sender="server", receiver=f"client:{client}", kind="broadcast", payload=payload)


def up(round: int, client: int, value: Any = 2.0, **payload: Any) -> Message:
    payload = payload or {"params": np.broadcast_to(np.float32(value), D).copy()}
    return Message(round=round, sender=f"client:{client}", receiver="server", kind="update", payload=payload)


def logged(path: Path, messages: Sequence[Message], policy: str = "all", **header: Any) -> Recorded:
    with MessageLog.create(path, HEADER | header, LogPolicy.parse(policy)) as log:
        for message in messages:
            log.append(message)
    return Recorded(path)


def seen(log: Recorded) -> list[tuple[int, int]]:
    return [(exchange.round, exchange.client) for exchange in log.exchanges()]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (up(1, 2, [np.nan, 1, 2]), "1 of 3 numbers are not finite"),
        (up(1, 2, [np.inf, -np.inf, 2]), "2 of 3 numbers are not finite"),
        (up(1, 2, params=np.ones(4, np.float32)), r"parameters of shape \(4,\) where \(3,\) were sent"),
        (up(1, 2, params=np.ones((1, 3), np.float32)), r"parameters of shape \(1, 3\) where \(3,\) were sent"),
        (up(1, 2, params=np.ones(3, np.int64)), "numbers of type int64"),
        (up(1, 2, params=np.ones(3, bool)), "numbers of type bool"),
        (up(1, 2, **{"params": np.ones(3), "params.weight": np.array([np.nan])}), "its weight is nan"),
        (up(1, 2, change=np.ones(5, np.float32)), r"parameters of shape \(5,\)"),
    ],
)
def test_a_faulty_update_is_named_and_the_others_are_read(tmp_path: Path, fault: Message, told: str) -> None:
    messages = [
        down(0, 1),
        down(0, 2),
        up(0, 2),
        up(0, 1),
        down(1, 1),
        down(1, 2),
        fault,
        up(1, 1),
        down(2, 2),
        up(2, 2),
    ]
    log = logged(tmp_path / "log", messages)
    assert seen(log) == [(0, 2), (0, 1), (1, 1), (2, 2)]
    (found,) = log.faults
    assert (found.round, found.client) == (1, 2)
    with pytest.raises(DataError, match=f"client 2, round 1: {told}"):
        raise found.error
    assert Eavesdropper(log, 2).faults == (found,)
    assert Eavesdropper(log, 1).faults == ()


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (down(0, 1, [1, np.inf, 1]), "1 of 3 numbers are not finite .what was sent."),
        (down(0, 1, params=np.ones(5, np.float32)), r"shape \(5,\) where the header describes 3 numbers"),
        (down(0, 1, params=np.ones((1, 1, 3), np.float32)), r"shape \(1, 1, 3\)"),
    ],
)
def test_a_faulty_broadcast_spoils_the_exchanges_of_those_it_went_to(tmp_path: Path, sent: Message, told: str) -> None:
    other = Message(round=0, sender="server", receiver="client:2", kind="broadcast", payload=sent.payload)
    log = logged(tmp_path / "log", [sent, other, down(0, 3), up(0, 1), up(0, 2), up(0, 3)])
    assert seen(log) == [(0, 3)]
    assert [(fault.round, fault.client) for fault in log.faults] == [(0, 1), (0, 2)]
    with pytest.raises(DataError, match=told):
        raise log.faults[1].error


def test_a_client_that_has_only_faults_is_told_with_the_first(tmp_path: Path) -> None:
    log = logged(tmp_path / "log", [down(0, 1), up(0, 1, np.nan)])
    with pytest.raises(DataError, match="client 1 has no exchange, that could be used: client 1, round 0: 3 of 3"):
        Eavesdropper(log, 1).last()
    with pytest.raises(DataError, match=r"client 9 has no exchange\. Name another one."):
        Eavesdropper(log, 9).last()


def test_updates_without_a_broadcast_and_broadcasts_without_an_update(tmp_path: Path) -> None:
    """A round whose broadcasts are missing pairs with no other; an absent client has no exchange."""
    log = logged(tmp_path / "log", [down(0, 1), down(0, 2), up(0, 1), up(1, 1), up(1, 2), down(4, 1), up(4, 1)])
    assert seen(log) == [(0, 1), (4, 1)]
    assert [(fault.round, fault.client) for fault in log.faults] == [(1, 1), (1, 2)]
    assert "no model was sent before this update" in str(log.faults[0])
    survey = log.survey
    assert (survey.unanswered, survey.unasked, survey.gaps) == (1, 2, ((1, 3),))


def test_a_message_behind_a_later_round_is_left_out(tmp_path: Path) -> None:
    log = logged(tmp_path / "log", [down(0, 1), up(0, 1), down(2, 1), up(1, 1), up(2, 1), up(0, 1, 7)])
    assert seen(log) == [(0, 1), (2, 1)]
    assert log.survey.late == 1, "one client of one round"
    assert {str(fault) for fault in log.faults} == {"client 1, round 0: the message stands behind round 2"}


def test_a_million_missing_rounds_are_one_gap(tmp_path: Path) -> None:
    log = logged(tmp_path / "log", [down(0, 1), up(0, 1), down(10**12, 1), up(10**12, 1)])
    assert log.survey.gaps == ((1, 10**12 - 1),)
    assert log.survey.last == 10**12


def test_mixed_types_are_computed_in_float64_and_the_coarsest_is_reported(tmp_path: Path) -> None:
    messages = [down(0, 1, params=np.full(D, 0.1)), up(0, 1, params=np.full(D, 0.1, np.float16))]
    log = logged(tmp_path / "log", messages)
    (exchange,) = log.exchanges()
    assert exchange.pseudo_gradient.dtype == np.float64
    assert np.array_equal(exchange.pseudo_gradient, np.full(D, 0.1 - float(np.float16(0.1))))
    assert log.header.precision == 2.0**-11


# --- what was not kept ---------------------------------------------------------------------------------------


def test_a_log_without_payloads(tmp_path: Path) -> None:
    log = logged(tmp_path / "log", [down(0, 1), up(0, 1)], policy="meta")
    assert log.survey.omitted == 1
    assert log.header.precision is None
    for use in (lambda: CuriousServer(log).exchanges(), lambda: CuriousServer(log).clients, Eavesdropper(log, 1).last):
        with pytest.raises(DataError, match=r'kept none.* Train again with log = "all".*it was "meta"'):
            use()
    payload = {"params": np.ones(D), "params.weight": np.ones(1)}
    summed = Message(round=0, sender="cohort", receiver="server", kind="sum", payload=payload)
    log = logged(tmp_path / "sums", [down(0, 1), summed], "meta", secure_aggregation=True)
    with pytest.raises(DataError, match="no payloads of any round"):
        SecAggServer(log).exchanges()


def test_a_log_with_payloads_of_some_clients(tmp_path: Path) -> None:
    messages = [message for round in range(2) for c in range(4) for message in (down(round, c), up(round, c))]
    log = logged(tmp_path / "log", messages, policy="clients:[1, 3]")
    assert CuriousServer(log).clients == (1, 3)
    assert seen(log) == [(0, 1), (0, 3), (1, 1), (1, 3)]
    assert Eavesdropper(log, 3).rounds == 2
    with pytest.raises(DataError, match=r"no payloads of client 0: it kept those of clients 1, 3.*clients:\[1, 3\]"):
        Eavesdropper(log, 0).exchanges()


def test_a_log_with_no_message(tmp_path: Path) -> None:
    log = logged(tmp_path / "log", [])
    assert seen(log) == []
    assert CuriousServer(log).clients == ()
    assert log.header.precision is None
    with pytest.raises(StoreError, match="cannot be read"):
        _ = Recorded(tmp_path / "nothing").header


# --- damage --------------------------------------------------------------------------------------------------


def conversation(rounds: int = 3) -> list[Message]:
    """In every round client 1 before client 2; every broadcast is new."""
    return [
        message
        for round in range(rounds)
        for message in (down(round, 1, round), down(round, 2, round), up(round, 1), up(round, 2))
    ]


def test_a_log_cut_anywhere_is_read_up_to_there(tmp_path: Path) -> None:
    messages = conversation()
    with MessageLog.create(tmp_path / "log", HEADER) as log:
        ends = [log.offset]
        for message in messages:
            log.append(message)
            ends.append(log.offset)
    content = (tmp_path / "log").read_bytes()
    for size in range(ends[0], len(content), 13):
        (tmp_path / "cut").write_bytes(content[:size])
        whole = messages[: sum(end <= size for end in ends) - 1]
        cut = Recorded(tmp_path / "cut")
        assert seen(cut) == [(m.round, int(m.sender[-1])) for m in whole if m.kind == "update"]
        assert cut.survey.torn == size - max(end for end in ends if end <= size)
        assert cut.faults == ()


def test_an_end_whose_bytes_never_reached_the_disk(tmp_path: Path) -> None:
    logged(tmp_path / "log", conversation())
    content = bytearray((tmp_path / "log").read_bytes())
    content[-8:-4] = bytes(4)  # the last numbers of the last payload
    (tmp_path / "log").write_bytes(content)
    log = Recorded(tmp_path / "log")
    assert seen(log) == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1)]
    assert [str(fault) for fault in log.faults] == [
        "client 2, round 2: the log ends within this message: its writer was killed, or is still at work"
    ]


def test_damage_loses_a_message_and_no_other(tmp_path: Path) -> None:
    """Whatever byte is flipped, exchanges whose own bytes are whole are read with their numbers, or named."""
    messages = conversation()
    logged(tmp_path / "log", messages)
    pairs = seen(Recorded(tmp_path / "log"))
    content = (tmp_path / "log").read_bytes()
    first = next(iter(places(tmp_path / "log")))
    for place in range(first, len(content), 17):
        damaged = bytearray(content)
        damaged[place] ^= 16
        (tmp_path / "damaged").write_bytes(damaged)
        log = Recorded(tmp_path / "damaged")
        exchanges = list(log.exchanges())
        assert {(e.round, e.client) for e in exchanges} <= set(pairs)
        assert all(e.sent[0] == e.round and e.returned[0] == 2 for e in exchanges)
        lost = len(pairs) - len(exchanges)
        # A broadcast is shared by the two clients of its round.
        assert lost <= 2
        assert log.faults or lost <= 1
        assert lost or log.survey.damaged or log.faults


def places(path: Path) -> list[int]:
    with MessageLog.reader(path) as reader:
        return [head.start for head in reader.heads()]


def test_damaged_bytes_are_told(tmp_path: Path) -> None:
    logged(tmp_path / "log", conversation())
    start, end = places(tmp_path / "log")[2:4]
    content = bytearray((tmp_path / "log").read_bytes())
    content[start] ^= 1
    (tmp_path / "log").write_bytes(content)
    log = Recorded(tmp_path / "log")
    assert seen(log) == [(0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
    assert str(log.faults[0]) == f"message log: bytes {start} to {end} are damaged, and messages in them are lost"


def test_a_log_that_grows_is_read_as_it_was_when_first_looked_at(tmp_path: Path) -> None:
    with MessageLog.create(tmp_path / "log", HEADER) as writer:
        for message in conversation(1):
            writer.append(message)
        writer.flush()
        log = Recorded(tmp_path / "log")
        exchanges = log.exchanges()
        assert next(exchanges).client == 1
        for message in conversation(3)[4:]:
            writer.append(message)
        writer.flush()
        assert [e.client for e in exchanges] == [2]
        assert seen(log) == [(0, 1), (0, 2)], "another reader of the same log sees the same"
        assert log.survey.exchanges == {1: 1, 2: 1}
    assert Recorded(tmp_path / "log").survey.exchanges == {1: 3, 2: 3}


def test_a_torn_end_is_none_when_the_writer_has_gone_on_meanwhile(tmp_path: Path) -> None:
    """What a reader opened within a message must not be called damaged because more has arrived behind it."""
    logged(tmp_path / "log", conversation())
    cut = places(tmp_path / "log")[-1] + 30
    with MessageLog.reader(tmp_path / "log", cut) as reader:
        assert len(list(reader.heads())) == len(conversation()) - 1
        assert reader.torn == 30
    middle = places(tmp_path / "log")[5] + 30
    with MessageLog.reader(tmp_path / "log", middle) as reader:
        assert len(list(reader.heads())) == 5


@given(numbers=st.lists(st.sampled_from([1.0, np.nan, np.inf, -np.inf, 3e38, -3e38]), min_size=D, max_size=D))
def test_only_finite_updates_are_used(tmp_path_factory: pytest.TempPathFactory, numbers: list[float]) -> None:
    path = tmp_path_factory.getbasetemp() / "numbers"
    log = logged(path, [down(0, 1), up(0, 1, numbers), down(0, 2), up(0, 2)])
    sound = bool(np.isfinite(numbers).all())
    assert seen(log) == ([(0, 1)] if sound else []) + [(0, 2)]
    assert len(log.faults) == (not sound)


def test_a_fault_without_a_place() -> None:
    assert Fault(-1, -1, "bytes").where == "message log"
    assert Fault(3, -1, "x").where == "sum over clients, round 3"


# --- trainings without a server ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plan", [Exact(silos=4, hub=0), Cycled(matrices=[np.full((4, 4), 0.25)])], ids=["star", "clique"]
)
def test_logs_of_decentralised_methods_are_refused_with_the_reason(plan: MixingPlan, tmp_path: Path) -> None:
    population = linear_clients()
    task = linear_task(population)
    trial = SiloTrial(name="m", algorithm=DPASGD(), plan=plan, population=population, task=task, rounds=2, every=9)
    with Files(tmp_path, LogPolicy(), HEADER | task.layout.as_json()) as files, SiloSession(trial, files) as session:
        assert len(list(session)) == 2
    log = Recorded(tmp_path / "messages.rvg")
    assert log.header.layout.dimension == D
    for use in (lambda: CuriousServer(log).exchanges(), Eavesdropper(log, 1).last, lambda: log.survey):
        with pytest.raises(Refused, match=r"round 0, client:\d to client:\d: silos exchange models with each other"):
            use()
