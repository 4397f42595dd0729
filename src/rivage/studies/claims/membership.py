"""Statements about membership inference from logged messages, on digits; means over three seeds and four clients each.

The recipe over-fits on purpose (`rivage.studies.claims.membership_scenarios`): 30 % of the labels are drawn anew and
ten local epochs learn them by heart. It was chosen for that, and is not typical of training that is well regularised;
the last claims are about a training that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from rivage.privacy.attack import Attack
from rivage.privacy.fedmia import FedMIA
from rivage.privacy.loss_threshold import LocalLossThreshold, LossThreshold
from rivage.privacy.trajectories import Trajectories
from rivage.privacy.white_box import WhiteBox
from rivage.studies.claims.claim import Claim, Outcome
from rivage.studies.claims.membership_scenarios import Found, Recipe, audited

__all__ = ["ATTACKED", "CLAIMS", "FITTED", "MILD", "SPREAD", "found"]

FITTED = Recipe()
MILD = Recipe(redrawn=0.0, epochs=1)
SPREAD = Recipe(clients=10, records=80, rounds=40, redrawn=0.0, epochs=1)
_SEEDS = range(3)
ATTACKED: Mapping[str, Attack] = {
    "loss of the final model": LossThreshold(),
    "loss of the last returned model": LocalLossThreshold(),
    "zari21": Trajectories(),
    "zari21 on models sent": Trajectories(of="sent"),
    "white box": WhiteBox(),
    "FedMIA, cosine": FedMIA(),
    "FedMIA, loss": FedMIA(signal="loss"),
}
"""What is compared."""


@cache
def found(recipe: Recipe, name: str) -> Sequence[Found]:
    """What one attack finds, over seeds and clients; trainings are played once for all attacks."""
    return _found(recipe)[name]


@cache
def _found(recipe: Recipe) -> Mapping[str, Sequence[Found]]:
    answers: dict[str, list[Found]] = {name: [] for name in ATTACKED}
    for seed in _SEEDS:
        with audited(recipe, seed) as federation:
            for name, attack in ATTACKED.items():
                answers[name] += federation.everywhere(attack)
    return answers


def _areas(recipe: Recipe, name: str) -> float:
    return float(np.mean([each.area for each in found(recipe, name)]))


def _accuracy(recipe: Recipe, name: str) -> float:
    return float(np.mean([each.accuracy for each in found(recipe, name)]))


def _detail(recipe: Recipe, names: Sequence[str]) -> str:
    return "; ".join(
        f"{name}: area {_areas(recipe, name):.3f} ± {np.std([f.area for f in found(recipe, name)], ddof=1):.3f}"
        for name in names
    )


def _trajectories() -> Outcome:
    measured = _areas(FITTED, "zari21")
    return Outcome(measured, "holds" if measured >= 0.82 else "fails", _detail(FITTED, list(ATTACKED)))


def _against_shared() -> Outcome:
    names = ("zari21", "zari21 on models sent")
    measured = _areas(FITTED, names[0]) - _areas(FITTED, names[1])
    return Outcome(measured, "holds" if measured >= 0.05 else "fails", _detail(FITTED, names))


def _against_white_box() -> Outcome:
    names = ("zari21", "white box")
    one, other = (_accuracy(FITTED, name) for name in names)
    less = np.divide(*(found(FITTED, name)[0].facts["feature_bytes"] for name in names[::-1]))
    detail = f"balanced accuracy {one:.3f} against {other:.3f} (published: over 0.04), memory 1 to {less:.0f}"
    return Outcome(one - other, "holds" if one > other and less >= 100 else "fails", detail)


def _resources() -> Outcome:
    results = found(FITTED, "zari21")
    size, seconds = max(f.facts["feature_bytes"] for f in results), max(f.seconds for f in results)
    detail = f"at most {size} bytes of features, {seconds:.2f} s of processor time per client"
    return Outcome(size / 1e6, "holds" if size < 1e6 and seconds < 5 else "fails", detail)


def _mild() -> Outcome:
    accuracy = _accuracy(MILD, "zari21")
    detail = f"accuracy {accuracy:.3f}; {_detail(MILD, list(ATTACKED))}"
    return Outcome(accuracy, "holds" if abs(accuracy - 0.5) <= 0.08 else "fails", detail)


def _all_for_one() -> Outcome:
    names = ("FedMIA, cosine", "FedMIA, loss", "zari21", "loss of the last returned model")
    gain = _areas(SPREAD, names[0]) - max(_areas(SPREAD, name) for name in names[2:])
    return Outcome(gain, "holds" if gain > 0 else "fails", _detail(SPREAD, list(ATTACKED)))


_WHERE = "digits, MLP 64-64-10, 4 clients of 150 records, 30 % of labels redrawn, 60 rounds of 10 epochs"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="zari21-digits",
        paper="Zari et al., arXiv 2111.00430",
        where=f"{_WHERE}; recipe and threshold are ours",
        statement="Likelihoods of the label under five models that the target returned tell members from others.",
        expected="mean area of at least 0.82",
        tolerance=0.0,
        cost="slow",
        run=_trajectories,
    ),
    Claim(
        name="zari21-against-shared-models",
        paper="Zari et al., arXiv 2111.00430",
        where=f"{_WHERE}; recipe and threshold are ours",
        statement="The target's own messages tell more of its members than the models that it was sent.",
        expected="area larger by at least 0.05",
        tolerance=0.0,
        cost="slow",
        run=_against_shared,
    ),
    Claim(
        name="zari21-against-white-box",
        paper="Zari et al., arXiv 2111.00430",
        where=f"abstract, there CIFAR-100; here {_WHERE}",
        statement="The attack is more accurate than the passive white-box one, with far less memory.",
        expected="balanced accuracy higher, at most a hundredth of the memory",
        tolerance=0.0,
        cost="slow",
        run=_against_white_box,
    ),
    Claim(
        name="zari21-resources",
        paper="Zari et al., arXiv 2111.00430",
        where=f"{_WHERE}; thresholds are ours",
        statement="An attack on one client of 450 audited records takes less than 1 MB and 5 seconds.",
        expected="less than 1 MB",
        tolerance=0.0,
        cost="slow",
        run=_resources,
    ),
    Claim(
        name="zari21-finds-nothing",
        paper="an honest null, in no paper",
        where="digits, MLP 64-64-10, 4 clients of 150 records, labels as they are, 60 rounds of one epoch",
        statement="Where nothing is learnt by heart, the attack is right half of the time.",
        expected="balanced accuracy within 0.08 of one half",
        tolerance=0.08,
        cost="slow",
        run=_mild,
    ),
    Claim(
        name="fedmia-all-for-one",
        paper="Zhu et al., CVPR 2025, arXiv 2402.06289",
        where="digits, MLP 64-64-10, 10 clients of 80 records, labels as they are, 40 rounds of one epoch; recipe ours",
        statement="Compared with the messages of the others, those of the target tell more than by themselves.",
        expected="area larger than of attacks that read one client",
        tolerance=0.0,
        cost="slow",
        run=_all_for_one,
    ),
)
