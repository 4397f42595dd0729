"""Reference models: balanced designs, trainings that are those of the federation, whole attacks on real logs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from rivage.core.errors import ConfigError
from rivage.core.message_log import MessageLog
from rivage.core.messages import LogPolicy
from rivage.core.seeding import Streams
from rivage.core.settings import dump
from rivage.data.population import Samples, Schema
from rivage.federated import FedAvg, FedEM, FedProx, Phase, Trial, run
from rivage.federated.checkpoint import Files
from rivage.federated.fedrep import FedRep
from rivage.federated.scaffold import Scaffold
from rivage.learning.params import to_numpy
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.privacy.attack import ATTACKS, Attack, Meter, Tools
from rivage.privacy.confidence import confidences
from rivage.privacy.dealing import balanced, bounded, clients_of
from rivage.privacy.lira import LiRA, LocalLiRA
from rivage.privacy.questions import MembershipQuestion
from rivage.privacy.recipes import Recipe, federate, method_of, recipe_of, train
from rivage.privacy.rmia import RMIA, LocalRMIA
from rivage.privacy.roc import auc, auc_test
from rivage.privacy.shadows import Shadows, _digest
from rivage.privacy.views import Eavesdropper, Header, Recorded, Refused, ReleasedModel
from rivage.testing.toys import Clients, layered_task, linear_clients

SCHEMA = Schema(input_shape=(8,), target="class", num_classes=3)
SIZE = 20
FULL = Phase(epochs=4, batch_size=None)
SHADOWS = Shadows(models=16, rounds=2)


def records(seed: int, count: int) -> Samples:
    """Labels that say nothing: whatever is learnt of a record is the record."""
    generator = Streams(seed).numpy("records")
    x = generator.normal(size=(count, 8)).astype(np.float32)
    return Samples(x, generator.integers(0, 3, count), np.arange(count))


def joined(*parts: Samples) -> Samples:
    return Samples(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "y", "index")))


def asked(members: Samples, others: Samples, own: Samples | None = None, target: int | None = 1) -> MembershipQuestion:
    both = joined(members, others)
    nobody = np.zeros(len(both), bool)
    return MembershipQuestion(both, nobody, nobody, records(99, 60) if own is None else own, target)


def network(dtype: torch.dtype = torch.float64) -> Task:
    return make_task(TaskSettings(model="mlp", options={"hidden": (16,)}), SCHEMA, dtype=dtype)


def logged(folder: Path, method: Any, task: Task, clients: list[Samples], rounds: int = 4, name: str = "") -> Recorded:
    kind = name or type(method).__name__.lower()
    header = {**task.layout.as_json(), "loss": task.loss.name, "method": kind, "hyper_parameters": dump(method)}
    population = Clients(tuple((part.x, part.y) for part in clients), task.schema)
    trial = Trial(name="m", algorithm=method, population=population, task=task, rounds=rounds, every=99)
    with Files(folder, LogPolicy(), header) as journal:
        run(trial, journal)
    return Recorded(folder / "messages.rvg")


CLIENTS = [records(seed, SIZE) for seed in range(3)]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    method = FedAvg(learning_rate=0.5, work=Phase(epochs=6, batch_size=5))
    return logged(tmp_path_factory.mktemp("log"), method, network(), CLIENTS)


# --- designs -------------------------------------------------------------------------------------------------


@given(models=st.integers(1, 40), count=st.integers(0, 40), seed=st.integers(0, 1000))
def test_a_record_is_in_half_of_the_models(models: int, count: int, seed: int) -> None:
    design = balanced(models, count, np.random.default_rng(seed))
    assert design.shape == (models, count)
    held = design.sum(0)
    assert set(held.tolist()) <= {models // 2, (models + 1) // 2}


def test_every_half_is_equally_likely() -> None:
    """Six halves of four models, 6,000 records: chi-squared with 5 degrees of freedom, 99.9 % quantile 20.5."""
    design = balanced(4, 6000, np.random.default_rng(0))
    _, counts = np.unique(design, axis=1, return_counts=True)
    assert len(counts) == 6
    assert ((counts - 1000) ** 2 / 1000).sum() < 20.5


def test_of_an_odd_number_of_models_either_half_is_as_likely() -> None:
    held = balanced(5, 2000, np.random.default_rng(0)).sum(0)
    assert set(held) == {2, 3}
    assert 900 < (held == 2).sum() < 1100  # 4.5 standard deviations


@pytest.mark.parametrize(("apart", "sizes"), [(10, [10, 7, 7, 6]), (0, [8, 8, 7, 7])])
def test_a_federation_has_so_many_clients_and_the_target_its_own_records(apart: int, sizes: list[int]) -> None:
    (parts,) = clients_of(records(0, 30), np.ones((1, 30), bool), clients=4, apart=apart, streams=Streams(0))
    assert [len(part) for part in parts] == sizes
    assert sorted(np.concatenate([part.index for part in parts])) == list(range(30))
    if apart:
        assert parts[0].index.tolist() == list(range(apart))


def test_own_records_are_no_fewer_than_those_that_are_asked_about() -> None:
    question = MembershipQuestion(records(0, 600), np.zeros(600, bool), np.zeros(600, bool), records(1, 2000), 0)
    assert len(bounded(question, Streams(0)).others) == 600


def test_models_are_not_shared_with_who_knows_other_records() -> None:
    some, none = np.arange(6) % 2 == 0, np.zeros(6, bool)
    known = [(none, none), (some, none), (some, some)]
    assert len({_digest(MembershipQuestion(records(0, 6), *each, records(1, 3), 0)) for each in known}) == 3


@given(data=st.data(), audited=st.booleans(), everything=st.booleans())
def test_who_trains_on_what(data: st.DataObject, audited: bool, everything: bool) -> None:
    known = np.array(data.draw(st.lists(st.booleans(), min_size=6, max_size=6)))
    member = known & np.array(data.draw(st.lists(st.booleans(), min_size=6, max_size=6)))
    question = MembershipQuestion(records(0, 6), known, member, records(1, 9), 0)
    design = Shadows(models=8, audited=audited).design(question, Streams(3), everything=everything)
    held, own = design[:, :6].sum(0), design[:, 6:].sum(0)
    if audited:
        assert (held == np.where(known, 8 * member, 4)).all()
    else:
        assert (held == 0).all()
    assert sorted(own) == [0] * (9 - (dealt := 9 if everything else 0 if audited else 6)) + [4] * dealt


def test_offline_needs_records_of_ones_own() -> None:
    question = asked(records(0, 4), records(1, 4), own=records(0, 0))
    with pytest.raises(Refused, match="no records of the attacker's own"):
        Shadows(audited=False).design(question, Streams(0), everything=False)


# --- training ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [
    Recipe(learning_rate=0.3, work=Phase(epochs=2, batch_size=4)),
    Recipe(optimizer="adam", learning_rate=0.02, work=Phase(updates=9, batch_size=None)),
    Recipe(learning_rate=0.3, work=Phase(epochs=2, batch_size=4, clip=0.5)),
])  # fmt: skip
def test_one_product_for_all_models_equals_one_model_at_a_time(recipe: Recipe) -> None:
    task = network()
    members = [records(seed, size) for seed, size in enumerate((13, 4, 1, 20, 7))]
    starts = np.stack([to_numpy(task.initial(seed)) for seed in range(5)])
    found = []
    executors: tuple[Literal["tiled", "functional"], ...] = ("tiled", "functional")
    for executor in executors:
        meter = Meter()
        found.append(train(task, recipe.method, starts, members, streams=Streams(1), meter=meter, executor=executor))
        assert meter.evaluations == (2 * 45 if recipe.work.updates is None else 9 * 45)
    np.testing.assert_allclose(found[1], found[0], atol=1e-12)
    assert (np.abs(found[0] - starts).max(1) > 1e-3).all()


def test_adam_is_that_of_torch() -> None:
    task, samples = network(), records(0, 15)
    start = task.initial(3)
    recipe = Recipe(optimizer="adam", learning_rate=0.05, work=Phase(updates=25, batch_size=None))
    found = train(task, recipe.method, to_numpy(start), [samples], streams=Streams(0), meter=Meter())
    bound = task.bind()
    bound.load(start)
    optimizer, (x, y) = torch.optim.Adam(bound.parameters, lr=0.05), task.tensors(samples)
    for _ in range(25):
        optimizer.zero_grad()
        bound.losses(x, y).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    np.testing.assert_allclose(found[0], bound.vector.detach(), atol=1e-10)


@pytest.mark.parametrize(
    "method", [FedAvg(learning_rate=0.3, work=FULL), FedProx(learning_rate=0.3, mu=0.7, work=FULL)]
)
def test_a_shadow_client_with_the_targets_records_returns_what_the_target_did(tmp_path: Path, method: Any) -> None:
    """Full batches leave nothing to chance: the log's header is all that is needed."""
    task = network()
    view = Eavesdropper(logged(tmp_path, method, task, CLIENTS), 1)
    for exchange in view.exchanges():
        repeated = train(task, method_of(view.header), exchange.sent, [CLIENTS[1]], streams=Streams(5), meter=Meter())
        np.testing.assert_allclose(repeated[0], exchange.returned, atol=1e-12)


def test_a_federation_of_one_client_is_training_on_its_records() -> None:
    task = network()
    recipe = Recipe(learning_rate=0.3, work=FULL)
    meter, streams = Meter(), Streams(2)
    whole = federate(task, recipe.method, [CLIENTS[0]], 3, streams=streams, meter=meter)
    start = task.initial(Streams(streams.seed("federation")).seed("model"))
    alone = train(task, recipe.times(3).method, to_numpy(start), [CLIENTS[0]], streams=streams, meter=Meter())
    np.testing.assert_allclose(whole, alone[0], atol=1e-12)
    assert meter.evaluations == 3 * 4 * SIZE


def test_blocks_of_models_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    task, members = network(), [records(seed, 6 + seed) for seed in range(5)]
    recipe = Recipe(work=Phase(batch_size=3))
    found = []
    for size in (64 << 20, 1):
        monkeypatch.setattr("rivage.privacy.recipes._BLOCK_BYTES", size)
        start = to_numpy(task.initial(0))
        found.append(train(task, recipe.method, start, members, streams=Streams(0), meter=Meter()))
    np.testing.assert_allclose(found[1], found[0], atol=1e-13)


def test_what_a_log_tells_of_the_training() -> None:
    header = Header({"method": "fedprox", "hyper_parameters": dump(FedProx(learning_rate=0.2, mu=0.5, work=FULL))})
    assert method_of(header) == FedProx(learning_rate=0.2, mu=0.5, work=FULL)
    assert recipe_of(header) == Recipe(learning_rate=0.2, work=FULL)
    flat = Header({"hyper_parameters": {"learning_rate": 0.1, "epochs": 3, "batch_size": 8, "optimiser": "sgd"}})
    assert recipe_of(flat) == Recipe(learning_rate=0.1, work=Phase(epochs=3, batch_size=8))
    with pytest.raises(Refused, match="does not tell learning rate"):
        recipe_of(Header({"hyper_parameters": {"epochs": 3}}))
    with pytest.raises(Refused, match='clients of "fedem" train from more than the one model'):
        method_of(Header({"method": "fedem", "hyper_parameters": dump(FedEM())}))
    with pytest.raises(Refused, match="FedRep has no model of its own"):
        federate(network(), FedRep(), CLIENTS, 1, streams=Streams(0), meter=Meter())
    with pytest.raises(Refused, match="clients of Scaffold are sent 'control' beside the model"):
        train(network(), Scaffold(), np.zeros(network().dimension), CLIENTS, streams=Streams(0), meter=Meter())
    with pytest.raises(Refused, match='names method "other", which cannot be built'):
        method_of(Header({"method": "other", "hyper_parameters": {}}))


# --- attacks -------------------------------------------------------------------------------------------------


def test_all_four_are_attacks() -> None:
    for kind in ("lira", "local_lira", "rmia", "local_rmia"):
        attack = ATTACKS.get(kind)()
        assert isinstance(attack, Attack)
        assert (attack.asks, attack.oracle) == ("membership", "")
        assert attack.view is (Eavesdropper if kind.startswith("local") else ReleasedModel)


@pytest.mark.parametrize("audited", [True, False])
@pytest.mark.parametrize("kind", [LocalLiRA, LocalRMIA])
def test_members_are_found_in_the_messages_of_a_client(log: Recorded, kind: Any, audited: bool) -> None:
    question = asked(CLIENTS[1], records(50, SIZE))
    attack = kind(shadows=replace(SHADOWS, audited=audited))
    answer = attack.run(Eavesdropper(log, 1), question, Tools(network(), Streams(7)))
    assert auc(answer.scores, np.arange(2 * SIZE) < SIZE) > 0.8
    assert answer.facts["references"] == 16
    assert answer.facts["queries"] == 2


def test_members_are_found_in_the_released_model(log: Recorded) -> None:
    """By models, and by whole federations, which are nearer to how it was made."""
    final = list(Eavesdropper(log, 1).exchanges())[-1].sent
    question = asked(joined(*CLIENTS), records(50, 3 * SIZE), own=records(51, 40), target=None)
    member, view = np.arange(6 * SIZE) < 3 * SIZE, ReleasedModel(log.header, final)
    for federations in (False, True):
        shadows = Shadows(models=12, rounds=4, federations=federations, clients=3)
        for attack in (LiRA(shadows=shadows), RMIA(shadows=shadows)):
            answer = attack.run(view, question, Tools(network(), Streams(7)))
            assert auc(answer.scores, member) > 0.65, attack


def test_known_records_are_used_and_not_scored(log: Recorded) -> None:
    question = asked(CLIENTS[1], records(50, SIZE))
    known = np.arange(2 * SIZE) % 2 == 0
    question = replace(question, known=known, member=known & (np.arange(2 * SIZE) < SIZE))
    for attack in (LocalLiRA(shadows=SHADOWS), LocalRMIA(shadows=SHADOWS)):
        answer = attack.run(Eavesdropper(log, 1), question, Tools(network(), Streams(7)))
        np.testing.assert_array_equal(np.isnan(answer.scores), known)
        assert auc(answer.scores[~known], (np.arange(2 * SIZE) < SIZE)[~known]) > 0.7


def test_attacks_share_reference_models_whoever_comes_first(log: Recorded) -> None:
    """Equal questions are the same question; costs are counted where they arise."""
    view = Eavesdropper(log, 1)
    alone = LocalRMIA(shadows=SHADOWS).run(view, asked(CLIENTS[1], records(50, SIZE)), Tools(network(), Streams(7)))
    shared: dict[Any, Any] = {}
    first, second = (Tools(network(), Streams(7).child(name), shared=shared) for name in ("a", "b"))
    LocalLiRA(shadows=SHADOWS).run(view, asked(CLIENTS[1], records(50, SIZE)), first)
    later = LocalRMIA(shadows=SHADOWS).run(Eavesdropper(log, 1), asked(CLIENTS[1], records(50, SIZE)), second)
    np.testing.assert_array_equal(later.scores, alone.scores)
    # In 2 rounds 16 models do 6 epochs on half of 40 records; 17 are asked about 40 and 60 records.
    trained = first.meter.evaluations - 2 * 17 * 100
    assert trained == pytest.approx(2 * 16 * 6 * SIZE, rel=0.1)
    assert second.meter.evaluations == 0
    assert later.facts["evaluations"] == first.meter.evaluations
    LocalRMIA(shadows=SHADOWS).run(Eavesdropper(log, 2), asked(CLIENTS[1], records(50, SIZE)), second)
    assert second.meter.evaluations == first.meter.evaluations, "another client, other models"


def test_more_queries_are_noisy_copies(log: Recorded) -> None:
    question, tools = asked(CLIENTS[1], records(50, SIZE)), Tools(network(), Streams(7))
    signals = [
        replace(SHADOWS, queries=queries, noise=noise).signals(Eavesdropper(log, 1), question, tools)
        for queries, noise in ((1, 0.1), (3, 0.1), (3, 0.0))
    ]
    assert [each.target.shape for each in signals] == [(100, 2), (100, 6), (100, 6)]
    np.testing.assert_array_equal(signals[1].target[:, ::3], signals[0].target)
    np.testing.assert_array_equal(signals[2].references[..., 1], signals[2].references[..., 0])
    assert (signals[1].target[:, 1] != signals[1].target[:, 0]).all()


def test_many_records_of_ones_own_are_not_all_needed(log: Recorded) -> None:
    question = asked(CLIENTS[1], records(50, SIZE), own=records(51, 700))
    signals = SHADOWS.signals(Eavesdropper(log, 1), question, Tools(network(), Streams(7)))
    assert len(signals.target) == 2 * SIZE + 500
    released = ReleasedModel(log.header, to_numpy(network().initial(0)))
    signals = replace(SHADOWS, models=4, rounds=1).signals(released, question, Tools(network(), Streams(7)))
    assert len(signals.target) == 2 * SIZE + 700


@pytest.mark.parametrize(("rounds", "expected"), [(1, [3]), (2, [1, 3]), (3, [1, 2, 3]), (None, [0, 1, 2, 3])])
def test_rounds_are_evenly_spaced_and_the_last_is_among_them(
    log: Recorded, rounds: int | None, expected: list[int]
) -> None:
    signals = replace(SHADOWS, models=4, rounds=rounds).signals(
        Eavesdropper(log, 1), asked(CLIENTS[1], records(50, SIZE)), Tools(network(), Streams(7))
    )
    task, exchanges = network(), list(Eavesdropper(log, 1).exchanges())
    asked_of = [exchanges[number].returned for number in expected]
    found = confidences(task, asked_of, joined(CLIENTS[1], records(50, SIZE), records(99, 60)), Meter())
    np.testing.assert_array_equal(signals.target.T, found)


def test_real_targets_are_scored_by_their_loss(tmp_path: Path) -> None:
    population = linear_clients((12, 12), seed=3)
    task = layered_task(population)
    clients = [Samples(x, y, np.arange(len(x))) for x, y in population.records]
    method = FedAvg(learning_rate=0.05, work=Phase(epochs=30, batch_size=4))
    view = Eavesdropper(logged(tmp_path, method, task, clients, rounds=3), 1)
    x, y = linear_clients((12, 12), seed=4).records[1]
    question = asked(clients[1], Samples(x, y, np.arange(12)), own=clients[0])
    for attack in (LocalLiRA(shadows=SHADOWS), LocalRMIA(shadows=SHADOWS)):
        scores = attack.run(view, question, Tools(task, Streams(0))).scores
        assert np.isfinite(scores).all()
        assert auc(scores, np.arange(24) < 12) > 0.7


def test_what_cannot_be_attacked_is_refused(tmp_path: Path, log: Recorded) -> None:
    question, tools = asked(CLIENTS[1], records(50, SIZE)), Tools(network(), Streams(7))
    mixture = Eavesdropper(logged(tmp_path, FedEM(components=2), network(), CLIENTS, rounds=1), 1)
    with pytest.raises(Refused, match='clients of "fedem" train from more'):
        LocalLiRA().run(mixture, question, tools)
    with pytest.raises(Refused, match="sends several models"):
        LocalLiRA(shadows=Shadows(recipe=Recipe())).run(mixture, question, tools)
    several = ReleasedModel(log.header, np.zeros((2, network().dimension)))
    with pytest.raises(Refused, match="sends several models"):
        LiRA().run(several, question, tools)
    with pytest.raises(Refused, match="client 9 has no exchange"):
        LocalLiRA().run(Eavesdropper(log, 9), question, tools)
    with MessageLog.create(tmp_path / "sums.rvg", {**log.header.fields, "secure_aggregation": True}) as sums:
        for message in MessageLog.read(log.path):
            sums.append(message)
    for attack in (LocalLiRA(), LocalRMIA()):
        with pytest.raises(Refused, match=r"hides what each of them returned.*Attack the model that these sums made"):
            attack.run(Eavesdropper(Recorded(tmp_path / "sums.rvg"), 1), question, tools)
    wild = Shadows(models=4, recipe=Recipe(learning_rate=1e200))
    with pytest.raises(Refused, match="no finite confidence"):
        LocalLiRA(shadows=wild).run(Eavesdropper(log, 1), question, tools)


@pytest.mark.parametrize(("settings", "message"), [
    ({"models": 3}, "models is 3"), ({"rounds": 0}, "rounds is 0"), ({"queries": 0}, "queries is 0"),
    ({"noise": -1.0}, "noise is -1"), ({"clients": 0}, "clients is 0"),
])  # fmt: skip
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Shadows(**settings)
    with pytest.raises(ConfigError, match="gamma is 0"):
        RMIA(gamma=0.0)


# --- nothing to find -----------------------------------------------------------------------------------------


def rejections(view: Any, kinds: dict[str, Any]) -> dict[str, int]:
    """How often 40 questions about records that the target never saw have p < 0.05; more than 6 with chance 0.3 %."""
    found, task = dict.fromkeys(kinds, 0), network()
    member = np.arange(2 * SIZE) < SIZE
    for seed in range(40):
        question = asked(records(1000 + seed, SIZE), records(2000 + seed, SIZE))
        tools = Tools(task, Streams(seed))
        for name, attack in kinds.items():
            found[name] += auc_test(attack.run(view, question, tools).scores, member) < 0.05
    return found


def test_nothing_is_found_of_records_that_the_client_never_had(log: Recorded) -> None:
    shadows = Shadows(models=8, rounds=1)
    found = rejections(
        Eavesdropper(log, 1),
        {
            "lira": LocalLiRA(shadows=shadows),
            "rmia": LocalRMIA(shadows=shadows),
            "rmia offline": LocalRMIA(shadows=replace(shadows, audited=False)),
        },
    )
    assert max(found.values()) <= 6, found


def test_nothing_is_found_in_an_untrained_model(log: Recorded) -> None:
    shadows = Shadows(models=8, rounds=1)
    untrained: ndarray = to_numpy(network().initial(77))
    view = ReleasedModel(log.header, untrained)
    found = rejections(view, {"lira": LiRA(shadows=shadows), "rmia": RMIA(shadows=shadows)})
    assert max(found.values()) <= 6, found
