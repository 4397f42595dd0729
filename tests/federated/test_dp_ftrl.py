"""DP-FTRL: noise on prefix sums against whole trees, what it costs, who may take part, and runs."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import chi2

from rivage.core.certificates import Certificate
from rivage.core.encoding import dumps
from rivage.core.errors import ConfigError, ProtocolError, RivageError
from rivage.core.records import RunRecord
from rivage.core.seeding import Streams
from rivage.core.store import write_text
from rivage.data import build_population
from rivage.data.partition import PARTITIONS
from rivage.data.readers import Digits
from rivage.federated import FedAvg, Notebook, Phase, Trial, run
from rivage.federated.accounting import Release, epsilon_of
from rivage.federated.algorithm import Update
from rivage.federated.clipped_sum import Moment
from rivage.federated.collectors import Averaged
from rivage.federated.dp_ftrl import DPFTRL, TreeSum, prefix_step, releases, step_covariance
from rivage.federated.engine import Session
from rivage.federated.fedopt import FedAvgM
from rivage.federated.privacy_checks import privacy_spent
from rivage.federated.privacy_ledger import releases_of
from rivage.federated.scaffold import Scaffold
from rivage.learning.task import TaskSettings, make_task
from rivage.privacy.canaries import CanaryClients, planted
from rivage.privacy.epsilon_audit import claimed, proved, recorded
from rivage.studies.pipeline import run_study
from rivage.studies.settings import parse_study
from rivage.testing.toys import layered_task, linear_clients

# --- the noise -------------------------------------------------------------------------------------------------------


def node_noise(height: int, number: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, height, number]).standard_normal(3)


def of_node(height: int, number: int) -> Any:
    """The best linear unbiased estimate of a node's sum from all noisy sums at and below it, less the sum itself.

    With S the sums of the subtree's leaves, every node says A S + noise: generalised least squares on all of them.
    """
    nodes = [(h, n) for h in range(height + 1) for n in range(number << (height - h), (number + 1) << (height - h))]
    leaves, first = 2**height, number << height
    design = np.zeros((len(nodes), leaves))
    for row, (h, n) in zip(design, nodes, strict=True):
        row[(n << h) - first : ((n + 1) << h) - first] = 1
    noise = np.array([node_noise(h, n) for h, n in nodes])
    estimate, *_ = np.linalg.lstsq(design, noise, rcond=None)
    return estimate.sum(axis=0)


def prefix(place: int) -> Any:
    total, end = np.zeros(3), 0
    for height in reversed(range(place.bit_length())):
        if place >> height & 1:
            total, end = total + of_node(height, end >> height), end + 2**height
    return total


def test_steps_add_up_to_the_best_estimates_of_a_whole_tree() -> None:
    """Least squares over all nodes of every subtree, built at once, against the recursion."""
    steps = np.cumsum([prefix_step(node_noise, place) for place in range(1, 38)], axis=0)
    np.testing.assert_allclose(steps, [prefix(place) for place in range(1, 38)], atol=1e-9)


def test_variance_of_a_prefix_is_that_of_its_bits() -> None:
    """Exactly: the weight of every node in N_t, squared and added up."""
    for last in (1, 2, 3, 8, 13, 32, 63):
        squares = 0.0
        for height in range(last.bit_length()):
            for number in range(last >> height):

                def only(h: int, n: int, node: tuple[int, int] = (height, number)) -> Any:
                    return np.float64((h, n) == node)

                squares += float(sum(prefix_step(only, place) for place in range(1, last + 1))) ** 2
        wanted = sum(2**h / (2 ** (h + 1) - 1) for h in range(last.bit_length()) if last >> h & 1)
        assert squares == pytest.approx(wanted)


def within(rounds: int, place: int) -> Any:
    """Which complete nodes hold a round, whatever is made of them."""
    return [
        (height, place >> height)
        for height in range(rounds.bit_length())
        if ((place >> height) + 1) << height <= rounds
    ]


@given(st.integers(1, 130))
def test_a_round_is_worth_no_more_than_the_nodes_that_hold_it(rounds: int) -> None:
    worth = releases(rounds)
    nodes = np.array([len(within(rounds, place)) for place in range(rounds)])
    assert (worth <= nodes + 1e-9).all()
    assert (worth >= 1 - 1e-9).all()
    assert nodes.max() == rounds.bit_length()


@pytest.mark.parametrize("rounds", [1, 2, 5, 8, 11])
def test_a_round_is_worth_what_the_best_test_of_it_sees(rounds: int) -> None:
    """Largest signal to noise of any linear functional of the steps, found by descent and not by inversion."""
    covariance = step_covariance(rounds)
    for place in range(rounds):
        found = minimize(lambda w: w @ covariance @ w - 2 * w[place], np.zeros(rounds), method="BFGS").x  # noqa: B023
        assert found[place] ** 2 / (found @ covariance @ found) == pytest.approx(releases(rounds)[place], rel=1e-5)


def test_covariance_of_the_steps_by_simulation() -> None:
    """8 rounds, 30000 draws of every node; entries are off by five deviations at most."""

    def draw(height: int, number: int) -> Any:
        return np.random.default_rng([7, height, number]).standard_normal(30_000)

    steps = np.array([prefix_step(draw, place) for place in range(1, 9)])
    np.testing.assert_allclose(steps @ steps.T / 30_000, step_covariance(8), atol=0.06)


def test_long_epochs_count_nodes() -> None:
    assert set(releases(5000)) == {13.0}


def test_the_last_epoch_counts_the_rounds_that_it_has() -> None:
    def worth(number: int) -> float:
        collector = DPFTRL(noise=3.0).summed()
        collector.begin("params", {"params": torch.zeros(1)}, 1.0, Moment(number, 21, 8, Streams(0), Streams(0)))
        return (3.0 / collector.multiplier) ** 2

    for number, place, rounds in ((0, 0, 8), (7, 7, 8), (8, 0, 8), (15, 7, 8), (16, 0, 5), (20, 4, 5)):
        assert worth(number) == pytest.approx(releases(rounds)[place])


def played_noise(seed: int, epoch: int = 8, rounds: int = 8, settings: DPFTRL | None = None) -> Any:
    """What an empty training adds in each round, in units of the multiplier."""
    settings, state, places = settings or DPFTRL(noise=1.5, clip=2.0), {"params": torch.zeros(6).double()}, []
    for number in range(rounds):
        collector, here = settings.summed(), Streams(seed).child("round", number)
        collector.begin("params", state, 4.0, Moment(number, rounds, epoch, here, Streams(seed)))
        places.append(collector.result()["params"].mean.numpy() * 4 / 3)
    return np.array(places)


def test_moments_of_what_leaves_the_server() -> None:
    """Variance of the model after t rounds is that of the bits of t; errs with probability 10⁻⁴ each."""
    paths = np.stack([np.cumsum(played_noise(seed), axis=0) for seed in range(300)])
    for place in range(1, 9):
        variance = sum(2**h / (2 ** (h + 1) - 1) for h in range(4) if place >> h & 1)
        drawn = paths[:, place - 1].ravel() / math.sqrt(variance)
        assert chi2.ppf(5e-5, drawn.size) < (drawn**2).sum() < chi2.isf(5e-5, drawn.size)


def test_a_new_epoch_has_a_tree_of_its_own() -> None:
    one, two = np.split(played_noise(1, rounds=16), 2)
    np.testing.assert_array_equal(one, played_noise(1))
    correlations = np.corrcoef(one.ravel(), two.ravel())[0, 1] * math.sqrt(one.size)
    assert abs(correlations) < 4
    np.testing.assert_array_equal(played_noise(2), played_noise(2))


def test_the_mean_by_hand() -> None:
    collector = DPFTRL(noise=1e-12, clip=2.0, cap=10.0).summed()
    collector.begin("params", {"params": torch.zeros(2).double()}, 4.0, Moment(0, 1, 1, Streams(0), Streams(0)))
    for vector, records in (([3.0, 4.0], 2.0), ([0.6, 0.8], 5.0)):
        collector.add(Update({"params": (torch.tensor(vector).double(), records)}))
    wanted = (0.2 * np.array([1.2, 1.6]) + 0.5 * np.array([0.6, 0.8])) / 4
    np.testing.assert_allclose(collector.result()["params"].mean.numpy(), wanted, atol=1e-9)


# --- whole runs ------------------------------------------------------------------------------------------------------


def trial(**more: Any) -> Trial:
    population = linear_clients((9, 4, 14, 6, 5, 8))
    given: dict[str, Any] = {
        "name": "m",
        "algorithm": FedAvg(learning_rate=0.1, work=Phase(batch_size=4)),
        "population": population,
        "task": layered_task(population),
        "rounds": 7,
        "cohort": 2,
        "sampling": "epochs",
        "collector": DPFTRL(noise=0.5),
        "every": 100,
    }
    return Trial(**(given | more))


def played(made: Trial) -> tuple[Any, list[Any]]:
    notebook = Notebook()
    state = run(made, notebook).state
    start = {"event": "start", "differential_privacy": made.promise}
    return state, [start, *(event for event in notebook.events if event["event"] == "round")]


@pytest.mark.parametrize(
    "algorithm", [FedAvg(learning_rate=0.1), FedAvgM(learning_rate=0.1)], ids=["plain", "momentum"]
)
def test_resumed_is_uninterrupted(algorithm: Any) -> None:
    whole, broken, made = Notebook(), Notebook(), trial(algorithm=algorithm)
    state = run(made, whole).state
    with Session(made, broken) as session:
        for _event in zip(range(3), session, strict=False):
            pass
    torch.testing.assert_close(dict(run(made, broken).state), dict(state), rtol=0, atol=0)
    assert broken.events == whole.events


def test_without_noise_and_clip_it_is_the_mean_of_those_whose_turn_it_is() -> None:
    population = linear_clients((6, 6, 6, 6))
    more = {"population": population, "task": layered_task(population)}
    states = [played(trial(**more, collector=each))[0] for each in (DPFTRL(noise=1e-15, clip=1e6), Averaged())]
    torch.testing.assert_close(states[0]["params"], states[1]["params"])


def test_everyone_takes_part_once_in_an_epoch_and_pays_for_its_place() -> None:
    """Six clients, two a round: epochs of 3, 3 and 1 rounds."""
    _, events = played(trial())
    cohorts = [event["cohort"] for event in events[1:]]
    worth = dict.fromkeys(range(6), 0.0)
    for start, rounds in ((0, 3), (3, 3), (6, 1)):
        taken = [(client, place) for place, ids in enumerate(cohorts[start : start + rounds]) for client in ids]
        assert Counter(client for client, _ in taken) == dict.fromkeys(range(6 if rounds == 3 else 2), 1) or rounds == 1
        for client, place in taken:
            worth[client] += releases(rounds)[place]
    found = {client: sum(each.steps / each.noise**2 for each in own) for client, own in releases_of(events).items()}
    assert found == pytest.approx({client: each / 0.5**2 for client, each in worth.items()})
    promise = trial().promise
    assert promise is not None
    assert (promise["relation"], promise["sampling"], promise["epoch"]) == ("zero-out", "none", 3)


def test_rounds_without_anybody_release_their_noise() -> None:
    lost = frozenset((client, number) for client in range(6) for number in range(7))
    made, models = trial(population=replace(linear_clients((9, 4, 14, 6, 5, 8)), absent=lost)), []
    with Session(made, Notebook()) as session:
        models.append(session.state["params"].numpy().copy())
        models += [session.state["params"].numpy().copy() for _event in session]
    assert (np.abs(np.diff(models, axis=0)).max(axis=1) > 1e-3).all()


def test_who_never_trains_makes_no_epoch_longer() -> None:
    made = trial(unseen=np.array([0, 3]))
    assert made.period == 2
    assert made.promise is not None
    assert made.promise["epoch"] == 2
    assert trial(cohort=None, epoch=4, unseen=np.array([0, 3])).expected == 1
    assert trial(cohort=None, epoch=4).expected == 2
    _, events = played(made)
    assert sorted(client for event in events[1:3] for client in event["cohort"]) == [1, 2, 4, 5]


def test_other_turns_are_another_trial_with_other_noise() -> None:
    """Else the difference of two trainings would be free of it."""
    unseen = np.array([0])
    others = [trial(), trial(epoch=4), trial(cohort=3), trial(unseen=unseen), trial(collector=DPFTRL(noise=0.7))]
    assert len({made.identity for made in others}) == len({made.secret for made in others}) == 5
    averaged = [trial(collector=Averaged(), sampling=sampling) for sampling in ("epochs", "uniform")]
    assert averaged[0].identity != averaged[1].identity


def test_canaries_have_turns_as_often_as_everybody() -> None:
    for made in (trial(), trial(unseen=np.array([0, 3, 5]))):
        larger = planted(made, CanaryClients(11, Streams(0)))
        assert larger.period == made.period
        assert larger.share == pytest.approx(made.share, rel=0.1)


def test_weighing_leaves_the_steps_as_they_are() -> None:
    steps = np.ones((7, 2))
    weighed = DPFTRL().weighed(steps, 3)
    assert (steps == 1).all()
    inverses = [np.linalg.inv(step_covariance(rounds)).sum(axis=1) for rounds in (3, 3, 1)]
    np.testing.assert_allclose(weighed[:, 0], np.concatenate(inverses))


def test_who_is_out_of_turn_stops_the_run() -> None:
    class Eager(FedAvg):
        private_entry = "params"

        def select(self, state: Any, candidates: Any, streams: Any, task: Any) -> Any:
            cohort = super().select(state, candidates, streams, task)
            cohort.ids[:] = np.arange(len(cohort.ids))
            return cohort

    with pytest.raises(ProtocolError, match="whose turn it is not"):
        run(trial(algorithm=Eager(learning_rate=0.1)))


STUDY = """
name = "s"
[data]
kind = "digits"
[partition]
kind = "iid"
clients = 12
[task]
model = "linear"
[[methods]]
kind = "fedavg"
{more}
[run]
rounds = 10
{run}
"""
TREE = 'collector = { kind = "dp_ftrl", noise = 8.0 }'


@pytest.mark.parametrize(
    ("more", "run", "what"),
    [
        (TREE, "cohort = 4", "at most once in an epoch"),
        (TREE, 'cohort = 4\nsampling = "poisson"', "at most once in an epoch"),
        (TREE, 'sampling = "epochs"', "neither cohort nor epoch"),
        ("", "cohort = 4\nepoch = 3", "sampling is uniform"),
        ("", 'cohort = 4\nsampling = "epochs"\nepoch = 0', "epoch is 0"),
        (TREE.replace("8.0", "0.0"), 'cohort = 4\nsampling = "epochs"', "noise is 0"),
        (TREE.replace("noise", "adaptive = true, noise"), 'cohort = 4\nsampling = "epochs"', "adaptive"),
    ],
)
def test_settings_refuse_what_cannot_be_kept(more: str, run: str, what: str) -> None:
    with pytest.raises(RivageError, match=what):
        parse_study(STUDY.format(more=more, run=run))


def test_methods_that_send_more_than_one_vector_are_refused() -> None:
    with pytest.raises(ConfigError, match="more than one vector"):
        trial(algorithm=Scaffold(learning_rate=0.1))


@pytest.fixture(scope="module")
def study_run(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    study = parse_study(STUDY.format(more=TREE, run='cohort = 3\nsampling = "epochs"'))
    return run_study(study, out=tmp_path_factory.mktemp("runs"))


def certificate(record: RunRecord) -> Certificate:
    (found,) = (each for each in record.certificates if each.check == "privacy_spent")
    return found


def test_a_study_tells_what_its_clients_have_spent(study_run: RunRecord) -> None:
    """Epochs of 4, 4 and 2 rounds, at most 3 + 3 + 2 nodes of multiplier 8."""
    found = certificate(study_run)
    assert found.verdict == "holds"
    assert epsilon_of([Release(8.0, 1.0, 5)], 1e-5) < found.measured <= epsilon_of([Release(8.0, 1.0, 8)], 1e-5)
    assert "zero-out" in found.method


def rewritten(record: RunRecord, folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Certificate:
    """The certificate of a copy whose events were changed."""
    copy = folder / record.folder.name
    shutil.copytree(record.folder, copy)
    events = RunRecord(copy).trials[0].events()
    write_text(
        RunRecord(copy).trials[0].folder / "record.jsonl", "".join(f"{dumps(change(dict(e)))}\n" for e in events)
    )
    return privacy_spent(RunRecord(copy), method="fedavg")


def told_much(event: dict[str, Any]) -> dict[str, Any]:
    """So large an ε that no number of rounds exceeds it."""
    return {**event, "epsilon": [99.0] * len(event["clients"])} if event["event"] == "privacy" else event


def test_a_client_that_came_twice_in_an_epoch_is_found(study_run: RunRecord, tmp_path: Path) -> None:
    """Though it is within what was told."""
    first = next(event for event in study_run.trials[0].events("round"))

    def again(event: dict[str, Any]) -> dict[str, Any]:
        same = event["event"] == "round" and event["round"] == 1
        return told_much({**event, **{key: first[key] for key in ("cohort", "private")}} if same else event)

    assert rewritten(study_run, tmp_path / "told", told_much).verdict == "holds"
    assert rewritten(study_run, tmp_path / "twice", again).verdict == "fails"


def test_who_took_part_and_is_in_no_ledger_is_found(study_run: RunRecord, tmp_path: Path) -> None:
    def forgotten(event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] != "round" or event["round"]:
            return told_much(event)
        return {**event, "private": {key: values[1:] for key, values in event["private"].items()}}

    assert rewritten(study_run, tmp_path / "forgotten", forgotten).verdict == "fails"


def test_more_noise_than_was_promised_is_not_believed(study_run: RunRecord, tmp_path: Path) -> None:
    """A record that tells a hundred times the noise, and the small ε that would follow."""

    def louder(event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] != "round":
            return told_much(event)
        private = event["private"]
        return {**event, "private": {**private, "noise": [1.001 * z for z in private["noise"]]}}

    assert rewritten(study_run, tmp_path / "louder", louder).verdict == "fails"


def test_noise_that_a_round_does_not_tell_is_not_made_up(study_run: RunRecord, tmp_path: Path) -> None:
    """Without its place in the tree a round would cost less than it does."""

    def silent(event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] != "round":
            return told_much(event)
        return {**event, "private": {key: value for key, value in event["private"].items() if key != "noise"}}

    assert rewritten(study_run, tmp_path / "silent", silent).verdict == "fails"


class AnEighth(DPFTRL):
    """Adds an eighth of the noise that it claims."""

    def summed(self) -> TreeSum:
        return Faulty(self)


class Faulty(TreeSum):
    def noise(self) -> Any:
        return super().noise() / 8


@pytest.fixture(scope="module")
def digits() -> Trial:
    population = build_population(Digits(), partition=PARTITIONS.get("iid")(clients=20), seed=0)
    task = make_task(TaskSettings(model="linear"), population.schema)
    more: dict[str, Any] = {"rounds": 20, "cohort": 5, "sampling": "epochs", "collector": DPFTRL(noise=2.0)}
    algorithm = FedAvg(learning_rate=0.1, work=Phase(epochs=1))
    return Trial(name="x", algorithm=algorithm, population=population, task=task, **more)


def audited(made: Trial, canaries: int = 600) -> tuple[float, float]:
    """The claim, and what canary clients with turns of their own prove."""
    evidence = recorded(CanaryClients(canaries, Streams(0)).scored(made), delta=1e-5)
    return claimed(evidence), proved(evidence)


def test_canaries_find_an_eighth_of_the_noise_and_no_fault_where_there_is_none(digits: Trial) -> None:
    """Five epochs of four rounds."""
    claim, bound = audited(digits)
    assert 0.5 < bound < claim
    claim, bound = audited(replace(digits, collector=AnEighth(noise=20.0)))
    assert claim < bound
