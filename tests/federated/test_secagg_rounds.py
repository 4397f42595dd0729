"""Secure aggregation through the engine: the mean, bytes, dropouts, noise, logs, and what is refused."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError, MissingExtra
from rivage.core.message_log import LOG_NAME
from rivage.core.messages import LogPolicy, encode
from rivage.core.seeding import Streams
from rivage.core.settings import dump, read
from rivage.core.toml import format_toml
from rivage.federated import FedAvg, FedEM, Notebook, Phase, Scaffold, Session, Trial, Update
from rivage.federated.accounting import Release, epsilon_of
from rivage.federated.adversaries import NotANumber
from rivage.federated.algorithm import State
from rivage.federated.checkpoint import Files, Journal
from rivage.federated.clipping import Clip
from rivage.federated.collectors import Averaged, Conversing
from rivage.federated.discrete_gaussian import epsilon
from rivage.federated.execution import Execution
from rivage.federated.fedrep import FedRep
from rivage.federated.fedstream import FedStream
from rivage.federated.l2gd import L2GD
from rivage.federated.privacy_ledger import spent
from rivage.federated.qffl import QFFL
from rivage.federated.secagg import SecAgg
from rivage.federated.secagg_coding import Entry, Noisy, Weighted, entries_of
from rivage.federated.secagg_field import Grid
from rivage.privacy.recorded import Recorded
from rivage.privacy.views import CuriousServer, Eavesdropper, Refused, SecAggServer
from rivage.simulation.devices import Classes
from rivage.studies.settings import parse_study
from rivage.studies.stage import Stage
from rivage.testing.toys import Clients, layered_task, linear_clients, linear_task

SIZES = (4, 7, 5, 12, 6, 9)
WORK = Phase(epochs=1, batch_size=4)
FINE = SecAgg(quantisation_bits=30, modulus_bits=64, rounding="nearest")


def trial(population: Clients | None = None, **changes: Any) -> Trial:
    population = population or linear_clients(SIZES)
    base = Trial(
        name="avg",
        algorithm=FedAvg(learning_rate=0.1, work=WORK),
        population=population,
        task=linear_task(population),
        rounds=3,
        collector=SecAgg(),
    )
    return replace(base, **changes)


def play(trial: Trial, journal: Journal) -> list[State]:
    """The server's state before the first round and after each."""
    with Session(trial, journal) as session:
        return [session.state, *(session.state for _ in session)]


def rounds_of(notebook: Notebook) -> list[dict[str, Any]]:
    return [event for event in notebook.events if event["event"] == "round"]


def distance(one: State, other: State) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one if one[name].numel())


# --- the mean --------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.floats(0.01, 3), st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=9),
    st.booleans(),
    st.sampled_from([12, 22]),
)
def test_the_mean_is_the_plain_one_to_the_resolution(updates: list[Any], stochastic: bool, bits: int) -> None:
    """Against the mean with the rounded weights, and those within half a step of the true ones."""
    base, made, total = torch.tensor([1.0, -1.0], dtype=torch.float64), [], np.zeros(5, np.int64)
    for number, (weight, *values) in enumerate(updates):
        made.append(Update({"w": (base + torch.tensor(values, dtype=torch.float64), weight)}, client=number))
    coding = Weighted(Grid(8.0, bits), stochastic, entries_of(made[0], {"w": base}), 3.0)
    numbers = [coding.numbers(update, Streams(5).child(update.client)) for update in made]
    total = np.sum(numbers, axis=0)
    most = coding.grid.most
    rounded = np.array([row[0] for row in numbers]) / most
    assert np.abs(3.0 * rounded - [weight for weight, *_ in updates]).max() <= 3.0 / most / 2 + 1e-12
    mean, report = coding.means(total, len(updates))["w"], coding.report(total, len(updates))
    assert mean.weight == pytest.approx(3.0 * rounded.sum())
    assert report["clipped"] == 0
    if rounded.sum() > 0:
        plain = rounded @ np.array([values for _, *values in updates]) / rounded.sum()
        assert np.abs(mean.mean.numpy() - base.numpy() - plain).max() <= report["resolution"] + 1e-9


def test_the_sum_is_that_of_the_clients_whole_numbers() -> None:
    """The updates of round 0 from a run without masks; their numbers, added up in Python, give the logged mean."""
    plain, secure = Notebook(keep_messages=True), Notebook(keep_messages=True)
    start = play(trial(rounds=1, collector=Averaged()), plain)[0]
    play(trial(rounds=1), secure)
    updates = [
        Update(
            {"params": (torch.from_numpy(m.payload["params"]), float(m.payload["params.weight"][0]))},
            client=int(m.sender.removeprefix("client:")),
        )
        for m in plain.messages
        if m.kind == "update"
    ]
    coding = Weighted(SecAgg().grid, True, entries_of(updates[0], {"params": start["params"]}), float(max(SIZES)))
    streams = Streams(0).child("round", 0, "collector", trial(rounds=1).secret, "update")
    rows = [coding.numbers(update, streams.child(update.client)).tolist() for update in updates]
    total = np.array([sum(column) for column in zip(*rows, strict=True)])
    (read_off,) = [m for m in secure.messages if m.kind == "sum"]
    expected = coding.means(total, len(updates))["params"]
    np.testing.assert_array_equal(read_off.payload["params"], expected.mean.numpy())
    assert read_off.payload["params.weight"].tolist() == [expected.weight]
    assert (read_off.sender, read_off.receiver) == ("cohort", "server")


@pytest.mark.parametrize(
    "algorithm",
    [
        FedAvg(learning_rate=0.1, work=WORK),
        Scaffold(learning_rate=0.1, work=WORK),
        FedEM(learning_rate=0.1, work=WORK, components=2),
        FedRep(learning_rate=0.1),
    ],
    ids=lambda algorithm: type(algorithm).__name__,
)
def test_methods_with_one_and_several_entries_get_the_plain_result(algorithm: Any) -> None:
    population = linear_clients(SIZES)
    same: dict[str, Any] = {"algorithm": algorithm}
    if isinstance(algorithm, FedRep):
        same |= {"population": population, "task": layered_task(population)}
    plain, fine = (play(trial(collector=c, **same), Notebook())[-1] for c in (Averaged(), FINE))
    assert distance(plain, fine) < 1e-6
    coarse = play(trial(**same), Notebook())[-1]
    assert 1e-9 < distance(plain, coarse) < 1e-3


def test_a_method_whose_weights_depend_on_the_data_needs_a_largest_weight() -> None:
    algorithm = QFFL(learning_rate=0.1, work=WORK)
    with pytest.raises(ConfigError, match=r"weight .*above max_weight 1") as caught:
        play(trial(algorithm=algorithm), Notebook())
    assert "max_weight" in caught.value.mend
    plain = play(trial(algorithm=algorithm, collector=Averaged()), Notebook())[-1]
    assert (
        distance(plain, play(trial(algorithm=algorithm, collector=replace(FINE, max_weight=50.0)), Notebook())[-1])
        < 1e-5
    )


def test_rounds_in_which_nobody_sends_an_entry_exchange_nothing() -> None:
    notebook = Notebook(keep_messages=True)
    play(trial(algorithm=L2GD(), rounds=20), notebook)
    kinds = [Counter(m.kind for m in notebook.messages if m.round == number) for number in range(20)]
    talked = [bool(kind["secagg_masked"]) for kind in kinds]
    assert 0 < sum(talked) < 20
    assert all(bool(kind["secagg_keys"]) == bool(kind["secagg_masked"]) for kind in kinds)
    assert not any(event.get("refused") for event in rounds_of(notebook))


def test_coordinates_that_were_clipped_are_counted_together() -> None:
    notebook = Notebook()
    play(trial(collector=SecAgg(clipping_range=0.01)), notebook)
    assert all(event["secure"]["clipped"] > 0 for event in rounds_of(notebook))


# --- who leaves ------------------------------------------------------------------------------------------------------


def test_lost_clients_leave_before_their_update_and_the_rest_is_averaged() -> None:
    gone = replace(linear_clients(SIZES), absent=frozenset({(2, 0), (2, 1), (5, 1)}))
    states = {}
    for name, collector in (("plain", Averaged()), ("secure", FINE)):
        notebook = Notebook()
        states[name] = play(trial(gone, collector=collector), notebook)
    events = rounds_of(notebook)
    assert [event["lost"] for event in events] == [[2], [2, 5], []]
    assert [event["secure"]["shares"] for event in events] == [6, 6, 6]
    assert [event["secure"]["masked"] for event in events] == [5, 4, 6]
    assert distance(states["plain"][-1], states["secure"][-1]) < 1e-6


@pytest.mark.parametrize("stage", range(4))
def test_clients_made_to_leave_at_a_stage(stage: int) -> None:
    """One in five on average; a round either has the exact mean of those that stayed, or is refused and counts."""
    population = linear_clients((5,) * 8)
    dropouts: Any = tuple(0.2 if number == stage else 0.0 for number in range(4))
    notebook = Notebook()
    states = play(trial(population, rounds=6, collector=replace(FINE, dropouts=dropouts)), notebook)
    events = rounds_of(notebook)
    gone = [{name: 8 - event["secure"][name] for name in ("keys", "shares", "masked", "unmask")} for event in events]
    names = ["keys", "shares", "masked", "unmask"]
    assert sum(each[names[stage]] for each in gone) > 0
    for before, after, event, each in zip(states, states[1:], events, gone, strict=False):
        assert all(each[name] == 0 for name in names[:stage])
        assert len(event["lost"]) == (each[names[stage]] if stage < 3 else 0)
        assert torch.equal(before["params"], after["params"]) == ("refused" in event)
    assert len(events) == 6


def test_below_the_threshold_a_round_is_refused_the_model_stays_and_training_goes_on() -> None:
    gone = replace(linear_clients(SIZES), absent=frozenset({(c, 1) for c in range(4)}))
    notebook = Notebook(keep_messages=True)
    before, first, refused, after = play(trial(gone, collector=SecAgg(survivors=3)), notebook)
    assert torch.equal(first["params"], refused["params"])
    assert not torch.equal(before["params"], first["params"])
    assert not torch.equal(refused["params"], after["params"])
    assert [event.get("refused") for event in rounds_of(notebook)] == [
        None,
        "the numbers of 2 clients arrived where the sum needs 3",
        None,
    ]
    kinds = Counter(m.kind for m in notebook.messages if m.round == 1)
    assert (kinds["secagg_masked"], kinds["secagg_unmask"], kinds["sum"]) == (2, 0, 0)


@pytest.mark.parametrize("stage", [0, 1])
def test_when_all_leave_early_nothing_is_read(stage: int) -> None:
    dropouts: Any = tuple(1.0 if number == stage else 0.0 for number in range(4))
    notebook = Notebook(keep_messages=True)
    states = play(trial(collector=SecAgg(dropouts=dropouts), rounds=2), notebook)
    assert torch.equal(states[0]["params"], states[-1]["params"])
    assert all("0 clients hold shares" in event["refused"] for event in rounds_of(notebook))
    kinds = Counter(m.kind for m in notebook.messages)
    assert kinds["secagg_keys"] == (0 if stage == 0 else 2 * 2 * 6)
    assert kinds["secagg_masked"] == 0


def test_a_client_whose_training_diverged_leaves_and_is_named() -> None:
    notebook = Notebook()
    play(trial(adversary=NotANumber(clients=(1,))), notebook)
    assert [[entry["client"] for entry in event["rejected"]] for event in rounds_of(notebook)] == [[1]] * 3
    assert [event["secure"]["masked"] for event in rounds_of(notebook)] == [5, 5, 5]


def test_a_cohort_that_is_too_small_is_refused_in_the_round() -> None:
    notebook = Notebook()
    play(trial(linear_clients((4, 5)), rounds=1), notebook)
    assert rounds_of(notebook)[0]["refused"] == "2 updates where secure aggregation needs 3"


# --- the wire --------------------------------------------------------------------------------------------------------


def test_bytes_are_those_of_the_encoded_messages() -> None:
    notebook = Notebook(keep_messages=True)
    population = replace(linear_clients(SIZES), absent=frozenset({(0, 1)}))
    play(trial(population, collector=SecAgg(dropouts=(0.1, 0.1, 0.1, 0.1))), notebook)
    for event in rounds_of(notebook):
        said = [m for m in notebook.messages if m.round == event["round"] and m.kind != "sum"]
        for receiver, key in (("server", "bytes_up"), ("client", "bytes_down")):
            assert sum(len(encode(m.payload)) for m in said if m.receiver.startswith(receiver)) == event[key] > 0


def test_simulated_time_counts_the_bytes_of_all_exchanges() -> None:
    times = []
    for collector in (Averaged(), SecAgg()):
        notebook = Notebook()
        play(trial(collector=collector, devices=Classes(), rounds=1), notebook)
        times.append(rounds_of(notebook)[0])
    assert times[1]["simulated_s"] > times[0]["simulated_s"]
    assert times[1]["energy_radio_j"] > times[0]["energy_radio_j"]


def test_no_single_update_and_no_metric_is_in_the_log() -> None:
    plain, secure = Notebook(keep_messages=True), Notebook(keep_messages=True)
    play(trial(rounds=1, collector=Averaged()), plain)
    play(trial(rounds=1), secure)
    single = [m.payload["params"].tobytes() for m in plain.messages if m.kind == "update"]
    kinds = Counter(m.kind for m in secure.messages)
    assert kinds == {
        "broadcast": 6,
        "secagg_keys": 12,
        "secagg_shares": 12,
        "secagg_masked": 6,
        "secagg_unmask": 12,
        "sum": 1,
    }
    told = b"".join(encode(m.payload) for m in secure.messages)
    assert not any(part in told for part in single)
    assert rounds_of(secure)[0]["metrics"] == {}


def test_a_log_on_the_disk_gives_sums_and_no_exchange(tmp_path: Path) -> None:
    settings = trial(collector=SecAgg())
    header = {
        **settings.task.layout.as_json(),
        "loss": "squared",
        "hyper_parameters": {},
        **SecAgg().statement(),
    }
    with Files(tmp_path, LogPolicy("all"), header) as files:
        states = play(settings, files)
    log = Recorded(tmp_path / LOG_NAME)
    assert log.header.secure_aggregation
    for see_single_updates in (log.exchanges, Eavesdropper(log, 0).exchanges, CuriousServer(log).exchanges):
        with pytest.raises(Refused, match="aggregation was secure"):
            list(see_single_updates())
    sums = list(SecAggServer(log).exchanges())
    assert [(each.round, each.client) for each in sums] == [(0, -1), (1, -1), (2, -1)]
    for before, after, each in zip(states, states[1:], sums, strict=False):
        np.testing.assert_array_equal(each.sent, before["params"].numpy())
        np.testing.assert_array_equal(each.returned, after["params"].numpy())  # FedAvg takes the mean as it is
        assert each.weight == pytest.approx(sum(SIZES), rel=1e-6)


# --- equality of paths -----------------------------------------------------------------------------------------------


def test_a_run_that_is_resumed_equals_one_that_was_not() -> None:
    settings = trial(collector=SecAgg(dropouts=(0.05, 0.05, 0.05, 0.05)), rounds=4)
    whole, parts = Notebook(keep_messages=True), Notebook(keep_messages=True)
    expected = play(settings, whole)[-1]
    with Session(settings, parts) as session:
        iterator = iter(session)
        next(iterator)
        next(iterator)
    resumed = play(settings, parts)[-1]
    assert torch.equal(resumed["params"], expected["params"])
    assert rounds_of(parts) == rounds_of(whole)
    assert [encode(m.payload) for m in parts.messages] == [encode(m.payload) for m in whole.messages]


def test_executors_agree_and_workers_change_nothing() -> None:
    runs = {}
    for executor, workers in (("functional", 1), ("tiled", 1), ("tiled", 2)):
        notebook = Notebook()
        execution = Execution(executor=executor, workers=workers)  # type: ignore[arg-type]
        runs[executor, workers] = play(trial(collector=FINE, execution=execution), notebook)[-1], rounds_of(notebook)
    assert torch.equal(runs["tiled", 1][0]["params"], runs["tiled", 2][0]["params"])
    assert runs["tiled", 1][1] == runs["tiled", 2][1]
    assert distance(runs["functional", 1][0], runs["tiled", 1][0]) <= 3 * 2**-26


def test_seeds_change_the_keys_and_rounds_do_too() -> None:
    keys = []
    for seed in (0, 1):
        notebook = Notebook(keep_messages=True)
        play(trial(seed=seed, rounds=2), notebook)
        keys += [
            m.payload["keys"].tobytes() for m in notebook.messages if m.kind == "secagg_keys" and m.receiver == "server"
        ]
    assert len(set(keys)) == len(keys) == 24


# --- noise -----------------------------------------------------------------------------------------------------------


NOISY = SecAgg(clip=0.5, noise_multiplier=0.8, survivors=4)


def test_noise_has_the_variance_of_all_that_arrived() -> None:
    """Nothing is learnt: the mean is noise alone. 5 rounds x 400 coordinates; false alarm below 1e-4 each."""
    still = FedAvg(learning_rate=1e-300, work=WORK)
    for absent, arrived in ((frozenset(), 6), (frozenset({(c, r) for c in (1, 4) for r in range(5)}), 4)):
        population = replace(linear_clients(SIZES, features=400), absent=absent)
        notebook = Notebook()
        states = play(trial(population, rounds=5, algorithm=still, collector=NOISY), notebook)
        moves = np.array([(b["params"] - a["params"]).numpy() for a, b in pairwise(states)])
        event = rounds_of(notebook)[0]["secure"]
        step, length = NOISY.grid.step, math.sqrt(400)
        sensitivity = 0.5 / step + length
        sigma = math.ceil(0.8 * sensitivity / 2)
        assert event["noise"] == pytest.approx(sigma * step / math.sqrt(arrived))
        assert moves.std() == pytest.approx(event["noise"], rel=4 / math.sqrt(2 * moves.size))
        assert abs(moves.mean()) < 4 * event["noise"] / math.sqrt(moves.size)
        assert event["rho"] == pytest.approx(0.5 * (sensitivity / sigma) ** 2 / arrived, rel=1e-6)
        assert event["rho"] <= 0.5 / 0.8**2
        assert event["masked"] == arrived


def noisy(dimension: int, clip: float, *, stochastic: bool) -> Noisy:
    entry = Entry("params", torch.zeros(dimension), np.zeros(dimension))
    return Noisy(Grid(4.0, 6), stochastic, [entry], clip, 1.0, 2)


class Unlucky(np.random.Generator):
    """Rounds up whatever can be."""

    def random(self, size: int) -> np.ndarray:  # type: ignore[override]
        return np.full(size, 1 - 2**-40)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.floats(0.01, 3), st.booleans(), st.integers(0, 99))
def test_no_update_is_longer_than_the_sensitivity(values: list[float], clip: float, unlucky: bool, seed: int) -> None:
    vector = np.array(values)
    vector *= min(1.0, clip / max(float(np.linalg.norm(vector)), 1e-300))
    bits = np.random.PCG64(seed)
    for random in (None, Unlucky(bits) if unlucky else np.random.Generator(bits)):
        steps, _ = Grid(4.0, 6).integers(vector, random)
        assert np.linalg.norm(steps) <= noisy(len(vector), clip, stochastic=random is not None).sensitivity + 1e-9


@pytest.mark.parametrize("stochastic", [False, True])
def test_some_update_is_as_long_as_the_sensitivity(stochastic: bool) -> None:
    """All coordinates just where they are rounded up: less would promise too much."""
    grid = Grid(4.0, 6)
    vector = np.full(16, grid.step * (3 + (1e-9 if stochastic else 0.5)))
    steps, _ = grid.integers(vector, Unlucky(np.random.PCG64()) if stochastic else None)
    least = noisy(16, float(np.linalg.norm(vector)), stochastic=stochastic).sensitivity
    assert np.linalg.norm(steps) == pytest.approx(least, rel=1e-6)


def test_with_noise_one_client_moves_the_sum_by_its_norm_and_weights_do_not_matter() -> None:
    tiny = replace(NOISY, noise_multiplier=1e-9)
    algorithm = FedAvg(learning_rate=0.5, work=WORK)
    before, after = play(trial(rounds=1, algorithm=algorithm, collector=tiny), Notebook())
    plain = Notebook(keep_messages=True)
    play(trial(rounds=1, algorithm=algorithm, collector=Averaged()), plain)
    moves = [m.payload["params"] - before["params"].numpy() for m in plain.messages if m.kind == "update"]
    assert max(np.linalg.norm(move) for move in moves) > 0.5
    bounded = [move * min(1.0, 0.5 / np.linalg.norm(move)) for move in moves]
    np.testing.assert_allclose((after["params"] - before["params"]).numpy(), np.mean(bounded, axis=0), atol=1e-5)


def test_the_statement_names_the_mechanism_and_from_when_it_holds() -> None:
    assert SecAgg().statement().keys() == {"secure_aggregation"}
    said = NOISY.statement()["differential_privacy"]
    assert (said["noise_multiplier"], said["clip"], said["holds_from"], said["sampling"]) == (0.8, 0.5, 4, "none")
    assert (said["delta"], said["accounting"]) == (1e-5, "concentrated")
    assert said["protects"] == "what the server reads in all rounds"
    assert replace(NOISY, delta=1e-7).statement()["differential_privacy"]["delta"] == 1e-7
    assert trial(collector=NOISY).promise == said


@pytest.mark.parametrize("bits", [4, 22])
def test_what_is_spent_is_the_rho_of_the_sums_that_were_read(bits: int) -> None:
    """Never less than continuous noise of what arrived would cost; on a coarse grid far more."""
    absent = frozenset({(0, 1), *((client, 2) for client in range(1, 6))})
    collector = SecAgg(clip=0.5, noise_multiplier=0.8, survivors=4, quantisation_bits=bits, rounding="nearest")
    made, notebook = trial(replace(linear_clients(SIZES), absent=absent), rounds=4, collector=collector), Notebook()
    play(made, notebook)
    first, second, refused, last = rounds_of(notebook)
    assert "refused" in refused
    rhos = [event["secure"]["rho"] for event in (first, second, last)]
    told = spent([{"event": "start", "differential_privacy": made.promise}, *notebook.events[1:]])
    assert told is not None
    found = dict(zip(told["clients"], told["epsilon"], strict=True))
    assert found[1] == pytest.approx(epsilon(sum(rhos), 1e-5), abs=1e-3)
    refused_as_if_read = 0.5 / 0.8**2
    assert found[0] == pytest.approx(epsilon(rhos[0] + refused_as_if_read + rhos[2], 1e-5), abs=1e-3)
    if bits == 22:  # the sum of discrete noises is one of Gaussian noise, but for the bound on it
        noises = [0.8 * math.sqrt(event["secure"]["masked"] / 4) for event in (first, second, last)]
        assert sum(rhos) == pytest.approx(sum(0.5 / noise**2 for noise in noises), rel=1e-3)
        assert found[1] > epsilon_of([Release(noise, 1.0, 1) for noise in noises], 1e-5)


@pytest.mark.parametrize("algorithm", [QFFL(), FedEM(average_over="everyone"), FedStream()])
def test_noise_is_refused_where_weights_have_a_meaning(algorithm: Any) -> None:
    """They are ignored under it. Without noise such methods go through; methods that count clients alike always do."""
    with pytest.raises(ConfigError, match="ignores weights"):
        trial(algorithm=algorithm, collector=NOISY)
    trial(algorithm=algorithm)
    for sound in (Scaffold(), L2GD(), FedRep(), FedEM()):
        trial(algorithm=sound, collector=NOISY)


# --- settings --------------------------------------------------------------------------------------------------------


def study(*, cohort: int | None = 5, clients: int = 10, **method: Any) -> str:
    run = {"rounds": 1} if cohort is None else {"rounds": 1, "cohort": cohort}
    table = {
        "name": "s",
        "data": {"kind": "digits"},
        "partition": {"kind": "iid", "clients": clients},
        "methods": [{"kind": "fedavg", "collector": {"kind": "secagg"}, **method}],
        "run": run,
    }
    return format_toml(table)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "clustered"}, "hides single updates, but the method combines single updates itself"),
        ({"kind": "afl"}, "hides single updates"),
        ({"stages": [{"kind": "top_k", "share": 0.1}]}, "stage TopK stands before secure aggregation"),
        ({"stages": [{"kind": "float16"}]}, "stage Float16 stands before secure aggregation"),
        ({"cohort": 2}, "a cohort of 2 gives 2 updates where secure aggregation needs 3"),
        ({"cohort": 1024, "clients": 1500}, "overflows a modulus of 2^32"),
        ({"collector": {"kind": "secagg", "survivors": 9}}, "needs 9"),
        ({"collector": {"kind": "secagg", "clip": 1.0}}, "clip and noise_multiplier belong together"),
        ({"collector": {"kind": "secagg", "noise_multiplier": 1.0, "clip": 9.0}}, "no coordinate may exceed"),
        ({"collector": {"kind": "secagg", "survivors": 1}}, "survivors is 1"),
        ({"collector": {"kind": "secagg", "delta": 1.0}}, "delta is 1"),
        (
            {"kind": "qffl", "collector": {"kind": "secagg", "noise_multiplier": 1.0, "clip": 1.0}},
            "noise under masks ignores weights",
        ),
        ({"collector": {"kind": "secagg", "threshold": 0.4}}, "threshold is 0.4"),
        ({"collector": {"kind": "secagg", "dropouts": [0.0, 0.0, 2.0, 0.0]}}, "dropouts are"),
        ({"collector": {"kind": "secagg", "quantisation_bits": 40}}, "quantisation_bits is 40"),
    ],
)
def test_what_cannot_be_sound_is_refused_when_settings_are_read(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_study(study(**changes))
    assert message in str(caught.value)


def test_a_population_that_is_too_small_is_refused_when_it_is_known() -> None:
    for clients in (1, 2):
        with pytest.raises(ConfigError, match=f"{clients} updates where secure aggregation needs 3"):
            Stage.build(parse_study(study(cohort=None, clients=clients)), 0)
    header = Stage.build(parse_study(study(cohort=None)), 0)
    told = header.header(header.study.methods[0])
    assert told["secure_aggregation"]["protocol"] == "SecAgg+"
    assert told["differential_privacy"] is None


def test_what_can_be_sound_is_read() -> None:
    parse_study(study(stages=[{"kind": "clip", "norm": 1.0}]))
    parse_study(study(cohort=1024, clients=1500, collector={"kind": "secagg", "modulus_bits": 64}))
    settings = parse_study(study(collector={"kind": "secagg", "max_weight": 1000.0})).methods[0].collector
    assert settings == SecAgg(max_weight=1000.0)
    assert read(SecAgg, dump(settings)) == settings
    assert read(SecAgg, {"max_weight": "auto", "noise_multiplier": "off"}) == SecAgg()


def test_noise_that_would_overflow_is_refused() -> None:
    noisy = SecAgg(clip=8.0, noise_multiplier=30.0, survivors=3, modulus_bits=32)
    assert noisy.refusal(100) == "100 updates of 2^22 steps and their noise, whose sum overflows a modulus of 2^32"
    assert replace(noisy, modulus_bits=64).refusal(100) is None


def test_the_collector_is_one_that_talks() -> None:
    assert isinstance(SecAgg().collector(each=False), Conversing)
    assert not isinstance(Averaged().collector(each=False), Conversing)


def test_clip_in_front_bounds_every_client() -> None:
    clipped, free = (play(trial(stages=stages), Notebook())[1] for stages in ((Clip(norm=0.05),), ()))
    start = play(trial(rounds=0), Notebook())[0]
    assert distance(start, clipped) <= 0.05 + 1e-4
    assert distance(start, free) > 0.05


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from rivage.federated import secagg_keys

    def missing(*names: object, **options: object) -> None:
        raise MissingExtra("Secure aggregation needs cryptography", mend='pip install "rivage[privacy]"')

    monkeypatch.setattr(secagg_keys, "require_extra", missing)
    secagg_keys.require_cryptography.cache_clear()
    with pytest.raises(MissingExtra, match="needs cryptography"):
        SecAgg().collector(each=False)
