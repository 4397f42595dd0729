"""Noise for whole clients: sums, adaptive clips, cohorts by chance, local noise, and what is refused."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chi2, norm

from rivage.core.errors import ConfigError, MissingExtra, RivageError
from rivage.core.message_log import LOG_NAME, MessageLog
from rivage.core.seeding import Streams
from rivage.federated import FedAvg, Notebook, Phase, Trial, run
from rivage.federated.accounting import Release, epsilon_of
from rivage.federated.algorithm import Update
from rivage.federated.clipped_sum import Moment
from rivage.federated.clipping import Clip
from rivage.federated.cohorts import Candidates
from rivage.federated.collectors import Averaged
from rivage.federated.engine import Session
from rivage.federated.fedem import FedEM
from rivage.federated.fedopt import FedAdam
from rivage.federated.fedrep import FedRep
from rivage.federated.local_noise import GaussianNoise
from rivage.federated.privacy_ledger import EVERYONE, releases_of, spent
from rivage.federated.promises import promise_faults
from rivage.federated.scaffold import Scaffold
from rivage.federated.secagg import SecAgg
from rivage.federated.user_privacy import CLIP, PrivateMean, PrivateSum
from rivage.studies.pipeline import run_study
from rivage.studies.settings import parse_study
from rivage.studies.stage import Stage
from rivage.testing.toys import Clients, layered_task, linear_clients, linear_task

NOBODY = np.empty(0, np.int64)


def moment(seed: int) -> Moment:
    return Moment(0, 1, None, Streams(seed), Streams(seed))


def summed(
    settings: PrivateMean, vectors: Sequence[Any], records: Sequence[float] | None = None, seed: int = 0, **state: Any
) -> PrivateSum:
    collector = settings.summed()
    base = torch.zeros(len(vectors[0]) if len(vectors) else 3, dtype=torch.float64)
    collector.begin("params", {"params": base, **state}, 4.0, moment(seed))
    for vector, weight in zip(vectors, records or [1.0] * len(vectors), strict=True):
        collector.add(Update({"params": (torch.tensor(vector, dtype=torch.float64), weight)}))
    return collector


def mean(collector: PrivateSum) -> np.ndarray:
    found: np.ndarray = collector.result()["params"].mean.numpy()
    return found


# --- the sum ---------------------------------------------------------------------------------------------------------


def test_the_mean_by_hand() -> None:
    """Norms 5, 1 and 13 under a clip of 2, weights min(n/10, 1) after it, a denominator of 4."""
    vectors, records = [[3.0, 4.0], [0.6, 0.8], [5.0, -12.0]], [2.0, 5.0, 100.0]
    found = summed(PrivateMean(noise=1e-12, clip=2.0, cap=10.0), vectors, records)
    wanted = (0.2 * np.array([1.2, 1.6]) + 0.5 * np.array([0.6, 0.8]) + np.array([10.0, -24.0]) / 13) / 4
    np.testing.assert_allclose(mean(found), wanted, atol=1e-9)
    assert found.result()["params"].weight == 4
    other = summed(PrivateMean(noise=1e-12, clip=2.0, cap=10.0, denominator=2.0), vectors, records)
    np.testing.assert_allclose(mean(other), 2 * wanted, atol=1e-9)


def test_moments_of_the_noise() -> None:
    """400 rounds in which nobody takes part: N(0, (z S / m)²); errs with probability 10⁻⁴."""
    settings = PrivateMean(noise=1.5, clip=2.0)
    drawn = np.stack([mean(summed(settings, [], seed=seed)) for seed in range(400)]) / (1.5 * 2 / 4)
    assert chi2.ppf(5e-5, drawn.size) < (drawn**2).sum() < chi2.isf(5e-5, drawn.size)
    assert abs(drawn.mean()) * math.sqrt(drawn.size) < norm.isf(1e-5)
    np.testing.assert_array_equal(mean(summed(settings, [], seed=3)), mean(summed(settings, [], seed=3)))


VECTORS = st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=1, max_size=5)


@given(VECTORS, st.floats(1e-3, 1e3), st.floats(0, 1e6))
def test_one_client_changes_the_sum_by_at_most_the_clip(vectors: Any, clip: float, records: float) -> None:
    settings, weights = PrivateMean(noise=1e-30, clip=clip, cap=7.0), [records] * len(vectors)
    whole, without = (mean(summed(settings, vectors[i:], weights[i:])) * 4 for i in (0, 1))
    assert np.linalg.norm(whole - without) <= clip * (1 + 1e-6)


# --- the adaptive clip -----------------------------------------------------------------------------------------------


def test_noise_of_sum_and_count_together_cost_what_z_costs() -> None:
    """The sum has sensitivity S under noise z_Δ S, the count ½ under σ_b: μ² = z_Δ⁻² + (2 σ_b)⁻² = z⁻²."""
    settings = PrivateMean(noise=0.8, adaptive=True, count_noise=1.1)
    assert settings.on_sums(50) ** -2 + (2 * 1.1) ** -2 == pytest.approx(0.8**-2)
    assert PrivateMean(noise=0.8, adaptive=True).counts(100) == 5
    assert PrivateMean(noise=0.8).on_sums(100) == 0.8


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("start", [0.1, 12.0])
def test_the_clip_converges_to_the_quantile(quantile: float, start: float) -> None:
    norms = np.linspace(0.5, 4.5, 41)
    settings = PrivateMean(noise=0.05, clip=start, adaptive=True, quantile=quantile, count_noise=0.4)
    state: dict[str, Any] = {}
    for round in range(150):
        collector = settings.summed()
        collector.begin("params", {"params": torch.zeros(1, dtype=torch.float64), **state}, 41.0, moment(round))
        for value in norms:
            collector.add(Update({"params": (torch.tensor([value], dtype=torch.float64), 1.0)}))
        state = dict(collector.carried())
    assert float(state[CLIP]) == pytest.approx(np.quantile(norms, quantile), abs=0.2)


def test_a_count_without_room_for_its_noise_is_refused() -> None:
    faults = PrivateMean(noise=2.0, adaptive=True).faults(10, "a cohort of 10 gives", "")
    assert "count_noise 0.5" in str(faults[0])
    assert not PrivateMean(noise=2.0, adaptive=True).faults(100, "", "")
    assert not PrivateMean(noise=2.0).faults(1, "", "")


# --- whole runs ------------------------------------------------------------------------------------------------------


def trial(algorithm: Any = None, **more: Any) -> Trial:
    population = linear_clients((9, 4, 14, 6, 5, 8))
    given: dict[str, Any] = {
        "name": "m",
        "algorithm": algorithm or FedAvg(learning_rate=0.1, work=Phase(batch_size=4)),
        "population": population,
        "task": layered_task(population),
        "rounds": 5,
        "cohort": 3,
        "collector": PrivateMean(noise=0.5, adaptive=True, count_noise=1.0),
        "every": 100,
    }
    return Trial(**(given | more))


def told(made: Trial, notebook: Notebook) -> list[Any]:
    return [{**e, "differential_privacy": made.promise} if e["event"] == "start" else e for e in notebook.events]


@pytest.mark.parametrize("sampling", ["uniform", "poisson"])
def test_resumed_is_uninterrupted(sampling: Any) -> None:
    whole, broken = Notebook(), Notebook()
    made = trial(sampling=sampling)
    state = run(made, whole).state
    assert CLIP in state
    with Session(made, broken) as session:
        for _event in zip(range(2), session, strict=False):
            pass
    torch.testing.assert_close(dict(run(made, broken).state), dict(state), rtol=0, atol=0)
    assert broken.events == whole.events
    clips = [event["clip"] for event in whole.events if event["event"] == "round"]
    assert clips[0] == 1
    assert len(set(clips)) == 5


def test_without_noise_equal_weights_and_a_wide_clip_it_is_the_mean() -> None:
    population = linear_clients((6, 6, 6))
    more = {"population": population, "task": linear_task(population), "cohort": None}
    states = [run(trial(**more, collector=c)).state for c in (PrivateMean(noise=1e-15, clip=1e6), Averaged())]
    torch.testing.assert_close(states[0]["params"], states[1]["params"])


@pytest.mark.parametrize(
    "algorithm",
    [FedAdam(learning_rate=0.05), FedRep(learning_rate=0.05), FedEM(learning_rate=0.05, components=2)],
    ids=lambda a: type(a).__name__,
)
def test_methods_with_other_states_go_through(algorithm: Any) -> None:
    notebook = Notebook()
    made = trial(algorithm, cohort=1, sampling="poisson", rounds=6)
    state = run(made, notebook).state
    assert all(bool(torch.isfinite(value).all()) for value in state.values() if value.is_floating_point())
    assert any(not e["cohort"] for e in notebook.events if e["event"] == "round"), "an empty round, with its noise"


def test_clients_are_drawn_by_chance_each_by_itself() -> None:
    """Sizes of 600 cohorts are binomial, every pair is as likely as any other; errs with probability 10⁻⁴."""
    population = Clients(linear_clients((2,)).records * 12, linear_clients((2,)).schema)
    excluded = np.array([5])
    draws = [Candidates(population, 0, 4, excluded, "poisson").uniform(Streams(seed)) for seed in range(600)]
    taken = np.zeros((600, 12))
    for row, ids in zip(taken, draws, strict=True):
        assert len(set(ids.tolist())) == len(ids)
        row[ids] = 1
    share = 4 / 11
    assert not taken[:, 5].any()
    counts = np.delete(taken.sum(axis=0), 5)
    assert (counts >= binom.ppf(5e-6, 600, share)).all()
    assert (counts <= binom.isf(5e-6, 600, share)).all()
    sizes = taken.sum(axis=1)
    assert sizes.var() == pytest.approx(11 * share * (1 - share), rel=0.3)  # 0 for a fixed size; 5 deviations
    together = (taken[:, 0] * taken[:, 1]).sum()
    assert binom.ppf(5e-6, 600, share**2) <= together <= binom.isf(5e-6, 600, share**2)


def test_without_the_accountant_nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where it will be needed: not for clients or records that are all in every round and step."""
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    private = Phase(batch_size=4, batches="poisson", denominator="expected", clip=1.0, noise=1.0)
    records = {"collector": Averaged(), "algorithm": FedAvg(work=private)}
    for needing in ({"sampling": "poisson"}, records):
        with pytest.raises(MissingExtra, match=r"sampled noise needs dp_accounting.*rivage\[privacy\]"):
            trial(**needing)
    whole = FedAvg(work=replace(private, batch_size=None))
    for free in ({}, {"sampling": "poisson", "cohort": None}, {"collector": Averaged(), "algorithm": whole}):
        trial(**free)
    with pytest.raises(MissingExtra, match="sampled noise needs dp_accounting") as caught:
        Stage.build(parse_study(STUDY.format(kind="fedavg", more=PRIVATE.format(more=""))), 0)
    assert caught.value.where == "[[methods]] 1"


def test_sampling_counts_only_where_it_is_by_chance() -> None:
    by_chance, fixed = (trial(sampling=sampling) for sampling in ("poisson", "uniform"))
    notebooks = [Notebook(), Notebook()]
    for made, notebook in zip((by_chance, fixed), notebooks, strict=True):
        run(made, notebook)
    assert releases_of(told(by_chance, notebooks[0])) == {EVERYONE: (Release(0.5, 0.5, 5),)}
    joined = [e["cohort"] for e in notebooks[1].events if e["event"] == "round"]
    wanted = {
        c: (Release(0.5, 1.0, sum(c in each for each in joined)),) for c in sorted({c for each in joined for c in each})
    }
    assert releases_of(told(fixed, notebooks[1])) == wanted
    pytest.importorskip("dp_accounting", reason="the extra privacy is not installed")
    event = spent(told(by_chance, notebooks[0]))
    assert event is not None
    assert event["clients"] == [EVERYONE]
    assert event["epsilon"][0] == pytest.approx(epsilon_of([Release(0.5, 0.5, 5)], 1e-5), abs=1e-3)


# --- local noise -----------------------------------------------------------------------------------------------------


def test_moments_of_local_noise() -> None:
    stage, vector = GaussianNoise(deviation=0.3), np.full(20_000, 2.0)
    sent = (stage.encode(vector, Streams(1).child(0)).vector - 2.0) / 0.3
    assert chi2.ppf(5e-5, 20_000) < (sent**2).sum() < chi2.isf(5e-5, 20_000)
    other = stage.encode(vector, Streams(1).child(1)).vector
    assert abs(np.corrcoef(sent, other)[0, 1]) * math.sqrt(20_000) < norm.isf(1e-5)
    assert stage.encode(vector.astype(np.float32), Streams(0)).vector.dtype == np.float32


def test_local_noise_is_accounted_for_replacing_a_client() -> None:
    """Two clipped updates are up to 2 S apart, twice what adding or removing one changes."""
    made = trial(stages=(Clip(norm=0.5), GaussianNoise(deviation=3.0)), collector=Averaged())
    assert made.promise is not None
    assert (made.promise["noise_multiplier"], made.promise["relation"]) == (3.0, "replace")
    notebook = Notebook()
    run(made, notebook)
    assert all(own[0].sampling == 1 for own in releases_of(told(made, notebook)).values())


# --- what is refused -------------------------------------------------------------------------------------------------

STUDY = """
name = "s"
[data]
kind = "digits"
[partition]
kind = "iid"
clients = 8
[[methods]]
kind = "{kind}"
{more}
[run]
rounds = 3
cohort = 4
sampling = "poisson"
"""
PRIVATE = 'collector = {{ kind = "private_mean", noise = 1.0{more} }}'
LOCAL = 'stages = [{ kind = "clip" }, { kind = "gaussian_noise", deviation = 1.0 }]'
RECORD = 'work = { batches = "poisson", denominator = "expected", clip = 1.0, noise = 1.0 }'


@pytest.mark.parametrize(
    ("kind", "more", "what"),
    [
        ("scaffold", PRIVATE.format(more=""), "more than one vector"),
        ("qffl", PRIVATE.format(more=""), "more than one vector"),
        ("afl", PRIVATE.format(more=""), "more than one vector"),
        ("clustered", PRIVATE.format(more=""), "single updates"),
        ("fedstream", LOCAL, "more than one vector"),
        ("fedavg", 'stages = [{ kind = "gaussian_noise", deviation = 1.0 }]', "Put a stage clip before it"),
        ("fedavg", 'stages = [{ kind = "gaussian_noise", deviation = 1.0 }, { kind = "clip" }]', "Put a stage clip"),
        ("fedavg", f"{LOCAL}\n{PRIVATE.format(more='')}", "Keep one"),
        ("fedavg", f"{RECORD}\n{PRIVATE.format(more='')}", "Keep one"),
        ("fedavg", f"{RECORD}\n{LOCAL}", "Keep one"),
        ("fedavg", PRIVATE.format(more=", adaptive = true"), "count_noise"),
        ("fedavg", PRIVATE.format(more=", quantile = 1.0"), "quantile is 1"),
        ("fedavg", PRIVATE.format(more=", delta = 0.0"), "delta is 0"),
        ("fedavg", PRIVATE.format(more=", clip = 0.0"), "clip is 0"),
        ("local", PRIVATE.format(more=""), "sends no updates"),
    ],
)
def test_settings_refuse_what_cannot_be_kept(kind: str, more: str, what: str) -> None:
    with pytest.raises(RivageError, match=what):
        parse_study(STUDY.format(kind=kind, more=more))


@pytest.mark.parametrize(
    "kind", ["fedavg", "fedsgd", "fedprox", "fedavgm", "ditto", "fedrep", "fedem", "pfedme", "apfl"]
)
def test_settings_take_methods_that_send_one_vector(kind: str) -> None:
    for more in (PRIVATE.format(more=""), LOCAL):
        parse_study(STUDY.format(kind=kind, more=more))


def test_a_method_that_steps_by_what_arrived_is_refused() -> None:
    with pytest.raises(ConfigError, match="more than one vector"):
        trial(FedEM(average_over="everyone"))
    assert not list(promise_faults(Scaffold(), "s", (), Averaged()))


def test_header_record_and_certificate_say_the_same(tmp_path: Path) -> None:
    pytest.importorskip("dp_accounting", reason="the extra privacy is not installed")
    record = run_study(parse_study(STUDY.format(kind="fedavg", more=PRIVATE.format(more=""))), out=tmp_path)
    (done,) = record.trials
    header = MessageLog.read_header(done.folder / LOG_NAME)
    assert header["differential_privacy"] == done.start["differential_privacy"]
    assert header["differential_privacy"]["sampling"] == "poisson"
    (certificate,) = [c for c in record.certificates if c.check == "privacy_spent"]
    assert certificate.verdict == "holds"
    assert "what leaves the server in all rounds" in certificate.claim
    assert certificate.measured == pytest.approx(epsilon_of([Release(1.0, 0.5, 3)], 1e-5), abs=1e-4)


def test_a_subclass_of_a_vouched_method_vouches_for_itself() -> None:
    """It may send more than its base class."""

    class Plug(FedAvg):
        private_entry = "params"
        counts_alike = True

    class Sends(Plug):
        pass

    collectors = (PrivateMean(), SecAgg(noise_multiplier=1.0, clip=1.0, survivors=2))
    assert [bool(list(promise_faults(Plug(), "p", (), each))) for each in collectors] == [False, False]
    assert [bool(list(promise_faults(Sends(), "s", (), each))) for each in collectors] == [True, True]
