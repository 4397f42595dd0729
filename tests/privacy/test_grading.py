"""Evidence, grading and the certificate of an audit: against brute force, and against forgers."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from rivage.core.errors import StoreError
from rivage.core.seeding import Streams
from rivage.data.population import ClientData, Samples
from rivage.learning.task import Task
from rivage.privacy.attribute_grading import AttributeCase, values_of
from rivage.privacy.checks import leakage, leakages, numbers
from rivage.privacy.evidence import LEVEL, adjust, finding, verdict
from rivage.privacy.grading import MembershipCase, pooled
from rivage.privacy.model_grading import ModelCase, local_optimum
from rivage.privacy.property_grading import PropertyCase
from rivage.privacy.questions import (
    Attribute,
    AttributeAnswer,
    MembershipAnswer,
    ModelAnswer,
    PropertyAnswer,
    RecordAnswer,
)
from rivage.privacy.record_grading import RecordCase
from rivage.privacy.roc import auc, auc_test, sign_test
from rivage.privacy.views import Refused
from rivage.testing.toys import layered_task, linear_clients, linear_task

LEVELS = st.lists(st.integers(0, 4), min_size=1, max_size=4)


def scores(*targets: tuple[list[float], list[float]]) -> dict[str, Any]:
    rows = [{"client": n, "members": members, "others": others} for n, (members, others) in enumerate(targets)]
    return {"kind": "scores", "targets": rows}


def samples(size: int, start: int = 0, features: int = 3) -> Samples:
    generator = Streams(start).numpy("records")
    x = generator.normal(size=(size, features)).astype(np.float32)
    return Samples(x, np.arange(start, start + size), np.arange(start, start + size))


def client(train: int = 40, validation: int = 10, test: int = 20, id: int = 0) -> ClientData:
    parts = (samples(train), samples(validation, 1000), samples(test, 2000))
    return ClientData(id, *parts, weight=float(train))


# --- evidence -------------------------------------------------------------------------------------------------------


@given(LEVELS, LEVELS)
def test_one_target_is_the_plain_area_and_its_test(members: list[int], others: list[int]) -> None:
    found = finding(scores((members, others)))
    joint, member = np.array(members + others, float), np.repeat([True, False], [len(members), len(others)])
    assert found.value == pytest.approx(auc(joint, member))
    assert found.p == pytest.approx(auc_test(joint, member))
    assert found.ci is not None
    assert found.ci[0] <= found.value <= found.ci[1]


@settings(max_examples=25)
@given(st.lists(st.tuples(LEVELS, LEVELS), min_size=2, max_size=3))
def test_several_targets_permute_membership_within_each(targets: list[tuple[list[int], list[int]]]) -> None:
    """Against all permutations written out; 9,999 draws are within 0.02 of them, five standard deviations."""
    found = finding(scores(*targets))
    spreads = []
    for members, others in targets:
        joint = np.array(members + others, float)
        picks = itertools.combinations(range(len(joint)), len(members))
        spreads.append([auc(joint, np.isin(np.arange(len(joint)), pick)) for pick in picks])
    value = np.mean([auc(np.array(m + o, float), np.repeat([True, False], [len(m), len(o)])) for m, o in targets])
    means = sum(np.ix_(*[np.array(spread) / len(targets) for spread in spreads]))
    assert found.value == pytest.approx(value)
    assert found.p == pytest.approx(float(np.mean(means >= value - 1e-9)), abs=0.025)


def test_shifting_a_targets_scores_changes_nothing() -> None:
    generator = Streams(0).numpy("shift")
    one, two = (([*generator.normal(0.5, 1, 30)], [*generator.normal(0, 1, 25)]) for _ in range(2))
    moved = tuple([score + 100 for score in side] for side in two)
    assert finding(scores(one, two)) == finding(scores(one, moved))  # type: ignore[arg-type]


def test_two_targets_that_are_taken_for_normal_agree_with_membership_that_is_shuffled() -> None:
    """Areas are discrete: without half a step the p-value would be 0.01 too small here."""
    generator = np.random.default_rng(3)
    targets = [(np.sort(generator.normal(size=10)).tolist(), np.sort(generator.normal(size=11)).tolist()) for _ in "ab"]
    found = finding(scores(*targets))
    areas = np.zeros(200_000)
    for _ in targets:  # without ties, ranks are what is shuffled, whatever the scores
        ranks = generator.permuted(np.tile(np.arange(1.0, 22), (len(areas), 1)), axis=1)[:, :10]
        areas += (ranks.sum(axis=1) - 55) / 110 / 2
    assert found.p == pytest.approx(float(np.mean(areas >= found.value - 1e-12)), abs=0.004)


def test_p_values_of_shuffled_scores_are_uniform() -> None:
    """200 nulls at 5 %: fewer than 3 or more than 19 rejections have probability 0.5 %."""
    generator = Streams(1).numpy("null")
    rejected = 0
    for _ in range(200):
        targets = [([*generator.normal(size=14)], [*generator.normal(size=12)]) for _ in range(3)]
        rejected += finding(scores(*targets)).p <= LEVEL  # type: ignore[operator]
    assert 3 <= rejected <= 19


def test_counts_are_a_sign_test_on_the_records_that_differ() -> None:
    counts = {"records": 50, "correct": 40, "baseline_correct": 30, "better": 13, "worse": 3}
    found = finding({"kind": "counts", **counts})
    assert (found.value, found.baseline, found.p) == (0.8, 0.6, sign_test(13, 3))
    with pytest.raises(StoreError, match="contradict"):
        finding({"kind": "counts", **counts, "correct": 45})


def test_errors_are_a_paired_t_test() -> None:
    generator = Streams(2).numpy("errors")
    attack, guess = np.abs(generator.normal(0, 1, 80)), np.abs(generator.normal(0, 1.3, 80))
    pieces = [{"attack": attack, "guesses": {"majority": guess}, "numerical": True, "client": 0}]
    evidence, _ = pooled("attribute", pieces)
    found = finding(evidence)
    assert found.p == pytest.approx(ttest_rel(guess, attack, alternative="greater").pvalue)
    assert (found.value, found.baseline) == (attack.mean(), guess.mean())


def test_verdicts() -> None:
    strong, weak = finding(scores(([2.0] * 20, [1.0] * 20))), finding(scores(([2.0], [1.0])))
    assert verdict(strong, strong.p, 1) == "leaks"
    assert verdict(weak, weak.p, 1) == "no power"  # one pair can say nothing, however well it is told apart
    assert verdict(strong, 0.4, 1) == "nothing found"
    assert adjust([0.01, None, 0.04]) == [0.02, None, 0.04]
    with pytest.raises(StoreError, match="cannot be read"):
        finding({"kind": "scores", "targets": [{}]})


# --- questions ------------------------------------------------------------------------------------------------------


def test_membership_is_asked_about_as_many_records_of_either_kind_that_do_not_overlap() -> None:
    data = client()
    case = MembershipCase.of([data], [samples(7, 5000)], Streams(3), client=0)
    question, y = case.question, case.question.records.y
    assert case.truth.sum() == 30 == (~case.truth).sum()
    assert question.known.sum() == 30
    assert (case.truth & question.known).sum() == 15
    assert not question.member[~question.known].any()
    assert (case.truth == (y < 1000)).all()  # targets of the toy records say where they come from
    assert len(np.unique(y)) == 60
    assert not np.isin(question.others.y, y).any()
    assert not np.isin(question.others.y, data.train.y).any()
    assert (question.records.index == np.arange(60)).all()


def test_a_federation_gives_equally_many_members_and_others_of_every_client() -> None:
    case = MembershipCase.of([client(id=0), client(train=12, id=1)], [samples(5)], Streams(4), client=None, most=40)
    assert case.truth.sum() == 20 + 12
    with pytest.raises(Refused, match="2 training records and"):
        MembershipCase.of([client(train=3)], [], Streams(4), client=0)


def test_shuffling_leaves_either_half_balanced() -> None:
    case = MembershipCase.of([client()], [], Streams(3), client=0)
    for seed in range(5):
        other = case.shuffled(Streams(seed))
        known = other.question.known
        assert other.truth[known].sum() == other.truth[~known].sum() == 15


def test_scores_are_kept_sorted_and_known_records_are_left_out() -> None:
    case = MembershipCase.of([client()], [], Streams(5), client=0)
    answer = np.where(case.question.known, np.nan, np.where(case.truth, np.inf, -1.0))
    piece = case.grade(MembershipAnswer(answer))
    assert len(piece["members"]) == len(piece["others"]) == 15
    assert finding({"kind": "scores", "targets": [piece]}).value == 1
    with pytest.raises(Refused, match="NaN"):
        case.grade(MembershipAnswer(np.full(len(answer), np.nan)))


def test_labels_are_graded_as_multisets_against_their_frequencies() -> None:
    def labelled(*labels: int) -> Samples:
        return Samples(np.zeros((len(labels), 2), np.float32), np.array(labels), np.arange(len(labels)))

    case = RecordCase(3, labelled(0, 0, 0, 1, 2, 2), labelled(0, 1, 1, 1))
    assert case.question.records == 6
    piece = case.grade(RecordAnswer(None, np.array([0, 0, 1, 1, 1, 2]), "estimated"))
    # Right: 0, 0, 1, 2. By frequency: 0, 0 (1.5, rounded up first come) and four times 1, of which 0, 0, 1 are right.
    assert (piece["correct"], piece["baseline_correct"], piece["better"], piece["worse"]) == (4, 3, 1, 0)
    evidence, facts = pooled("record", [piece, piece])
    assert (evidence["kind"], evidence["records"], evidence["better"]) == ("counts", 12, 2)
    assert (finding(evidence).metric, facts["baseline"]) == ("labels", "frequencies of other clients' labels")
    with pytest.raises(Refused, match="neither inputs nor classes"):
        case.grade(RecordAnswer(None, None, "estimated"))


def test_inputs_are_recovered_or_not() -> None:
    train, others = samples(6), samples(50, 100)
    case = RecordCase(0, train, others)
    found = np.concatenate([train.x[[4, 1]] + 1e-3, others.x[:2]])
    piece = case.grade(RecordAnswer(found, None, "mixed"))
    assert (piece["correct"], piece["baseline_correct"]) == (2, 0)
    evidence, _ = pooled("record", [piece])
    told = finding(evidence)
    assert (told.value, told.p, verdict(told, None, 3)) == (2 / 6, None, "recovered")
    nothing = finding(pooled("record", [case.grade(RecordAnswer(others.x[:6], None, "mixed"))])[0])
    assert verdict(nothing, None, 3) == "nothing found"
    with pytest.raises(Refused, match="too many"):
        _ = RecordCase(0, samples(2001), others).question


def test_one_wild_candidate_does_not_decide_how_near_the_others_are() -> None:
    """A quotient by almost nothing is far from everything; its mean square says nothing of the rest."""
    truth = samples(5)
    found = truth.x.astype(np.float64)
    found[0] = 1e12
    piece = RecordCase(0, truth, samples(9)).grade(RecordAnswer(found, None, "mixed", {}))
    _, facts = pooled("record", [piece])
    assert facts["median_mse"] == 0
    assert piece["correct"] == 4


def test_properties_are_graded_over_clients() -> None:
    attribute = Attribute("sex", (0,), np.array([[0.0], [1.0]]), ("f", "m"))

    def holding(id: int, *values: float) -> ClientData:
        x = np.array(values, np.float32)[:, None]
        return ClientData(id, Samples(x, np.zeros(len(x), np.int64), np.arange(len(x))), *[samples(0)] * 2, 1.0)

    clients = [holding(0, 0, 0, 1), holding(1, 1, 1, 0), holding(2, 1, 0), holding(3, 1)]
    case = PropertyCase.of(attribute, clients, clients[0].train)
    assert case.truth.tolist() == [False, True, False, True]
    assert case.question.has.tolist() == [False, False, True]
    piece = case.grade(PropertyAnswer(np.array([0.1, 0.9, np.nan, 0.4])))
    assert (piece["members"], piece["others"]) == ([0.4, 0.9], [0.1])
    assert finding(pooled("property", [piece])[0]).value == 1
    with pytest.raises(Refused, match="all of one kind"):
        case.grade(PropertyAnswer(np.array([np.nan, 0.9, np.nan, 0.4])))
    with pytest.raises(Refused, match='none of 1 clients hold mostly records with "m"'):
        PropertyCase.of(attribute, clients[:1], clients[0].train)


def test_attributes_are_graded_against_the_better_baseline() -> None:
    x = np.array([[0, 1, 9], [1, 0, 9], [1, 0, 9], [1, 0, 9]], np.float32)
    attribute = Attribute("sex", (0, 1), np.array([[0.0, 1.0], [1.0, 0.0]]), ("f", "m"))
    data = ClientData(0, Samples(x, np.array([0, 1, 1, 1]), np.arange(4)), *[samples(0)] * 2, 4.0)
    rich = np.repeat(x, 8, axis=0)
    case = AttributeCase.of(attribute, data, Samples(rich, np.repeat([0, 1, 1, 1], 8), np.arange(32)))
    assert case.truth.tolist() == [0, 1, 1, 1]
    assert (case.question.x[:, :2] == 0).all()
    evidence, facts = pooled("attribute", [case.grade(AttributeAnswer(np.array([1, 1, 1, 1])))])
    assert facts == {"baseline": "imputation", "majority": 0.75, "imputation": 1.0}
    assert evidence == {
        "kind": "counts", "records": 4, "correct": 3, "baseline_correct": 4, "better": 0, "worse": 1
    }  # fmt: skip
    assert (attribute.plug(case.question.x, case.truth) == x).all()
    numbers = Attribute("age", (2,), np.array([[0.0], [9.0]]))
    assert values_of(numbers, x).tolist() == [9, 9, 9, 9]


SMOKER = Attribute("smoker", (0,), np.array([[0.0], [1.0]]), ("no", "yes"))
AGE = Attribute("age", (2,), np.array([[0.0], [9.0]]))


def test_one_number_guessed_for_all_is_the_median_and_the_ends_of_the_range_are_held_out_too() -> None:
    def aged(*values: float) -> Samples:
        x = np.zeros((len(values), 3), np.float32)
        x[:, 2] = values
        return Samples(x, np.zeros(len(values), np.int64), np.arange(len(values)))

    case = AttributeCase.of(AGE, ClientData(0, aged(1, 1, 8), aged(), aged(0, 9, 9.5), 1.0), aged(*range(9)))
    assert case.guesses["majority"].tolist() == [1, 1, 1]
    assert case.held_out is not None
    assert case.held_out[1].tolist() == [0, 9]


def test_a_baseline_that_some_targets_lack_is_left_out() -> None:
    off = np.array([1.0, 0.0])
    one = {"client": 0, "numerical": False, "attack": off, "guesses": {"majority": off, "imputation": off}}
    other = {**one, "client": 1, "guesses": {"majority": off}}
    for pieces in ([one, other], [other, one]):
        assert "imputation" not in pooled("attribute", pieces)[1]


def unseen_case(attribute: Attribute, train: int = 200, spare: int = 60) -> AttributeCase:
    """Records of which column 0 is 0 or 1, the others 1 to 8; two held-out ones have values that nobody asks for."""

    def drawn(size: int, seed: int) -> Samples:
        generator = np.random.default_rng(seed)
        x = np.concatenate([generator.integers(0, 2, (size, 1)), generator.uniform(1, 8, (size, 2))], axis=1)
        return Samples(x.astype(np.float32), np.zeros(size, np.int64), np.arange(size))

    test = drawn(spare + 2, 1)
    test.x[:2, 0], test.x[:2, 2] = 7, 12
    return AttributeCase.of(attribute, ClientData(0, drawn(train, 0), drawn(10, 2), test, 1.0), drawn(50, 3))


@pytest.mark.parametrize(("attribute", "right"), [(SMOKER, 1.0), (AGE, 0.0)], ids=["binary", "number"])
def test_a_rule_is_put_to_records_that_nobody_trained_on(attribute: Attribute, right: float) -> None:
    """One that knows a training record when it sees it, and one that finds the value in any record."""
    case = unseen_case(attribute)
    assert case.held_out is not None
    column, (unseen, truth) = attribute.columns[0], case.held_out
    assert (unseen.x[:, column] == 0).all()
    assert len(truth) == 70  # 60 of the test records and 10 of validation
    asked: list[int] = []

    def by_heart(question: Any) -> Any:
        asked.append(len(question.x))
        return case.truth if len(question.x) == len(case.truth) else np.zeros_like(truth)

    memorised = pooled("attribute", [case.grade(AttributeAnswer(case.truth, rule=by_heart))])[1]
    anyone = pooled("attribute", [case.grade(AttributeAnswer(case.truth, rule=lambda question: truth))])[1]
    assert asked == [70]
    assert memorised["held_out_records"] == anyone["held_out_records"] == 70
    off = truth if attribute is AGE else truth == 0
    assert memorised["held_out"] == pytest.approx(float(off.mean()))
    assert memorised["held_out_p"] < 1e-9
    assert memorised["beyond_held_out"]
    assert not anyone["beyond_held_out"]
    assert anyone["held_out"] == right
    assert anyone["held_out_p"] == 1.0


def test_who_answers_for_these_records_alone_is_not_held_against_others() -> None:
    case = unseen_case(SMOKER)
    given, ruled = (
        case.grade(AttributeAnswer(case.truth, rule=rule)) for rule in (None, lambda question: np.zeros(70))
    )
    assert "held_out" not in pooled("attribute", [given])[1]
    assert "held_out" not in pooled("attribute", [given, ruled])[1]  # value and baselines are of all targets
    none = AttributeCase.of(SMOKER, ClientData(0, samples(5), samples(0), samples(0), 1.0), samples(9))
    assert none.held_out is None


@given(st.integers(0, 30), st.integers(0, 20))
def test_better_than_on_unseen_records_is_fishers_test(right: int, unseen: int) -> None:
    """Given how many are right in all, those among the trained ones are hypergeometric."""
    piece = {"client": 0, "numerical": False, "guesses": {"majority": np.ones(30)}}
    piece |= {"attack": np.repeat([0.0, 1.0], [right, 30 - right])}
    facts = pooled("attribute", [{**piece, "held_out": np.repeat([0.0, 1.0], [unseen, 20 - unseen])}])[1]
    ways = [math.comb(30, k) * math.comb(20, right + unseen - k) for k in range(31) if 0 <= right + unseen - k <= 20]
    least = max(0, right + unseen - 20)
    expected = sum(ways[max(right - least, 0) :]) / sum(ways)
    assert facts["held_out_p"] == pytest.approx(expected)


def mean_loss(task: Task, data: Samples, params: Any) -> float:
    bound = task.bind()
    bound.load(torch.from_numpy(params.copy()))
    return float(bound.losses(*task.tensors(data)).detach().mean())


def descended(task: Task, data: Samples, params: Any, steps: int = 1000) -> float:
    """Loss after so many steps of plain gradient descent."""
    bound = task.bind()
    bound.load(torch.from_numpy(params.copy()))
    x, y = task.tensors(data)
    for _ in range(steps):
        slopes = torch.autograd.grad(bound.losses(x, y).mean(), bound.parameters)
        with torch.no_grad():
            for parameter, slope in zip(bound.parameters, slopes, strict=True):
                parameter -= 0.3 * slope
    return float(bound.losses(x, y).detach().mean())


def test_the_local_optimum_is_the_minimiser_near_the_start() -> None:
    population = linear_clients((30, 40))
    data = population.client(0).train
    task = linear_task(population)
    best = local_optimum(task, data, np.ones(3))
    assert np.allclose(best, np.linalg.lstsq(data.x, data.y[:, 0], rcond=None)[0])
    layered = layered_task(population)
    start = layered.initial(1).numpy()
    assert mean_loss(layered, data, local_optimum(layered, data, start)) <= descended(layered, data, start) < 0.1
    case = ModelCase(0, task, data, start[:3])
    found = case.grade(ModelAnswer(case.optimum, "recovered"))
    assert found["distance"] == found["outputs"] == 0 < found["baseline"]
    with pytest.raises(Refused, match=r"rank-deficient \(condition 1e\+03\)"):
        case.grade(ModelAnswer(None, "rank-deficient", {"condition": 1000.0}))


def test_with_fewer_records_than_parameters_the_nearest_minimiser_is_taken() -> None:
    population = linear_clients((2,), features=5)
    task = linear_task(population)
    start = np.ones(5)
    best = local_optimum(task, population.client(0).train, start)
    x = population.client(0).train.x
    null = np.eye(5) - np.linalg.pinv(x) @ x
    assert np.allclose(null @ (best - start), 0)


# --- certificates ---------------------------------------------------------------------------------------------------


class Audits:
    """Holds one audit."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def audit(self, method: str, seed: int) -> dict[str, Any]:
        return {"method": method, "seed": seed, "attacks": self.rows}


def rows() -> list[dict[str, Any]]:
    from rivage.studies.auditing import corrected

    generator = Streams(6).numpy("rows")
    strong = scores(([*generator.normal(1.5, 1, 40)], [*generator.normal(0, 1, 40)]))
    weak = scores(([*generator.normal(0, 1, 40)], [*generator.normal(0, 1, 40)]))
    counts = {"kind": "counts", "records": 50, "correct": 40, "baseline_correct": 30, "better": 13, "worse": 3}
    named = {"a": ("membership", strong), "b": ("membership", weak), "c": ("attribute sex", counts)}
    shared = {"view": "eavesdropper", "status": "", "targets": [0]}
    return corrected([{"attack": name, "question": asks, "evidence": e, **shared} for name, (asks, e) in named.items()])


def certify(
    rows: list[dict[str, Any]], attack: str = "a", question: str = "membership", targets: tuple[int, ...] = (0,)
) -> Any:
    return leakage(Audits(rows), method="fedavg", seed=0, attack=attack, question=question, targets=targets)


def test_a_certificate_says_what_the_row_says() -> None:
    told = rows()
    assert [certify(told, row["attack"], row["question"]).verdict for row in told] == ["holds", "no_power", "holds"]
    assert certify(told).measured == told[0]["p_adjusted"]
    assert math.isclose(told[0]["p_adjusted"], min(3 * told[0]["p"], 1))
    assert "guesses sex" in certify(told, "c", "attribute sex").claim
    with pytest.raises(StoreError, match="no evidence"):
        certify(told, "d")
    with pytest.raises(StoreError, match="no evidence"):
        certify(told, targets=(0, 1))


@pytest.mark.parametrize("key", ["value", "baseline", "p", "p_adjusted", "verdict", "ci"])
def test_forged_numbers_do_not_pass(key: str) -> None:
    forged = rows()
    forged[0][key] = {"verdict": "nothing found", "ci": [0.4, 0.6]}.get(key, 0.51)
    assert certify(forged).verdict == "fails"


def test_a_row_that_is_off_by_a_thousandth_fails_and_five_clients_are_named() -> None:
    evidence = {"kind": "counts", "records": 50, "correct": 40, "baseline_correct": 30, "better": 13, "worse": 3}
    one = finding(evidence)
    row: dict[str, Any] = {"attack": "a", "question": "attribute sex", "view": "v", "targets": [1, 2, 3, 4, 5]}
    row |= {"status": "", "evidence": evidence, **numbers(one, one.p, 1)}
    (good,) = leakages([row], method="m", seed=0)
    assert good.verdict == "holds"
    assert "clients 1, 2, 3, 4, 5," in good.claim
    (bad,) = leakages([row | {"value": one.value * 1.001}], method="m", seed=0)
    assert bad.verdict == "fails"


def test_forged_evidence_does_not_pass() -> None:
    honest, forged = rows(), copy.deepcopy(rows())
    forged[0]["evidence"]["targets"][0]["members"] = forged[1]["evidence"]["targets"][0]["members"]
    assert certify(forged).verdict == "fails"
    assert certify(forged).measured != certify(honest).measured
    assert certify([honest[0]]).verdict == "fails"  # another number of tests, another correction


@pytest.mark.parametrize(
    "evidence",
    [
        3,
        {},
        {"kind": "scores"},
        {"kind": "scores", "targets": []},
        {"kind": "scores", "targets": [{"members": [], "others": [1.0]}]},
        {"kind": "scores", "targets": [{"members": [None], "others": [1.0]}]},
        {"kind": "counts", "records": 0, "correct": 0, "baseline_correct": 0, "better": 0, "worse": 0},
        {"kind": "errors", "records": 1, "error": 0, "baseline_error": 0, "deviation": 0, "error_deviation": "x"},
        {"kind": "matches", "records": 3, "correct": 4, "baseline_correct": 0},
        {"kind": "estimates", "targets": [{"distance": "far", "baseline": 1}]},
    ],
)
def test_evidence_that_is_none_is_an_error_of_the_file(evidence: Any) -> None:
    with pytest.raises(StoreError, match="the evidence of an attack cannot be read"):
        finding(evidence)
